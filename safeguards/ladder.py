"""One run on the ladder of escalation: what was attempted, who acts next, and the report."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from rollback.model import Operation
from safeguards.changed import changed_text
from safeguards.escalation import (
    Attempt,
    Earlier,
    History,
    Level,
    Report,
    Trouble,
    decide,
    may_recover,
    render_report,
    standard_options,
)
from safeguards.record import RunRecord
from safeguards.render.paths import command_line
from safeguards.supervisor import Outcome
from safeguards.units import bytes_text, seconds_text

LOOK_BACK = 100
"""How many operations are looked through for earlier runs of the same command."""
_TROUBLES = {
    "checks_failed": Trouble.CHECKS_FAILED,
    "snapshot_failed": Trouble.SNAPSHOT_FAILED,
    "preparation_failed": Trouble.SNAPSHOT_FAILED,
    "drill_failed": Trouble.SNAPSHOT_FAILED,
    "no_space": Trouble.NO_SPACE,
    "store_damaged": Trouble.STORE_DAMAGED,
    "target_refused": Trouble.TARGET_REFUSED,
    "rollback_incomplete": Trouble.ROLLBACK_INCOMPLETE,
    "rollback_refused": Trouble.ROLLBACK_INCOMPLETE,
    "interrupted": Trouble.INTERRUPTED,
}


class Ladder:
    """Remembers the attempts of a run and decides who acts after them.

    Args:
        record: The run; its level and trouble are set here.
        retries: How often the command may be tried again.
        window_s: Seconds after the first failure in which it may be.
    """

    def __init__(self, record: RunRecord, retries: int, window_s: float) -> None:
        self.record = record
        self.retries = retries
        self.window_s = window_s
        self.attempts: list[Attempt] = []

    def note(self, outcome: Outcome) -> None:
        """Note how a start of the command ended, just now."""
        ended_s = time.monotonic()
        trouble = trouble_of(outcome)
        status = outcome.status
        self.attempts.append(Attempt(ended_s - outcome.elapsed_s, ended_s, status, trouble))

    def may_try_again(self) -> bool:
        """Return whether the command may be started again once the state before is back."""
        restored = [*self.attempts[:-1], *(replace(a, restored=True) for a in self.attempts[-1:])]
        return may_recover(self._history(restored))

    def restored(self) -> None:
        """Note that the state before is back after the newest attempt."""
        self.attempts[-1] = replace(self.attempts[-1], restored=True)

    def settle(self, trouble: Trouble | None, earlier: Iterable[Operation]) -> None:
        """Write into the record what the trouble is, and who acts next.

        Args:
            trouble: What prevented the command, or came after it; None for what its newest
                attempt says.
            earlier: Earlier operations, newest first.
        """
        attempts = list(self.attempts)
        if trouble is not None:
            now_s = time.monotonic()
            attempts.append(Attempt(now_s, now_s, trouble=trouble))
        history = replace(self._history(attempts), recoveries=0)
        history = replace(history, earlier=tuple(_earlier(earlier, self.record)))
        if attempts and attempts[-1].trouble is None:
            history = replace(history, recoveries=self.retries)
        self.record.tries = [
            {"status": a.status, "elapsed_s": a.ended_s - a.started_s,
             "trouble": None if a.trouble is None else str(a.trouble), "restored": a.restored}
            for a in self.attempts
        ]  # fmt: skip
        self.record.level = int(decide(history))
        self.record.trouble = "" if not attempts else str(attempts[-1].trouble or "")

    def _history(self, attempts: Sequence[Attempt]) -> History:
        return History(
            attempts=tuple(attempts),
            now_s=time.monotonic(),
            recoveries=self.retries,
            window_s=self.window_s,
        )


def trouble_of(outcome: Outcome) -> Trouble | None:
    """Return what went wrong with a command, None where nothing did."""
    if outcome.status == 0:
        return None
    if outcome.interrupted:
        return Trouble.INTERRUPTED
    if outcome.timed_out:
        return Trouble.TIMED_OUT
    return Trouble.MEMORY_EXCEEDED if outcome.memory_exceeded else Trouble.COMMAND_FAILED


def trouble_of_code(code: str, record: RunRecord) -> Trouble | None:
    """Return what an error that prevented a command stands for, None for a wrong usage."""
    if code == "preparation_failed" and record.drill is not None and not record.drill.failures:
        return Trouble.OVER_BUDGET
    return _TROUBLES.get(code)


def write_report(record: RunRecord, folder: Path, rollback: str) -> Path | None:
    """Write the report of a run that somebody has to act on; None where nobody has.

    Args:
        record: The run, settled.
        folder: Where reports lie; private.
        rollback: The command that puts everything back.

    Raises:
        OSError: It cannot be written.
    """
    if record.level < Level.PEER_REPORT or not record.trouble:
        return None
    text = render_report(compose(record, rollback))
    os.makedirs(folder, mode=0o700, exist_ok=True)
    path = folder / f"run-{record.run_seq}.md"
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(fd, "w", encoding="utf-8", errors="backslashreplace") as file:
        file.write(text)
    return path


def compose(record: RunRecord, rollback: str) -> Report:
    """Return what a reader has to know about a run, with figures that were measured."""
    trouble = Trouble(record.trouble)
    level = Level(record.level)
    command = command_line(record.command)
    status = f" with status {record.child_exit}" if record.child_exit is not None else ""
    problem = f"Run {record.run_seq} ({command}): {trouble.replace('_', ' ')}{status}."
    shown = f"guard show {record.run_seq}"
    return Report(
        level=level,
        problem=problem,
        attempted=(*_phases(record), *_tries(record)),
        impact=_impact(record),
        current_state=_state(record, rollback),
        options=standard_options(trouble) if level is Level.USER_DECISION else (),
        evidence=(shown, "guard diff", "guard log"),
    )


def _phases(record: RunRecord) -> list[str]:
    """Return what came before the command; of the command itself its starts are told."""
    before = [(name, took) for name, took in record.phases if name not in {"run", "outcome"}]
    return [f"{name}: {seconds_text(took)}" for name, took in before]


def _tries(record: RunRecord) -> list[str]:
    """Return how each start of the command ended, and whether its traces were removed."""
    lines = []
    for number, attempt in enumerate(record.tries, 1):
        ended = str(attempt["trouble"] or "succeeded").replace("_", " ")
        restored = ", then everything was put back" if attempt["restored"] else ""
        took = seconds_text(attempt["elapsed_s"])
        lines.append(
            f"start {number}: {ended} with status {attempt['status']} after {took}{restored}"
        )
    return lines


def _impact(record: RunRecord) -> tuple[str, ...]:
    lines = []
    if record.changed is not None:
        lines.append(f"Changed by the command: {changed_text(record.changed, counted=True)}")
    if record.checks is not None:
        lines += [f"{f.subject}: {f.message}" for f in record.checks.findings[:10]]
    if record.drill is not None and not record.drill.passed:
        bound, budget = seconds_text(record.drill.bound_s), seconds_text(record.drill.budget_s)
        lines.append(f"A rollback could take {bound}, the budget is {budget}")
    return tuple(lines)


def _state(record: RunRecord, rollback: str) -> tuple[str, ...]:
    lines = []
    if record.attempts > 1:
        lines.append(f"The command was started {record.attempts} times")
    if record.rolled_back:
        lines.append("Everything was put back as it was before the run")
    elif record.attempts:
        lines.append(f"The results of the run are in place; to put everything back: {rollback}")
    else:
        lines.append("The command was not started; nothing was changed")
    size = sum(int(entry["bytes"]) for entry in record.protected)
    if record.snapshot_id:
        lines.append(f"Snapshot {record.snapshot_id} holds {bytes_text(size)}")
    lines += [f"Not protected: {skip.what}, {skip.why}" for skip in record.skipped]
    return tuple(lines)


def _earlier(operations: Iterable[Operation], record: RunRecord) -> list[Earlier]:
    """Return earlier troubles of the same command, oldest first; a success settles those before."""
    found: list[Earlier] = []
    resolved = False
    for operation in operations:
        data = operation.data
        same = operation.kind == "run" and tuple(data.get("command", ())) == record.command
        if not same or operation.id == record.run_id:
            continue
        if operation.state == "done" and data.get("child_exit") == 0:
            resolved = True
        elif data.get("trouble") in set(Trouble):
            trouble, level = Trouble(data["trouble"]), Level(int(data.get("level", 0)))
            found.append(Earlier(trouble, level, resolved))
    return found[::-1]
