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
            raise StoreBusy(
                f"another guard operation is at work here: {_describe(text)}",
                hint="wait for it to end, or end it; guard status shows what it does",
            )
        # On a full disk the owner's name cannot be written; the lock holds all the same.
        with contextlib.suppress(OSError):
            text = json.dumps(owner()).encode()
            os.pwrite(fd, text.ljust(512), 0)
        self._fd = fd
        self.depth = 1

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


def _is_dead(text: bytes) -> bool:
    """Return whether the owner is written down whole, and gone."""
    try:
        who = json.loads(text.strip(b" \0") or b"{}")
        return {"pid", "start", "boot"} <= who.keys() and not is_alive(who)
    except (ValueError, TypeError, AttributeError):
        return False


def _describe(text: bytes) -> str:
    try:
        who = json.loads(text.strip(b" \0") or b"{}")
        return f"pid {who['pid']}, {who['command']}"
    except (ValueError, KeyError, TypeError):
        return "its owner is not written down"
