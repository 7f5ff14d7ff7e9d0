"""What is told of a repository, in every state that one can be in."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from gitrepo import commit, git, repository
from rollback.resources.git import describe_git, find_git


def _told(path: Path) -> dict[str, object]:
    layout = find_git(path)
    assert layout is not None
    return describe_git(layout)


def test_on_a_branch(tmp_path: Path) -> None:
    """Head, branch and no operation under way."""
    path = repository(tmp_path / "p")
    told = _told(path)
    assert told == {
        "head": git(path, "rev-parse", "HEAD"),
        "branch": "main",
        "detached": False,
        "unborn": False,
        "bare": False,
        "linked": False,
        "under_way": None,
        "stashes": 0,
        "refs": "files",
        "locks": [],
    }


def test_packed_and_nested_branch_names(tmp_path: Path) -> None:
    """The hash comes from packed-refs where there is no file."""
    path = repository(tmp_path / "p")
    git(path, "switch", "--quiet", "-c", "team/new/model")
    git(path, "pack-refs", "--all")
    told = _told(path)
    assert told["branch"] == "team/new/model"
    assert told["head"] == git(path, "rev-parse", "HEAD")


def test_unborn(tmp_path: Path) -> None:
    """A branch without a commit has no head."""
    git(tmp_path, "init", "--quiet", "--initial-branch=trunk", "p")
    told = _told(tmp_path / "p")
    assert (told["head"], told["branch"], told["unborn"]) == (None, "trunk", True)


def test_detached(tmp_path: Path) -> None:
    """A hash in HEAD is no branch."""
    path = repository(tmp_path / "p")
    git(path, "switch", "--quiet", "--detach")
    told = _told(path)
    assert (told["branch"], told["detached"]) == (None, True)
    assert told["head"] == git(path, "rev-parse", "HEAD")


def test_sha256(tmp_path: Path) -> None:
    """Long hashes are read like short ones."""
    path = repository(tmp_path / "p", "--object-format=sha256")
    assert _told(path)["head"] == git(path, "rev-parse", "HEAD")


def test_bare_linked_and_submodule(tmp_path: Path) -> None:
    """Each reads its own HEAD, and shared references from the common folder."""
    path = repository(tmp_path / "p")
    git(tmp_path, "clone", "--quiet", "--bare", "p", "b.git")
    assert _told(tmp_path / "b.git")["bare"] is True
    git(path, "worktree", "add", "--quiet", "../w")
    git(path, "pack-refs", "--all")
    told = _told(tmp_path / "w")
    assert (told["linked"], told["branch"]) == (True, "w")
    assert told["head"] == git(path, "rev-parse", "w")


def test_stashes_are_counted(tmp_path: Path) -> None:
    """The first is a reference, the others live in the reflog."""
    path = repository(tmp_path / "p")
    for text in ("a", "b", "c"):
        (path / "train.py").write_text(text)
        git(path, "stash", "--quiet")
    assert _told(path)["stashes"] == 3


def _conflict(path: Path) -> None:
    git(path, "switch", "--quiet", "-c", "other")
    commit(path, "train.py", "other\n")
    git(path, "switch", "--quiet", "main")
    commit(path, "train.py", "mine\n")


@pytest.mark.parametrize(
    ("arguments", "operation"),
    [
        (["merge", "other"], "merge"),
        (["rebase", "other"], "rebase"),
        (["rebase", "--apply", "other"], "rebase"),
        (["cherry-pick", "other"], "cherry-pick"),
        (["revert", "HEAD~1"], "revert"),
        (["bisect", "start"], "bisect"),
    ],
)
def test_what_is_under_way(tmp_path: Path, arguments: list[str], operation: str) -> None:
    """An operation that stopped for a conflict is named."""
    path = repository(tmp_path / "p")
    _conflict(path)
    git(path, *arguments, check=False)
    assert _told(path)["under_way"] == operation


def test_locks_are_named(tmp_path: Path) -> None:
    """A lock says that git is at work, or was killed."""
    path = repository(tmp_path / "p")
    (path / ".git" / "index.lock").touch()
    assert _told(path)["locks"] == ["index.lock"]


def test_reftable_is_admitted(tmp_path: Path) -> None:
    """References that are no files are not guessed at: no head rather than a wrong one."""
    path = repository(tmp_path / "p")
    (path / ".git" / "reftable").mkdir()
    (path / ".git" / "HEAD").write_text("ref: refs/heads/.invalid\n")
    told = _told(path)
    assert (told["refs"], told["head"], told["branch"], told["unborn"]) == (
        "reftable",
        None,
        None,
        False,
    )


@pytest.mark.parametrize("head", ["", "ref: ../../../etc/passwd", "ref: refs/heads/main\0", "zz"])
def test_a_broken_head_is_survived(tmp_path: Path, head: str) -> None:
    """Damage is described, not raised, and no reference leads out of the repository."""
    path = repository(tmp_path / "p")
    (path / ".git" / "HEAD").write_text(head)
    assert _told(path)["head"] is None


def test_references_in_a_circle_end(tmp_path: Path) -> None:
    """Symbolic references are followed five times, as git does."""
    path = repository(tmp_path / "p")
    (path / ".git" / "refs" / "heads" / "main").write_text("ref: refs/heads/main\n")
    assert _told(path)["head"] is None


def test_it_is_quick_with_ten_thousand_references(tmp_path: Path) -> None:
    """Described in the time of reading one file: no process is started."""
    path = repository(tmp_path / "p")
    head = git(path, "rev-parse", "HEAD")
    lines = "".join(f"{head} refs/tags/t{number}\n" for number in range(10_000))
    git(path, "pack-refs", "--all")
    with (path / ".git" / "packed-refs").open("a") as file:
        file.write(lines)
    best = min(_timed(path) for _ in range(5))
    assert best < 0.2


def _timed(path: Path) -> float:
    started = time.perf_counter()
    _told(path)
    return time.perf_counter() - started
