"""Reverting what was pushed, and proving a repository."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gitrepo import commit, git, repository
from rollback.resources.git import GitLayout, find_git
from rollback.resources.git.process import GitFailed
from rollback.resources.git.revert import find_pushed, revert_pushed
from rollback.resources.git.verify import verify_git


def _found(path: Path) -> GitLayout:
    layout = find_git(path)
    assert layout is not None
    return layout


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A clone of a bare repository, with its first commit pushed."""
    repository(tmp_path / "seed")
    git(tmp_path, "clone", "--quiet", "--bare", "seed", "origin.git")
    git(tmp_path, "clone", "--quiet", "origin.git", "clone")
    return tmp_path / "clone"


def test_nothing_was_pushed(clone: Path) -> None:
    """Local commits alone need no revert: the branch may move."""
    target = git(clone, "rev-parse", "HEAD")
    assert find_pushed(_found(clone), target) is None
    commit(clone, "train.py", "two\n")
    assert find_pushed(_found(clone), target) is None


def test_without_a_remote(tmp_path: Path) -> None:
    """A repository that nobody else has is never reverted."""
    path = repository(tmp_path / "p")
    target = git(path, "rev-parse", "HEAD")
    commit(path, "train.py", "two\n")
    assert find_pushed(_found(path), target) is None


@pytest.mark.parametrize("options", [(), ("--object-format=sha256",)])
def test_pushed_commits_are_reverted(tmp_path: Path, options: tuple[str, ...]) -> None:
    """One commit with the snapshot's tree follows; the work tree is not touched."""
    path = repository(tmp_path / "p", *options)
    git(tmp_path, "init", "--quiet", "--bare", *options, "origin.git")
    git(path, "remote", "add", "origin", "../origin.git")
    target = git(path, "rev-parse", "HEAD")
    commit(path, "train.py", "two\n")
    (path / "train.py").unlink()
    tip = commit(path, "new.py", "new\n")
    git(path, "push", "--quiet", "origin", "main")
    local = commit(path, "local.py", "not pushed\n")
    pushed = find_pushed(_found(path), target)
    assert pushed is not None
    assert (pushed.base, pushed.target, pushed.branch) == (tip, target, "refs/heads/main")
    assert [line.id for line in pushed.dropped] == [local]
    assert [line.subject for line in pushed.commits] == ["new.py says new", "train.py says two"]
    git(path, "reset", "--quiet", "--hard", target)  # what the restore does
    (path / "train.py").write_text("edited before the snapshot\n")
    status = git(path, "status", "--porcelain")
    new = revert_pushed(_found(path), pushed)
    assert git(path, "rev-parse", "HEAD") == new
    assert git(path, "rev-parse", "HEAD~1") == tip
    assert git(path, "rev-parse", "HEAD^{tree}") == git(path, "rev-parse", f"{target}^{{tree}}")
    assert git(path, "status", "--porcelain") == status
    assert "new.py says new" in git(path, "log", "-1", "--format=%B")
    assert git(path, "reflog", "-1", "--format=%gs").startswith("guard: revert to")
    git(path, "push", "--quiet", "origin", "main")


def test_a_rewritten_history_that_was_pushed(clone: Path) -> None:
    """Amended and force-pushed: the revert follows what is there now."""
    target = commit(clone, "train.py", "two\n")
    git(clone, "push", "--quiet")
    git(clone, "commit", "--quiet", "--amend", "-m", "amended")
    git(clone, "push", "--quiet", "--force")
    pushed = find_pushed(_found(clone), target)
    assert pushed is not None
    assert [line.subject for line in pushed.commits] == ["amended"]
    new = revert_pushed(_found(clone), pushed)
    assert git(clone, "rev-parse", f"{new}^") == pushed.base


