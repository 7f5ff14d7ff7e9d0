"""One guard operation at a time: `flock`, with the owner written down for people."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import sys
import time
from collections.abc import Mapping
from typing import Any

from rollback.errors import StoreBusy

_DYING_S = 2.0
_LOOKS = 20


def boot_id() -> str:
    """Return the kernel's name of this boot, so that a pid of an earlier one is not trusted."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""


def process_start(pid: int) -> int:
    """Return when a process started, in clock ticks since boot; 0 where it is gone."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return int(file.read().rpartition(b")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return 0


def owner() -> dict[str, Any]:
    """Return who this process is: pid, its start, the boot, and the command for people."""
    return {
        "pid": os.getpid(),
        "start": process_start(os.getpid()),
        "boot": boot_id(),
        "command": " ".join(["guard", *sys.argv[1:4]]),
    }


def is_alive(who: Mapping[str, Any]) -> bool:
    """Return whether the process that `owner` described is still the same running one."""
    pid = int(who.get("pid", 0))
    return (
        pid > 0
        and who.get("boot") == boot_id()
        and process_start(pid) == who.get("start")
        and process_start(pid) != 0
    )


def ancestors() -> list[tuple[int, int]]:
    """Return the processes that this one descends from, the nearest first: pid and start.

    As the kernel has it, whatever session, group or terminal a process is in: who lost its parent
    hangs below the nearest subreaper (``prctl(2)``), and a guarded run is one. What lies
    outside of a container is not seen from inside.
    """
    for _ in range(_LOOKS):
        found = _line_of_descent()
        if found is not None:
            return found
    return []


def is_ancestor(who: Mapping[str, Any]) -> bool:
    """Return whether this process descends from the one that `owner` described."""
    return who.get("boot") == boot_id() and (who.get("pid"), who.get("start")) in ancestors()


def _line_of_descent() -> list[tuple[int, int]] | None:
    """Return the ancestors; None where one of them ended meanwhile, and they are others by now."""
    found: list[tuple[int, int]] = []
    name, youngest = "self", sys.maxsize
    while True:
        try:
            with open(f"/proc/{name}/stat", "rb") as file:
                fields = file.read().rpartition(b")")[2].split()
            parent, start = int(fields[1]), int(fields[19])
        except (OSError, ValueError, IndexError):
            return None
        if start > youngest:  # a pid that was given anew while it was looked at
            return None
        if name != "self":
            found.append((int(name), start))
        if not parent:
            return found
        name, youngest = str(parent), start


class StoreLock:
    """The exclusive lock of a store; the kernel frees it when its holder dies.

    One operation may run inside another (the rollback of a failed run): the lock is counted, and
    free when as many have given it back as took it.

    Args:
        path: Absolute path of the lock file; created 0600.
    """

    def __init__(self, path: bytes) -> None:
        self.path = path
        self._fd = -1
        self.depth = 0

    @property
    def held(self) -> bool:
        """Whether this process holds the lock."""
        return self._fd >= 0

    def acquire(self) -> None:
        """Take the lock, without waiting but for the workers of an owner that was just killed.

        Raises:
            StoreBusy: Another process holds it; the message names its pid and command.
        """
        if self._fd >= 0:
            self.depth += 1
            return
        fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        if not _lock(fd):
            text = os.pread(fd, 4096, 0)
            os.close(fd)
            raise _busy(text)
        # On a full disk the owner's name cannot be written; the lock holds all the same.
        with contextlib.suppress(OSError):
            text = json.dumps(owner()).encode()
            os.pwrite(fd, text.ljust(512), 0)
        self._fd = fd
        self.depth = 1

    def refuse_if_busy(self) -> None:
        """Say at once that somebody else is at work, before long preparations or a question.

        Raises:
            StoreBusy: Another process holds the lock.
        """
        self.acquire()
        self.release()

    def release(self) -> None:
        """Give the lock back once; a no-op where it is not held."""
        self.release_to(self.depth - 1)

    def release_to(self, depth: int) -> None:
        """Give the lock back until it is held `depth` times."""
        self.depth = max(0, min(self.depth, depth))
        if not self.depth and self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _lock(fd: int) -> bool:
    """Take the lock of an open file; return False where somebody else has it.

    The workers of an owner that was killed have it for as long as the kernel takes to end them.
    """
    deadline = time.monotonic() + _DYING_S
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline or not _is_dead(os.pread(fd, 4096, 0)):
                return False
            time.sleep(0.01)
        else:
            return True


def _busy(text: bytes) -> StoreBusy:
    """Return the error that names who has the lock."""
    who = _read(text)
    if is_ancestor(who):
        return StoreBusy(
            f"the guard operation around this command holds the store: {_describe(who)}",
            hint="type it again when that has ended; guard status, log and diff work meanwhile",
            owner=who,
        )
    return StoreBusy(
        f"another guard operation is at work here: {_describe(who)}",
        hint="wait for it to end, or end it; guard status shows what it does",
        owner=who,
    )


def _is_dead(text: bytes) -> bool:
    """Return whether the owner is written down whole, and gone."""
    who = _read(text)
    try:
        return {"pid", "start", "boot"} <= who.keys() and not is_alive(who)
    except (ValueError, TypeError):
        return False


def _read(text: bytes) -> Mapping[str, Any]:
    try:
        who = json.loads(text.strip(b" \0") or b"{}")
    except ValueError:
        return {}
    return who if isinstance(who, dict) else {}


def _describe(who: Mapping[str, Any]) -> str:
    if not {"pid", "command"} <= who.keys():
        return "its owner is not written down"
    return f"pid {who['pid']}, {who['command']}"
