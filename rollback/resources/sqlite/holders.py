"""Who else has a database open: read from /proc, and from the kernel's table of locks."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import signal
import struct

SIDE_FILES = (b"-wal", b"-shm", b"-journal")
"""Suffixes of the files that SQLite keeps beside a database."""

LOCK_FIRST = 0x40000000
"""SQLite's lock bytes: PENDING, RESERVED, then 510 SHARED (https://www.sqlite.org/lockingv3.html)."""
LOCK_LENGTH = 512

_UNSHOWN = re.compile(r"^-(?!m$)|://|=|\s")
_DELETED = b" (deleted)"
_NO_NAME = re.compile(b"/(?:dev/(?!shm/)|proc/|memfd:)")
"""Targets of descriptors that are no files of a project: devices, processes, memory."""
_UNSEEN = 0
_FLOCK = struct.Struct("hhqqi4x")


def holders(path: bytes | str | os.PathLike[str], *, deleted: bool = True) -> list[tuple[int, str]]:
    """Return the other processes that have a database or one of its side files open.

    Processes of other users are shown to root alone, and those of other containers to nobody. They
    are told by the locks that they hold, and, of a file of this user's, by their being able to
    write to it; they have no number then.

    Args:
        path: Absolute path of the database.
        deleted: Whether files count that were deleted or replaced meanwhile: who has one of
            these open serves a state that is not in the folder any more.

    Returns:
        Process id and what runs there, without the options that might hold a secret; 0 stands for
        processes that cannot be seen.
    """
    name = os.fsencode(path)
    files = [name, *(name + suffix for suffix in SIDE_FILES)]
    inodes = {identity for file in files if (identity := _identity(file)) is not None}
    gone = {file + _DELETED for file in files} if deleted else set()
    found = {pid for pid in _other_processes() if _has_open(pid, inodes, gone)}
    found |= _lock_owners(name)
    if not found and _is_open_for_writing(name):
        found = {_UNSEEN}
    return [(pid, command(pid)) for pid in sorted(found)]


def describe(found: list[tuple[int, str]]) -> str:
    """Return one phrase for a message: ``pid 12 (python train.py)``."""
    if not found:
        return "another process"
    named = (f"pid {pid} ({what})" if what else f"pid {pid}" for pid, what in found if pid > 0)
    # The kernel gives no pid for a lock from another pid namespace.
    return ", ".join(named) or "a process of another user or container"


def command(pid: int) -> str:
    """Return program and script of a process; empty where it may not be seen."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            words = file.read().split(b"\0")
    except OSError:
        return ""
    return shown_command([os.fsdecode(word) for word in words if word])


def shown_command(words: list[str]) -> str:
    """Return what of a command line is fit to be shown: whatever follows may be a secret."""
    shown = words[: 3 if words[1:2] == ["-m"] else 2]
    plain = [word for word in shown[1:] if not _UNSHOWN.search(word)]
    return " ".join(os.path.basename(word) for word in [*shown[:1], *plain])


def _other_processes() -> list[int]:
    try:
        names = os.listdir("/proc")
    except OSError:
        return []
    return [int(name) for name in names if name.isdigit() and int(name) != os.getpid()]


def _has_open(pid: int, inodes: set[tuple[int, int]], gone: set[bytes]) -> bool:
    folder = b"/proc/%d/fd" % pid
    try:
        descriptors = os.listdir(folder)
    except OSError:
        return False
    for descriptor in descriptors:
        link = folder + b"/" + descriptor
        with contextlib.suppress(OSError):
            target = os.readlink(link)
            if target in gone:
                return True
            # Only what a name in the file system leads to; the identity then decides, because
            # another mount namespace shows another name.
            if target.startswith(b"/") and not _NO_NAME.match(target):
                info = os.stat(link)
                if (info.st_dev, info.st_ino) in inodes:
                    return True
    return False


def _lock_owners(path: bytes) -> set[int]:
    # A POSIX lock names its owner even where /proc does not show the owner's files.
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return set()
    try:
        question = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, LOCK_FIRST, LOCK_LENGTH, 0)
        kind, _, _, _, pid = _FLOCK.unpack(fcntl.fcntl(fd, fcntl.F_GETLK, question))
    except OSError:
        return set()
    finally:
        os.close(fd)
    return {pid} if kind != fcntl.F_UNLCK and pid != os.getpid() else set()


def _is_open_for_writing(path: bytes) -> bool:
    """Whether any process can write to a file, this one included.

    The kernel grants a lease on reading only where nobody can (F_SETLEASE in fcntl(2)); it asks
    for a file of one's own, and a file system that has leases.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        # Who opens it in this very moment waits, and breaks the lease: by a signal that is ignored.
        fcntl.fcntl(fd, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except OSError as error:
        return error.errno == errno.EAGAIN
    finally:
        os.close(fd)
    return False


def _identity(path: bytes) -> tuple[int, int] | None:
    try:
        info = os.lstat(path)
    except OSError:
        return None
    return info.st_dev, info.st_ino
