"""Opens a data set on polars; whatever cannot be read becomes a `SourceProblem`."""

from __future__ import annotations

import csv
import io
import os
import zlib
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING, Any

import polars as pl

from checks.data import json_reading
from checks.data.csv_reading import PATH, CsvReader, add_partitions, require_alike
from checks.data.json_reading import infer_schema
from checks.data.long_lines import require_short_lines
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
_LISTED = 3
_UNREADABLE = (
    pl.exceptions.PolarsError,
    pl.exceptions.PanicException,
    OSError,
    EOFError,
    zlib.error,
    ValueError,  # a figure that Python cannot hold
    OverflowError,
)


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
            require_short_lines(source, context)
            reader = CsvReader(source, separator, declaration.null_values)
            return _require_rows(reader.open(wanted or {}), source, context)
        return _require_rows(_scan(source, context), source, context)


@contextmanager
def readable_as_data(source: Source, context: Context) -> Iterator[None]:
    """Turn everything that a parser may raise into a `SourceProblem` that says why."""
    try:
        yield
    except _UNREADABLE as error:
        raise explain(error, source, context) from None


def explain(error: BaseException, source: Source, context: Context) -> SourceProblem:
    """Return the problem behind a parser's error, with the place where it is known."""
    text = str(error).strip().partition("\n")[0][:200]
    if isinstance(error, pl.exceptions.PanicException):
        text = "its content contradicts itself"
    shown = context.subject(source.root or source.files[0])
    more = f" and {len(source.files) - 1} more" if len(source.files) > 1 else ""
    if "utf-8" in text.lower() or "utf8" in text.lower():
        problems = [find_bad_byte(file, context.subject(file)) for file in source.files]
        return next((p for p in problems if "line" in str(p)), problems[0])
    found = None
    if source.format == "jsonl":
        found = json_reading.explain(source, context)
    elif source.format == "csv":
        found = _explain_csv(text, source, context)
    if found is not None:
        return found
    if "more than one occurrence" in text:
        return SourceProblem(
            "data.columns",
            f"{shown}{more} names a column more than once: {text}",
            "give each column a name of its own",
        )
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


def _explain_csv(text: str, source: Source, context: Context) -> SourceProblem | None:
    if "more fields" in text:
        return _ragged(source, context)
    if "could not parse" in text and text.count('"') % 2:
        names = ", ".join(context.subject(file) for file in source.files[:_LISTED])
        return SourceProblem(
            "data.format",
            f"{names} has a quote that is not closed: a field goes on over the end of its line",
            "look for a line with an odd number of quotes",
        )
    return None


def _scan(source: Source, context: Context) -> PolarsData:
    files = list(source.files)
    hive = source.root is not None
    if source.format == "parquet":
        frame = pl.scan_parquet(files, hive_partitioning=hive, glob=False)
        return PolarsData(frame, Sampler(frame, source, None))
    if source.format == "arrow":
        frame = pl.scan_ipc(files, hive_partitioning=hive, glob=False)
        return PolarsData(frame, Sampler(frame, source, None))
    if source.format == "arrow stream":
        from checks.data.arrow_stream import scan  # noqa: PLC0415 - few projects have it

        frame = scan(source, context)
        return PolarsData(frame, Sampler(frame, source, None))
    require_short_lines(source, context)
    schema, oddity = infer_schema(source, context)

    def parse(piece: io.BytesIO) -> pl.DataFrame:
        return pl.read_ndjson(piece, schema=schema)

    if source.partitions():
        frame = pl.scan_ndjson(files, schema=schema, include_file_paths=PATH)
        frame = add_partitions(frame, source)
        return PolarsData(frame, Sampler(frame, source, None), oddity)
    frame = json_reading.scan(source, schema)
    return PolarsData(frame, Sampler(frame, source, parse), oddity)


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
