"""Repositories in every state, put back by the engine: files, references, index, stashes."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from gitrepo import commit, git, repository
from manifest import assert_back, manifest
from rollback.engine import Engine
from rollback.errors import RollbackError
from rollback.inventory import EngineSettings
from rollback.reports import RestoreOutcome, Selection
from rollback.resources.git import find_git, loose
from rollback.resources.git.verify import verify_git


class Guarded:
    """A project that was snapshotted, and what git says of it then."""

    def __init__(self, project: Path, store: Path) -> None:
        self.project = project
        self.settings = EngineSettings(project, store, command=("true",))
        with Engine(self.settings) as engine:
            operation = engine.begin("snapshot", {})
            self.snapshot = engine.snapshot(operation, kind="manual", label="").snapshot
            engine.finish(operation, "done", {})
        self.before = manifest(project)
        self.said = self._say()

    def _say(self) -> list[str]:
        asked = (
            ["status", "--porcelain=v2", "--branch", "--ignored"],
            ["for-each-ref"],
            ["stash", "list"],
            ["reflog", "--all"],
            ["worktree", "list", "--porcelain"],
        )
        return [git(self.project, "--no-optional-locks", *words, check=False) for words in asked]

    def roll_back(self) -> None:
        """Put the project back, and compare everything with what it was."""
        with Engine(self.settings) as engine:
            engine.restore(engine.plan(self.snapshot, Selection()))
        assert_back(self.before, manifest(self.project))
        assert self._say() == self.said
        layout = find_git(self.project)
        assert layout is not None
        assert verify_git(layout).problems == ()

    def undo(self) -> RestoreOutcome:
        """Take the rollback back."""
        with Engine(self.settings) as engine:
            target = engine.undo_target()
            plan = engine.plan(target, engine.selection_of(target))
            return engine.restore(plan, kind="undo")


def _busy(path: Path) -> Path:
    """Make a repository whose HEAD, index and work tree differ, with stashes and odd files."""
    repository(path)
    for number in range(5):
        commit(path, f"file{number}", f"content {number}\n")
    (path / "train.py").write_text("stashed\n")
    git(path, "stash", "--quiet")
    (path / "file0").write_text("staged\n")
    git(path, "add", "file0")
    (path / "file0").write_text("edited\n")
    (path / "untracked").write_text("untracked\n")
    (path / ".gitignore").write_text("*.ckpt\n")
    (path / "best.ckpt").write_text("weights\n")
    (path / "empty").mkdir()
    git(path, "tag", "v1", "HEAD~2")
    return path


def _destroy(path: Path) -> None:
    """Incident 7."""
    git(path, "rm", "-rfq", ".")
    git(path, "clean", "-fdxq")
    git(path, "stash", "clear")
    git(path, "reflog", "expire", "--expire=now", "--all")
    git(path, "gc", "--quiet", "--prune=now")


def _rewrite(path: Path) -> None:
    git(path, "commit", "--quiet", "-am", "new", "--allow-empty")
    git(path, "branch", "another")
    git(path, "tag", "-d", "v1")
    git(path, "repack", "-adq", "--write-bitmap-index")
    git(path, "multi-pack-index", "write")
    git(path, "commit-graph", "write", "--reachable")
    git(path, "switch", "--quiet", "--orphan", "void", check=False)
    git(path, "config", "user.name", "somebody else")
    (path / ".git" / "index.lock").touch()


def _freshen(path: Path) -> None:
    """Write content again that is in a pack: git touches the pack, through every hard link."""
    git(path, "stash", "--quiet", "--include-untracked")
    for number in range(5):
        (path / "again").write_text(f"content {number}\n")
        git(path, "add", "again")
    _remove(path)


def _remove(path: Path) -> None:
    for name in os.listdir(path):
        entry = path / name
        shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    "damage",
    [
        _destroy,
        _rewrite,
        _remove,
        _freshen,
    ],
)
def test_a_busy_repository(tmp_path: Path, damage: Callable[[Path], None], *, packed: bool) -> None:
    """Destroyed with git's own commands, rewritten, or removed: back, and undone again."""
    path = _busy(tmp_path / "p")
    if packed:
        git(path, "gc", "--quiet")
    guarded = Guarded(path, tmp_path / "store")
    damage(guarded.project)
    spoilt = manifest(guarded.project)
    guarded.roll_back()
    guarded.undo()
    if damage not in {_remove, _freshen}:
        assert_back(spoilt, manifest(guarded.project))


