"""One guard operation at a time: `flock`, with the owner written down for people."""

from __future__ import annotations

import contextlib
import fcntl
import glob
import hashlib
import json
import os
import sys
import time
from collections.abc import Iterator, Mapping
from typing import Any

from rollback.errors import StoreBusy

_DYING_S = 2.0
_OTHERS_S = 10.0
"""How long an operation waits for one of another project that writes into the same store."""
_BACK_S = 60.0
"""How long a run waits for that once its command has ended, and it has something to do there."""
_DIGITS = 16
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


def pid_namespace() -> str:
    """Return the kernel's name of the numbering of processes that this one sees; empty if none."""
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


def owner() -> dict[str, Any]:
    """Return who this process is: pid, its start, the boot, and the command for people."""
    return {
        "namespace": pid_namespace(),
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


class _LockFile:
    """One file that is locked, with its owner written into it; created 0600."""

    def __init__(self, path: bytes) -> None:
        self.path = path
        self._fd = -1

    @property
    def held(self) -> bool:
        return self._fd >= 0

    def take(self, wait_s: float = 0.0, *, create: int = os.O_CREAT) -> None:
        """Take the lock; a no-op where it is held.

        Raises:
            StoreBusy: Another process holds it; the message names its pid and command.
        """
        if self.held:
            return
        fd = os.open(self.path, os.O_RDWR | create | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        if not _lock(fd, wait_s):
            text = os.pread(fd, 4096, 0)
            os.close(fd)
            raise _busy(text)
        # On a full disk the owner's name cannot be written; the lock holds all the same.
        with contextlib.suppress(OSError):
            text = json.dumps(owner()).encode()
            os.pwrite(fd, text.ljust(512), 0)
        self._fd = fd

    def drop(self) -> None:
        if self.held:
            os.close(self._fd)
            self._fd = -1


class StoreLock:
    """The exclusive lock of a store and of one project in it; freed when its holder dies.

    A store may serve several projects. What writes into it has the store alone; while a guarded
    command runs, nothing is written, and the run is `parked`: it keeps its project's lock and lets
    other projects have the store.

    One operation may run inside another (the rollback of a failed run): the lock is counted, and
    free when as many have given it back as took it.

    Args:
        path: Absolute path of the store's lock file; that of a project lies beside it.
    """

    def __init__(self, path: bytes) -> None:
        self.path = path
        self._store = _LockFile(path)
        self._project: _LockFile | None = None
        self._others: list[_LockFile] = []
        self.depth = 0

    def for_project(self, project: str) -> None:
        """Let the lock be that of a project, too, from now on."""
        name = hashlib.sha256(os.fsencode(project)).hexdigest()[:_DIGITS]
        self._project = _LockFile(self.path + b"-" + name.encode())

    @property
    def held(self) -> bool:
        """Whether this process holds the store."""
        return self._store.held

    def acquire(self) -> None:
        """Take the lock, without waiting for another operation on this project.

        One of another project has the store for as long as it writes: that is waited for a little.

        Raises:
            StoreBusy: Another process holds it; the message names its pid and command.
        """
        if self._project is not None:
            self._project.take()
        try:
            self._store.take(self._patience_s())
        except StoreBusy:
            self.release_to(self.depth)
            raise
        self.depth += 1

    def _patience_s(self) -> float:
        """Return how long the store is waited for; who has it is at work for another project."""
        if self.depth:
            return _BACK_S
        return 0.0 if self._project is None else _OTHERS_S

    def acquire_alone(self) -> None:
        """Take the lock of the store and of all its projects, so that no run is parked in it.

        Raises:
            StoreBusy: Another process holds one of them.
        """
        self.acquire()
        mine = None if self._project is None else self._project.path
        try:
            for path in glob.glob(glob.escape(self.path) + b"-" + b"?" * _DIGITS):
                if path != mine:
                    self._others.append(_LockFile(path))
                    self._others[-1].take()
        except StoreBusy:
            self.release()
            raise

    @contextlib.contextmanager
    def parked(self) -> Iterator[None]:
        """Let other projects have the store for a block in which this process leaves it alone.

        Where one of them does not give it back in time, or it was removed, it is not held
        afterwards; who needs it then takes it, or is refused.
        """
        was_held = self.held
        self._store.drop()
        try:
            yield
        finally:
            if was_held:
                with contextlib.suppress(StoreBusy, OSError):
                    self._store.take(_OTHERS_S, create=0)

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
        if not self.depth:
            for file in (*self._others, self._store, *filter(None, [self._project])):
                file.drop()
            self._others.clear()


def _lock(fd: int, wait_s: float) -> bool:
    """Take the lock of an open file; return False where somebody else has it.

    The workers of an owner that was killed have it for as long as the kernel takes to end them.
    """
    started = time.monotonic()
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waited_s = time.monotonic() - started
            dying = waited_s <= _DYING_S and _is_dead(os.pread(fd, 4096, 0))
            if waited_s >= wait_s and not dying:
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
    if who.get("namespace", pid_namespace()) != pid_namespace():
        return StoreBusy(
            f"a guard operation outside of this container is at work here: {_describe(who)}",
            hint="a run around the container protects the command already: start it without guard;"
            " else wait for that to end",
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
