"""Where repositories lie, which roots capture them, and what a restore leaves alone."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from gitrepo import commit, git, repository
from rollback.model import Category, Policy
from rollback.resources.git import (
    GitLayout,
    find_git,
    git_intact,
    git_keep_extra,
    git_policy,
    git_root_from,
    git_roots,
    git_skips,
    git_temporary,
)
from rollback.resources.git.refs import packed_refs

HASH = b"0123456789abcdef0123456789abcdef01234567"
LONG = b"0123456789abcdef" * 4


def _found(path: Path) -> GitLayout:
    layout = find_git(path)
    assert layout is not None
    return layout


def test_no_repository(tmp_path: Path) -> None:
    """A folder without one, one that is missing, and a `.git` that is none, are None."""
    assert find_git(tmp_path / "absent") is None
    (tmp_path / ".git").mkdir()
    assert find_git(tmp_path) is None
    (tmp_path / ".git" / "HEAD").write_text("ref: refs/heads/main\n")
    assert find_git(tmp_path) is None


@pytest.mark.parametrize("content", ["", "gitdir:", "gitdir: /nowhere\n", "gitdir: a\0b", "x"])
def test_a_gitfile_that_leads_nowhere(tmp_path: Path, content: str) -> None:
    """A broken pointer is no repository, and never an exception."""
    (tmp_path / ".git").write_text(content)
    assert find_git(tmp_path) is None


def test_a_fifo_in_the_place_of_a_pointer_does_not_hang(tmp_path: Path) -> None:
    """Pointer files are opened without waiting for a writer."""
    os.mkfifo(tmp_path / ".git")
    assert find_git(tmp_path) is None


def test_plain_repository(tmp_path: Path) -> None:
    """From the top and from below, as bytes, text and path."""
    path = repository(tmp_path / "p")
    (path / "src" / "deep").mkdir(parents=True)
    expected = os.fsencode(path / ".git")
    for start in (path, str(path), os.fsencode(path), path / "src" / "deep"):
        layout = find_git(start)
        assert layout == GitLayout(expected, expected, os.fsencode(path))
    assert not _found(path).linked


def test_bare_repository(tmp_path: Path) -> None:
    """A bare one has no work tree."""
    git(tmp_path, "init", "--quiet", "--bare", "store.git")
    layout = _found(tmp_path / "store.git")
    assert layout.gitdir == os.fsencode(tmp_path / "store.git")
    assert layout.worktree is None


def test_symlinked_git_folder(tmp_path: Path) -> None:
    """The folder behind the link is what is captured."""
    path = repository(tmp_path / "p")
    (path / ".git").rename(tmp_path / "elsewhere")
    (path / ".git").symlink_to("../elsewhere")
    assert _found(path).gitdir == os.fsencode(tmp_path / "elsewhere")


def test_submodule(tmp_path: Path) -> None:
    """Its git folder is in that of the superproject."""
    inner, outer = repository(tmp_path / "inner"), repository(tmp_path / "outer")
    git(outer, "submodule", "--quiet", "add", str(inner), "lib/inner")
    layout = _found(outer / "lib" / "inner")
    assert layout.gitdir == os.fsencode(outer / ".git" / "modules" / "lib" / "inner")
    assert not layout.linked
    assert layout.worktree == os.fsencode(outer / "lib" / "inner")
    for folder, _, names in os.walk(os.fsencode(outer / ".git" / "modules")):
        for name in names:
            path = os.path.relpath(os.path.join(folder, name), os.fsencode(outer))
            is_object = b"/objects/" in path
            assert (git_policy(path) is Policy.LINK) == is_object, path
            assert git_keep_extra(path) == is_object, path


def test_linked_worktree(tmp_path: Path) -> None:
    """Two roots: its own folder, and the common one without it."""
    path = repository(tmp_path / "p")
    git(path, "worktree", "add", "--quiet", "../w")
    layout = _found(tmp_path / "w")
    assert layout.linked
    assert layout.commondir == os.fsencode(path / ".git")
    assert layout.gitdir == os.fsencode(path / ".git" / "worktrees" / "w")
    own, common = git_roots(layout, tmp_path / "w")
    assert (own.path, common.path) == (layout.gitdir, layout.commondir)
    assert common.nested == {b"worktrees/w"}
    assert own.name != common.name
    assert {own.resource, common.resource} == {"git"}
    assert own.category is Category.CODE


@pytest.mark.parametrize(
    ("path", "policy", "kept"),
    [
        (b"objects/ab/" + HASH[:38], Policy.LINK, True),
        (b"objects/ab/" + LONG[:62], Policy.LINK, True),
        (b"objects/pack/pack-" + HASH + b".pack", Policy.LINK, True),
        (b"objects/pack/pack-" + LONG + b".idx", Policy.LINK, True),
        (b"objects/pack/pack-" + HASH + b".rev", Policy.LINK, True),
        (b"objects/pack/pack-" + HASH + b".mtimes", Policy.LINK, True),
        (b"objects/pack/pack-" + HASH + b".promisor", Policy.COPY, True),
        (b"objects/pack/pack-" + HASH + b".bitmap", Policy.LINK, False),
        (b"objects/pack/pack-" + HASH + b".keep", Policy.COPY, False),
        (b"lfs/objects/ab/cd/" + LONG, Policy.LINK, True),
        (b"objects/ab", Policy.COPY, True),
        (b"objects/pack", Policy.COPY, True),
        (b"objects/pack/multi-pack-index", Policy.COPY, False),
        (b"objects/info/commit-graph", Policy.COPY, False),
        (b"objects/info/commit-graphs/graph-" + HASH + b".graph", Policy.COPY, False),
        (b"objects/info/packs", Policy.COPY, False),
        (b"objects/info/alternates", Policy.COPY, False),
        (b"objects/ab/" + HASH[:38] + b"\n", Policy.COPY, False),
        (b"objects/AB/" + HASH[:38], Policy.COPY, False),
        (b"sharedindex." + HASH, Policy.COPY, False),
        (b"index", Policy.COPY, False),
        (b"index.lock", Policy.COPY, False),
        (b"gc.pid", Policy.COPY, False),
        (b"refs/heads/objects/ab", Policy.COPY, False),
        (b"refs/heads/x.git/objects/ab", Policy.COPY, False),
        (b"logs/refs/stash", Policy.COPY, False),
        (b"reftable/0x000000000001-0x000000000002-abcdef.ref", Policy.COPY, False),
    ],
)
def test_policy_of_each_file(path: bytes, policy: Policy, *, kept: bool) -> None:
    """Objects and packs are linked and never deleted; all else is copied and put back exactly."""
    leads = (b".git/", b"a/b/.git/", b".git/modules/x/", b"s/.git/modules/x/y/modules/z/")
    for lead in (*leads, b"origin.git/", b"x.git/y/.git/", b".git/worktrees/w/modules/x/"):
        assert git_policy(lead + path) is policy, lead
        assert git_keep_extra(lead + path) is kept, lead


def test_a_users_own_objects_folder_is_not_git(tmp_path: Path) -> None:
    """The same names outside of a git folder are the user's files: copied, exact."""
    for path in (b"objects/ab/" + HASH[:38], b"data/objects/pack", b"x.gitter/objects/ab"):
        assert git_policy(path) is Policy.COPY
        assert not git_keep_extra(path)
    root = git_roots(_found(repository(tmp_path / "p")), tmp_path / "p")[0]
    assert root.policy(b"objects/ab/" + HASH[:38]) is Policy.LINK
    assert root.keep_extra(b"objects/ab/" + HASH[:38])


