"""TensorFlow Lite: a flatbuffer whose tables say where graph and weights lie.

Format: tensorflow/compiler/mlir/lite/schema/schema.fbs, whose numbers of fields stand below
(Buffer: data is field 0; 1 and 2 are offset and size of data behind the flatbuffer).
"""

from __future__ import annotations

import mmap
import struct
from typing import TYPE_CHECKING, Any, BinaryIO

from checks import flatbuffer
from checks.artifacts.damage import Damaged

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_BUFFERS, _OFFSET, _SIZE = 4, 1, 2
_WIDTH = 4
_TABLES_LIMIT = 1_000_000
"""Offsets may lead to one table again and again; an honest model has some thousands."""
#: What each field of a table holds: a table, a list of tables, or items of so many bytes.
_TENSOR: dict[int, Any] = {0: 4, 3: 1, 4: {}, 7: 4}
_OPERATOR: dict[int, Any] = {1: 4, 2: 4, 4: {}, 5: 1}
_SUBGRAPH: dict[int, Any] = {0: [_TENSOR], 1: 4, 2: 4, 3: [_OPERATOR], 4: 1}
_MODEL: dict[int, Any] = {1: [{1: 1}], 2: [_SUBGRAPH], 3: 1, _BUFFERS: [{0: 1}], 6: [{0: 1}]}


def inspect(file: BinaryIO, size: int) -> None:
    """Raise unless all buffers lie inside the file.

    Raises:
        Damaged: One does not, or the tables lead out of the file.
    """
    try:
        mapped: bytes | mmap.mmap = mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ)
    except (OSError, ValueError, AttributeError):  # no file of the system: a staged content
        file.seek(0)
        mapped = file.read()
    try:
        reached = _reach(mapped)
    except struct.error:
        raise Damaged("is cut short: its tables lead out of the file", value=size) from None
    finally:
        if isinstance(mapped, mmap.mmap):
            mapped.close()
    if reached > size:
        message = f"is cut short: its buffers reach to byte {reached:,}, the file has {size:,}"
        raise Damaged(message, value=size, limit=reached)


def _reach(content: bytes | mmap.mmap) -> int:
    """Return up to where the tables and buffers reach, in bytes."""
    model = flatbuffer.root(content)
    if flatbuffer.follow(content, model, _BUFFERS) is None:
        raise Damaged("holds no table of buffers")
    reached = _table_reach(content, model, _MODEL, [_TABLES_LIMIT])
    for table in _tables(content, model, _BUFFERS):
        begin = flatbuffer.scalar(content, table, _OFFSET, "Q")
        reached = max(reached, begin + flatbuffer.scalar(content, table, _SIZE, "Q"))
    return reached


def _table_reach(
    content: bytes | mmap.mmap, table: int, fields: Mapping[int, Any], left: list[int]
) -> int:
    """Return up to where a table and all that it holds reach; `left` is how many may follow."""
    left[0] -= 1
    if left[0] < 0:
        raise Damaged(f"holds more than {_TABLES_LIMIT:,} tables", limit=_TABLES_LIMIT)
    reached = flatbuffer.table_end(content, table)
    for field, holds in fields.items():
        target = flatbuffer.follow(content, table, field)
        if target is None:
            continue
        if isinstance(holds, dict):
            reached = max(reached, _table_reach(content, target, holds, left))
            continue
        width = holds if isinstance(holds, int) else _WIDTH
        (count,) = struct.unpack_from("<I", content, target)
        reached = max(reached, target + _WIDTH + width * int(count))
        if isinstance(holds, list):
            for inner in _tables(content, table, field):
                reached = max(reached, _table_reach(content, inner, holds[0], left))
    return reached


def _tables(content: bytes | mmap.mmap, table: int, field: int) -> Iterator[int]:
    """Yield where the tables of a vector begin."""
    vector = flatbuffer.follow(content, table, field)
    if vector is None:
        return
    (count,) = struct.unpack_from("<I", content, vector)
    for number in range(int(count)):
        slot = vector + _WIDTH * (number + 1)
        yield slot + int(struct.unpack_from("<I", content, slot)[0])
