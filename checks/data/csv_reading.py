"""Reads CSV files lazily, in the types that all their values have."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import polars as pl

from checks.data.polars_table import PolarsData
from checks.data.predicates import parsed
from checks.data.sample import Sampler
from checks.data.source import SourceProblem
from checks.data.text import NULL_VALUES, read_header, require_whole_last_line

if TYPE_CHECKING:
    import io
    from collections.abc import Mapping

    from checks.context import Context
    from checks.data.source import Source

PATH = "path of the file"
_NO_VALUE = "__HIVE_DEFAULT_PARTITION__"
_INFERRED_ROWS = 10_000
_PARSED_ONCE_BYTES = 16 * 2**20


@dataclass(frozen=True, slots=True)
class CsvReader:
    """How the CSV files of one data set are read.

    Attributes:
        source: The files.
        separator: What stands between two fields.
        null_values: Texts that mean a missing value; None for those that pandas knows.
    """

    source: Source
    separator: str
    null_values: tuple[str, ...] | None

    @property
    def nulls(self) -> list[str]:
        """The texts that mean a missing value, beside the empty field."""
        return list(NULL_VALUES if self.null_values is None else self.null_values)

    def open(self, wanted: Mapping[str, Any]) -> PolarsData:
        """Return the data after a first pass over all values.

        Comparing every field with every text for "missing" doubles the price of a pass.
        So numbers are parsed without, which most files survive, and only texts compared;
        the first number that does not parse sends the file the slow way.

        Args:
            wanted: polars types by column that a schema asks for.

        Raises:
            ComputeError: The files are no CSV, whatever the types.
        """
        inferred = self._scan(null_values=self.nulls).collect_schema()
        types = {n: wanted.get(n, t) for n, t in inferred.items()}
        for frame in (
            self._quick(types),
            self._scan(null_values=self.nulls, schema_overrides=types),
        ):
            try:
                return self._summarized(frame)
            except pl.exceptions.ComputeError as error:
                if "could not parse" not in str(error):
                    raise
        texts = self._scan(null_values=self.nulls, infer_schema=False)
        settled = _settle_types(types, texts)
        return self._summarized(self._scan(null_values=self.nulls, schema_overrides=settled))

    def _quick(self, types: Mapping[str, Any]) -> pl.LazyFrame:
        """Return a frame that looks for missing values in texts alone."""
        frame = self._scan(schema_overrides=dict(types))
        names = {name: f"c{n}" for n, name in enumerate(types)}
        texts = [pl.col(names[n]) for n, t in types.items() if t == pl.String]
        frame = frame.rename(names).with_columns(
            pl.when(text.is_in(self.nulls).not_()).then(text) for text in texts
        )
        return frame.rename({inner: name for name, inner in names.items()})

    def _scan(self, **options: Any) -> pl.LazyFrame:
        frame = pl.scan_csv(
            list(self.source.files),
            separator=self.separator,
            infer_schema_length=_INFERRED_ROWS,
            glob=False,
            include_file_paths=PATH if self.source.partitions() else None,
            **options,
        )
        return add_partitions(frame, self.source)

    def _summarized(self, frame: pl.LazyFrame) -> PolarsData:
        """Return the data; a small text file is parsed once and kept in memory."""
        schema = frame.collect_schema()

        def parse(piece: io.BytesIO) -> pl.DataFrame:
            return pl.read_csv(
                piece,
                has_header=False,
                schema=schema,
                separator=self.separator,
                null_values=self.nulls,
            )

        if self.source.size_bytes <= _PARSED_ONCE_BYTES and not self.source.compressed:
            frame = frame.collect(engine="streaming").lazy()
        sampler = Sampler(frame, self.source, None if self.source.partitions() else parse)
        data = PolarsData(frame, sampler)
        data.summarize()
        return data


def add_partitions(frame: pl.LazyFrame, source: Source) -> pl.LazyFrame:
    """Return the frame with a column for each ``key=value`` folder above its files."""
    partitions = source.partitions()
    if not partitions:
        return frame
    paths = [str(file) for file in source.files]
    for key in partitions[0]:
        texts = [_partition_value(values[key]) for values in partitions]
        whole = all(text is None or re.fullmatch(r"-?\d{1,18}", text) for text in texts)
        values = [None if t is None else int(t) if whole else t for t in texts]
        by_path = dict(zip(paths, values, strict=True))
        kind = pl.Int64 if whole else pl.String
        frame = frame.with_columns(
            pl.col(PATH).replace_strict(by_path, default=None, return_dtype=kind).alias(key)
        )
    return frame.drop(PATH)


def _partition_value(text: str) -> str | None:
    """Return what a ``key=value`` folder stands for, as Hive and Spark write it."""
    return None if text == _NO_VALUE else unquote(text)


def _settle_types(schema: Mapping[str, Any], texts: pl.LazyFrame) -> dict[str, Any]:
    """Return a type for each column that all its values have: its own, float or text."""
    wanted = []
    names = {name: f"c{n}" for n, name in enumerate(schema)}
    for name, dtype in schema.items():
        value = pl.col(names[name])
        for kind, target in (("own", dtype), ("float", pl.Float64)):
            lost = value.is_not_null() & parsed(value, target).is_null()
            wanted.append(lost.sum().alias(f"{names[name]}:{kind}"))
    lost_by = texts.rename(names).select(wanted).collect(engine="streaming").row(0, named=True)
    settled = {}
    for name, dtype in schema.items():
        if lost_by.get(f"{names[name]}:own") == 0:
            settled[name] = dtype
        elif dtype.is_numeric() and lost_by.get(f"{names[name]}:float") == 0:
            settled[name] = pl.Float64
        else:
            settled[name] = pl.String
    return settled


def require_alike(source: Source, separator: str | None, context: Context) -> str:
    """Return the separator of files whose headers are the same.

    Args:
        source: The files.
        separator: The declared separator, or None to recognise it.
        context: Where the check runs.

    Raises:
        SourceProblem: A header cannot be read or differs, or a last line is cut.
    """
    first: list[str] | None = None
    chosen = separator or ","
    for file in source.files:
        shown = context.subject(file)
        chosen, names = read_header(file, shown, separator)
        require_whole_last_line(file, shown, chosen, len(names))
        if first is not None and names != first:
            raise SourceProblem(
                "data.columns",
                f"{shown} has other columns than {context.subject(source.files[0])}: "
                f"{', '.join(sorted(set(names) ^ set(first))) or 'the same in another order'}",
                "write the files with one header, or declare them one by one",
            )
        first = names
    return chosen
