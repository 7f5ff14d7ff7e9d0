"""Protobuf messages without a schema: ONNX models and TensorFlow SavedModels.

Wire format: https://protobuf.dev/programming-guides/encoding; field numbers: onnx.proto
(ModelProto: ir_version 1, producer_name 2, graph 7, opset_import 8) and saved_model.proto
(saved_model_schema_version 1, meta_graphs 2).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from checks.artifacts.damage import Damaged
from checks.artifacts.window import Truncated, Window

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_VARINT_BYTES = 10
_ONNX_KINDS = {
    **dict.fromkeys((1, 5), _VARINT),
    **dict.fromkeys((2, 3, 4, 6, 7, 8, 14, 20), _BYTES),
}
_SAVED_MODEL_KINDS = {1: _VARINT, 2: _BYTES}
_FIELD_LIMIT = 1_000_000


def fields(window: Window, size: int) -> Iterator[tuple[int, int, int]]:
    """Walk the top level of a message.

    Yields:
        Field number, wire type, and length of the value in bytes.

    Raises:
        Damaged: This is no message.
        Truncated: The message ends inside a field.
    """
    count = 0
    while window.offset < size:
        tag = _varint(window)
        number, wire = tag >> 3, tag & 7
        count += 1
        if not number or wire not in {_VARINT, _FIXED64, _BYTES, _FIXED32} or count > _FIELD_LIMIT:
            raise Damaged(f"is no protobuf message at byte {window.offset:,}")
        length = 8 if wire == _FIXED64 else 4
        if wire == _VARINT:
            start = window.offset
            _varint(window)
            yield number, wire, window.offset - start
            continue
        if wire == _BYTES:
            length = _varint(window)
        if window.offset + length > size:
            raise Truncated(size, window.offset + length)
        window.skip(length)
        yield number, wire, length


def looks_like_onnx(head: bytes) -> bool:
    """Return whether the first bytes are those of an ONNX model: version, then known fields."""
    if len(head) < 8 or head[0] != 0x08 or not 1 <= head[1] <= 20:  # noqa: PLR2004
        return False
    return (head[2] >> 3, head[2] & 7) in set(_ONNX_KINDS.items())


def inspect_onnx(file: BinaryIO, size: int) -> None:
    """Raise unless the file is a whole ONNX model.

    Raises:
        Damaged: A part of it is missing.
        Truncated: It ends inside a field.
    """
    _inspect(file, size, (_ONNX_KINDS, {1, 7, 8}), "ONNX model")


def inspect_saved_model(file: BinaryIO, size: int) -> None:
    """Raise unless the file is a whole `saved_model.pb`.

    Raises:
        Damaged: A part of it is missing.
        Truncated: It ends inside a field.
    """
    _inspect(file, size, (_SAVED_MODEL_KINDS, {2}), "SavedModel")


def _inspect(file: BinaryIO, size: int, schema: tuple[dict[int, int], set[int]], what: str) -> None:
    kinds, needed = schema
    file.seek(0)
    seen = set()
    for number, wire, _length in fields(Window(file), size):
        if kinds.get(number, wire) != wire:
            raise Damaged(f"is no {what}: its field {number} is of another type")
        seen.add(number)
    if missing := needed - seen:
        numbers = ", ".join(map(str, sorted(missing)))
        raise Damaged(f"is cut short or no {what}: it lacks the field {numbers}")


def _varint(window: Window) -> int:
    value = 0
    for shift in range(_VARINT_BYTES):
        byte = window.byte()
        value |= (byte & 0x7F) << (7 * shift)
        if byte < 0x80:  # noqa: PLR2004  # the high bit says that more follows
            return value
    raise Damaged(f"is no protobuf message at byte {window.offset:,}")
