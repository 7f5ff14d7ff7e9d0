"""The process tree below guard: who belongs to it, and how all of it is ended."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from safeguards.supervisor.model import Process

_PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h
_PAUSE_S = 0.05
_KILL_WAIT_S = 5.0
_GONE = frozenset("ZXx")


@dataclass(frozen=True, slots=True)
class _Row:
    process: Process
    parent_pid: int
    alive: bool


def become_subreaper() -> bool:
    """Let orphans below guard become guard's children (``prctl(2)``); whether it worked."""
    import ctypes  # noqa: PLC0415 - only where a command is started

    try:
        prctl = ctypes.CDLL(None, use_errno=True).prctl
    except (OSError, AttributeError):
        return False
    return bool(prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0)


def identify(pid: int) -> Process | None:
    """Return the process that has this number now, or None where there is none alive."""
    row = _read(pid)
    return row.process if row and row.alive else None


def is_running(process: Process) -> bool:
    """Return whether this very process, not a later one with its number, is alive."""
    found = identify(process.pid)
    return found is not None and found.started_ticks == process.started_ticks


def is_stopped(pid: int) -> bool:
    """Return whether a process is stopped by job control."""
    with contextlib.suppress(OSError, IndexError), open(f"/proc/{pid}/stat", "rb") as stat:
        return stat.read().rpartition(b")")[2].split()[0] == b"T"
    return False


class Tree:
    """Everything that descends from guard, except what guard started for itself.

    Args:
        roots: Processes that belong to it wherever they hang now, with their descendants.
        spared: Children of guard that do not belong to it; by default none.
    """

    def __init__(self, roots: Iterable[Process] = (), spared: Iterable[Process] = ()) -> None:
        self._known = {(p.pid, p.started_ticks) for p in roots}
        self._spared = {(p.pid, p.started_ticks) for p in spared}

    def members(self) -> tuple[Process, ...]:
        """Return the members that are alive, by one pass over ``/proc``."""
        rows = {row.process.pid: row for row in _scan()}
        children: dict[int, list[int]] = defaultdict(list)
        for row in rows.values():
            children[row.parent_pid].append(row.process.pid)
        todo = [pid for pid, ticks in self._known if pid in rows and _ticks(rows[pid]) == ticks]
        todo += children[os.getpid()]
        found: dict[int, _Row] = {}
        while todo:
            pid = todo.pop()
            row = rows[pid]
            if pid in found or pid == os.getpid() or (pid, _ticks(row)) in self._spared:
                continue
            found[pid] = row
            todo += children[pid]
        # What was once a member stays one, though its parent ends and it hangs elsewhere.
        self._known |= {(pid, _ticks(row)) for pid, row in found.items()}
        return tuple(row.process for row in found.values() if row.alive)

    def ended_children(self) -> tuple[Process, ...]:
        """Return the members that ended and that guard, as their parent, has to wait for."""
        return tuple(
            row.process
            for row in _scan()
            if row.parent_pid == os.getpid()
            and not row.alive
            and (row.process.pid, _ticks(row)) not in self._spared
        )

    def end(self, *, grace_s: float, pause: Callable[[float], object]) -> tuple[Process, ...]:
        """End all members: SIGTERM, after `grace_s` seconds SIGKILL, also for new ones.

        Args:
            grace_s: Seconds between the two.
            pause: Called with seconds to wait; it reaps guard's children.

        Returns:
            Those that were told to end. `members` says whether any withstood (another user's,
            or one that hangs in the kernel): this gives up five seconds after SIGKILL.
        """
        told: dict[tuple[int, int], Process] = {}
        kill_at = time.monotonic() + grace_s
        while alive := self.members():
            now = time.monotonic()
            if now >= kill_at + _KILL_WAIT_S:
                break
            for process in alive:
                key = (process.pid, process.started_ticks)
                if now >= kill_at:
                    send(process, signal.SIGKILL)
                elif key not in told:
                    send(process, signal.SIGTERM)
                    send(process, signal.SIGCONT)  # a stopped one would not see the first
                told[key] = process
            pause(_PAUSE_S)
        return tuple(told.values())


def end_tree(processes: Iterable[Process], *, grace_s: float = 10.0) -> tuple[Process, ...]:
    """End these processes and all their descendants; for what a command left, before a rollback.

    Children of guard that are not among them are spared: call it before guard starts any others,
    so that what those processes start while they end is told apart.

    Args:
        processes: `Outcome.left_over`, or identities recorded by an earlier guard.
        grace_s: Seconds between SIGTERM and SIGKILL.

    Returns:
        Those that are still alive in spite of it; empty when all ended.
    """
    roots = tuple(processes)
    mine = {(p.pid, p.started_ticks) for p in roots}
    tree = Tree(roots, spared=(c for c in children() if (c.pid, c.started_ticks) not in mine))

    def pause(seconds: float) -> None:
        time.sleep(seconds)
        for process in tree.ended_children():
            with contextlib.suppress(ChildProcessError):
                os.waitpid(process.pid, os.WNOHANG)

    tree.end(grace_s=grace_s, pause=pause)
    pause(0.0)
    return tree.members()


def children() -> tuple[Process, ...]:
    """Return the children of guard, ended ones that were not waited for included."""
    return tuple(row.process for row in _scan() if row.parent_pid == os.getpid())


def resident_bytes(processes: Iterable[Process]) -> int:
    """Return the sum of the resident sizes of these processes (``/proc/<pid>/statm``)."""
    pages = 0
    for process in processes:
        with contextlib.suppress(OSError), open(f"/proc/{process.pid}/statm", "rb") as statm:
            pages += int(statm.read().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def send(process: Process, signum: int) -> None:
    """Signal this very process; one that is gone, or is another user's, is passed over."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        handle = os.pidfd_open(process.pid)
        try:
            if is_running(process):
                signal.pidfd_send_signal(handle, signum)
        finally:
            os.close(handle)


def _ticks(row: _Row) -> int:
    return row.process.started_ticks


def _scan() -> list[_Row]:
    return [row for name in os.listdir("/proc") if name.isdigit() and (row := _read(int(name)))]


def _read(pid: int) -> _Row | None:
    try:
        with open(f"/proc/{pid}/stat", "rb") as stat:
            head, _, tail = stat.read().rpartition(b")")
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return None
    fields = tail.split()
    name = head.partition(b"(")[2].decode("utf-8", "backslashreplace")
    process = Process(pid, int(fields[19]), name)
    return _Row(process, int(fields[1]), fields[0].decode() not in _GONE)