@pytest.mark.parametrize(
    "arguments",
    [["merge", "other"], ["rebase", "other"], ["cherry-pick", "other"], ["bisect", "start"]],
)
def test_an_operation_under_way_can_go_on(tmp_path: Path, arguments: list[str]) -> None:
    """Aborted during the run: conflict, state files and index are back."""
    path = repository(tmp_path / "p")
    git(path, "switch", "--quiet", "-c", "other")
    commit(path, "train.py", "other\n")
    git(path, "switch", "--quiet", "main")
    commit(path, "train.py", "mine\n")
    git(path, *arguments, check=False)
    guarded = Guarded(path, tmp_path / "store")
    git(path, *(["bisect", "reset"] if arguments[0] == "bisect" else [arguments[0], "--abort"]))
    guarded.roll_back()
    if arguments[0] != "bisect":
        (path / "train.py").write_text("resolved\n")
        git(path, "add", "train.py")
        git(path, "-c", "core.editor=true", arguments[0], "--continue")


def test_unborn_detached_and_sha256(tmp_path: Path) -> None:
    """States without a branch, without a commit, and with long hashes."""
    git(tmp_path, "init", "--quiet", "unborn")
    (tmp_path / "unborn" / "staged").write_text("x")
    git(tmp_path / "unborn", "add", "staged")
    repository(tmp_path / "long", "--object-format=sha256")
    detached = repository(tmp_path / "detached")
    git(detached, "switch", "--quiet", "--detach")
    for name in ("unborn", "long", "detached"):
        guarded = Guarded(tmp_path / name, tmp_path / f"store-{name}")
        git(guarded.project, "rm", "-rfq", "--cached", ".")
        commit(guarded.project, "new", "new\n")
        git(guarded.project, "gc", "--quiet", "--prune=now")
        guarded.roll_back()


def test_nested_repository_submodule_and_linked_worktree(tmp_path: Path) -> None:
    """Incident 13: none of them disables anything, and each is back."""
    path = _busy(tmp_path / "p")
    repository(path / "nested")
    git(path, "submodule", "--quiet", "add", str(repository(tmp_path / "lib")), "lib")
    git(path, "worktree", "add", "--quiet", "linked")
    guarded = Guarded(path, tmp_path / "store")
    for inner in ("nested", "lib", "linked"):
        commit(path / inner, "more", "more\n")
        git(path / inner, "gc", "--quiet", "--prune=now")
    git(path, "worktree", "remove", "--force", "linked")
    shutil.rmtree(path / ".git" / "modules")
    guarded.roll_back()
    for inner in ("nested", "lib", "linked"):
        assert git(path / inner, "status", "--porcelain") == ""
        layout = find_git(path / inner)
        assert layout is not None
        assert verify_git(layout).problems == ()


def test_a_clone_made_since_is_gone_as_a_whole(tmp_path: Path) -> None:
    """Objects are kept for repositories that were there, not for new ones."""
    path = repository(tmp_path / "p")
    (path / "vendor").mkdir()
    guarded = Guarded(path, tmp_path / "store")
    git(path / "vendor", "clone", "--quiet", str(path), "cloned")
    guarded.roll_back()
    assert os.listdir(path / "vendor") == []
    guarded.undo()
    assert git(path / "vendor" / "cloned", "fsck") == ""


