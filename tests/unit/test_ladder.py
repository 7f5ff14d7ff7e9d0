"""A run on the ladder of escalation: its attempts, its level, its report."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from rollback.model import Operation, Skip
from rollback.reports import DrillReport
from safeguards.escalation import Level, Trouble
from safeguards.ladder import Ladder, trouble_of, trouble_of_code, write_report
from safeguards.record import RunRecord
from safeguards.supervisor import Outcome

COMMAND = ("python", "train.py")


def record() -> RunRecord:
    """Return the record of a run that is under way."""
    return RunRecord(COMMAND, time.time(), run_id="now", run_seq=9, attempts=1)


def earlier(state: str, **data: Any) -> Operation:
    """Return an earlier run of the same command."""
    return Operation(
        1, data.pop("identity", "x"), "run", state, 0.0, 1.0, {"command": list(COMMAND), **data}
    )


FAILED: dict[str, Any] = {"trouble": "command_failed", "level": 2, "child_exit": 1}


@pytest.mark.parametrize(
    ("outcome", "trouble"),
    [
        (Outcome(0), None),
        (Outcome(0, interrupted=True), None),
        (Outcome(1), Trouble.COMMAND_FAILED),
        (Outcome(130, interrupted=True), Trouble.INTERRUPTED),
        (Outcome(124, timed_out=True), Trouble.TIMED_OUT),
        (Outcome(137, memory_exceeded=True), Trouble.MEMORY_EXCEEDED),
    ],
)
def test_what_went_wrong(outcome: Outcome, trouble: Trouble | None) -> None:
    """Each way to end has its name."""
    assert trouble_of(outcome) is trouble


def test_a_further_attempt_only_as_often_and_as_soon_as_asked() -> None:
    """Not without retries, not after the window, not after an interrupt, not after a success."""
    for retries, window_s, outcome, may in (
        (0, 300.0, Outcome(1), False),
        (1, 300.0, Outcome(1), True),
        (1, -1.0, Outcome(1), False),
        (1, 300.0, Outcome(130, interrupted=True), False),
        (1, 300.0, Outcome(0), False),
    ):
        ladder = Ladder(record(), retries, window_s)
        ladder.note(outcome)
        assert ladder.may_try_again() is may, (retries, window_s, outcome)
    ladder = Ladder(record(), 1, 300.0)
    ladder.note(Outcome(1))
    ladder.restored()
    ladder.note(Outcome(1))
    assert not ladder.may_try_again()


@pytest.mark.parametrize(
    ("log", "level"),
    [
        ([], Level.PEER_REPORT),
        ([earlier("failed", **FAILED)], Level.PEER_REPORT),
        ([earlier("failed", **FAILED)] * 2, Level.ARCHITECTURE_REVIEW),
        ([earlier("failed", **{**FAILED, "level": 3})], Level.USER_DECISION),
        ([earlier("done", child_exit=0), earlier("failed", **FAILED)] * 2, Level.PEER_REPORT),
        ([earlier("failed", identity="now", **FAILED)] * 3, Level.PEER_REPORT),
        ([earlier("failed", trouble="nonsense", level=2)] * 3, Level.PEER_REPORT),
    ],
)
def test_what_comes_back_goes_up(log: list[Operation], level: Level) -> None:
    """Open troubles of the same command count; a success settles those before it."""
    run = record()
    ladder = Ladder(run, 0, 300.0)
    ladder.note(Outcome(1))
    ladder.settle(None, log)
    assert (run.level, run.trouble) == (level, "command_failed")


def test_a_success_needs_nobody() -> None:
    """0 at the first start, 1 after a recovery."""
    run = record()
    ladder = Ladder(run, 2, 300.0)
    ladder.note(Outcome(0))
    ladder.settle(None, [])
    assert (run.level, run.trouble) == (0, "")
    ladder = Ladder(run, 2, 300.0)
    ladder.note(Outcome(1))
    ladder.restored()
    ladder.note(Outcome(0))
    ladder.settle(None, [])
    assert (run.level, run.trouble) == (1, "")


def test_what_prevented_the_command() -> None:
    """Codes have their trouble; a drill that reproduced everything was over budget."""
    run = record()
    assert trouble_of_code("checks_failed", run) is Trouble.CHECKS_FAILED
    assert trouble_of_code("preparation_failed", run) is Trouble.SNAPSHOT_FAILED
    assert trouble_of_code("wrong_usage", run) is None
    run.drill = DrillReport("x", "full", 1.0, 400.0, 500.0, 300.0, False, 1, 1)
    assert trouble_of_code("preparation_failed", run) is Trouble.OVER_BUDGET
    ladder = Ladder(run, 2, 300.0)
    ladder.settle(Trouble.OVER_BUDGET, [])
    assert run.level == Level.ARCHITECTURE_REVIEW
    ladder.settle(Trouble.TARGET_REFUSED, [])
    assert run.level == Level.USER_DECISION


def test_the_report_is_private_and_complete(tmp_path: Path) -> None:
    """Command, status, changes, what is not protected, and how to get back."""
    run = record()
    run.child_exit, run.changes = 3, {"added": 1, "modified": 2, "deleted": 0}
    run.changed = {"files": {"added": 1, "modified": 2}}
    run.phases = [("snapshot", 1.0), ("run", 9.0)]
    run.skipped = [Skip("git", "there is none", "git init")]
    ladder = Ladder(run, 0, 300.0)
    ladder.note(Outcome(4))
    ladder.restored()
    ladder.note(Outcome(3))
    ladder.settle(None, [])
    path = write_report(run, tmp_path / "log", "guard rollback --last")
    assert path is not None
    assert path.stat().st_mode & 0o777 == 0o600
    text = path.read_text()
    for part in (
        *("(python train.py)", "status 3", "2 modified", "git", "guard rollback", "guard show 9"),
        *("1. snapshot: 1.0 s", "command failed with status 4", "then everything was put back"),
        "3. start 2: command failed with status 3",
    ):
        assert part in text, text
    assert "run: 9.0 s" not in text
    run.level = 0
    assert write_report(run, tmp_path / "log", "guard rollback --last") is None
