"""What of the store's files is the store's alone: a link that the project has too costs nothing.

What a rollback moves into the store has its only name there, and so has what it puts aside; a file
that was written to in the middle of a rollback has both.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterable, Iterator

ASIDE = b"aside"
"""Folder of what a restore found changed while it was at work; in it a folder an operation."""


class Owned:
    """Files all of whose names are in the store.

    Args:
        paths: Of the files that may be, absolute.

    Attributes:
        bytes: What they take on the disk.
    """

    def __init__(self, paths: Iterable[bytes]) -> None:
        self._sizes: dict[tuple[int, int], int] = {}
        self._outside: dict[tuple[int, int], int] = {}
        self._names: dict[tuple[int, int], int] = {}
        for path in paths:
            with contextlib.suppress(OSError):
                self._add(os.lstat(path))
        self.bytes = sum(size for inode, size in self._sizes.items() if not self._outside[inode])

    def drop(self, path: bytes) -> int:
        """Return how many bytes are free once this name is gone, after those dropped before."""
        try:
            info = os.lstat(path)
        except OSError:
            return 0
        inode = info.st_dev, info.st_ino
        self._names[inode] = self._names.get(inode, 0) - 1
        last = not self._names[inode] and not self._outside[inode]
        return self._sizes[inode] if last else 0

    def _add(self, info: os.stat_result) -> None:
        if not stat.S_ISREG(info.st_mode):
            return
        inode = info.st_dev, info.st_ino
        self._sizes[inode] = min(info.st_size, info.st_blocks * 512)
        self._names[inode] = self._names.get(inode, 0) + 1
        self._outside[inode] = info.st_nlink - self._names[inode]


def aside_path(store: bytes, seq: int) -> bytes:
    """Return the folder of what one restore has put aside."""
    return os.path.join(store, ASIDE, b"%08d" % seq)


def aside_files(store: bytes, seq: int | None = None) -> Iterator[bytes]:
    """Yield the files that one restore, or all of them, have put aside."""
    top = os.path.join(store, ASIDE) if seq is None else aside_path(store, seq)
    for folder, _, names in os.walk(top):
        yield from (os.path.join(folder, name) for name in names)


def asides(store: bytes) -> Iterator[int]:
    """Yield the restores that have put something aside."""
    with contextlib.suppress(FileNotFoundError):
        for name in os.listdir(os.path.join(store, ASIDE)):
            if name.isdigit():
                yield int(name)
