"""Models in several files: whether what the main file names is there, and long enough.

ONNX's external data: https://onnx.ai/onnx/repo-docs/ExternalData.html (ModelProto: graph 7;
GraphProto: initializer 5; TensorProto: external_data 13, pairs of key 1 and value 2). Shards of
Hugging Face: ``weight_map`` in ``*.index.json`` names the file of each tensor.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any, BinaryIO

from checks.artifacts.saved_model import missing_parts as _saved_model_parts

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_GRAPH, _INITIALIZER, _EXTERNAL, _KEY, _VALUE = 7, 5, 13, 1, 2
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_INDEX = ".index.json"
_INDEX_BYTES = 64 << 20
_ENTRY_BYTES = 1 << 16


def saved_model(model: Path) -> Iterator[str]:
    """Yield what a TensorFlow SavedModel lacks."""
    for part in _saved_model_parts(model):
        yield f"SavedModel: {part}"


def external_data(model: Path, file: BinaryIO, size: int) -> Iterator[str]:
    """Yield what the external data of an ONNX model lacks.

    Args:
        model: The model's path.
        file: Its content, known to be a whole protobuf message.
        size: Its length in bytes.
    """
    reach: dict[str, int] = {}
    for begin, end in _fields(file, 0, size, _GRAPH):
        for first, last in list(_fields(file, begin, end, _INITIALIZER)):
            entry = _external(file, first, last)
            location = entry.get("location")
            if location:
                wanted = _number(entry.get("offset")) + _number(entry.get("length"))
                reach[location] = max(reach.get(location, 0), wanted)
    for location, wanted in sorted(reach.items()):
        yield from _judge_part(model, location, wanted)


def shards(index: Path) -> Iterator[str]:
    """Yield the files that an index of shards names and that are not there."""
    if not index.name.endswith(_INDEX):
        return
    with open(index, "rb") as file:
        try:
            document = json.loads(file.read(_INDEX_BYTES))
        except (ValueError, RecursionError):
            return  # named by the check of its format
    weights = document.get("weight_map") if isinstance(document, dict) else None
    names = weights.values() if isinstance(weights, dict) else ()
    for name in sorted({name for name in names if isinstance(name, str)}):
        yield from _judge_part(index, name, 1)


def _judge_part(model: Path, name: str, wanted: int) -> Iterator[str]:
    if os.path.isabs(name) or os.pardir in name.split("/") or "\0" in name:
        yield f"names {name!r}, which lies outside of its folder"
        return
    try:
        have = os.stat(model.parent / name).st_size
    except OSError:
        yield f"names {name!r}, which is not there"
        return
    if have < wanted:
        yield f"needs {wanted:,} bytes of {name!r}, which has {have:,}"


def _external(file: BinaryIO, begin: int, end: int) -> dict[str, str]:
    """Return the pairs that say where a tensor's data lies; empty where it lies inside."""
    pairs: dict[str, str] = {}
    for first, last in list(_fields(file, begin, end, _EXTERNAL)):
        texts = {}
        for number in (_KEY, _VALUE):
            for start, stop in _fields(file, first, last, number):
                file.seek(start)
                texts[number] = file.read(min(stop - start, _ENTRY_BYTES)).decode(
                    "utf-8", "replace"
                )
        pairs[texts.get(_KEY, "")] = texts.get(_VALUE, "")
    return pairs


def _fields(file: BinaryIO, begin: int, end: int, wanted: int) -> Iterator[tuple[int, int]]:
    """Yield where the values of one field of a message lie; all others are passed over."""
    at = begin
    while at < end:
        file.seek(at)
        tag = _varint(file)
        wire = tag & 7
        if wire == _VARINT:
            _varint(file)
            at = file.tell()
            continue
        length = {_FIXED64: 8, _FIXED32: 4}.get(wire)
        if length is None:
            if wire != _BYTES:
                return
            length = _varint(file)
        start = file.tell()
        at = start + length
        if tag >> 3 == wanted and wire == _BYTES and at <= end:
            yield start, at


def _varint(file: BinaryIO) -> int:
    value = 0
    for shift in range(0, 70, 7):
        byte: Any = file.read(1)
        if not byte:
            break
        value |= (byte[0] & 0x7F) << shift
        if byte[0] < 0x80:  # noqa: PLR2004 - the high bit says that more follows
            break
    return value


def _number(text: str | None) -> int:
    return int(text) if text and text.isdecimal() else 0
