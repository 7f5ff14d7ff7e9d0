"""What `guard run` says, phase by phase, on standard error."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rollback.model import Skip
from rollback.reports import SnapshotReport
from safeguards.changed import changed_text
from safeguards.config import Config
from safeguards.escalation import Level
from safeguards.output import one_line
from safeguards.record import RunRecord
from safeguards.render.findings import finding_lines
from safeguards.render.paths import short_path
from safeguards.render.snapshot import made_room
from safeguards.session import Session
from safeguards.units import bytes_text, count_text, seconds_text

if TYPE_CHECKING:
    from checks.model import CheckReport
    from rollback.reports import DrillReport
    from safeguards.restoration import Restoration
    from safeguards.scope import Concern
    from safeguards.supervisor import Outcome

_MOST_SKIPS = 8
_MOST_FINDINGS = 20
_LABEL = 10
_SIGNALLED = 128


class Narrator:
    """Tells a run's story in short aligned lines.

    Args:
        session: Where to speak.
        config: The project's configuration.
        record: The run.
    """

    def __init__(self, session: Session, config: Config, record: RunRecord) -> None:
        self.session = session
        self.terminal = session.terminal
        self.config = config
        self.record = record

    def recovered(self, sentences: Sequence[str]) -> None:
        """Tell what was found unfinished."""
        for sentence in sentences:
            self.terminal.warn(sentence)

    def concerns(self, concerns: Sequence[Concern]) -> None:
        """Tell what a command may reach beyond this machine."""
        for concern in concerns:
            text = f"careful: {concern.what} ({concern.where}): {concern.why} [{concern.fix}]"
            self.terminal.warn(one_line(text))

    def snapshot(self, report: SnapshotReport) -> None:
        """Tell what was captured, and loudly what was not."""
        files = sum(state.files for state in report.snapshot.states)
        size = sum(state.bytes for state in report.snapshot.states)
        databases = sum(state.resource == "sqlite" for state in report.snapshot.states)
        parts = [count_text(files, "file")]
        if databases:
            parts.append(count_text(databases, "database"))
        self._line(
            "snapshot",
            f"{report.snapshot.seq}: {', '.join(parts)}, {bytes_text(size)}"
            f" in {seconds_text(report.elapsed_s)} ({bytes_text(report.new_bytes)} new)",
        )
        for line in made_room(report.removed):
            self.terminal.warn(line)
        skips = self.record.skipped
        for skip in skips[:_MOST_SKIPS]:
            self.skip(skip)
        if len(skips) > _MOST_SKIPS:
            self.terminal.warn(f"and {len(skips) - _MOST_SKIPS} more: guard status")

    def skip(self, skip: Skip) -> None:
        """Tell of a safeguard that is not available."""
        mend = f" [{skip.fix}]" if skip.fix else ""
        self.terminal.warn(one_line(f"skipped {skip.what}: {skip.why}{mend}"))

    def checks(self, report: CheckReport) -> None:
        """Tell what the checks found; errors also where guard is to be quiet."""
        passed = report.passed
        parts = [f"{passed} passed"]
        if report.failed:
            parts.append(f"{report.failed} failed")
        if report.warned:
            parts.append(f"{report.warned} warned")
        known = f", {report.cached} known" if report.cached else ""
        self._line("checks", f"{', '.join(parts)} in {seconds_text(report.elapsed_s)}{known}")
        for line in finding_lines(report, most=_MOST_FINDINGS):
            self.terminal.warn(line)
        for skip in report.skipped:
            self.skip(Skip(skip.what, skip.why, skip.fix))

    def drill(self, report: DrillReport) -> None:
        """Tell the verdict of the rehearsal."""
        if not report.passed and not report.failures:
            if self.config.run.over_budget == "warn":  # else the error that stops the run says it
                self.terminal.warn(over_budget(report))
            return
        budget = seconds_text(report.budget_s)
        how = "rehearsed" if report.mode == "full" else "rehearsed in part"
        # They are the project's own, and can be run on a state that is back alone.
        number = count_text(len(self.config.probes), "probe")
        apart = f", {number} apart" if self.config.probes else ""
        self._line(
            "drill",
            f"a rollback takes {seconds_text(report.bound_s)} at most of {budget}{apart}"
            f" ({how} in {seconds_text(report.elapsed_s)})",
        )
        for note in report.notes:
            self.terminal.warn(one_line(f"before the command: {note}"))
        for skip in report.skips:
            self.skip(skip)

    def again(self, outcome: Outcome, attempt: int, attempts: int) -> None:
        """Tell that a failed command is tried again."""
        self.terminal.warn(
            f"attempt {attempt} of {attempts} {how_it_ended(outcome)}; "
            "putting everything back and trying again"
        )

    def ended(self, outcome: Outcome) -> None:
        """Tell how the command ended and what it changed."""
        took = seconds_text(outcome.elapsed_s)
        # What an inner run changed is a part of what the one around it changed, and told there.
        changed = "" if self.record.within else f"; {self._changed()}"
        if outcome.status == 0:
            self._line("done", f"in {took}{changed}")
        else:
            name = one_line(self.record.command[0])
            self.terminal.warn(f"{name} {how_it_ended(outcome)} after {took}{changed}")
        if outcome.left_over:
            running = ", ".join(f"{p.pid} ({p.name})" for p in outcome.left_over[:4])
            number = count_text(len(outcome.left_over), "process", "processes")
            self.terminal.warn(f"{number} of it still run: {one_line(running)}")

    def way_back(self, outcome: Outcome, command: str) -> None:
        """Tell the one command that puts everything back."""
        if outcome.status != 0:
            self.terminal.warn(f"to put everything back: {command}")
        elif self.record.changes and any(self.record.changes.values()):
            self.terminal.note(f"to take it back: {command}")

    def escalated(self, report: Path) -> None:
        """Tell who is to act, and where the report lies."""
        title = Level(self.record.level).title.lower()
        self.terminal.note(f"{title} (level {self.record.level}): {short_path(str(report))}")

    def rolled_back(self, restoration: Restoration) -> None:
        """Tell that everything is back."""
        budget = seconds_text(restoration.budget_s)
        if restoration.steps:
            took = f"{seconds_text(restoration.elapsed_s or 0.0)} of {budget}"
            changes = count_text(sum(s.changes for s in restoration.steps), "change")
            self.terminal.warn(f"rolled back {changes} in {took}, verified; undone by: guard undo")
        else:
            self.terminal.note("nothing had to be put back")
        for probe in restoration.probes:
            if not probe.passed:
                self.terminal.warn(one_line(f"the probe {probe.name} failed: {probe.detail}"))
        if not restoration.within_budget:
            self.terminal.warn(f"the rollback took longer than its budget of {budget}")
        for problem in restoration.problems:
            self.terminal.warn(one_line(problem))

    def _changed(self) -> str:
        changed = self.record.changed
        if changed is None:
            return "what it changed is not known"
        told = changed_text(changed, counted=True)
        return "nothing changed" if told == "nothing" else f"changed: {told}"

    def _line(self, label: str, text: str) -> None:
        self.terminal.note(f"{label:<{_LABEL}}{text}")


def how_it_ended(outcome: Outcome) -> str:
    """Return how a command ended, in words."""
    if outcome.timed_out:
        return "was ended: it reached the --timeout"
    if outcome.memory_exceeded:
        return "was ended: it took more memory than --max-memory allows"
    if outcome.signal is not None:
        try:
            return f"was killed by {signal.Signals(outcome.signal).name}"
        except ValueError:
            return f"was killed by signal {outcome.signal}"
    return f"failed with status {outcome.status}"


def over_budget(report: DrillReport) -> str:
    """Return one sentence about a rollback that would take too long."""
    slowest = sorted(report.parts, key=lambda part: part.estimated_s, reverse=True)[:3]
    names = ", ".join(f"{part.name} {seconds_text(part.estimated_s)}" for part in slowest)
    return (
        f"a rollback could take {seconds_text(report.bound_s)}, more than the budget of"
        f" {seconds_text(report.budget_s)}" + (f"; slowest: {one_line(names)}" if names else "")
    )
