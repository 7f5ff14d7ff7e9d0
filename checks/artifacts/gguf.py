"""GGUF: key-values, a table of tensors, then their aligned bytes.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md; block sizes as in ggml's
type table.
"""

from __future__ import annotations

import math
import struct
from typing import BinaryIO

from checks.artifacts.damage import Damaged, expect_size
from checks.artifacts.window import Window

MAGIC = b"GGUF"
_SCALAR_BYTES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
_STRING, _ARRAY, _UINT32 = 8, 9, 4
# For each type of tensor the items and the bytes of one block.
# fmt: off
_BLOCKS = {
    0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24),
    8: (32, 34), 10: (256, 84), 11: (256, 110), 12: (256, 144), 13: (256, 176),
    14: (256, 210), 15: (256, 292), 16: (256, 66), 17: (256, 74), 18: (256, 98),
    19: (256, 50), 20: (32, 18), 21: (256, 110), 22: (256, 82), 23: (256, 136),
    24: (1, 1), 25: (1, 2), 26: (1, 4), 27: (1, 8), 28: (1, 8), 29: (256, 56),
    30: (1, 2), 34: (256, 54), 35: (256, 66), 39: (32, 17),
}
# fmt: on
_DEPTH_LIMIT = 8


def inspect(file: BinaryIO, size: int) -> None:
    """Raise unless the file reaches to the end of its last tensor.

    Raises:
        Damaged: It does not, or its tables cannot be read.
        Truncated: It ends inside its tables.
    """
    file.seek(0)
    window = Window(file)
    window.skip(4)
    version = _number(window, 4)
    if version not in {1, 2, 3}:
        raise Damaged(f"has a GGUF version that does not exist: {version}")
    width = 4 if version == 1 else 8
    tensors, pairs = _number(window, width), _number(window, width)
    if (tensors + pairs) * width > size:
        raise Damaged("counts more entries than the file has bytes")
    alignment = 32
    for _ in range(pairs):
        key = window.take(_length(window, width, size))
        value = _value(window, width, size, 0)
        if key == b"general.alignment" and value:
            alignment = value
    ends = [_tensor(window, width, size) for _ in range(tensors)]
    if ends:
        start = -(-window.offset // alignment) * alignment
        expect_size(size, start + max(ends))


def _number(window: Window, width: int) -> int:
    return int.from_bytes(window.take(width), "little")


def _length(window: Window, width: int, size: int) -> int:
    length = _number(window, width)
    if length > size:
        raise Damaged("names a text longer than the file", value=size, limit=length)
    return length


def _value(window: Window, width: int, size: int, depth: int) -> int:
    return _typed(window, _number(window, 4), (width, size, depth))


def _typed(window: Window, kind: int, shape: tuple[int, int, int]) -> int:
    width, size, depth = shape
    if kind == _STRING:
        window.skip(_length(window, width, size))
    elif kind == _ARRAY and depth < _DEPTH_LIMIT:
        inner, count = _number(window, 4), _number(window, width)
        if inner in _SCALAR_BYTES:
            window.skip(count * _SCALAR_BYTES[inner])
        else:
            if count > size:
                raise Damaged("names an array longer than the file", value=size, limit=count)
            for _ in range(count):
                _typed(window, inner, (width, size, depth + 1))
    elif kind in _SCALAR_BYTES:
        raw = window.take(_SCALAR_BYTES[kind])
        return int.from_bytes(raw, "little") if kind == _UINT32 else 0
    else:
        raise Damaged(f"has a value of a type that does not exist: {kind}")
    return 0


def _tensor(window: Window, width: int, size: int) -> int:
    """Return where a tensor ends, from the start of the data, in bytes."""
    window.skip(_length(window, width, size))
    dimensions = _number(window, 4)
    if dimensions > 8:  # noqa: PLR2004  # ggml has four
        raise Damaged(f"has a tensor of {dimensions:,} dimensions")
    shape = [_number(window, width) for _ in range(dimensions)]
    kind, offset = struct.unpack("<IQ", window.take(12))
    items, block = _BLOCKS.get(kind, (1, 0))  # a type newer than this table: its start is known
    end: int = offset + -(-math.prod(shape) // items) * block
    return end
