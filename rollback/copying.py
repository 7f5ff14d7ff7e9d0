"""Copying large files: read, hashed and written, holes kept, blocks shared where that is possible.

What is kept in the store is synced at once and seldom read, so it goes past the page cache where
the file system lets it (O_DIRECT of open(2)): to copy into the cache and write it out from there
takes ten times the processor time. On a disk that is slow in any case the cache is used, so that
the rehearsal that follows need not wait for that disk again.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import mmap
import os
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Self

from rollback.durable import WriteBehind, sync_folder
from rollback.failpoints import reach

_PIECE = 1 << 20
_DEPTH = 6
"""So many pieces are hashed or written at the same time."""
_BLOCK = 4096
"""What the length of a direct write is a multiple of."""
_CACHED_PIECE = 128 << 10
"""What the kernel copies through its cache at least cost: larger pieces need memory in one run."""
_TRIAL = 16 * _PIECE
_SLOW = 400e6
"""Bytes a second; a disk that writes less is what is waited for, whatever the processor does."""
_FICLONE = 0x40049409
_ZEROS = bytes(_PIECE)


def keep_file(source: int, target: int) -> tuple[bytes, int]:
    """Copy an open file to a new, empty one of the store; nothing is synced.

    Args:
        source: A regular file; it may be written, or become shorter, while it is read.
        target: Open for reading and writing.

    Returns:
        SHA-256 and length in bytes of what `target` holds.

    Raises:
        OSError: The disk failed, or is full.
    """
    cloned = clone(source, target)
    digest, length = hashlib.sha256(), 0
    with _DirectWriter(target) as writer:
        for start, end, hole in segments(target if cloned else source):
            reach("loose.write")
            if hole:
                _hash_zeros(digest, end - start)
                length = end
            elif cloned:
                length = _copy_span(target, -1, (start, end), digest)
            elif end - start > _PIECE:
                length = writer.copy(source, (start, end), digest)
            else:
                length = _copy_span(source, target, (start, end), digest)
            if length < end:
                break
    os.ftruncate(target, length)
    return digest.digest(), length


def restore_file(source: int, target: int, digest: hashlib._Hash | None) -> None:
    """Copy an open file of the store to a new, empty one; nothing is synced.

    Args:
        source: Nobody writes to it.
        target: Open for reading and writing.
        digest: Is told the content; None where the copy is read again in any case.

    Raises:
        OSError: The disk failed, or is full.
    """
    cloned = clone(source, target)
    for start, end, hole in segments(source):
        if hole and digest is not None:
            _hash_zeros(digest, end - start)
        elif digest is not None:
            _copy_span(source, -1 if cloned else target, (start, end), digest)
        elif not cloned and not hole:
            _copy_unread(source, target, (start, end))
    os.ftruncate(target, os.fstat(source).st_size)


def copy_durably(path: bytes) -> None:
    """Replace a large file by a copy of itself with an inode of its own, private and durable."""
    partial = path + b".tmp"
    with open(path, "rb") as source:
        fd = os.open(partial, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "wb") as target:
            keep_file(source.fileno(), fd)
            os.fsync(target.fileno())
    os.rename(partial, path)
    sync_folder(os.path.dirname(path))


def _copy_unread(source: int, target: int, span: tuple[int, int]) -> None:
    """Let the kernel copy a stretch (copy_file_range(2)); read and write it where it cannot."""
    at, end = span
    behind = WriteBehind(target)
    while at < end:
        try:
            done = os.copy_file_range(source, target, min(_TRIAL, end - at), at, at)
        except OSError as error:
            if error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EIO}:
                raise
            done = 0
        if not done:
            _copy_span(source, target, (at, end), None)
            return
        at += done
        behind.grown_to(at)


def _copy_span(
    source: int, target: int, span: tuple[int, int], digest: hashlib._Hash | None
) -> int:
    """Hash a stretch where that is asked for, and write it to `target` where that is not -1.

    Returns:
        Its end, earlier where the source has become shorter.
    """
    at, end = span
    piece = memoryview(bytearray(min(_CACHED_PIECE if target >= 0 else _PIECE, end - at)))
    behind = WriteBehind(target)
    while at < end:
        got = os.preadv(source, [piece[: end - at]], at)
        if not got:
            break
        if target >= 0:
            _write(target, piece[:got], at)
            behind.grown_to(at + got)
        if digest is not None:
            digest.update(piece[:got])
        at += got
    return at


class _DirectWriter:
    """Writes to an open file past the page cache, in a thread of its own.

    Args:
        target: The file.
    """

    def __init__(self, target: int) -> None:
        self._target = target
        self._thread: ThreadPoolExecutor | None = None
        self._writes: deque[tuple[Future[None], mmap.mmap]] = deque()
        self._tried = 0
        self._spent_s = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._thread is not None:
            self._thread.shutdown()

    def copy(self, source: int, span: tuple[int, int], digest: hashlib._Hash) -> int:
        """Copy and hash a stretch; return its end, earlier where the source has become shorter."""
        if self._thread is None:
            _go_past_cache(self._target)
            self._thread = ThreadPoolExecutor(max_workers=1)
        at, end = span
        while at < end:
            piece = self._free_piece()
            wanted = min(_PIECE, end - at)
            got = _fill(source, memoryview(piece)[:wanted], at)
            full = -(-got // _BLOCK) * _BLOCK
            piece[got:full] = _ZEROS[: full - got]
            write = self._thread.submit(self._write, memoryview(piece)[:full], at)
            self._writes.append((write, piece))
            digest.update(memoryview(piece)[:got])
            at += got
            if got < wanted:
                break
        while self._writes:
            self._writes.popleft()[0].result()
        return at

    def _free_piece(self) -> mmap.mmap:
        """Return memory that begins with a page; waits where all there is waits to be written."""
        if len(self._writes) < _DEPTH:
            return mmap.mmap(-1, _PIECE)
        write, piece = self._writes.popleft()
        write.result()
        return piece

    def _write(self, piece: memoryview, at: int) -> None:
        begun = time.monotonic()
        _write(self._target, piece, at)
        self._spent_s += time.monotonic() - begun
        before, self._tried = self._tried, self._tried + len(piece)
        if before < _TRIAL <= self._tried and self._tried < _SLOW * self._spent_s:
            _go_through_cache(self._target)


def _fill(source: int, piece: memoryview, at: int) -> int:
    """Read until a piece is full or the file ends; return how many bytes that were."""
    done = 0
    while done < len(piece):
        got = os.preadv(source, [piece[done:]], at + done)
        if not got:
            break
        done += got
    return done


def _write(target: int, piece: memoryview, at: int) -> None:
    done = 0
    while done < len(piece):
        try:
            done += os.pwrite(target, piece[done:], at + done)
        except OSError as error:
            # Not every file system says beforehand that it cannot do this, or not in such pieces.
            if error.errno != errno.EINVAL or not _go_through_cache(target):
                raise


def _go_past_cache(fd: int) -> None:
    import fcntl  # noqa: PLC0415 - only large files need it

    with contextlib.suppress(OSError):
        fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) | os.O_DIRECT)


def _go_through_cache(fd: int) -> bool:
    """Take `_go_past_cache` back; return whether there was anything to take back."""
    import fcntl  # noqa: PLC0415 - only large files need it

    flags = fcntl.fcntl(fd, fcntl.F_GETFL)
    fcntl.fcntl(fd, fcntl.F_SETFL, flags & ~os.O_DIRECT)
    return bool(flags & os.O_DIRECT)


def _hash_zeros(digest: hashlib._Hash, count: int) -> None:
    while count > 0:
        digest.update(_ZEROS[: min(count, _PIECE)])
        count -= _PIECE


def segments(fd: int) -> Iterator[tuple[int, int, bool]]:
    """Yield the stretches of an open file: start, end, whether it is a hole."""
    info = os.fstat(fd)
    size = info.st_size
    if info.st_blocks * 512 >= size:
        yield 0, size, False
        return
    at = 0
    while at < size:
        try:
            data = os.lseek(fd, at, os.SEEK_DATA)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            data = size
        if data > at:
            yield at, min(data, size), True
        if data >= size:
            return
        hole = min(os.lseek(fd, data, os.SEEK_HOLE), size)
        yield data, hole, False
        at = hole


def hole_bytes(fd: int) -> int:
    """Return how many bytes of an open file are holes, and take none of the disk."""
    return sum(end - start for start, end, hole in segments(fd) if hole)


def clone(source: int, target: int) -> bool:
    """Share the blocks of one open file with another; False where that is not possible."""
    import fcntl  # noqa: PLC0415 - only large files need it

    try:
        fcntl.ioctl(target, _FICLONE, source)
    except OSError:
        return False
    return True
