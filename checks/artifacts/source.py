"""Opening a file that may be anything: a folder, a FIFO, a hole of 100 GB, a circle of links."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import io
    from collections.abc import Iterator
    from pathlib import Path

_REASONS = {
    errno.ENOENT: ("missing", "does not exist", "create it, or correct the path"),
    errno.ENOTDIR: ("missing", "does not exist", "create it, or correct the path"),
    errno.ELOOP: ("unreadable", "is a symbolic link that leads round in a circle", "mend the link"),
    errno.EACCES: ("unreadable", "may not be read by this user", "give yourself read permission"),
    errno.EPERM: ("unreadable", "may not be read by this user", "give yourself read permission"),
    errno.ENAMETOOLONG: ("unreadable", "has a name that is too long", "shorten the path"),
}
_KINDS = {
    stat.S_IFDIR: "is a folder, not a file",
    stat.S_IFIFO: "is a FIFO, not a file",
    stat.S_IFSOCK: "is a socket, not a file",
    stat.S_IFCHR: "is a device, not a file",
    stat.S_IFBLK: "is a device, not a file",
}
HOLLOW_BYTES = 1 << 20
"""Files from this size on are looked at for holes, in bytes."""
HOLLOW_SHARE = 0.1
"""A large file with less than this share of its bytes on the disk was never written out."""


class Unreadable(Exception):
    """A file cannot be read; nothing of it was.

    Attributes:
        rule: ``missing`` or ``unreadable``.
        hint: What to do about it.
    """

    def __init__(self, rule: str, message: str, hint: str) -> None:
        super().__init__(message)
        self.rule = rule
        self.hint = hint


def unreadable(error: OSError) -> Unreadable:
    """Return what an error of the operating system means for a file."""
    text = os.strerror(error.errno) if error.errno else str(error)
    rule, message, hint = _REASONS.get(
        error.errno or 0, ("unreadable", f"cannot be read: {text}", "look at the disk and mounts")
    )
    return Unreadable(rule, message, hint)


@contextlib.contextmanager
def opened(path: Path) -> Iterator[tuple[io.BufferedReader, os.stat_result]]:
    """Open a regular file for reading; never blocks, whatever lies there.

    Raises:
        Unreadable: It is missing, not a regular file, or may not be read.
    """
    try:
        _refuse_special(os.stat(path))
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise unreadable(error) from None
    except ValueError:
        raise Unreadable("unreadable", "has a NUL byte in its name", "correct the path") from None
    with open(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        _refuse_special(status)  # it may have been exchanged between the two calls
        try:
            yield file, status
        except OSError as error:
            raise unreadable(error) from None


def hollow(status: os.stat_result) -> bool:
    """Return whether a large file is mostly a hole: reserved, but never written."""
    on_disk = status.st_blocks * 512
    return status.st_size >= HOLLOW_BYTES and on_disk < HOLLOW_SHARE * status.st_size


def _refuse_special(status: os.stat_result) -> None:
    kind = stat.S_IFMT(status.st_mode)
    if kind != stat.S_IFREG:
        message = _KINDS.get(kind, "is not a regular file")
        raise Unreadable("unreadable", message, "name a regular file")
