"""Flatbuffers without a schema: fields of tables by number, offsets followed with care.

Format: https://flatbuffers.dev/internals/. A table begins with how far back its vtable lies; the
vtable holds its own size, the table's, and for each field where it is in the table (0: left out).
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mmap import mmap


def root(buffer: bytes | mmap) -> int:
    """Return where the root table begins.

    Raises:
        struct.error: The buffer ends before that.
    """
    return int(struct.unpack_from("<I", buffer, 0)[0])


def scalar(buffer: bytes | mmap, table: int, field: int, kind: str) -> int:
    """Return a whole number in a table; 0 where it is left out.

    Args:
        buffer: All of the message.
        table: Where the table begins.
        field: Number of the field, from 0.
        kind: Its type, as `struct` calls it.

    Raises:
        struct.error: An offset leads out of the buffer.
    """
    at = _place(buffer, table, field)
    return 0 if at is None else int(struct.unpack_from(f"<{kind}", buffer, at)[0])


def follow(buffer: bytes | mmap, table: int, field: int) -> int | None:
    """Return where a field of a table leads: to a table, a vector or a text; None for nowhere.

    Raises:
        struct.error: An offset leads out of the buffer.
    """
    at = _place(buffer, table, field)
    return None if at is None else at + int(struct.unpack_from("<I", buffer, at)[0])


def table_end(buffer: bytes | mmap, table: int) -> int:
    """Return up to where a table and its vtable reach, in bytes.

    Raises:
        struct.error: The buffer ends before the vtable does.
    """
    vtable = table - int(struct.unpack_from("<i", buffer, table)[0])
    if vtable < 0:
        raise struct.error
    size, inline = struct.unpack_from("<HH", buffer, vtable)
    return max(vtable + int(size), table + int(inline))


def _place(buffer: bytes | mmap, table: int, field: int) -> int | None:
    vtable = table - int(struct.unpack_from("<i", buffer, table)[0])
    if vtable < 0:
        raise struct.error
    size = int(struct.unpack_from("<H", buffer, vtable)[0])
    slot = 4 + 2 * field
    if slot + 2 > size:
        return None
    offset = int(struct.unpack_from("<H", buffer, vtable + slot)[0])
    return table + offset if offset else None
