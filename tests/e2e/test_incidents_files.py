"""Incidents of files and repositories: deleted, cleaned, overwritten, truncated, edited after."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import pytest

from e2e.guard_command import Guard
from e2e.projects import (
    WEIGHTS,
    assert_repository_whole,
    commit_all,
    git,
    make_messy_project,
    make_small_project,
)
from manifest import assert_back, differences, manifest

DESTROY = "git rm -rfq . ; git clean -fdxq ; git stash clear ; git gc -q --prune=now ; exit 3"


def test_7_git_is_emptied_and_pruned(messy: Guard) -> None:
    """HEAD, index, work tree, stashes and ignored files are back after everything was pruned."""
    before = manifest(messy.project)
    stashes = git(messy.project, "stash", "list", "--format=%gd %H %s")
    staged = git(messy.project, "diff", "--cached", "--raw", "--abbrev=40")

    run = messy.shell(DESTROY)
    assert run.status == 3, run.said
    assert differences(before, manifest(messy.project)), "the damage was not done"

    assert_back(before, messy.roll_back())
    assert_repository_whole(messy.project)
    assert git(messy.project, "stash", "list", "--format=%gd %H %s") == stashes
    assert git(messy.project, "diff", "--cached", "--raw", "--abbrev=40") == staged
    assert "ROWS = 2000" in git(messy.project, "stash", "show", "-p", "stash@{0}")


@pytest.mark.parametrize("where", ["GUARD_STORE", "default"])
def test_8_the_whole_project_is_deleted(
    where: str, messy: Guard, isolated_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The project, its .git and the current folder are back, from another folder."""
    if where == "default":
        monkeypatch.delenv("GUARD_STORE")
        if isolated_home.stat().st_dev != messy.project.stat().st_dev:
            pytest.skip("home and project are on two file systems: the store lies in the project")
    before = manifest(messy.project)

    run = messy.shell(f"rm -rf '{messy.project}' ; exit 4")
    assert run.status == 4, run.said
    assert not messy.project.exists()
    assert "guard" in run.err
    assert "rollback" in run.err

    assert_back(before, messy.roll_back())
    assert_repository_whole(messy.project)


def test_8_rolled_back_by_the_command_that_the_run_printed(messy: Guard) -> None:
    """What a failed run says to type works when it is typed."""
    before = manifest(messy.project)
    run = messy.shell("rm -rf src models .git ; exit 1")
    command = re.search(r"guard rollback [^\n`]*", run.err)
    assert command, run.said
    words = command[0].split()
    result = messy(*words[1:], "--yes")
    assert result.status == 0, f"{words}: {result.said}"
    assert_back(before, manifest(messy.project))


def test_6_an_ignored_checkpoint_is_overwritten(messy: Guard) -> None:
    """An ignored file is back by hash, and so is the hard link to it."""
    before = manifest(messy.project)
    run = messy.shell("head -c 1000000 /dev/urandom > models/best.ckpt")
    assert run.status == 0, run.said
    assert_back(before, messy.roll_back())
    assert (messy.project / "models" / "same.ckpt").read_bytes() == WEIGHTS


def test_12_edits_after_the_run_are_kept_aside(messy: Guard) -> None:
    """Undo brings edits made after the run back byte for byte, redo takes them away again."""
    before = manifest(messy.project)
    assert messy.shell("echo spoilt > params.yaml ; rm -r src ; exit 1").status == 1
    (messy.project / "train.py").write_text("print('an hour of work')\n")
    (messy.project / "notes").mkdir()
    (messy.project / "notes" / "idea.txt").write_text("do not lose me\n")
    (messy.project / ".env").chmod(0o640)
    git(messy.project, "commit", "-q", "-a", "-m", "After the run")
    edited = manifest(messy.project)

    assert_back(before, messy.roll_back())
    undo = messy("undo")
    assert undo.status == 0, undo.said
    assert_back(edited, manifest(messy.project))
    assert_repository_whole(messy.project)
    redo = messy("redo")
    assert redo.status == 0, redo.said
    assert_back(before, manifest(messy.project))
    assert_repository_whole(messy.project)


def test_13_nested_repositories_disable_nothing(guard: Guard) -> None:
    """A nested repository, a submodule and a linked worktree are back, each a whole repository."""
    make_messy_project(guard.project)
    library = guard.project.parent / "library"
    make_small_project(library)
    git(guard.project, "submodule", "add", "-q", str(library), "vendor/library")
    git(guard.project, "commit", "-q", "-m", "Add a submodule")
    git(guard.project, "worktree", "add", "-q", "trees/experiment", "experiment")
    (guard.project / "trees" / "experiment" / "draft.txt").write_text("not committed\n")
    nested = guard.project / "nested"
    make_small_project(nested)
    (nested / "train.py").write_text("print('changed')\n")
    git(nested, "stash", "-q")
    before = manifest(guard.project)
    worktrees = git(guard.project, "worktree", "list")

    run = guard.shell(
        "rm -rf nested vendor trees/experiment/draft.txt trees/experiment/src ;"
        "git worktree remove --force trees/experiment ; git worktree prune ;"
        "git submodule deinit -q -f --all ; rm -rf .git/modules ; git gc -q --prune=now ; exit 1"
    )
    assert run.status == 1, run.said
    assert_back(before, guard.roll_back())
    assert git(guard.project, "worktree", "list") == worktrees
    assert "idea" in git(guard.project, "stash", "list")
    for folder in (".", "nested", "vendor/library", "trees/experiment"):
        assert_repository_whole(guard.project / folder)
        git(guard.project / folder, "status", "--porcelain")
    assert git(nested, "stash", "list").count("\n") == 1


