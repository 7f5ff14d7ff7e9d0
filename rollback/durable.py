"""Making what was written durable: a file, the names in a folder, a whole file system."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

from rollback.failpoints import reach

if TYPE_CHECKING:
    from ctypes import CDLL

_FEW = 64
"""So many are synced one by one, which does not wait for other people's writes. Each flushes the
disk's own cache, though: for more than these, one sync of the file system is quicker."""
_BEHIND = 16 << 20
_SYNC_FILE_RANGE_WRITE = 2
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def sync_folder(path: bytes) -> None:
    """Make the names in one folder durable."""
    fd = os.open(path, _FOLDER)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def sync_all(place: bytes, files: Collection[bytes], folders: Collection[bytes]) -> None:
    """Make the bytes of files durable that others wrote, and then the names in folders.

    Args:
        place: Any folder of their file system, for when there are many.
        files: Regular files; none is followed or waited for.
        folders: Folders of the same file system.

    Raises:
        OSError: The disk failed, or a file is gone.
    """
    if len(files) + len(folders) > _FEW:
        sync_file_system(place)
        return
    for path in sorted(files):
        try:
            fd = os.open(path, _FILE)
        except PermissionError:
            # A file that its owner may not read; the file system takes it along.
            sync_file_system(place)
            return
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
    for path in sorted(folders):
        sync_folder(path)


class WriteBehind:
    """Lets the kernel write a growing file out while more is added (sync_file_range(2)).

    The sync at its end then has little to wait for. It promises nothing itself.

    Args:
        fd: The file.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._begun = 0

    def grown_to(self, end: int) -> None:
        """Say that the file is written up to `end`."""
        if end - self._begun < _BEHIND:
            return
        import ctypes  # noqa: PLC0415 - costs milliseconds that only large files have

        with contextlib.suppress(AttributeError):
            ctypes.CDLL(None).sync_file_range(
                self._fd,
                ctypes.c_int64(self._begun),
                ctypes.c_int64(end - self._begun),
                _SYNC_FILE_RANGE_WRITE,
            )
        self._begun = end


def sync_file_system(path: bytes) -> None:
    """Make everything that was written to the file system of `path` durable (syncfs(2)).

    Raises:
        OSError: The disk failed.
    """
    libc, fd = _libc(), os.open(path, _FOLDER)
    try:
        _sync(libc, fd, path)
    finally:
        os.close(fd)


def sync_beside(folders: Iterable[bytes]) -> Future[None]:
    """Begin what `sync_file_system` does, for one folder of each file system; others may work on.

    Processes are forked meanwhile. So all that is left to the thread is the call of the system: a
    lock that it held, of an import or of the loader, would be held in a child for ever.

    Returns:
        Ends when all is durable that was written there by now; has the OSError of a failed disk.

    Raises:
        OSError: A folder cannot be opened.
    """
    libc, opened = _libc(), []
    with contextlib.ExitStack() as stack:
        for folder in folders:
            opened.append((os.open(folder, _FOLDER), folder))
            stack.callback(os.close, opened[-1][0])
        handles = stack.pop_all()

    def sync() -> None:
        with handles:
            for fd, folder in opened:
                _sync(libc, fd, folder)

    thread = ThreadPoolExecutor(max_workers=1)
    try:
        return thread.submit(sync)
    except RuntimeError:  # the system grants no thread: then the others wait
        ended: Future[None] = Future()
        try:
            sync()
        except OSError as error:
            ended.set_exception(error)
        else:
            ended.set_result(None)
        return ended
    finally:
        thread.shutdown(wait=False)


def _libc() -> CDLL:
    import ctypes  # noqa: PLC0415 - costs milliseconds that only a restore has

    return ctypes.CDLL(None, use_errno=True)


def _sync(libc: CDLL, fd: int, path: bytes) -> None:
    import ctypes  # noqa: PLC0415 - loaded already

    if libc.syncfs(fd) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), path)


def write_durably(path: bytes, content: bytes, failpoint: str) -> None:
    """Write a file so that after a crash it is there whole or not at all."""
    partial = path + b".tmp"
    fd = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        view = memoryview(content)
        while view:
            view = view[os.write(fd, view) :]
        os.fsync(fd)
    finally:
        os.close(fd)
    reach(failpoint)
    os.rename(partial, path)
    sync_folder(os.path.dirname(path))