def test_states_in_which_nothing_is_reverted(clone: Path) -> None:
    """Detached, under way, unknown commit: a clear error with the next step."""
    target = git(clone, "rev-parse", "HEAD")
    with pytest.raises(GitFailed, match="git refused") as caught:
        find_pushed(_found(clone), "f" * 40)
    assert caught.value.hint
    (clone / ".git" / "MERGE_HEAD").write_text(target + "\n")
    with pytest.raises(GitFailed, match="a merge is under way"):
        find_pushed(_found(clone), target)
    (clone / ".git" / "MERGE_HEAD").unlink()
    git(clone, "switch", "--quiet", "--detach")
    with pytest.raises(GitFailed, match="not on a branch"):
        find_pushed(_found(clone), target)


def test_a_lock_stops_the_revert_and_changes_nothing(clone: Path) -> None:
    """The branch stays where it was, and the message names the lock."""
    target = git(clone, "rev-parse", "HEAD")
    tip = commit(clone, "train.py", "two\n")
    git(clone, "push", "--quiet")
    pushed = find_pushed(_found(clone), target)
    assert pushed is not None
    lock = clone / ".git" / "refs" / "heads" / "main.lock"
    lock.touch()
    with pytest.raises(GitFailed, match=r"main\.lock"):
        revert_pushed(_found(clone), pushed)
    assert git(clone, "rev-parse", "HEAD") == tip
    lock.unlink()
    git(clone, "switch", "--quiet", "-c", "other")
    with pytest.raises(GitFailed, match="not on refs/heads/main"):
        revert_pushed(_found(clone), pushed)


def test_an_option_in_the_place_of_a_commit(clone: Path) -> None:
    """A recorded value is never taken for an option of git."""
    with pytest.raises(GitFailed):
        find_pushed(_found(clone), "--all")


def test_whole_repositories_are_whole(tmp_path: Path) -> None:
    """Plain, linked, bare, unborn and SHA-256 repositories pass."""
    path = repository(tmp_path / "p")
    git(path, "worktree", "add", "--quiet", "../w")
    git(tmp_path, "clone", "--quiet", "--bare", "p", "b.git")
    git(tmp_path, "init", "--quiet", "unborn")
    repository(tmp_path / "long", "--object-format=sha256")
    for name in ("p", "w", "b.git", "unborn", "long"):
        verdict = verify_git(_found(tmp_path / name))
        assert (verdict.problems, verdict.skips) == ((), ()), name


def test_damage_is_found(tmp_path: Path) -> None:
    """A lost object, a reference that is no hash, and a lock that was left."""
    path = repository(tmp_path / "p")
    blob = git(path, "rev-parse", "HEAD:train.py")
    loose = path / ".git" / "objects" / blob[:2] / blob[2:]
    content = loose.read_bytes()
    loose.unlink()
    assert any(blob in problem for problem in verify_git(_found(path)).problems)
    loose.write_bytes(content)
    assert verify_git(_found(path)).ok
    (path / ".git" / "refs" / "heads" / "broken").write_text("half a ha")
    (path / ".git" / "refs" / "heads" / "main.lock").touch()
    problems = verify_git(_found(path)).problems
    assert any("refs/heads/broken does not name a commit" in problem for problem in problems)
    assert any("main.lock is a lock" in problem for problem in problems)


def test_without_git_the_check_is_skipped_loudly(tmp_path: Path) -> None:
    """What can be read plainly is still checked."""
    path = repository(tmp_path / "p")
    verdict = verify_git(_found(path), {"PATH": str(tmp_path)})
    assert verdict.ok
    assert verdict.skips[0].fix == "install git"
    with pytest.raises(GitFailed, match="no git program"):
        find_pushed(_found(path), "HEAD", {"PATH": str(tmp_path)})


def test_a_restored_copy_elsewhere_is_checked_by_itself(tmp_path: Path) -> None:
    """The drill's copy in scratch, with variables of the original around."""
    path = repository(tmp_path / "p")
    scratch = tmp_path / "scratch"
    git(tmp_path, "clone", "--quiet", "--no-hardlinks", "p", "scratch")
    for name in os.listdir(path / ".git" / "objects"):
        if len(name) == 2:
            for loose in (path / ".git" / "objects" / name).iterdir():
                loose.unlink()
    environ = {**os.environ, "GIT_DIR": str(path / ".git")}
    assert verify_git(_found(scratch), environ).ok
    assert not verify_git(_found(path), environ).ok