@pytest.mark.parametrize(
    "path",
    [
        b"objects/ab/tmp_obj_x1Y2",
        b"objects/pack/tmp_pack_AbCdEf",
        b"objects/pack/.tmp-123-pack-" + HASH + b".pack",
        b"objects/tmp_objdir-incoming-a1/ab/" + HASH[:38],
    ],
)
def test_what_git_is_still_writing_is_left_out(path: bytes, tmp_path: Path) -> None:
    """Half an object, or what a killed fetch left, is neither captured nor removed."""
    assert git_temporary(b".git/" + path)
    root = git_roots(_found(repository(tmp_path / "p")), tmp_path / "p")[0]
    assert root.excluded is not None
    assert root.excluded(path)
    assert not root.excluded(b"objects/ab/" + HASH[:38])
    assert not root.excluded(b"index")


def test_every_file_of_a_repacked_repository(tmp_path: Path) -> None:
    """Real packs, bitmaps, commit graphs, multi-pack index, split index: only objects link."""
    path = repository(tmp_path / "p")
    commit(path, "b", "two\n")
    git(path, "gc", "--quiet", "--aggressive")
    commit(path, "c", "three\n")
    git(path, "repack", "-d", "--quiet")
    git(path, "multi-pack-index", "write", "--bitmap")
    git(path, "commit-graph", "write", "--reachable", "--split")
    git(path, "update-index", "--split-index")
    linked: set[str] = set()
    copied: set[str] = set()
    for folder, _, names in os.walk(path / ".git"):
        for name in names:
            relative = os.path.relpath(os.path.join(folder, name), path)
            kept = linked if git_policy(os.fsencode(relative)) is Policy.LINK else copied
            kept.add(name.rpartition(".")[2] if "/pack/" in relative else name.partition(".")[0])
    assert linked >= {"pack", "idx"}
    assert linked <= {"pack", "idx", "bitmap", "rev"}
    assert {"sharedindex", "index", "HEAD", "config"} <= copied
    assert any("multi-pack-index" in name or name == "bitmap" for name in copied)


