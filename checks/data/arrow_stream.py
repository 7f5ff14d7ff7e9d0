"""Reads Arrow streams lazily, a batch at a time: what Hugging Face's datasets keep on the disk.

Format: https://arrow.apache.org/docs/format/Columnar.html (encapsulated messages: a mark of four
bytes 0xFF, the length of the metadata, the metadata as a flatbuffer, the body). Of the metadata
only the kind of the message and the length of its body are read here; polars reads the rest.
"""

from __future__ import annotations

import io
import os
import struct
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, BinaryIO

import polars as pl

from checks import flatbuffer
from checks.data.piecewise import scan_pieces
from checks.data.source import STREAM_MARK, SourceProblem

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from checks.context import Context
    from checks.data.source import Source

_PREFIX = struct.Struct("<4si")
_END = STREAM_MARK + bytes(4)
_SCHEMA, _DICTIONARY, _BATCH = 1, 2, 3
_KIND_FIELD, _HEADER_FIELD, _LENGTH_FIELD = 1, 2, 3
_ID_FIELD, _DELTA_FIELD = 0, 2
_METADATA_LIMIT = 1 << 28
_AGAIN = "write it again; `guard log` shows which run touched it last"


@dataclass(frozen=True, slots=True)
class _Message:
    """One message of a stream.

    Attributes:
        kind: What it holds: the schema, a dictionary, a batch of rows.
        content: Prefix, metadata and body, as they stand in the file.
        dictionary: Which dictionary it holds.
        adds: Whether it adds to that dictionary, instead of replacing it.
    """

    kind: int
    content: bytes
    dictionary: int = 0
    adds: bool = False


def scan(source: Source, context: Context) -> pl.LazyFrame:
    """Return the rows of all files, lazily; a batch is the most that lies in memory.

    Args:
        source: Files in the stream format.
        context: Tells how people know them.

    Raises:
        SourceProblem: A file is cut short or is no stream.
    """
    frames = []
    partitions = source.partitions() or [{} for _ in source.files]
    for file, folders in zip(source.files, partitions, strict=True):
        shown = context.subject(file)
        scanned = scan_pieces(_read_schema(file, shown), partial(_batches, file, shown))
        frames.append(scanned.with_columns(pl.lit(v).alias(k) for k, v in folders.items()))
    return pl.concat(frames)


def _read_schema(file: Path, shown: str) -> pl.Schema:
    with file.open("rb") as handle:
        first = next(_messages(handle, os.fstat(handle.fileno()).st_size, shown), None)
    if first is None or first.kind != _SCHEMA:
        raise SourceProblem("data.format", f"{shown} is an Arrow stream without a schema", _AGAIN)
    return pl.read_ipc_stream(io.BytesIO(first.content + _END)).schema


def _batches(file: Path, shown: str, columns: list[str] | None) -> Iterator[pl.DataFrame]:
    """Yield the rows of a stream batch by batch."""
    schema = b""
    dictionaries: dict[int, bytes] = {}
    with file.open("rb") as handle:
        for message in _messages(handle, os.fstat(handle.fileno()).st_size, shown):
            if message.kind == _BATCH:
                parts = (schema, *dictionaries.values(), message.content, _END)
                yield pl.read_ipc_stream(io.BytesIO(b"".join(parts)), columns=columns)
            elif message.kind == _SCHEMA:
                schema = message.content
            elif message.kind == _DICTIONARY:
                known = dictionaries.get(message.dictionary, b"") if message.adds else b""
                dictionaries[message.dictionary] = known + message.content


def _messages(handle: BinaryIO, size: int, shown: str) -> Iterator[_Message]:
    """Yield the messages of a stream up to its end mark.

    Raises:
        SourceProblem: The stream ends before that, or goes on with something else.
    """
    while True:
        prefix = handle.read(_PREFIX.size)
        if prefix == _END:
            return
        cut = SourceProblem(
            "data.truncated",
            f"{shown} is an Arrow stream that is cut short: its end mark is not there",
            _AGAIN,
        )
        if len(prefix) < _PREFIX.size:
            raise cut
        mark, length = _PREFIX.unpack(prefix)
        if mark != STREAM_MARK or not 0 < length <= _METADATA_LIMIT:
            at = handle.tell() - _PREFIX.size
            raise SourceProblem(
                "data.format", f"{shown} is no Arrow stream any more at byte {at:,}", _AGAIN
            )
        metadata = handle.read(length)
        try:
            kind, dictionary, adds, body = _read_metadata(metadata)
        except struct.error:
            raise cut from None
        if body < 0 or handle.tell() + body > size:
            raise cut
        yield _Message(kind, prefix + metadata + handle.read(body), dictionary, adds)


def _read_metadata(metadata: bytes) -> tuple[int, int, bool, int]:
    """Return kind, dictionary, whether it adds to that, and length of the body of a message."""
    root = flatbuffer.root(metadata)
    kind = flatbuffer.scalar(metadata, root, _KIND_FIELD, "B")
    body = flatbuffer.scalar(metadata, root, _LENGTH_FIELD, "q")
    if kind != _DICTIONARY:
        return kind, 0, False, body
    header = flatbuffer.follow(metadata, root, _HEADER_FIELD)
    if header is None:
        raise struct.error
    number = flatbuffer.scalar(metadata, header, _ID_FIELD, "q")
    adds = bool(flatbuffer.scalar(metadata, header, _DELTA_FIELD, "B"))
    return kind, number, adds, body
