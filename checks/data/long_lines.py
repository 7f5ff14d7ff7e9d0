"""Finds a line that is too long to be parsed in bounded memory, without reading the file."""

from __future__ import annotations

from typing import TYPE_CHECKING, BinaryIO

from checks.data.source import COMPRESSED, SourceProblem

if TYPE_CHECKING:
    from pathlib import Path

    from checks.context import Context
    from checks.data.source import Source

LIMIT_BYTES = 32 * 2**20
"""Longest line that is parsed. Shorter ones with a long value are named by a rule."""
_BLOCK_BYTES = 1 << 16
_CHUNK_BYTES = 1 << 20


def require_short_lines(source: Source, context: Context, limit: int = LIMIT_BYTES) -> None:
    """Raise where a text file has a line that a parser would have to hold as a whole.

    Only the last block before each multiple of the limit is read, in which nearly all files have
    a newline: five gigabytes cost ten megabytes of reading.

    Args:
        source: Text files; compressed ones are left alone.
        context: Tells how people know them.
        limit: The longest line in bytes.

    Raises:
        SourceProblem: A line is longer.
    """
    for file in source.files:
        if file.suffix in COMPRESSED:
            continue
        found = _find(file, limit)
        if found is not None:
            line, length = found
            raise SourceProblem(
                "data.length",
                f"line {line} of {context.subject(file)} is {length:,} bytes long, at most "
                f"{limit:,} are read: an unclosed quote or a missing newline?",
                "look at the line; keep large objects in files of their own",
                (length, limit),
            )


def _find(file: Path, limit: int) -> tuple[int, int] | None:
    """Return number and length of the first line that is longer than `limit`."""
    size = file.stat().st_size
    if size <= limit:
        return None
    with file.open("rb") as handle:
        start = 0
        while start + limit < size:
            newline = _last_newline(handle, start, start + limit + 1)
            if newline is None:
                return _count_newlines(handle, start) + 1, _length(handle, start)
            start = newline + 1
    return None


def _last_newline(handle: BinaryIO, start: int, end: int) -> int | None:
    """Return where the last newline between two offsets is, reading backwards."""
    while end > start:
        begin = max(start, end - _BLOCK_BYTES)
        handle.seek(begin)
        found = handle.read(end - begin).rfind(b"\n")
        if found >= 0:
            return begin + found
        end = begin
    return None


def _count_newlines(handle: BinaryIO, end: int) -> int:
    handle.seek(0)
    count, left = 0, end
    while left and (chunk := handle.read(min(left, _CHUNK_BYTES))):
        count += chunk.count(b"\n")
        left -= len(chunk)
    return count


def _length(handle: BinaryIO, start: int) -> int:
    handle.seek(start)
    length = 0
    while chunk := handle.read(_CHUNK_BYTES):
        newline = chunk.find(b"\n")
        if newline >= 0:
            return length + newline
        length += len(chunk)
    return length
