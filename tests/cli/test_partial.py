"""A rollback that cannot put one path back: 123 and partial, never plain success."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from e2e.guard_command import Guard
from wheels import wheel


@pytest.fixture
def module(guard: Guard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The module of a distribution in the project's environment, whose wheel is gone."""
    prefix = guard.project / ".venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", prefix], check=True)
    monkeypatch.setenv("VIRTUAL_ENV", str(prefix))
    package = wheel(tmp_path / "wheels", "tiny", "1.0")
    install = ["-m", "pip", "--python", str(prefix), "install", "--quiet", "--no-index"]
    subprocess.run([sys.executable, *install, "--no-compile", package], check=True)
    package.unlink()
    return next(prefix.glob("lib/python3*/site-packages/tiny/__init__.py"))


def test_a_path_that_is_lost_ends_in_123(guard: Guard, module: Path) -> None:
    """Named with the command that mends it, in text and JSON; everything else is back."""
    data = (guard.project / "data.csv").read_bytes()
    script = f"echo 'x = 1' >> {module}; rm data.csv; exit 3"
    assert guard("run", "--", "sh", "-c", script).status == 3
    dry = guard("rollback", "--last", "--dry-run")
    assert dry.status == 0
    assert "reinstall" in dry.out
    assert "from a cache: tiny 1.0" in dry.out
    done = guard("rollback", "--last", "--yes")
    assert done.status == 123, done.said
    assert str(module) in done.said
    assert "tiny @ file://" in done.said
    assert (guard.project / "data.csv").read_bytes() == data
    again = guard("--json", "rollback", "--last", "--yes")
    answer = json.loads(again.out)
    assert (answer["status"], answer["exit_code"], again.status) == ("partial", 123, 123)
    assert [skip["what"] for skip in answer["data"]["skipped"]] == [str(module)]
    assert answer["errors"][0]["code"] == "not_restored"
    assert "everything else is as in" in guard("rollback", "--last", "--yes").said


def test_a_rollback_of_the_run_itself_is_not_called_one(guard: Guard, module: Path) -> None:
    """With `--on-failure rollback` the child's status stays, and the rest is told."""
    script = f"echo 'x = 1' >> {module}; exit 3"
    done = guard("run", "--on-failure", "rollback", "--retries", "2", "--", "sh", "-c", script)
    assert done.status == 3
    assert "everything is back except" in done.err
    assert "attempt 2 of 3" not in done.err  # no further attempt from a state that is not the same


def test_a_watched_file_that_changed_ends_in_123(guard: Guard) -> None:
    """It was not kept on purpose; it is not as it was all the same."""
    (guard.project / "guard.toml").write_text('[protect]\nwatch = ["data.csv"]\n')
    assert guard("run", "--", "sh", "-c", "echo more >> data.csv; rm train.py").status == 0
    done = guard("rollback", "--last", "--yes")
    assert done.status == 123, done.said
    assert "data.csv" in done.said
    assert (guard.project / "train.py").exists()


def test_an_obstacle_that_stays_does_not_keep_guard_from_working(
    guard: Guard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first rollback stops; the next one names it and ends with 123; runs start again."""
    model = (guard.project / "models/best.bin").read_bytes()
    assert guard("run", "--", "sh", "-c", "echo 2 > train.py; rm -r models").status == 0
    monkeypatch.setenv("GUARD_FAILPOINT", "restore.replace:eacces+")
    stopped = guard("rollback", "--last", "--yes")
    assert stopped.status == 123, stopped.said
    assert str(guard.project / "train.py") in stopped.said
    named = guard("rollback", "--last", "--yes")
    assert named.status == 123, named.said
    assert f"guard rollback --to 1 {guard.project / 'train.py'}" in named.said
    assert (guard.project / "models/best.bin").read_bytes() == model
    assert "unfinished" not in guard("status").said
    assert guard("run", "--", "true").status == 0
    assert guard("snapshot").status == 0
    monkeypatch.delenv("GUARD_FAILPOINT")
    assert guard("rollback", "--to", "1", "train.py", "--yes").status == 0
    assert (guard.project / "train.py").read_text() == "print('training')\n"


def test_a_broken_repository_is_told_and_stops_nothing(guard: Guard) -> None:
    """It was so before: the run starts, the rollback succeeds, both say it."""
    git = ["git", "-C", str(guard.project)]
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "add", "train.py"], check=True)
    subprocess.run([*git, "commit", "-qm", "one"], check=True)
    for path in (guard.project / ".git" / "objects").glob("??/*"):
        path.unlink()
    ran = guard("run", "--", "git", "symbolic-ref", "HEAD", "refs/heads/other")
    assert ran.status == 0, ran.said
    assert "before the command: git" in ran.err
    done = guard("rollback", "--last", "--yes")
    assert done.status == 0, done.said
    assert "it is back as it was, and does not work: git" in done.said
