"""The pipeline of `guard run`: preflight → snapshot → checks → drill → run → outcome."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rollback.errors import RestoreIncomplete, RollbackError, StoreBusy, StoreUnusable
from rollback.model import Operation, Skip, Snapshot
from safeguards import attempts, narration, preflight
from safeguards.config import Config
from safeguards.errors import ChecksFailed, GuardError, PreparationFailed
from safeguards.exits import exit_status
from safeguards.ladder import LOOK_BACK, Ladder, trouble_of_code
from safeguards.ladder import write_report as write_escalation
from safeguards.output import Answer, Problem
from safeguards.record import RunRecord, without_secrets
from safeguards.session import Session
from safeguards.supervisor import delay_signals

if TYPE_CHECKING:
    from checks.model import CheckReport
    from rollback.engine import Engine

STATUS = "guard status"


@dataclass(frozen=True, slots=True)
class Request:
    """What the user asked for.

    Attributes:
        argv: The command's words.
        label: What the user calls the run.
        report: Where the record is written as JSON, None for nowhere.
    """

    argv: tuple[str, ...]
    label: str = ""
    report: Path | None = None


class GuardedRun:
    """One guarded run, from preflight to outcome.

    Args:
        session: This call of guard.
        config: The project's configuration.
        request: What to run.
    """

    def __init__(self, session: Session, config: Config, request: Request) -> None:
        self.session = session
        self.terminal = session.terminal
        self.config = config
        self.request = request
        self.record = RunRecord(without_secrets(request.argv), time.time(), label=request.label)
        self.say = narration.Narrator(session, config, self.record)

    def execute(self) -> Answer:
        """Run it all and return the answer; whatever happens, log and report are written.

        Raises:
            BaseException: What no phase expects; the log says that the run failed.
        """
        try:
            with self.record.phase("preflight"):
                concerns = preflight.check(self.config, self.request, self.session.environ)
            self.say.concerns(concerns)
            with self._opened() as engine, contextlib.ExitStack() as begun:
                operation, is_own = self._begin(engine, begun)
                run = self._guarded if is_own else self._within
                answer = run(engine, operation, begun)
        except (GuardError, RollbackError) as error:
            answer = self._failed(error)
        self._write_report(answer)
        return answer

    @contextlib.contextmanager
    def _opened(self) -> Iterator[Engine]:
        try:
            engine = self.session.open_engine(self.config, self.request.argv)
        except StoreUnusable as error:
            raise PreparationFailed(str(error), hint=error.hint) from error
        with engine:
            yield engine

    def _begin(self, engine: Engine, begun: contextlib.ExitStack) -> tuple[Operation, bool]:
        """Return the operation that protects the command, and whether it is this run's own.

        Args:
            engine: The project's.
            begun: Until it is closed, what asks for an end waits: it finds an operation that
                somebody ends.

        Raises:
            StoreBusy: Another operation is at work, and none that this run is inside of.
        """
        intent = {"command": list(self.record.command), "label": self.request.label}
        try:
            self.say.recovered(engine.recover())
            begun.enter_context(delay_signals())
            return engine.begin("run", intent), True
        except StoreBusy as busy:
            around = engine.run_around(busy)
            if around is None:
                raise
            return around, False

    def _within(self, engine: Engine, around: Operation, begun: contextlib.ExitStack) -> Answer:
        from safeguards.within import InnerRun  # noqa: PLC0415 - only inside of another run

        begun.close()
        inner = InnerRun(self.session, self.config, self.record, self.say, around)
        inner.announce(engine)
        self._check(engine)
        engine.close()  # while the command runs, the store is the outer run's alone
        return inner.execute(self.request.argv)

    def _guarded(self, engine: Engine, operation: Operation, begun: contextlib.ExitStack) -> Answer:
        self.record.run_id, self.record.run_seq = operation.id, operation.seq
        try:
            begun.close()
            snapshot = self._snapshot(engine, operation)
            self._check(engine)
            self._drill(engine, snapshot)
            run = attempts.Attempts(self.session, self.config, self.record, self.say)
            return run.execute(engine, operation, snapshot, self.request.argv)
        except BaseException as error:
            expected = isinstance(error, (GuardError, RollbackError))
            self._escalate(engine, error)
            state = "failed" if expected or isinstance(error, Exception) else "interrupted"
            with contextlib.suppress(RollbackError, OSError):
                message = str(error) if expected else type(error).__name__
                engine.finish(operation, state, {**self.record.as_data(), "error": message})
            raise

    def _escalate(self, engine: Engine, error: BaseException) -> None:
        """Say in the record who acts on what prevented the command."""
        trouble = trouble_of_code(getattr(error, "code", ""), self.record)
        if trouble is None or self.record.attempts:
            return
        with contextlib.suppress(RollbackError, OSError):
            run = self.config.run
            ladder = Ladder(self.record, run.retries, run.retry_window_s)
            ladder.settle(trouble, engine.operations(LOOK_BACK))
            rollback = self.session.guard_command("rollback", "--last", config=self.config)
            report = write_escalation(self.record, Path(engine.status().path) / "log", rollback)
            if report is not None:
                self.say.escalated(report)

    def _snapshot(self, engine: Engine, operation: Operation) -> Snapshot:
        with self.record.phase("snapshot"), _prepares("the snapshot"):
            report = engine.snapshot(
                operation, kind="run", label=self.request.label, progress=self.terminal.progress()
            )
        self.record.snapshot_id = report.snapshot.id
        self.record.protected = [
            {
                "resource": state.resource,
                "name": state.name,
                "category": str(state.category),
                "files": state.files,
                "bytes": state.bytes,
            }
            for state in report.snapshot.states
        ]
        self.record.skipped = [*report.snapshot.skipped, *self.session.skips(self.config)]
        self.session.remember_place(self.config)
        self.say.snapshot(report)
        return report.snapshot

    def _check(self, engine: Engine) -> None:
        declared, mode = bool(self.config.declarations), self.config.run.checks
        if mode == "off":
            if not declared:
                return
            self.record.skipped.append(
                Skip("the checks", "they are switched off (--checks off)", "guard check")
            )
            self.say.skip(self.record.skipped[-1])
            return
        from safeguards.checking import Wanted, run_checks  # noqa: PLC0415 - only where wanted
        from safeguards.integrations import ci  # noqa: PLC0415

        with self.record.phase("checks"):
            report = run_checks(self.session, self.config, engine, Wanted(self.request.argv))
        self.record.checks = report
        if declared or report.findings:
            self.say.checks(report)
        ci.publish(report, self.session, self.config.project, to_stderr=True)
        if not report.ok and mode == "enforce":
            raise ChecksFailed(
                _failure(report), hint="correct the inputs, or: guard run --checks warn -- COMMAND"
            )

    def _drill(self, engine: Engine, snapshot: Snapshot) -> None:
        mode = self.config.run.drill
        if mode == "off":
            skip = Skip("the drill", "it is switched off (--drill off)", "guard drill")
            self.record.skipped.append(skip)
            self.say.skip(skip)
            return
        with self.record.phase("drill"), _prepares("the drill"):
            report = engine.drill(
                snapshot, mode=mode, budget_s=self.config.budget_s,
                progress=self.terminal.progress(),
            )  # fmt: skip
        self.record.drill = report
        self.say.drill(report)
        if report.failures:
            raise PreparationFailed(
                f"the rehearsed rollback did not bring everything back: {report.failures[0]}",
                hint="guard verify --repair",
            )
        if not report.passed and self.config.run.over_budget == "error":
            raise PreparationFailed(
                narration.over_budget(report),
                hint="guard run --budget 15m -- COMMAND, or exclude what need not come back",
            )

    def _failed(self, error: GuardError | RollbackError) -> Answer:
        trouble = trouble_of_code(error.code, self.record)
        if trouble is not None and not self.record.trouble:  # it stopped before there was a log
            run = self.config.run
            Ladder(self.record, run.retries, run.retry_window_s).settle(trouble, ())
        problem = Problem(error.code, str(error), error.hint)
        next_command = f"guard show {self.record.run_seq}" if self.record.run_seq else ""
        return Answer("run", self.record, exit_status(error), (problem,), next_command)

    def _write_report(self, answer: Answer) -> None:
        if self.request.report is None:
            return
        try:
            write_report(self.request.report, answer)
        except OSError as error:
            reason = error.strerror or str(error)
            self.terminal.warn(f"the report {self.request.report} was not written: {reason}")


def write_report(path: Path, answer: Answer) -> None:
    """Write an answer's JSON into a file, whole or not at all.

    Raises:
        OSError: It cannot be written there.
    """
    from safeguards.output import to_json  # noqa: PLC0415 - only where it is asked for

    if path.exists() and not path.is_file():  # /dev/stderr, a pipe
        path.write_text(f"{to_json(answer)}\n", encoding="ascii")
        return
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        partial.write_text(f"{to_json(answer)}\n", encoding="ascii")
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


@contextlib.contextmanager
def _prepares(what: str) -> Iterator[None]:
    """Turn failures for which the engine has no better word into "the command was not started"."""
    try:
        yield
    except StoreUnusable as error:
        raise PreparationFailed(str(error), hint=error.hint) from error
    except RestoreIncomplete:
        raise
    except RollbackError as error:
        if error.code != "rollback_failed":
            raise
        raise PreparationFailed(f"{what} failed: {error}", hint=error.hint) from error
    except OSError as error:
        where = f": {error.filename!s}" if error.filename else ""
        raise PreparationFailed(
            f"{what} failed: {error.strerror or error}{where}",
            hint=f"correct that and run it again; {STATUS} shows what is protected",
        ) from error


def _failure(report: CheckReport) -> str:
    """Return one sentence about failed checks; each of them was told already."""
    number = report.failed
    return f"{number} check{'s' if number != 1 else ''} failed, the command was not started"
