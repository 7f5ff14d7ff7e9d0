"""Bytes that are set aside in a store, so that a rollback has room on a full disk."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from rollback.errors import NoSpace
from rollback.failpoints import reach

RESERVE = 32 << 20
"""So many are set aside, at most."""
_RESERVE_SHARE = 20
"""One part in so many of what is free is set aside where there is little."""
_TIGHT = 8 << 20
_LITTLE = 1 << 20
_T = TypeVar("_T")


class Reserve:
    """The file of a store that stands for these bytes.

    Args:
        folder: Of the store.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / "reserve"

    def free(self) -> int:
        """Return the bytes that an unprivileged process may still write."""
        fs = os.statvfs(self.folder)
        return fs.f_bavail * fs.f_frsize

    def fits(self, size: int) -> bool:
        """Return whether so many bytes may be written and a rollback still has room."""
        return size + 2 * RESERVE <= self.free()

    def size(self) -> int:
        """Return how many bytes are to be set aside here: less where little is free."""
        return min(RESERVE, self.free() // _RESERVE_SHARE)

    def set_aside(self) -> None:
        """Set bytes aside for a rollback on a full disk."""
        size = self.size()
        if not self.path.exists() and size:
            with contextlib.suppress(OSError):
                fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
                try:
                    os.posix_fallocate(fd, 0, size)
                finally:
                    os.close(fd)

    def release(self, needed: int = 0) -> None:
        """Free the reserve where hardly more than `needed` bytes are left without it."""
        if self.free() < needed + _TIGHT:
            reach("reserve.release")
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.path)

    def with_room(self, write: Callable[[], _T]) -> _T:
        """Return what a small write returns; on a full disk the reserve makes room for it.

        Raises:
            NoSpace: There is no reserve to release any more.
        """
        while True:
            try:
                return write()
            except NoSpace:
                if not self._shrink():
                    raise

    def _shrink(self) -> bool:
        """Give a little of the reserve back: the rest stays for the rollback that may follow."""
        try:
            size = self.path.stat().st_size
            if size <= _LITTLE:
                self.path.unlink()
            else:
                os.truncate(self.path, size - _LITTLE)
        except FileNotFoundError:
            return False
        return True