def test_a_linked_worktree_as_the_project(tmp_path: Path) -> None:
    """Its own branch and index are back; the main work tree, where work went on, is not moved."""
    main = repository(tmp_path / "main")
    git(main, "worktree", "add", "--quiet", "-b", "agent", "../agent")
    commit(tmp_path / "agent", "a", "a\n")
    guarded = Guarded(tmp_path / "agent", tmp_path / "store")
    commit(guarded.project, "b", "b\n")
    git(guarded.project, "tag", "wrong")
    theirs = commit(main, "work", "went on\n")
    (main / "staged").write_text("staged")
    git(main, "add", "staged")
    status = git(main, "status", "--porcelain")
    with Engine(guarded.settings) as engine:
        engine.restore(engine.plan(guarded.snapshot, Selection()))
    assert_back(guarded.before, manifest(guarded.project))
    assert git(guarded.project, "log", "--format=%s", "-1") == "a says a"
    assert git(guarded.project, "tag") == ""
    assert git(main, "rev-parse", "main") == theirs
    assert git(main, "status", "--porcelain") == status
    assert git(main, "fsck", "--no-dangling") == ""
    guarded.undo()
    assert git(guarded.project, "log", "--format=%s", "-1") == "b says b"


def test_worktrees_outside_survive_the_loss_of_the_repository(tmp_path: Path) -> None:
    """An `rm -rf .git` takes their state too; it is put back where nothing newer is there."""
    path = repository(tmp_path / "p")
    git(path, "worktree", "add", "--quiet", "../outside")
    (tmp_path / "outside" / "new").write_text("x")
    git(tmp_path / "outside", "add", "new")
    status = git(tmp_path / "outside", "status", "--porcelain")
    guarded = Guarded(path, tmp_path / "store")
    shutil.rmtree(path / ".git")
    guarded.roll_back()
    assert git(tmp_path / "outside", "status", "--porcelain") == status


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("then", ["gc", "work, gc", "work, gc, work"])
def test_branches_of_other_worktrees_stay_though_git_packed_them(
    tmp_path: Path, then: str, *, packed: bool
) -> None:
    """`packed-refs` is put back as a whole; they keep what they have now, in files of their own."""
    main = repository(tmp_path / "main")
    git(main, "worktree", "add", "--quiet", "-b", "agent", "../agent")
    git(main, "worktree", "add", "--quiet", "-b", "deep/er/third", "../third")
    git(main, "branch", "spare")
    commit(tmp_path / "agent", "a", "a\n")
    if packed:
        git(main, "gc", "--quiet")
    guarded = Guarded(tmp_path / "agent", tmp_path / "store")
    commit(guarded.project, "b", "b\n")
    git(main, "branch", "-f", "spare", "agent")
    for number, word in enumerate(then.split(", ")):
        if word == "gc":
            git(main, "gc", "--quiet")
        else:
            commit(main, "work", f"went on {number}\n")
            commit(tmp_path / "third", "work", f"went on {number}\n")
    said = _branches(main)
    with Engine(guarded.settings) as engine:
        engine.restore(engine.plan(guarded.snapshot, Selection()))
    assert_back(guarded.before, manifest(guarded.project))
    back = _branches(main)
    assert (back["main"], back["deep/er/third"]) == (said["main"], said["deep/er/third"])
    assert back["agent"] != said["agent"]
    assert back["spare"] != said["spare"]
    assert git(main, "fsck", "--no-dangling") == ""
    guarded.undo()
    assert _branches(main) == said
    with Engine(guarded.settings) as engine:
        target = engine.redo_target()
        engine.restore(engine.plan(target, engine.selection_of(target)), kind="redo")
    assert _branches(main) == back


def _branches(path: Path) -> dict[str, str]:
    said = git(path, "for-each-ref", "--format=%(refname:lstrip=2) %(objectname)", "refs/heads")
    return dict(line.split() for line in said.splitlines())


@pytest.mark.parametrize("nameless", [False, True])
def test_a_branch_that_cannot_be_brought_out_stops_before_anything_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, nameless: bool
) -> None:
    """Through a planted link nothing is written, whatever the file system can do."""
    if not nameless:
        monkeypatch.setattr(loose, "_NAMELESS", os.O_WRONLY | os.O_DIRECTORY)
    main = repository(tmp_path / "main")
    git(main, "worktree", "add", "--quiet", "-b", "agent", "../agent")
    guarded = Guarded(tmp_path / "agent", tmp_path / "store")
    commit(guarded.project, "b", "b\n")
    git(main, "gc", "--quiet")
    said = _branches(main)
    heads = main / ".git" / "refs" / "heads"
    heads.rename(tmp_path / "elsewhere")
    heads.symlink_to(tmp_path / "elsewhere")
    with (
        Engine(guarded.settings) as engine,
        pytest.raises(RollbackError, match="nothing was changed"),
    ):
        engine.restore(engine.plan(guarded.snapshot, Selection()))
    assert list((tmp_path / "elsewhere").iterdir()) == []
    heads.unlink()
    (tmp_path / "elsewhere").rename(heads)
    before = manifest(main)
    loose.bring_out(os.fsencode(main / ".git"), [b"refs/heads/main", b"refs/heads/../x", b"HEAD"])
    assert (heads / "main").read_text().strip() == said["main"]
    assert [p.name for p in heads.iterdir()] == ["main"]
    assert _branches(main) == said
    after = manifest(main)
    del after[b".git/refs/heads/main"]
    assert_back(before, after)


