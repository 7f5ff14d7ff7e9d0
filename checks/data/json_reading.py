"""Reads JSON lines lazily, in the types that all their values have, and says where one is wrong."""

from __future__ import annotations

import gzip
import io
import json
from itertools import islice
from typing import TYPE_CHECKING, Any, BinaryIO, cast

import polars as pl

from checks.data.piecewise import scan_pieces
from checks.data.source import SourceProblem

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from checks.context import Context
from checks.data.source import Source

_PIECE_BYTES = 8 * 2**20
_MAPPED_BYTES = 128 * 2**20
_SEARCHED_LINES = 2_000_000
_LOOKED_AT = 1_000
_KINDS = {bool: "true or false", int: "a number", float: "a number", str: "a text"}
_KINDS |= {list: "a list", dict: "a table"}


def infer_schema(source: Source, context: Context) -> tuple[pl.Schema, SourceProblem | None]:
    """Return the columns and types of all lines, piece by piece so that memory is bounded.

    A key may appear late, and a value that was whole so far may have a fraction: nothing
    but all lines tells.

    Returns:
        The types, and what they hide: a key with numbers and texts becomes a text.

    Raises:
        SourceProblem: A line is no JSON object, or a key has values of kinds that no type holds.
    """
    if any(file.suffix == ".zst" for file in source.files):  # only polars can read it
        lazy = pl.scan_ndjson(list(source.files), infer_schema_length=None)
        return lazy.collect_schema(), None
    merged: pl.Schema | None = None
    hidden = False
    for piece in _pieces(source):
        try:
            frame = pl.read_ndjson(io.BytesIO(piece), infer_schema_length=None)
            hidden = hidden or _numbers_in_texts(piece, frame)
            if merged is not None and merged != frame.schema:
                hidden = hidden or _differ(merged, frame.schema)
                empty = [pl.DataFrame(schema=s) for s in (merged, frame.schema)]
                merged = pl.concat(empty, how="diagonal_relaxed").schema
            else:
                merged = frame.schema
        except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
            raise (explain(source, context) or _unknown(error, source, context)) from None
    oddity = explain(source, context) if hidden else None
    return (merged if merged is not None else pl.Schema()), oddity


def scan(source: Source, schema: pl.Schema) -> pl.LazyFrame:
    """Return the rows of all files, lazily.

    polars maps JSON lines into memory as a whole. Large files are read in pieces instead, at
    about half as much time again, so that a container's limit holds.

    Args:
        source: JSON lines without partitions.
        schema: Columns and types of all lines.
    """
    if source.compressed or source.size_bytes <= _MAPPED_BYTES:
        return pl.scan_ndjson(list(source.files), schema=schema)

    def pieces(columns: list[str] | None) -> Iterator[pl.DataFrame]:
        wanted = schema if columns is None else {name: schema[name] for name in columns}
        for piece in _pieces(source):
            if piece.strip():
                yield pl.read_ndjson(io.BytesIO(piece), schema=wanted)

    return scan_pieces(schema, pieces)


def explain(source: Source, context: Context) -> SourceProblem | None:
    """Return what is wrong with the first bad line; None where the first millions are fine."""
    for file in source.files:
        shown = context.subject(file)
        kinds: dict[str, tuple[str, int]] = {}
        with _open(file) as handle:
            for number, line in enumerate(islice(handle, _SEARCHED_LINES), 1):
                problem = _judge_line(line, f"line {number} of {shown}", kinds, number)
                if problem is not None:
                    return problem
    return None


def _judge_line(
    line: bytes, place: str, kinds: dict[str, tuple[str, int]], number: int
) -> SourceProblem | None:
    """Return what is wrong with a line, by itself or against the lines before."""
    if not line.strip():
        return None
    if b"\0" in line:
        return SourceProblem(
            "data.truncated",
            f"{place} holds NUL bytes: the file was not written out",
            "write it again; `guard log` shows which run touched it last",
        )
    try:
        value = json.loads(line)
    except UnicodeDecodeError:
        return SourceProblem("data.encoding", f"{place} is not UTF-8", "write the file as UTF-8")
    except (ValueError, RecursionError) as error:
        cut = "" if line.endswith(b"\n") else ", and has no newline: it is cut short"
        what = getattr(error, "msg", "nested too deep")
        return SourceProblem(
            "data.format",
            f"{place} is no JSON ({what}){cut}",
            "write it again; `guard log` shows which run touched it last",
        )
    if not isinstance(value, dict):
        array = isinstance(value, list) and number == 1
        return SourceProblem(
            "data.format",
            f"{place} is {_KINDS.get(type(value), 'null')}, not an object",
            "write one object a line" + (": jq -c '.[]' FILE" if array else ""),
        )
    return _judge_kinds(value, place, kinds, number)


def _judge_kinds(
    value: dict[str, Any], place: str, kinds: dict[str, tuple[str, int]], number: int
) -> SourceProblem | None:
    for key, item in value.items():
        if item is None:
            continue
        kind = _KINDS[type(item)]
        before, first = kinds.setdefault(key, (kind, number))
        if kind != before:
            return SourceProblem(
                "data.types",
                f"{place} has {kind} for {key!r}, line {first} has {before}",
                "write values of one type, or other keys for the others",
            )
    return None


def _numbers_in_texts(piece: bytes, frame: pl.DataFrame) -> bool:
    """Return whether a column that is read as text also holds what is no text.

    polars makes a text of both; read as categories it takes texts alone. Only columns are read
    again in which some text looks like a number.
    """
    suspects = {
        name: pl.Categorical
        for name, dtype in frame.schema.items()
        if dtype == pl.String and _has_number(frame[name])
    }
    if not suspects:
        return False
    try:
        pl.read_ndjson(io.BytesIO(piece), schema=suspects)
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException):
        return True
    return False


def _has_number(values: pl.Series) -> bool:
    texts = values.alias("value").drop_nulls()
    step = max(1, texts.len() // _LOOKED_AT)
    looked_at = pl.concat([texts.head(_LOOKED_AT), texts.gather_every(step)])
    found = looked_at.cast(pl.Float64, strict=False).is_not_null() | looked_at.is_in(
        ["true", "false"]
    )
    return bool(found.any())


def _differ(before: pl.Schema, now: pl.Schema) -> bool:
    """Return whether a key that was a text is none any more, or the other way round."""
    return any(
        (before[name] == pl.String) != (dtype == pl.String)
        for name, dtype in now.items()
        if name in before and pl.Null not in {dtype, before[name]}
    )


def _pieces(source: Source) -> Iterator[bytes]:
    """Yield whole lines of about eight megabytes."""
    for file in source.files:
        with _open(file) as handle:
            while piece := handle.read(_PIECE_BYTES):
                yield piece + handle.readline()


def _open(file: Path) -> BinaryIO:
    return cast("BinaryIO", gzip.open(file)) if file.suffix == ".gz" else file.open("rb")


def _unknown(error: BaseException, source: Source, context: Context) -> SourceProblem:
    text = str(error).strip().partition("\n")[0][:200]
    return SourceProblem(
        "data.format",
        f"{context.subject(source.root or source.files[0])} cannot be read as JSON lines: {text}",
        "write it again; `guard log` shows which run touched it last",
    )