def test_14_a_notebook_is_truncated(messy: Guard) -> None:
    """A notebook of 0 bytes is back, and only that was planned."""
    before = manifest(messy.project)
    messy.shell(": > explore.ipynb")
    plan = messy("--json", "rollback", "--last", "--dry-run")
    assert plan.status == 0, plan.said
    paths = {step["path"] for step in plan.data()["plan"]}
    assert any("explore.ipynb" in path for path in paths), plan.said
    assert not any("train.py" in path for path in paths), plan.said
    assert differences(before, manifest(messy.project)), "--dry-run has written"
    assert_back(before, messy.roll_back())


def test_a_merge_under_way_is_back(guard: Guard) -> None:
    """The state of an unfinished merge, its conflict and its messages are back."""
    make_small_project(guard.project)
    git(guard.project, "checkout", "-q", "-b", "other")
    (guard.project / "params.yaml").write_text("lr: 0.3\n")
    git(guard.project, "commit", "-q", "-a", "-m", "Theirs")
    git(guard.project, "checkout", "-q", "main")
    (guard.project / "params.yaml").write_text("lr: 0.2\n")
    git(guard.project, "commit", "-q", "-a", "-m", "Ours")
    with pytest.raises(AssertionError, match="merge"):
        git(guard.project, "merge", "-q", "other")
    conflict = git(guard.project, "ls-files", "-u")
    assert conflict.count("\n") == 3
    before = manifest(guard.project)

    assert guard.shell("git merge --abort && git reset -q --hard HEAD~1").status == 0
    assert_back(before, guard.roll_back())
    assert git(guard.project, "ls-files", "-u") == conflict
    assert_repository_whole(guard.project)


def test_a_repository_without_a_commit_is_guarded(guard: Guard) -> None:
    """An unborn branch with staged files is put back."""
    git(guard.project, "init", "-q")
    (guard.project / "train.py").write_text("print(1)\n")
    git(guard.project, "add", "train.py")
    before = manifest(guard.project)
    guard.shell("git commit -q -m first && rm train.py")
    assert_back(before, guard.roll_back())
    assert git(guard.project, "ls-files") == "train.py\n"


def test_two_runs_are_rolled_back_one_after_the_other(messy: Guard) -> None:
    """`--to` reaches the state before an older run."""
    first = manifest(messy.project)
    assert messy.shell("echo 1 > one ; rm zero").status == 0
    report = messy.project.parent / "report.json"
    second = manifest(messy.project)
    assert messy.shell("rm one ; rm -rf .git", "--report", report).status == 0
    assert_back(second, messy.roll_back())
    log = messy("--json", "log")
    assert log.status == 0, log.said
    older = messy("--json", "show", "1")
    assert older.status == 0, older.said
    result = messy("rollback", "--to", "1", "--yes")
    assert result.status == 0, result.said
    assert_back(first, manifest(messy.project))


def test_one_category_or_path_is_rolled_back(messy: Guard) -> None:
    """Only the chosen path is put back; the rest of the run's results stay."""
    before = manifest(messy.project)
    messy.shell("echo result > result.txt ; echo bad > params.yaml ; rm models/best.ckpt")
    result = messy("rollback", "--last", "--yes", "models")
    assert result.status == 0, result.said
    lines = differences(before, manifest(messy.project))
    assert {line.partition(":")[0] for line in lines} == {".", "params.yaml", "result.txt"}, lines
    assert (messy.project / "models" / "best.ckpt").read_bytes() == WEIGHTS


def test_a_link_planted_by_the_run_is_not_written_through(messy: Guard) -> None:
    """A folder that became a link to somewhere else is put back without touching that place."""
    victim = messy.project.parent / "victim"
    victim.mkdir()
    (victim / "model.py").write_text("precious\n")
    before = manifest(messy.project)
    there = manifest(victim)
    messy.shell(f"rm -r src && ln -s '{victim}' src")
    assert_back(before, messy.roll_back())
    assert_back(there, manifest(victim))


def test_special_files_do_not_hang(messy: Guard) -> None:
    """A FIFO that nobody writes to is noted, never opened, and there again after a rollback."""
    os.mkfifo(messy.project / "pipe", 0o640)
    before = manifest(messy.project)
    run = messy.shell("rm pipe", "--timeout", "60s")
    assert run.status == 0, run.said
    assert_back(before, messy.roll_back())


def test_a_project_that_moved_away_is_not_confused(messy: Guard) -> None:
    """A rollback of a folder that was replaced by a file puts the folder back."""
    before = manifest(messy.project)
    shutil.copytree(messy.project, messy.project.parent / "spare", symlinks=True)
    messy.shell("rm -r src models && echo file > src && echo file > models")
    assert_back(before, messy.roll_back())


def test_a_run_that_commits_keeps_its_commit_reachable_by_undo(messy: Guard) -> None:
    """A commit made by the run is gone from the branch after the rollback and back by undo."""
    commit_all(messy.project, "All in")
    head = git(messy.project, "rev-parse", "HEAD")
    messy.shell("echo 1 > new.py && git add new.py && git commit -q -m 'By the run'")
    made = git(messy.project, "rev-parse", "HEAD")
    assert made != head
    messy.roll_back()
    assert git(messy.project, "rev-parse", "HEAD") == head
    assert messy("undo").status == 0
    assert git(messy.project, "rev-parse", "HEAD") == made
    assert_repository_whole(messy.project)