def test_an_undo_brings_back_commits_that_git_pruned_meanwhile(tmp_path: Path) -> None:
    """A rollback leaves objects where they are; it is git that removes them later."""
    guarded = Guarded(_busy(tmp_path / "p"), tmp_path / "store")
    project = guarded.project
    git(project, "commit", "--quiet", "-am", "second")
    (project / "train.py").write_text("to be stashed\n")
    git(project, "stash", "--quiet")
    head, stash = git(project, "rev-parse", "HEAD", "stash@{0}").split()
    guarded.roll_back()
    git(project, "reflog", "expire", "--expire=now", "--all")
    git(project, "gc", "--quiet", "--prune=now")
    assert not git(project, "cat-file", "-t", head, check=False)
    outcome = guarded.undo()
    assert outcome.skipped == ()
    assert outcome.problems == ()
    assert git(project, "rev-parse", "HEAD", "stash@{0}").split() == [head, stash]
    assert git(project, "show", "stash@{0}:train.py") == "to be stashed"
    git(project, "fsck", "--full", "--strict")


def test_an_undo_minds_no_object_that_git_has_only_touched(tmp_path: Path) -> None:
    """What git has already it does not write again, it freshens its time."""
    guarded = Guarded(_busy(tmp_path / "p"), tmp_path / "store")
    git(guarded.project, "stash", "--quiet")
    objects = {p for p in (guarded.project / ".git/objects").glob("??/*") if p.is_file()}
    guarded.roll_back()
    for path in objects:
        os.utime(path)
    assert guarded.undo().skipped == ()
    git(guarded.project, "fsck", "--full", "--strict")


def test_a_rollback_over_touched_objects_finds_nothing_the_second_time(tmp_path: Path) -> None:
    """What has the right content is not replaced by itself again and again."""
    guarded = Guarded(_busy(tmp_path / "p"), tmp_path / "store")
    for path in (guarded.project / ".git/objects").glob("??/*"):
        os.utime(path, ns=(1, path.stat().st_mtime_ns - 5_000_000_000))
    with Engine(guarded.settings) as engine:
        operation = engine.begin("snapshot", {})
        engine.snapshot(operation, kind="manual", label="")
        engine.finish(operation, "done", {})
    guarded.roll_back()
    with Engine(guarded.settings) as engine:
        assert engine.plan(guarded.snapshot, Selection()).steps == ()


def test_a_link_that_only_its_time_names_is_not_spoilt_by_putting_a_time_back(
    tmp_path: Path,
) -> None:
    """Where no hash of the owner's proves a file, its time is not changed under the link."""
    project = repository(tmp_path / "p")
    folder = project / ".git/objects/pack"
    odd = folder / f"pack-{'0' * 40}.pack"
    odd.write_bytes(b"nothing that git wrote")
    guarded = Guarded(project, tmp_path / "store")
    copy = folder / "copy"
    shutil.copyfile(odd, copy)
    copy.rename(odd)
    with Engine(guarded.settings) as engine:
        operation = engine.begin("snapshot", {})
        later = engine.snapshot(operation, kind="manual", label="").snapshot
        engine.finish(operation, "done", {})
        engine.restore(engine.plan(guarded.snapshot, Selection()))
        assert engine.plan(guarded.snapshot, Selection()).steps == ()
        assert engine.restore(engine.plan(later, Selection())).skipped == ()