def test_alternates_are_named(tmp_path: Path) -> None:
    """Objects that another repository lends cannot be put back: said, with the mend."""
    lender = repository(tmp_path / "lender")
    git(tmp_path, "clone", "--quiet", "--shared", str(lender), "p")
    layout = _found(tmp_path / "p")
    skip = git_skips(layout, tmp_path / "p")[0]
    assert str(lender / ".git" / "objects") in skip.what
    assert "repack" in skip.fix
    assert git_skips(layout, tmp_path) == []


def test_other_worktrees_are_put_back_only_where_they_are_gone(tmp_path: Path) -> None:
    """People work in them while guard runs; an `rm -rf` of the repository takes them too."""
    path = repository(tmp_path / "p")
    for name in ("inside", "../outside"):
        git(path, "worktree", "add", "--quiet", "-b", Path(name).name, name)
    root = git_roots(_found(path), path)[0]
    mine = [b"HEAD", b"index", b"refs/heads/main", b"worktrees/inside/HEAD", b"refs/heads/inside"]
    theirs = [b"worktrees/outside", b"worktrees/outside/index", b"refs/heads/outside"]
    theirs.append(b"logs/refs/heads/outside")
    assert root.excluded is not None
    assert not any(root.excluded(name) for name in mine + theirs)
    again = git_root_from(root.parameters, leave_foreign=True)
    assert again.excluded is not None
    assert not any(again.excluded(name) for name in mine)
    assert all(again.excluded(name) for name in theirs)
    exact = git_root_from(root.parameters)
    assert exact.excluded is not None
    assert not any(exact.excluded(name) for name in mine + theirs)
    (path / ".git").rename(tmp_path / "removed")
    again = git_root_from(root.parameters, leave_foreign=True)
    assert again.excluded is not None
    assert not any(again.excluded(name) for name in mine + theirs)


def test_main_worktree_is_left_alone_from_a_linked_one(tmp_path: Path) -> None:
    """A rollback in a linked work tree does not move the main one's HEAD, index or branch."""
    path = repository(tmp_path / "p")
    git(path, "worktree", "add", "--quiet", "../w")
    common = git_roots(_found(tmp_path / "w"), tmp_path / "w")[1]
    again = git_root_from(common.parameters, leave_foreign=True)
    assert again.excluded is not None
    for name in (b"HEAD", b"index", b"MERGE_HEAD", b"logs/HEAD", b"refs/heads/main"):
        assert again.excluded(name), name
    for name in (b"refs/heads/w", b"packed-refs", b"config", b"hooks/pre-commit", b"refs/stash"):
        assert not again.excluded(name), name
    assert again.nested == common.nested == {b"worktrees/w"}


def test_linked_files_attest_themselves(tmp_path: Path) -> None:
    """Git touches the times of objects; their own hashes say whether the content is theirs."""
    for name, options in (("short", ()), ("long", ("--object-format=sha256",))):
        path = repository(tmp_path / name, *options)
        commit(path, "large", "x" * 3_000_000, message="large")
        git(path, "repack", "-adq", "--write-bitmap-index")
        commit(path, "b", "two\n")
        linked = []
        for folder, _, names in os.walk(os.fsencode(path / ".git")):
            linked += [os.path.join(folder, name) for name in names]
        linked = [file for file in linked if git_policy(file) is Policy.LINK]
        assert {os.path.splitext(file)[1] for file in linked} >= {b"", b".pack", b".idx"}
        for file in linked:
            with open(file, "rb") as opened:
                assert git_intact(file, opened) is True, file
                opened.seek(0)
                content = opened.read()
            os.chmod(file, 0o644)
            for spoilt in (content[:-1], content + b"x", b"", content[:40] + b"!" + content[41:]):
                with open(file, "wb") as writing:
                    writing.write(spoilt)
                with open(file, "rb") as opened:
                    assert git_intact(file, opened) is (spoilt == content), file


def test_large_files_attest_themselves(tmp_path: Path) -> None:
    """Git LFS names objects by their content; of other files nothing can be said."""
    (tmp_path / "o").write_bytes(b"weights")
    digest = hashlib.sha256(b"weights").hexdigest().encode()
    with (tmp_path / "o").open("rb") as file:
        assert git_intact(b"lfs/objects/" + digest[:2] + b"/" + digest[2:4] + b"/" + digest, file)
        assert git_intact(b"lfs/objects/ab/cd/" + LONG, file) is False
        assert git_intact(b"index", file) is None


def test_a_fifo_in_place_of_the_packed_references_hangs_nothing(tmp_path: Path) -> None:
    """It holds no reference, and nobody waits for a writer."""
    os.mkfifo(tmp_path / "packed-refs")
    assert packed_refs(os.fsencode(tmp_path)) == {}
