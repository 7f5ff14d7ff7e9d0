"""TensorFlow Lite: a flatbuffer whose table of buffers says where the weights lie.

Format: tensorflow/compiler/mlir/lite/schema/schema.fbs (Model: buffers is field 4; Buffer: data is
field 0, and field 1 and 2 are offset and size of data behind the flatbuffer).
"""

from __future__ import annotations

import mmap
import struct
from typing import BinaryIO

from checks import flatbuffer
from checks.artifacts.damage import Damaged

_BUFFERS, _DATA, _OFFSET, _SIZE = 4, 0, 1, 2
_WIDTH = 4


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
    """Return up to where the buffers reach, in bytes."""
    reached = 0
    vector = flatbuffer.follow(content, flatbuffer.root(content), _BUFFERS)
    if vector is None:
        raise Damaged("holds no table of buffers")
    (count,) = struct.unpack_from("<I", content, vector)
    for number in range(count):
        slot = vector + _WIDTH * (number + 1)
        table = slot + int(struct.unpack_from("<I", content, slot)[0])
        data = flatbuffer.follow(content, table, _DATA)
        if data is not None:
            reached = max(reached, data + _WIDTH + int(struct.unpack_from("<I", content, data)[0]))
        begin = flatbuffer.scalar(content, table, _OFFSET, "Q")
        reached = max(reached, begin + flatbuffer.scalar(content, table, _SIZE, "Q"))
    return reached
