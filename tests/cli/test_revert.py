"""`guard rollback --revert`: what others may have pulled is undone by a commit."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from e2e.guard_command import Guard
from gitrepo import git
from manifest import Entry, assert_back, manifest

BAD = """
echo bad > train.py; echo new > new.py; git add -A; git commit -qm bad
git push -q origin main
echo worse >> train.py; git commit -qam "worse, kept here"
echo dirty > junk.txt; exit 1
"""


@pytest.fixture
def remote(tmp_path: Path) -> Path:
    """A bare repository on disk that people push to."""
    path = tmp_path / "remote.git"
    path.mkdir()
    git(path, "init", "--quiet", "--bare", "--initial-branch=main")
    return path


@pytest.fixture
def shared(guard: Guard, remote: Path) -> Guard:
    """Return guard for a clone with work under way; its first commit is on the remote."""
    project = guard.project
    git(project, "init", "--quiet", "--initial-branch=main")
    git(project, "remote", "add", "origin", str(remote))
    git(project, "add", "train.py", "params.yaml")
    git(project, "commit", "--quiet", "-m", "first")
    git(project, "push", "--quiet", "-u", "origin", "main")
    (project / "params.yaml").write_text("lr: 0.2\n")
    git(project, "add", "params.yaml")
    (project / "train.py").write_text("print('idea')\n")
    return guard


def _work(tree: dict[bytes, Entry]) -> dict[bytes, Entry]:
    """Return what of a project is not git's own."""
    return {path: entry for path, entry in tree.items() if path.split(b"/")[0] != b".git"}


def test_what_was_pushed_is_reverted_by_a_commit(shared: Guard, remote: Path) -> None:
    """Files and index are back to the byte, history only grows, and it can be pushed."""
    before = manifest(shared.project)
    first = git(shared.project, "rev-parse", "HEAD")
    staged = git(shared.project, "diff", "--cached")
    assert shared("run", "--", "sh", "-c", BAD).status == 1
    pushed = git(remote, "rev-parse", "main")
    assert pushed != first
    worse = git(shared.project, "rev-parse", "HEAD")

    plan = shared("rollback", "--last", "--revert", "--dry-run")
    assert plan.status == 0, plan.said
    assert f"{pushed[:12]} bad" in plan.out
    assert "worse, kept here" in plan.out.partition("not pushed")[2]
    data = shared("--json", "rollback", "--last", "--revert", "--dry-run").data()
    assert data["revert"]["branch"] == "refs/heads/main"
    assert [c["subject"] for c in data["revert"]["commits"]] == ["bad"]
    assert [c["subject"] for c in data["revert"]["dropped"]] == ["worse, kept here"]
    assert git(shared.project, "rev-parse", "HEAD") == worse

    result = shared("--json", "rollback", "--last", "--revert", "--yes")
    assert result.status == 0, result.said
    head = git(shared.project, "rev-parse", "HEAD")
    assert result.data()["revert_commit"] == head
    assert git(shared.project, "rev-parse", "HEAD^") == pushed
    assert git(shared.project, "diff", first, "HEAD") == ""
    assert git(shared.project, "diff", "--cached") == staged
    after = manifest(shared.project)
    assert_back(_work(before), _work(after))
    git(shared.project, "push", "--quiet", "origin", "main")
    assert git(remote, "rev-parse", "main") == head
    git(shared.project, "fsck", "--full")

    undo = shared("undo")
    assert undo.status == 0, undo.said
    assert git(shared.project, "rev-parse", "HEAD") == worse
    assert (shared.project / "junk.txt").exists()


def test_doing_it_twice_leaves_one_revert(shared: Guard, remote: Path) -> None:
    """Somebody in doubt runs it again: what the remote has is still known, and not rewritten."""
    assert shared("run", "--", "sh", "-c", BAD).status == 1
    pushed = git(remote, "rev-parse", "main")
    for _ in range(2):
        result = shared("rollback", "--last", "--revert", "--yes")
        assert result.status == 0, result.said
        assert "reverted what was pushed (1 commit)" in result.out
        assert "git push" in result.out
        assert git(shared.project, "rev-parse", "HEAD^") == pushed
        assert git(shared.project, "rev-parse", "origin/main") == pushed
    git(shared.project, "push", "--quiet", "origin", "main")


def test_without_a_pushed_commit_it_is_a_rollback(shared: Guard) -> None:
    """And that is said."""
    before = manifest(shared.project)
    assert shared("run", "--", "sh", "-c", "git commit -qam local; exit 1").status == 1
    result = shared("rollback", "--last", "--revert", "--yes")
    assert result.status == 0, result.said
    assert "there is none to revert" in result.err
    assert_back(before, manifest(shared.project))


@pytest.mark.parametrize("remotes", [True, False])
def test_a_repository_that_was_deleted_is_put_back(shared: Guard, remotes: bool) -> None:  # noqa: FBT001
    """Nobody can say what was pushed from a repository that is gone: it comes back as it was."""
    if not remotes:
        git(shared.project, "remote", "remove", "origin")
    before = manifest(shared.project)
    assert shared("run", "--", "sh", "-c", "rm -rf .git; exit 1").status == 1
    result = shared("rollback", "--last", "--revert", "--yes")
    assert result.status == 0, result.said
    assert_back(before, manifest(shared.project))


def test_a_detached_head_is_refused_before_anything_is_changed(shared: Guard) -> None:
    """There is no branch that a revert could be on."""
    assert shared("run", "--", "sh", "-c", f"{BAD}").status == 1
    git(shared.project, "switch", "--quiet", "--detach")
    before = manifest(shared.project)
    result = shared("--json", "rollback", "--last", "--revert", "--yes")
    assert result.status != 0
    (error,) = json.loads(result.out)["errors"]
    assert "not on a branch" in error["message"]
    assert "--revert" in error["hint"]
    assert_back(before, manifest(shared.project))
