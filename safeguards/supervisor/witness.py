"""The witness: a process in guard's group that says which signals everyone received.

Its name tells it from guard and from the command (``pkill -f 'guard run'`` must reach guard
alone), it holds none of guard's descriptors, and it ends when guard does, however that comes
about, because its standard input ends.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import time
from collections import defaultdict
from collections.abc import Iterable
from types import TracebackType
from typing import Self

_PROGRAM = """\
import os, signal, sys
os.set_blocking(1, False)
signal.set_wakeup_fd(1, warn_on_full_buffer=False)
for number in map(int, sys.argv[1].split(",")):
    signal.signal(number, lambda *_: None)
signal.pthread_sigmask(signal.SIG_SETMASK, ())
os.write(1, bytes(1))
os.read(0, 1)
"""
_SETTLE_S = 0.03
_START_S = 1.0
_STALE_S = 1.0
_KEYBOARD = frozenset(
    {
        signal.SIGINT,
        signal.SIGQUIT,
        signal.SIGTSTP,
        signal.SIGTTIN,
        signal.SIGTTOU,
        signal.SIGWINCH,
    }
)


class Witness:
    """Tells whether a signal that guard received was for the whole group.

    Args:
        signals: Numbers to watch.
        inheritable: Descriptors above 2 that would be inherited and must not be held.
    """

    def __init__(self, signals: Iterable[int], inheritable: Iterable[int]) -> None:
        self.pid: int | None = None
        self._signals = tuple(sorted(signals))
        self._inheritable = tuple(inheritable)
        self._report_fd = -1
        self._life_fd = -1
        self._ready = self._silent = False
        self._reported: dict[int, list[float]] = defaultdict(list)
        self._last_shared: dict[int, float] = {}

    def __enter__(self) -> Self:
        if self._signals and sys.executable:
            self._start()
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        if self.pid is not None:
            with contextlib.suppress(ProcessLookupError, ChildProcessError):
                os.kill(self.pid, signal.SIGKILL)
                os.waitpid(self.pid, 0)
            self.lost()

    def lost(self) -> None:
        """Note that the witness is gone; `shared` judges by the kind of signal from now on."""
        self.pid = None
        for fd in (self._report_fd, self._life_fd):
            os.close(fd)

    def shared(self, signum: int) -> bool:
        """Return whether everyone in the group received this signal, not guard alone.

        Waits some hundredths of a second for the witness, longer while it still starts.
        """
        if self.pid is None or self._silent:
            return signum in _KEYBOARD and _in_foreground()
        now = time.monotonic()
        if now - self._last_shared.get(signum, -_STALE_S) < _SETTLE_S:
            # Of several in quick succession the kernel may have merged some for the witness.
            self._take(signum)
            return True
        give_up = now + _START_S
        settled = now + _SETTLE_S
        while not self._take(signum):
            if self._silent:
                return signum in _KEYBOARD and _in_foreground()
            now = time.monotonic()
            pending, idle = _look(self.pid, signum)
            if now >= give_up and pending:
                break  # it was sent to the witness too, which got no time to say so
            if now >= give_up or (now >= settled and self._ready and idle and not pending):
                return False
            select.select([self._report_fd], [], [], 0.005 if now >= settled else settled - now)
        self._last_shared[signum] = time.monotonic()
        return True

    def _start(self) -> None:
        life_read, self._life_fd = os.pipe()
        self._report_fd, report_write = os.pipe()
        os.set_blocking(self._report_fd, False)
        actions: list[tuple[int, ...] | tuple[int, int, str, int, int]] = [
            (os.POSIX_SPAWN_DUP2, life_read, 0),
            (os.POSIX_SPAWN_DUP2, report_write, 1),
            (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0),
            *((os.POSIX_SPAWN_CLOSE, fd) for fd in self._inheritable),
        ]
        argv = [sys.executable, "-I", "-S", "-c", _PROGRAM, ",".join(map(str, self._signals))]
        # Blocked until it can report them: a signal that comes before that is not lost.
        try:
            self.pid = os.posix_spawn(
                sys.executable,
                argv,
                {k: v for k, v in os.environ.items() if k == "LD_LIBRARY_PATH"},
                file_actions=actions,
                setsigmask=self._signals,
            )
        except OSError:
            os.close(self._report_fd)
            os.close(self._life_fd)
        finally:
            os.close(life_read)
            os.close(report_write)

    def _take(self, signum: int) -> bool:
        now = time.monotonic()
        with contextlib.suppress(BlockingIOError):
            report = os.read(self._report_fd, 4096)
            self._ready |= bool(report)
            self._silent = not report  # it was ended
            for number in report:
                self._reported[number].append(now)
        reported = self._reported[signum]
        while reported and now - reported[0] > _STALE_S:
            reported.pop(0)
        if reported:
            reported.pop(0)
            return True
        return False


def _look(pid: int, signum: int) -> tuple[bool, bool]:
    """Return whether a signal waits for a process, and whether the process waits for one."""
    pending, idle = False, True
    with contextlib.suppress(OSError), open(f"/proc/{pid}/status", encoding="utf-8") as status:
        for line in status:
            if line.startswith("State:"):
                idle = line.split()[1] == "S"
            elif line.startswith("ShdPnd:"):
                pending = bool(int(line.split()[1], 16) >> (signum - 1) & 1)
    return pending, idle


def _in_foreground() -> bool:
    try:
        terminal = os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY)
    except OSError:
        return False
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:
        return False
    finally:
        os.close(terminal)
