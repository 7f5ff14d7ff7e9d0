"""Packs: small blobs one after the other in a file, each with a head that describes it.

A pack is ``GP1`` and a newline, then records: kind (1 byte), length (8 bytes, little endian),
id (32 bytes), content. The catalog says where each blob begins; should the catalog be lost, the
heads are enough to make it again.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator

from rollback.durable import WriteBehind
from rollback.errors import StoreCorrupt
from rollback.failpoints import reach

MAGIC = b"GP1\n"
HEAD = struct.Struct("<BQ32s")
_BUFFER = 128 << 10
PACK_LIMIT = 128 << 20
"""Bytes after which a new pack is begun, so that repacking stays cheap."""


class PackWriter:
    """Appends blobs to a new pack, which exists under its name only once it is durable.

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
        self._flush()
        reach("pack.sync")
        os.fsync(self._fd)
        os.close(self._fd)
        self._fd = -1
        reach("pack.rename")
        os.rename(self._partial, self._final)

    def abandon(self) -> None:
        """Forget the pack."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
            os.unlink(self._partial)

    def _flush(self) -> None:
        if not self._parts:
            return
        reach("pack.write")
        view = memoryview(b"".join(self._parts))
        while view:
            done = os.write(self._fd, view)
            self._written += done
            view = view[done:]
        self._behind.grown_to(self._written)
        self._parts, self._waiting = [], 0


def records(fd: int) -> Iterator[tuple[int, bytes, int, int]]:
    """Yield kind, id, offset and length of each blob of an open pack, reading heads only.

    Raises:
        StoreCorrupt: The file is not a pack, or ends in the middle of a record.
    """
    end = os.fstat(fd).st_size
    if os.pread(fd, len(MAGIC), 0) != MAGIC:
        raise StoreCorrupt("a pack does not begin like one", hint="guard verify --repair")
    at = len(MAGIC)
    while at < end:
        head = os.pread(fd, HEAD.size, at)
        if len(head) < HEAD.size:
            raise StoreCorrupt("a pack ends too early", hint="guard verify --repair")
        kind, length, blob = HEAD.unpack(head)
        if at + HEAD.size + length > end:
            raise StoreCorrupt("a pack ends too early", hint="guard verify --repair")
        yield kind, blob, at + HEAD.size, length
        at += HEAD.size + length
