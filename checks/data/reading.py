"""Opens a data set on polars; whatever cannot be read becomes a `SourceProblem`."""

from __future__ import annotations

import csv
import io
import os
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING, Any

import polars as pl

from checks.data.csv_reading import PATH, CsvReader, add_partitions, require_alike
from checks.data.polars_table import PolarsData
from checks.data.sample import Sampler
from checks.data.source import Source, SourceProblem, find_source
from checks.data.text import (
    find_bad_byte,
    read_header,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from checks.context import Context
    from checks.data.declaration import DataCheck

_SEARCHED_ROWS = 5_000_000
_PIECE_BYTES = 8 * 2**20


def open_data(
    path: str, declaration: DataCheck, context: Context, wanted: Mapping[str, Any] | None = None
) -> PolarsData:
    """Return the data set at `path`, its types settled and its structure sound.

    Args:
        path: A file, a folder or a glob, from the project folder.
        declaration: How text files are read.
        context: Where the check runs.
        wanted: polars types by column that a schema asks for; a CSV column that does not
            hold them stays text, so that the rules can count what does not fit.

    Raises:
        SourceProblem: It cannot be read as data.
    """
    source = find_source(path, context)
    with readable_as_data(source, context):
        if source.format == "csv":
            separator = require_alike(source, declaration.separator, context)
            reader = CsvReader(source, separator, declaration.null_values)
            return _require_rows(reader.open(wanted or {}), source, context)
        frame, parse = _scan(source)
        data = PolarsData(frame, Sampler(frame, source, parse))
        return _require_rows(data, source, context)


@contextmanager
def readable_as_data(source: Source, context: Context) -> Iterator[None]:
    """Turn everything that a parser may raise into a `SourceProblem` that says why."""
    try:
        yield
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
        raise explain(error, source, context) from None


def explain(error: BaseException, source: Source, context: Context) -> SourceProblem:
    """Return the problem behind a parser's error, with the place where it is known."""
    text = str(error).strip().partition("\n")[0][:200]
    shown = context.subject(source.root or source.files[0])
    more = f" and {len(source.files) - 1} more" if len(source.files) > 1 else ""
    if "utf-8" in text.lower() or "utf8" in text.lower():
        for file in source.files:
            problem = find_bad_byte(file, context.subject(file))
            if "line" in str(problem):
                return problem
        return find_bad_byte(source.files[0], shown)
    if "more fields" in text:
        return _ragged(source, context)
    if "schema" in text.lower() and len(source.files) > 1:
        return SourceProblem(
            "data.columns",
            f"the files of {shown}{more} do not have the same columns: {text}",
            "write them with one schema, or declare them one by one",
        )
    return SourceProblem(
        "data.format",
        f"{shown}{more} cannot be read as {source.format}: {text}",
        "write it again; `guard log` shows which run touched it last",
    )


def _scan(source: Source) -> tuple[pl.LazyFrame, Any]:
    files = list(source.files)
    hive = source.root is not None
    if source.format == "parquet":
        return pl.scan_parquet(files, hive_partitioning=hive, glob=False), None
    if source.format == "arrow":
        return pl.scan_ipc(files, hive_partitioning=hive, glob=False), None
    schema = _infer_json(source)

    def parse(piece: io.BytesIO) -> pl.DataFrame:
        return pl.read_ndjson(piece, schema=schema)

    if source.partitions():
        frame = pl.scan_ndjson(files, schema=schema, include_file_paths=PATH)
        return add_partitions(frame, source), None
    return pl.scan_ndjson(files, schema=schema), parse


def _require_rows(data: PolarsData, source: Source, context: Context) -> PolarsData:
    """Return the data after its first pass, which every value has to survive."""
    rows, summaries = data.summarize()
    if rows == 0 or not summaries:
        shown = context.subject(source.root or source.files[0])
        columns = len(summaries)
        raise SourceProblem(
            "data.empty",
            f"{shown} has a header of {columns} column{'s' * (columns != 1)} and no rows",
            "make the data again; lines have to end with a newline",
        )
    return data


def _infer_json(source: Source) -> pl.Schema:
    """Return the columns and types of all lines, piece by piece so that memory is bounded.

    A key may appear late, and a value that was whole so far may have a fraction: nothing
    but all lines tells.
    """
    if source.compressed:
        return pl.scan_ndjson(list(source.files), infer_schema_length=None).collect_schema()
    merged: pl.Schema | None = None
    for file in source.files:
        with file.open("rb") as handle:
            while lines := handle.readlines(_PIECE_BYTES):
                piece = pl.read_ndjson(io.BytesIO(b"".join(lines)), infer_schema_length=None)
                if merged is None or merged == piece.schema:
                    merged = piece.schema
                    continue
                empty = [pl.DataFrame(schema=s) for s in (merged, piece.schema)]
                merged = pl.concat(empty, how="diagonal_relaxed").schema
    return merged if merged is not None else pl.Schema()


def _ragged(source: Source, context: Context) -> SourceProblem:
    """Name the first line with more fields than the header; looks at five million rows."""
    for file in source.files:
        found = _first_ragged(file)
        if found:
            line, fields, columns = found
            return SourceProblem(
                "data.columns",
                f"line {line} of {context.subject(file)} has {fields} fields, the header {columns}",
                "quote values that hold the separator, or correct the line",
            )
    return SourceProblem(
        "data.columns",
        f"{context.subject(source.files[0])} has rows with more fields than its header",
        "quote values that hold the separator",
    )


def _first_ragged(file: Path) -> tuple[int, int, int] | None:
    csv.field_size_limit(2**31 - 1)
    separator, names = read_header(file, os.fsdecode(file), None)
    with file.open(encoding="utf-8", errors="replace", newline="") as handle:
        rows = csv.reader(handle, delimiter=separator)
        for row in islice(rows, _SEARCHED_ROWS):
            if len(row) > len(names):
                return rows.line_num, len(row), len(names)
    return None
