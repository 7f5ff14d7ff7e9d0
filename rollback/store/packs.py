"""Packs: small blobs one after the other in a file, each with a head that describes it.

A pack is ``GP1`` and a newline, then records: kind (1 byte), length (8 bytes, little endian),
id (32 bytes), content. The catalog says where each blob begins; should the catalog be lost, the
heads are enough to make it again.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import struct
from collections.abc import Collection, Iterator
from typing import NamedTuple

from rollback.durable import WriteBehind
from rollback.failpoints import reach

MAGIC = b"GP1\n"
HEAD = struct.Struct("<BQ32s")
_BUFFER = 128 << 10
_MAY_BE_HEAD = re.compile(rb"(?=([\x01-\x07]).{4}\0{4})", re.DOTALL)
"""Kind and length of a blob of less than 4 GiB."""
_HEAD_BEGINS = 9
PACK_LIMIT = 128 << 20
"""Bytes after which a new pack is begun, so that repacking stays cheap."""


class PackWriter:
    """Appends blobs to a new pack, which exists under its name only once it is durable.

    On a full disk each call may fail and be repeated: what was written by then is not again.

    Args:
        folder: The store's ``packs``.
        name: Unique name; the file is ``<name>.pack``.
    """

    def __init__(self, folder: bytes, name: str) -> None:
        self.name = name
        self._final = os.path.join(folder, name.encode() + b".pack")
        self._partial = self._final + b".tmp"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
        self._fd = os.open(self._partial, flags, 0o600)
        self._behind = WriteBehind(self._fd)
        self._written = 0
        self._parts: list[bytes] = [MAGIC]
        self._waiting = len(MAGIC)
        self.length = len(MAGIC)
        self._unsynced: OSError | None = None

    def append(self, kind: int, blob: bytes, content: bytes) -> int:
        """Add a blob and return the offset of its content."""
        offset = self.length + HEAD.size
        self._parts.append(HEAD.pack(kind, len(content), blob))
        self._parts.append(content)
        self._waiting += HEAD.size + len(content)
        self.length = offset + len(content)
        if self._waiting >= _BUFFER:
            self._flush()
        return offset

    def close(self) -> None:
        """Make the pack durable and give it its name; the caller syncs the folder."""
        if self._fd >= 0:
            self._flush()
            reach("pack.sync")
            self._sync()
            os.close(self._fd)
            self._fd = -1
        reach("pack.rename")
        os.rename(self._partial, self._final)

    def abandon(self) -> None:
        """Forget the pack, as long as it has no name."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._partial)

    def _sync(self) -> None:
        # Once a sync has failed, the next one says nothing of what that one lost.
        if self._unsynced is not None:
            raise self._unsynced
        try:
            os.fsync(self._fd)
        except OSError as error:
            self._unsynced = error
            raise

    def _flush(self) -> None:
        if not self._parts:
            return
        reach("pack.write")
        view = memoryview(b"".join(self._parts))
        try:
            while view:
                done = os.write(self._fd, view)
                self._written += done
                view = view[done:]
        finally:
            self._parts, self._waiting = [bytes(view)] if view else [], len(view)
        self._behind.grown_to(self._written)


def heads(fd: int) -> Iterator[tuple[int, bytes, int, int]]:
    """Yield kind, id, offset and length of each blob of an open pack, as far as heads lead."""
    end = os.fstat(fd).st_size
    at = len(MAGIC)
    while at + HEAD.size <= end:
        kind, length, blob = HEAD.unpack(os.pread(fd, HEAD.size, at))
        at += HEAD.size + length
        if at > end:
            return
        yield kind, blob, at - length, length


class Record(NamedTuple):
    """One blob of a pack as its head has it, and the SHA-256 of what follows the head."""

    kind: int
    blob: bytes
    offset: int
    length: int
    digest: bytes

    @property
    def sound(self) -> bool:
        """Whether head and content agree."""
        return self.digest == self.blob


def salvage(fd: int, kinds: Collection[int]) -> Iterator[Record]:
    """Yield the records of an open pack without a catalog, reading all of it.

    A head that cannot be one is passed over: the next that its own content proves goes on, and
    what lies between is taken for the content of the first.

    Args:
        fd: The pack.
        kinds: The numbers that a head may have.
    """
    end = os.fstat(fd).st_size
    at = len(MAGIC)
    while at + HEAD.size <= end:
        record = _record(fd, at, end)
        if record is None or record.kind not in kinds or not record.sound:
            after = at + HEAD.size + (0 if record is None else record.length)
            follows = record is not None and record.kind in kinds and _leads(fd, after, end, kinds)
            if not follows:
                after = _next(fd, at + HEAD.size, end, kinds)
                record = _between(fd, at, after)
        if record is not None:
            yield record
            at = record.offset + record.length


def _record(fd: int, at: int, end: int) -> Record | None:
    """Return what the head at an offset describes; None where the pack is too short for it."""
    head = os.pread(fd, HEAD.size, at)
    if len(head) < HEAD.size:
        return None
    kind, length, blob = HEAD.unpack(head)
    if at + HEAD.size + length > end:
        return None
    content = os.pread(fd, length, at + HEAD.size)
    return Record(kind, blob, at + HEAD.size, length, hashlib.sha256(content).digest())


def _leads(fd: int, at: int, end: int, kinds: Collection[int]) -> bool:
    """Return whether a record that ends at an offset is followed by another, or by nothing."""
    following = None if at == end else _record(fd, at, end)
    return at == end or (following is not None and following.kind in kinds)


def _next(fd: int, at: int, end: int, kinds: Collection[int]) -> int:
    """Return where the next record begins that is proven by its content, else the end."""
    while at < end:
        window = os.pread(fd, _BUFFER, at)
        for match in _MAY_BE_HEAD.finditer(window):
            record = _record(fd, at + match.start(), end) if match[1][0] in kinds else None
            if record is not None and record.length and record.sound:
                return at + match.start()
        if len(window) < _BUFFER:
            break
        at += _BUFFER - _HEAD_BEGINS
    return end


def _between(fd: int, at: int, after: int) -> Record:
    """Return what lies between the beginning of a head that is none and the next one."""
    kind = HEAD.unpack(os.pread(fd, HEAD.size, at))[0]
    content = os.pread(fd, after - at - HEAD.size, at + HEAD.size)
    digest = hashlib.sha256(content).digest()
    return Record(kind, digest, at + HEAD.size, len(content), digest)
