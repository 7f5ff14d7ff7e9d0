"""The command itself: started, tried again where that is asked for, and what came of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rollback.errors import RestoreIncomplete, RollbackError
from rollback.model import Operation, Snapshot
from rollback.reports import Selection
from safeguards.changed import changed_data
from safeguards.config import Config
from safeguards.escalation import Trouble
from safeguards.ladder import LOOK_BACK, Ladder, trouble_of, write_report
from safeguards.narration import Narrator, how_it_ended
from safeguards.output import Answer, Problem, one_line
from safeguards.preload import preload
from safeguards.record import RunRecord
from safeguards.render.paths import short_path
from safeguards.render.snapshot import made_room
from safeguards.restoration import Around, end_leftovers, not_restored, noted, put_back
from safeguards.session import Session
from safeguards.supervisor import (
    Held,
    Limits,
    Outcome,
    hold_signals,
    identify,
    reraise_interrupt,
    supervise,
)
from safeguards.units import count_text

if TYPE_CHECKING:
    from rollback.engine import Engine

_ACTIONS = ("added", "modified", "deleted", "metadata")
_INCOMPLETE = 123
_KEPT_ELSEWHERE = "keep it where the command does not clean up: guard --store DIR run …"


class Attempts:
    """Starts a command in a prepared project, up to three times, and records the outcome.

    Args:
        session: This call of guard.
        config: The project's configuration.
        record: The run, filled in here.
        say: Tells the story.
    """

    def __init__(self, session: Session, config: Config, record: RunRecord, say: Narrator) -> None:
        self.session = session
        self.terminal = session.terminal
        self.config = config
        self.record = record
        self.say = say
        self.ladder = Ladder(record, config.run.retries, config.run.retry_window_s)
        self.problems: list[Problem] = []
        self._incomplete: RollbackError | None = None
        self._probe_failed = False
        self._held = Held()

    def execute(
        self, engine: Engine, operation: Operation, snapshot: Snapshot, argv: Sequence[str]
    ) -> Answer:
        """Run the command and everything that follows; its exit status is passed on.

        Raises:
            GuardError: The command could not be started.
        """
        preload(state.location for state in snapshot.states)
        # From here on nobody's Ctrl-C may lose the outcome; the command has its own.
        with hold_signals() as self._held, self.record.phase("run"):
            outcome = self._run(engine, operation, snapshot, argv)
        self.record.child_exit, self.record.elapsed_s = outcome.status, outcome.elapsed_s
        try:
            with self.record.phase("outcome"):
                self._conclude(engine, snapshot, outcome)
        except Exception as error:  # noqa: BLE001 - the command's status is passed on, always
            self._note_failure("guard could not conclude the run", error)
        with hold_signals():
            self._close(engine, operation, outcome)
        self.session.last_words.append(lambda: reraise_interrupt(outcome))
        status = outcome.status if self._incomplete is None else _INCOMPLETE
        back = status and not self.record.rolled_back and not engine.is_gone
        rollback = self._rollback_command() if back else ""
        if outcome.status:
            told = f"{self.record.command[0]} {how_it_ended(outcome)}"
            code = str(trouble_of(outcome) or Trouble.COMMAND_FAILED)
            self.problems.insert(0, Problem(code, told, rollback, told=True))
        return Answer("run", self.record, status, tuple(self.problems), rollback)

    def _run(
        self, engine: Engine, operation: Operation, snapshot: Snapshot, argv: Sequence[str]
    ) -> Outcome:
        while True:
            outcome = self._start(engine, operation, argv)
            self.record.attempts += 1
            self.ladder.note(outcome)
            if not self.ladder.may_try_again():
                return outcome
            self.say.again(outcome, self.record.attempts, self.config.run.retries + 1)
            with hold_signals() as held:
                restored = self._restore(engine, snapshot, outcome)
            if not restored or held.received:
                return outcome
            self.ladder.restored()

    def _start(self, engine: Engine, operation: Operation, argv: Sequence[str]) -> Outcome:
        def note(pid: int) -> None:
            self._held.pass_on(pid)
            process = identify(pid)
            if process is None:
                return
            try:
                engine.update(operation, {"child": noted(process), "phase": "run"})
            except (RollbackError, OSError) as error:
                # A disk that is full by now must not end the command that has just begun.
                self._note_failure("the log was not written", error)

        run = self.config.run
        limits = Limits(
            timeout_s=run.timeout_s,
            max_memory_share=run.max_memory,
            release_pipes=run.retries == 0 and run.on_failure != "ask",
        )
        with engine.parked():
            return supervise(argv, environ=self.session.environ, limits=limits, on_start=note)

    def _conclude(self, engine: Engine, snapshot: Snapshot, outcome: Outcome) -> None:
        """Look at what the command did, and put it back where that is wanted."""
        with hold_signals():
            if self._incomplete is None:
                self._look_at_changes(engine, snapshot)
            self.say.ended(outcome)
        if outcome.status == 0 or self._incomplete is not None:
            return
        try:
            if self._wants_rollback(engine):
                restored = self._restore(engine, snapshot, outcome)
                self.record.rolled_back = restored or self._probe_failed
        except Exception:
            raise
        except BaseException:  # noqa: BLE001 - asked to end at the question: nothing was changed
            self.terminal.warn("interrupted: nothing was put back")

    def _close(self, engine: Engine, operation: Operation, outcome: Outcome) -> None:
        """End the run's line of the log, say how to get back, and remove old snapshots."""
        try:
            if engine.is_gone:
                where = short_path(str(engine.store.path))
                told = f"the command removed guard's store {where}: there is no way back"
                self._problem("store_gone", told, _KEPT_ELSEWHERE)
                return
            if not self.record.rolled_back and self._incomplete is None:
                self.say.way_back(outcome, self._rollback_command())
            self._escalate(engine)
        except Exception as error:  # noqa: BLE001 - the log's line has to be closed all the same
            self._note_failure("guard could not say who acts next", error)
        try:
            if outcome.left_over and not self.record.rolled_back:
                left = [noted(process) for process in outcome.left_over]
                engine.update(operation, {"left_over": left})
            state = "done" if outcome.status == 0 else "failed"
            engine.finish(operation, state, self.record.as_data())
            self._prune(engine)
        except Exception as error:  # noqa: BLE001 - the command's status is passed on, always
            self._note_failure("the log was not written", error)

    def _escalate(self, engine: Engine) -> None:
        trouble = Trouble.PROBE_FAILED if self._probe_failed else None
        if self._incomplete is not None:
            trouble = Trouble.ROLLBACK_INCOMPLETE
        try:
            self.ladder.settle(trouble, engine.operations(LOOK_BACK))
            folder = Path(engine.status().path) / "log"
            report = write_report(self.record, folder, self._rollback_command())
        except (RollbackError, OSError) as error:
            self._note_failure("no report was written", error)
            return
        if report is not None:
            self.say.escalated(report)

    def _look_at_changes(self, engine: Engine, snapshot: Snapshot) -> None:
        try:
            difference = engine.diff(snapshot, None)
        except (RollbackError, OSError) as error:
            self._note_failure("what changed could not be found out", error)
            return
        self.record.changes = {
            action: difference.count(action)
            for action in _ACTIONS
            if action != "metadata" or difference.count(action)
        }
        self.record.changed = changed_data(difference)

    def _wants_rollback(self, engine: Engine) -> bool:
        mode = self.config.run.on_failure
        if mode == "ask":
            with engine.parked():  # an answer may take hours
                return self.terminal.ask("guard: put everything back as it was before?")
        return mode == "rollback"

    def _restore(self, engine: Engine, snapshot: Snapshot, outcome: Outcome) -> bool:
        """Put the state from before back; whether that succeeded."""
        try:
            for problem in end_leftovers(outcome.left_over):
                self.terminal.warn(problem)
            around = Around(
                self.config,
                self.session.environ,
                lambda: self.session.configure(lenient=True),
                self.terminal.progress(),
            )
            restoration = put_back(engine, engine.plan(snapshot, Selection()), "rollback", around)
        except RestoreIncomplete as error:
            self._incomplete = error
            self._problem(error.code, str(error), error.hint)
            return False
        except (RollbackError, OSError) as error:
            hint = getattr(error, "hint", self._rollback_command())
            self._problem(
                getattr(error, "code", "rollback_failed"), f"not rolled back: {error}", hint
            )
            return False
        self.say.rolled_back(restoration)
        for line in restoration.broken:
            self.terminal.warn(one_line(f"it is back as it was, and does not work: {line}"))
        for skip in restoration.unchecked:
            self.say.skip(skip)
        for skip in restoration.unrestorable[:1]:
            self._problem("not_restored", not_restored(restoration), skip.fix)
        failed = [probe for probe in restoration.probes if not probe.passed]
        for probe in failed:
            told = f"the probe {probe.name} failed: {probe.detail}"
            self.problems.append(Problem("probe_failed", told, "guard undo", told=True))
        self._probe_failed = bool(failed) and not restoration.unrestorable
        return not restoration.unrestorable and not failed

    def _prune(self, engine: Engine) -> None:
        config = self.config
        try:
            report = engine.prune(
                keep_last=config.keep_last,
                keep_days=config.keep_days,
                max_bytes=config.max_store_bytes,
                dry_run=False,
            )
        except (RollbackError, OSError) as error:
            self._note_failure("old snapshots were not removed", error)
            return
        for line in made_room(report.for_room):
            self.terminal.warn(line)
        if len(report.removed) > len(report.for_room):
            number = len(report.removed) - len(report.for_room)
            self.terminal.detail(f"removed {count_text(number, 'old snapshot')}")

    def _problem(self, code: str, message: str, hint: str) -> None:
        self.problems.append(Problem(code, message, hint))

    def _note_failure(self, what: str, error: BaseException) -> None:
        """Say that something beside the command failed; never more than that."""
        if isinstance(error, (RollbackError, OSError)):
            self.terminal.warn(f"{what}: {error}")
            return
        from safeguards.crash import record  # noqa: PLC0415 - only where guard itself fails

        log = record(error, "run", self.session.environ)
        self.terminal.warn(f"{what}: guard itself failed ({type(error).__name__}), see {log}")

    def _rollback_command(self) -> str:
        return self.session.guard_command("rollback", "--last", config=self.config)
