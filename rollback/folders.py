"""Folder handles: every path is walked component by component, and no link is ever followed."""

from __future__ import annotations

import contextlib
import errno
import os
import resource as limits
import sys
from collections.abc import Iterator

_DEEP = 20_000
FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def open_folder(parent: int, name: bytes) -> int:
    """Open a folder by one name below a folder handle, never through a link.

    Raises:
        OSError: It is absent, a link (ELOOP or ENOTDIR), or not a folder.
    """
    return os.open(name, FOLDER, dir_fd=parent)


class FolderCache:
    """Hands out handles of folders below a root, keeping the chain of the last one open.

    Args:
        root: Handle of the root folder; stays the caller's.
    """

    def __init__(self, root: int) -> None:
        self._root = root
        self._chain: list[tuple[bytes, int]] = []

    def open(self, path: bytes) -> int:
        """Return the handle of the folder `path`, relative to the root; valid until the next call.

        Raises:
            OSError: A component is absent, a link, or not a folder.
        """
        wanted = path.split(b"/") if path else []
        keep = 0
        while (
            keep < len(wanted) and keep < len(self._chain) and self._chain[keep][0] == wanted[keep]
        ):
            keep += 1
        self._drop(keep)
        for at, name in enumerate(wanted[keep:], keep + 1):
            if name in (b"", b".", b".."):
                raise OSError(errno.EINVAL, "a path may not leave its root", path)
            try:
                fd = open_folder(self._chain[-1][1] if self._chain else self._root, name)
            except OSError as error:
                raise OSError(error.errno, error.strerror, b"/".join(wanted[:at])) from error
            self._chain.append((name, fd))
        return self._chain[-1][1] if self._chain else self._root

    def forget(self) -> None:
        """Close the handles; for when folders are about to be moved."""
        self._drop(0)

    def _drop(self, keep: int) -> None:
        while len(self._chain) > keep:
            os.close(self._chain.pop()[1])


@contextlib.contextmanager
def cached(root: int) -> Iterator[FolderCache]:
    """Give a `FolderCache` for a block and close its handles at the end."""
    cache = FolderCache(root)
    try:
        yield cache
    finally:
        cache.forget()


def allow_many_files() -> None:
    """Raise this process's limits: a deep tree needs a handle, and a few calls, for each level."""
    sys.setrecursionlimit(max(sys.getrecursionlimit(), _DEEP))
    soft, hard = limits.getrlimit(limits.RLIMIT_NOFILE)
    wanted = min(hard, 65_536) if hard != limits.RLIM_INFINITY else 65_536
    if soft < wanted:
        with contextlib.suppress(OSError, ValueError):
            limits.setrlimit(limits.RLIMIT_NOFILE, (wanted, hard))


def split(path: bytes) -> tuple[bytes, bytes]:
    """Return the folder and the name of a relative path."""
    folder, _, name = path.rpartition(b"/")
    return folder, name


def join(folder: bytes, name: bytes) -> bytes:
    """Return the relative path of a name in a folder."""
    return folder + b"/" + name if folder else name
