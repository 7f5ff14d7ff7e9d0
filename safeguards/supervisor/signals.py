"""Signals as guard receives them: collected through a pipe, never by an exception."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import FrameType, TracebackType
from typing import Any, Self

from safeguards.supervisor.model import Outcome

ASK_TO_STOP = frozenset({signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGHUP})
"""Signals by which a person or the system asks for an end."""

_JOB_CONTROL = frozenset({signal.SIGCONT, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU})
_NOTICES = frozenset(
    {
        signal.SIGUSR1,
        signal.SIGUSR2,
        signal.SIGALRM,
        signal.SIGURG,
        signal.SIGXCPU,
        signal.SIGWINCH,
        signal.SIGIO,
        signal.SIGPWR,
    }
)


def passed_on() -> frozenset[int]:
    """Return the signals that are passed on to the child when guard alone received them.

    Those that a process raises against itself (SEGV, PIPE, VTALRM …) are not among them, nor is
    what was ignored when guard started (it stays ignored, as under `nohup`) or is handled by C
    code of which Python knows nothing.
    """
    real_time = {n for n in signal.valid_signals() if n >= signal.SIGRTMIN}
    candidates = ASK_TO_STOP | _JOB_CONTROL | _NOTICES | real_time
    return frozenset(
        int(n) for n in candidates if signal.getsignal(n) not in {signal.SIG_IGN, None}
    )


def _noted(_signum: int, _frame: FrameType | None) -> None:
    """Do nothing: the wakeup pipe has the number already."""


class Intake:
    """While it is open, signals arrive as bytes on `fd`, whichever thread receives them.

    Handlers and a wakeup pipe rather than a blocked mask: libraries start threads that do not
    inherit a mask set later, and the kernel gives a process-wide signal to any thread that
    takes it.
    """

    def __init__(self) -> None:
        self.signals = passed_on()
        self.fd = -1
        self._write_fd = -1
        self._old_fd = -1
        self._old: dict[int, Any] = {}

    def __enter__(self) -> Self:
        self.fd, self._write_fd = os.pipe()
        os.set_blocking(self.fd, False)
        os.set_blocking(self._write_fd, False)
        self._old_fd = signal.set_wakeup_fd(self._write_fd, warn_on_full_buffer=False)
        # SIGCHLD even where it is ignored: an ignored one makes the kernel drop exit statuses.
        for number in (*self.signals, signal.SIGCHLD):
            self._old[number] = signal.signal(number, _noted)
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        for number, handler in self._old.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        signal.set_wakeup_fd(self._old_fd)
        os.close(self._write_fd)
        os.close(self.fd)

    def drain(self) -> bytes:
        """Return the numbers of the signals that arrived since the last call."""
        arrived = bytearray()
        with contextlib.suppress(BlockingIOError):
            while chunk := os.read(self.fd, 4096):
                arrived += chunk
        return bytes(arrived)

    def stop_guard(self, number: int) -> None:
        """Stop guard itself by a job-control signal; returns when it was continued.

        Thread-directed, so that it takes effect before the handler is back. Where the
        process group is orphaned the kernel ignores it and this returns at once.
        """
        if number not in self.signals:
            return
        signal.signal(number, signal.SIG_DFL)
        signal.pthread_kill(_main_thread(), number)
        signal.signal(number, _noted)


def _main_thread() -> int:
    import threading  # noqa: PLC0415 - only where a job is stopped

    return threading.main_thread().ident or threading.get_ident()


@dataclass(slots=True)
class Held:
    """Requests to stop that arrived while they were held, in order."""

    received: list[int] = field(default_factory=list)

    def pass_on(self, pid: int) -> None:
        """Pass on what asked for an end just before there was a command to end."""
        while self.received:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, self.received.pop())


@contextlib.contextmanager
def hold_signals() -> Iterator[Held]:
    """Note INT, QUIT, TERM and HUP instead of acting on them.

    For what has to be completed after the command ended, however often Ctrl-C is pressed:
    recording the outcome, closing the journal. Processes started meanwhile get the defaults.

    Yields:
        What arrived so far; the caller decides what to do about it afterwards.
    """
    held = Held()

    def note(signum: int, _frame: FrameType | None) -> None:
        held.received.append(signum)

    old = {
        number: signal.signal(number, note)
        for number in ASK_TO_STOP
        if signal.getsignal(number) not in {signal.SIG_IGN, None}
    }
    try:
        yield held
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def delay_signals() -> Iterator[None]:
    """Let what asks for an end wait for the end of a block, unless that fails."""
    with hold_signals() as held:
        yield
    for number in held.received:
        signal.raise_signal(number)


def reraise_interrupt(outcome: Outcome) -> None:
    """Die of SIGINT where the command died of the terminal's; else return.

    A shell ends a loop (``for seed in 1 2 3; do guard run …; done``) at Ctrl-C only when the
    program died of the signal: exit status 130 alone tells it that the program dealt with it, and
    the next seed starts. ``$?`` is 130 either way. To be called last, by whoever exits.
    """
    if outcome.terminal_interrupt:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        signal.raise_signal(signal.SIGINT)
