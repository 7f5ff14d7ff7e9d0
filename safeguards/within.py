"""A run inside another one of the same project: the state is that one's, all else is as ever.

A Makefile, a stage of DVC, a hook or a coding agent that wraps each command starts guard below
guard. The outer run has the lock, the snapshot and the way back; the inner one takes none of them a
second time. It says so, holds its checks and limits, and is as transparent as any.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rollback.coverage import not_taken
from rollback.model import Operation, Skip
from safeguards.config import Config
from safeguards.escalation import Trouble
from safeguards.ladder import Ladder, trouble_of
from safeguards.narration import Narrator, how_it_ended
from safeguards.output import Answer, Problem
from safeguards.preload import preload
from safeguards.record import RunRecord, Within
from safeguards.render.paths import command_line
from safeguards.session import Session
from safeguards.supervisor import Limits, hold_signals, reraise_interrupt, supervise

if TYPE_CHECKING:
    from rollback.engine import Engine

_WIDTH = 60


class InnerRun:
    """A command that runs under the protection of a run around it.

    Args:
        session: This call of guard.
        config: The project's configuration.
        record: The inner run, filled in here.
        say: Tells the story.
        around: The run around it, in whose tree of processes this one is.
    """

    def __init__(
        self,
        session: Session,
        config: Config,
        record: RunRecord,
        say: Narrator,
        around: Operation,
    ) -> None:
        self.session = session
        self.config = config
        self.record = record
        self.say = say
        self.around = around
        self.name = f"run {around.seq}"

    def announce(self, engine: Engine) -> None:
        """Say whose protection counts, and what of this run is not had inside of another."""
        snapshot = engine.find_snapshot(str(self.around.data["snapshot_id"]))
        self.record.within = Within(self.around.id, self.around.seq)
        self.record.snapshot_id = snapshot.id
        command = command_line(self.around.data.get("command", ()), _WIDTH)
        self._skip(
            "snapshot and drill",
            f"already protected by {self.name} ({command}, pid {self.around.data['owner']['pid']})",
            f"guard rollback --last, once {self.name} has ended",
        )
        for skip in self.session.skips(self.config):
            self.record.skipped.append(skip)
            self.say.skip(skip)
        for what in not_taken(snapshot, engine.inspect()):
            self._skip(
                what,
                f"{self.name} around this one did not take it, and cannot put it back",
                f"start it outside of {self.name}",
            )
        for what in self._restoring():
            self._skip(
                what,
                f"what is put back, and when, is decided by {self.name} around this one",
                f"guard run --on-failure rollback around it, or start it outside of {self.name}",
            )
        preload(state.location for state in snapshot.states)

    def execute(self, argv: Sequence[str]) -> Answer:
        """Run the command; its exit status is passed on.

        Raises:
            GuardError: It could not be started.
        """
        run = self.config.run
        ladder = Ladder(self.record, 0, run.retry_window_s)
        limits = Limits(
            timeout_s=run.timeout_s, max_memory_share=run.max_memory, release_pipes=True
        )
        with hold_signals() as held, self.record.phase("run"):
            outcome = supervise(
                argv, environ=self.session.environ, limits=limits, on_start=held.pass_on
            )
        with hold_signals():  # nobody's Ctrl-C may lose the outcome
            self.record.attempts = 1
            self.record.child_exit, self.record.elapsed_s = outcome.status, outcome.elapsed_s
            ladder.note(outcome)
            ladder.settle(None, ())
            self.session.last_words.append(lambda: reraise_interrupt(outcome))
            self.say.ended(outcome)
            if outcome.status and self._restoring():
                self.session.terminal.warn(f"nothing was put back: that is for {self.name}")
        if outcome.status == 0:
            return Answer("run", self.record)
        told = f"{self.record.command[0]} {how_it_ended(outcome)}"
        code = str(trouble_of(outcome) or Trouble.COMMAND_FAILED)
        hint = f"guard rollback --last, once {self.name} has ended"
        return Answer("run", self.record, outcome.status, (Problem(code, told, hint, told=True),))

    def _restoring(self) -> list[str]:
        """Return what was asked for that would put the state from before back."""
        run = self.config.run
        wanted = {
            "the rollback on failure": run.on_failure != "keep",
            "the retries": run.retries > 0,
        }
        return [what for what, is_wanted in wanted.items() if is_wanted]

    def _skip(self, what: str, why: str, fix: str) -> None:
        self.record.skipped.append(Skip(what, why, fix))
        self.say.skip(self.record.skipped[-1])
