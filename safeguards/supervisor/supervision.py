"""One supervised command, from its start to the last of its processes."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from safeguards.errors import InternalFailure
from safeguards.supervisor import launch, memory
from safeguards.supervisor import tree as processes
from safeguards.supervisor.model import Limits, Outcome, Process
from safeguards.supervisor.signals import ASK_TO_STOP, Intake
from safeguards.supervisor.witness import Witness

_TIMED_OUT = 124
_SIGNALLED = 128
_SETTLE_S = 0.2
_STOP_SETTLE_S = 0.02
_MEMORY_GRACE_S = 3.0  # a tree that eats the machine gets less time than one that is late
_MEMORY_STRIKES = 2
_JOB_CONTROL = frozenset({signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU})


def supervise(
    argv: Sequence[str],
    *,
    environ: Mapping[str, str],
    cwd: Path | None = None,
    limits: Limits | None = None,
    on_start: Callable[[int], None] | None = None,
) -> Outcome:
    """Run a command as if guard were not there, and say how it ended.

    To be called in the main thread (Python allows signal handlers nowhere else), while guard has
    no other child of its own that may end: every child is waited for here.

    Args:
        argv: The command and its arguments; looked up on the PATH of `environ`.
        environ: Exactly the environment of the command.
        cwd: Where it starts; by default where guard is.
        limits: Timeout, memory limit, and what happens to the tree.
        on_start: Called with the pid once the command runs. It must not raise: the tree is then
            ended and the error goes on to the caller.

    Returns:
        The outcome. `Outcome.left_over` still runs, and stays below guard while guard lives.

    Raises:
        CommandNotFound: Nothing was started (exit status 127).
        CommandNotExecutable: Nothing was started (126).
        WrongUsage: `cwd` does not exist.
        InternalFailure: The system cannot start a process.
    """
    chosen = limits or Limits()
    launch.reserve_standard_streams()
    processes.become_subreaper()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, OSError, ValueError):
            stream.flush()
    spared = processes.children()
    with Intake() as intake, Witness(intake.signals, launch.inheritable_descriptors()) as witness:
        if witness.pid is not None and (found := processes.identify(witness.pid)):
            spared = (*spared, found)
        early = intake.drain()
        child = launch.start(argv, environ, cwd)
        supervision = _Supervision(child, chosen, intake, witness, processes.Tree(spared=spared))
        try:
            supervision.forward(early)
            if chosen.release_pipes:
                launch.release_pipes()
            if on_start is not None:
                on_start(child.pid)
            return supervision.run()
        except BaseException:
            supervision.end_all(chosen.grace_s)
            raise
        finally:
            # The status was taken by os.waitpid: Popen must not warn that nobody did.
            child.returncode = 0


class _Supervision:
    def __init__(
        self,
        child: subprocess.Popen[bytes],
        limits: Limits,
        intake: Intake,
        witness: Witness,
        tree: processes.Tree,
    ) -> None:
        self.pid = child.pid
        self.limits = limits
        self.intake = intake
        self.witness = witness
        self.tree = tree
        self.started = time.monotonic()
        self.ended_at = 0.0
        self.deadline = self.started + limits.timeout_s if limits.timeout_s is not None else None
        self.sample_at = self.started if limits.max_memory_share is not None else None
        self.wait_status: int | None = None
        self.ending = False
        self.timed_out = self.interrupted = self.shared_interrupt = False
        self.ended: tuple[Process, ...] = ()
        self.strikes = 0
        self.peak_bytes: int | None = None
        self.exceeded_share: float | None = None
        self.poll = select.poll()
        self.poll.register(intake.fd, select.POLLIN)

    def run(self) -> Outcome:
        """Wait for the child, and return its outcome when it and its tree are accounted for."""
        while self.wait_status is None:
            due = [at for at in (self.deadline, self.sample_at) if at is not None]
            self.turn(min(due) - time.monotonic() if due else None)
            if self.wait_status is None:
                self._hold_to_limits()
        left_over = self._settle()
        if left_over and self.limits.kill_left_over:
            self.ended += self.end_all(self.limits.grace_s)
            left_over = self.tree.members()
        self._reap()  # what ended since it was last looked for
        return self._outcome(left_over)

    def turn(self, timeout_s: float | None) -> None:
        """Wait for a signal, a child or the timeout, and deal with what came."""
        # Rounded up: poll() counts whole milliseconds, and must not spin through the last one.
        self.poll.poll(None if timeout_s is None else max(0, int(timeout_s * 1000) + 1))
        for number in self.intake.drain():
            if number != signal.SIGCHLD:
                self._deal(number)
        stopped_by = self._reap()
        if stopped_by is not None and not self.ending:
            self._follow_stop(stopped_by)

    def forward(self, numbers: bytes) -> None:
        """Pass on what arrived before there was a child to receive it."""
        for number in numbers:
            if number in self.intake.signals:
                self.interrupted |= number in ASK_TO_STOP
                self._send(number)

    def end_all(self, grace_s: float) -> tuple[Process, ...]:
        """End the tree; return the processes beside the child that had to be told."""
        self.ending = True
        told = self.tree.end(grace_s=grace_s, pause=self.turn)
        return tuple(process for process in told if process.pid != self.pid)

    def _deal(self, number: int) -> None:
        self.interrupted |= number in ASK_TO_STOP
        shared = self.witness.shared(number)
        self.shared_interrupt |= shared and number == signal.SIGINT
        if not (shared and self._in_our_group()):
            self._send(number)

    def _in_our_group(self) -> bool:
        try:
            return os.getpgid(self.pid) == os.getpgrp()
        except ProcessLookupError:
            return True

    def _send(self, number: int) -> None:
        # Not yet waited for, so that the number cannot belong to anybody else.
        if self.wait_status is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(self.pid, number)

    def _reap(self) -> int | None:
        """Wait for all children that changed; return the signal that stopped the child, if any."""
        stopped_by = None
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG | os.WUNTRACED)
            except ChildProcessError:
                if self.wait_status is None:
                    raise InternalFailure(
                        "the command's exit status was taken by another part of guard",
                        hint="run `guard status`, and report this with the log file",
                    ) from None
                break
            if pid == 0:
                break
            if pid == self.pid and os.WIFSTOPPED(status):
                stopped_by = os.WSTOPSIG(status)
            elif pid == self.pid:
                self.wait_status, self.ended_at = status, time.monotonic()
            elif pid == self.witness.pid and not os.WIFSTOPPED(status):
                self.witness.lost()
        return stopped_by

    def _follow_stop(self, number: int) -> None:
        """Stop as the child did, so that a job-control shell gets its terminal back."""
        # A group that is stopped and continued at once reaches guard first: look again.
        time.sleep(_STOP_SETTLE_S)
        if not processes.is_stopped(self.pid) or not _has_terminal():
            return
        since = time.monotonic()
        self.intake.stop_guard(number if number in _JOB_CONTROL else signal.SIGTSTP)
        stopped_s = time.monotonic() - since
        if self.deadline is not None:
            self.deadline += stopped_s

    def _hold_to_limits(self) -> None:
        now = time.monotonic()
        if self.deadline is not None and now >= self.deadline:
            self.timed_out = True
            self.ended += self.end_all(self.limits.grace_s)
            self.deadline = self.sample_at = None
        elif self.sample_at is not None and now >= self.sample_at:
            self.sample_at = now + self.limits.sample_interval_s
            self._sample()

    def _sample(self) -> None:
        limit = self.limits.max_memory_share
        share = memory.memory_share()
        used = processes.resident_bytes(self.tree.members())
        self.peak_bytes = max(self.peak_bytes or 0, used)
        self.strikes = self.strikes + 1 if limit is not None and share > limit else 0
        if self.strikes >= _MEMORY_STRIKES:
            self.exceeded_share = share
            self.ended += self.end_all(min(self.limits.grace_s, _MEMORY_GRACE_S))
            self.deadline = self.sample_at = None

    def _settle(self) -> tuple[Process, ...]:
        """Return what is left of the tree, after a moment for what is ending anyway."""
        until = time.monotonic() + _SETTLE_S
        while (left := self.tree.members()) and (rest := until - time.monotonic()) > 0:
            self.turn(min(rest, 0.05))
        return left

    def _outcome(self, left_over: tuple[Process, ...]) -> Outcome:
        code = os.waitstatus_to_exitcode(self.wait_status or 0)
        number = -code if code < 0 else None
        status = _SIGNALLED + number if number is not None else code
        return Outcome(
            status=_TIMED_OUT if self.timed_out else status,
            signal=number,
            timed_out=self.timed_out,
            memory_exceeded=self.exceeded_share is not None,
            interrupted=self.interrupted,
            terminal_interrupt=self.shared_interrupt and number == signal.SIGINT,
            elapsed_s=self.ended_at - self.started,
            peak_memory_bytes=self.peak_bytes,
            memory_share=self.exceeded_share,
            left_over=left_over,
            ended=self.ended,
        )


def _has_terminal() -> bool:
    """Return whether guard has a controlling terminal, from which it could be continued."""
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY))
    except OSError:
        return False
    return True
