"""A data set on polars: lazy, streaming, never collected, bounded in memory."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import polars as pl

from checks.data.moments import is_moment, readable_moment
from checks.data.predicates import fails
from checks.data.table import ESTIMATED_ROWS, SHOWN_ROWS, Column, Kind, Summary

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from checks.data.sample import Sampler
    from checks.data.source import SourceProblem
    from checks.data.table import Predicate

_ROWS_A_ROUND = 2_000
_TEXT_CHARS = 80
_SAMPLE_CELLS = 10_000_000
_MIN_SAMPLE_ROWS = 1_000
_HASHED_ROWS = 4_000_000


def describe_columns(schema: Mapping[str, Any]) -> tuple[Column, ...]:
    """Return the columns of a polars schema."""
    return tuple(_describe(name, dtype) for name, dtype in schema.items())


def _describe(name: str, dtype: Any) -> Column:
    if dtype.is_numeric():
        kind = Kind.NUMBER
    elif dtype == pl.Boolean:
        kind = Kind.BOOLEAN
    elif isinstance(dtype, (pl.String, pl.Categorical, pl.Enum)):
        kind = Kind.TEXT
    elif dtype.is_temporal():
        kind = Kind.TIME
    else:
        kind = Kind.OTHER
    return Column(name, str(dtype), kind, bool(dtype.is_float()))


class PolarsData:
    """The `Data` protocol over a lazy frame; columns go by position inside.

    Args:
        frame: What is scanned; it is never collected whole.
        sampler: How to draw rows that lie evenly over the data.
        oddity: What the types of the columns hide.
    """

    def __init__(
        self, frame: pl.LazyFrame, sampler: Sampler, oddity: SourceProblem | None = None
    ) -> None:
        self.oddity = oddity
        schema = frame.collect_schema()
        self.columns = describe_columns(schema)
        self.names = {column.name: f"c{n}" for n, column in enumerate(self.columns)}
        self._frame = frame.rename(self.names)
        self._dtypes = {self.names[name]: dtype for name, dtype in schema.items()}
        self._known = {column.name: column for column in self.columns}
        self._sampler = sampler
        self._first: tuple[int, dict[str, Summary]] | None = None

    def summarize(
        self, names: Sequence[str] | None = None, unless: Mapping[str, Any] | None = None
    ) -> tuple[int, dict[str, Summary]]:
        """Return the number of rows and the summary of each column, in one pass."""
        if names is None and unless is None and self._first is not None:
            return self._first
        columns = self.columns if names is None else [self._known[n] for n in names]
        values = {c.name: self._value(c, (unless or {}).get(c.name)) for c in columns}
        rows, summaries = self._summarize(columns, values)
        dirty = [
            c
            for c in columns
            if c.is_float and not _is_finite(summaries[c.name]) and summaries[c.name].missing < rows
        ]
        if dirty:
            summaries |= self._summarize_finite(dirty, values)
        if names is None and unless is None:
            self._first = rows, summaries
        return rows, summaries

    def count(self, predicates: Sequence[Predicate]) -> list[int]:
        """Return how many rows fail each predicate, in one pass."""
        if not predicates:
            return []
        wanted = [self._count(p).alias(str(n)) for n, p in enumerate(predicates)]
        return list(self._frame.select(wanted).collect(engine="streaming").row(0))

    def failing(self, predicates: Sequence[Predicate]) -> list[tuple[Mapping[str, Any], ...]]:
        """Return at most ten failing rows for each predicate.

        A round collects the first rows that fail any predicate; predicates that are still
        short of rows go into the next round.
        """
        shown: dict[int, tuple[Mapping[str, Any], ...]] = {}
        frame = self._frame.with_row_index("row", offset=1)
        open_ = dict(enumerate(predicates))
        while open_:
            marks = [self._fails(p).alias(f"bad{n}") for n, p in open_.items()]
            used = sorted({self.names[p.column] for p in open_.values()})
            found = (
                frame.select("row", *used, *marks)
                .filter(pl.any_horizontal([f"bad{n}" for n in open_]))
                .head(_ROWS_A_ROUND)
                .collect(engine="streaming")
            )
            for n, predicate in open_.items():
                name, dtype = self.names[predicate.column], self._known[predicate.column].dtype
                rows = found.filter(pl.col(f"bad{n}")).select("row", name).head(SHOWN_ROWS)
                shown[n] = _sample_rows(rows, dtype)
            if found.height < _ROWS_A_ROUND:
                break
            short = {n: p for n, p in open_.items() if len(shown[n]) < SHOWN_ROWS}
            open_ = short if len(short) < len(open_) else {}
        return [shown.get(n, ()) for n in range(len(predicates))]

    def sample(self, rows: int) -> pl.DataFrame:
        """Return about `rows` rows evenly spread over the data; all where they are fewer."""
        total = self.summarize()[0]
        return self._sampler.draw(
            total, min(rows, max(_MIN_SAMPLE_ROWS, _SAMPLE_CELLS // len(self.names)))
        )

    def groups(self, column: str, limit: int) -> dict[Any, int] | None:
        """Return how often each value occurs, missing left out; None for more than `limit`."""
        known = self._known[column]
        value = self._value(known, None)
        if known.is_float:
            value = value.fill_nan(None)
        if known.kind is Kind.TEXT:
            value = value.cast(pl.String)
        found = (
            self._frame.group_by(value.alias("value"))
            .agg(pl.len().alias("rows"))
            .filter(pl.col("value").is_not_null())
            .head(limit + 1)
            .collect(engine="streaming")
        )
        if found.height > limit:
            return None
        return dict(sorted(found.iter_rows(), key=lambda item: (-item[1], str(item[0]))))

    def repeated(self, columns: Sequence[str], *, exact: bool) -> tuple[int, int]:
        """Return (rows that repeat an earlier one, rows looked at) over `columns`.

        Rows go by a 64-bit hash. Exact: as many passes as keep four million hashes in
        memory. Otherwise one row in so many is looked at, chosen by the hash of the first
        column, so that equal rows are chosen together and the share is not biased.
        """
        names = [self.names[c] for c in columns]
        total = self.summarize()[0]
        whole = pl.struct(names).hash(seed=1)
        if not exact:
            one_in = max(1, math.ceil(total / ESTIMATED_ROWS))
            frame = self._frame.filter(_one_in(pl.col(names[0]), one_in))
            return _count_repeated(frame.select(whole.alias("hash")))
        parts = max(1, math.ceil(total / _HASHED_ROWS))
        hashes = self._frame.select(whole.alias("hash"))
        counts = [
            _count_repeated(hashes.filter(pl.col("hash") % parts == part)) for part in range(parts)
        ]
        return sum(c[0] for c in counts), sum(c[1] for c in counts)

    @property
    def frame(self) -> pl.LazyFrame:
        """The lazy frame, under the names of the data."""
        return self._frame.rename({inner: name for name, inner in self.names.items()})

    def _count(self, predicate: Predicate) -> pl.Expr:
        if predicate.op != "repeats":
            return self._fails(predicate).sum()
        value = pl.col(self.names[predicate.column])
        chosen = _one_in(value, predicate.args[0])
        return chosen.sum().cast(pl.Int64) - value.filter(chosen).n_unique().cast(pl.Int64)

    def _fails(self, predicate: Predicate) -> pl.Expr:
        return fails(predicate, self._known[predicate.column], self.names[predicate.column])

    def _value(self, column: Column, unless: Any) -> pl.Expr:
        value = pl.col(self.names[column.name])
        if column.dtype.startswith("Decimal"):
            value = value.cast(pl.Float64)
        return value if unless is None else pl.when(value != unless).then(value)

    def _summarize(
        self, columns: Sequence[Column], values: Mapping[str, pl.Expr]
    ) -> tuple[int, dict[str, Summary]]:
        wanted = [pl.len().alias("rows")]
        for n, column in enumerate(columns):
            parts = _figures(column, values[column.name])
            wanted += [expr.alias(f"{n}:{key}") for key, expr in parts.items()]
        row = self._frame.select(wanted).collect(engine="streaming").row(0, named=True)
        rows = int(row.pop("rows"))
        figures: list[dict[str, Any]] = [{} for _ in columns]
        for key, value in row.items():
            place, _, name = key.partition(":")
            figures[int(place)][name] = value
        return rows, {c.name: Summary(**f) for c, f in zip(columns, figures, strict=True)}

    def _summarize_finite(
        self, columns: Sequence[Column], values: Mapping[str, pl.Expr]
    ) -> dict[str, Summary]:
        """Look again at columns with NaN or infinities: figures over the finite values."""
        finite = {c.name: pl.when(values[c.name].is_finite()).then(values[c.name]) for c in columns}
        _, summaries = self._summarize(columns, finite)
        wanted = [values[c.name].is_infinite().sum().alias(c.name) for c in columns]
        infinite = self._frame.select(wanted).collect(engine="streaming").row(0)
        refined = {}
        for column, count in zip(columns, infinite, strict=True):
            summary = summaries[column.name]
            refined[column.name] = replace(
                summary, missing=summary.missing - count, infinite=int(count)
            )
            if not _is_finite(summary):
                refined[column.name] = replace(refined[column.name], mean=None, std=None)
        return refined


def readable(value: Any) -> Any:
    """Return a sample value as it may be shown: JSON types, long texts cut."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if value is None or isinstance(value, (bool, int, float)):
        return value
    text = str(value)
    return text if len(text) <= _TEXT_CHARS else text[: _TEXT_CHARS - 1] + "…"


def _sample_rows(rows: pl.DataFrame, dtype: str) -> tuple[Mapping[str, Any], ...]:
    """Return rows as findings show them; a moment need not be one that Python knows."""
    if is_moment(dtype):
        plain = rows.with_columns(pl.all().to_physical())
        texts = [
            (r, None if v is None else readable_moment(v, dtype)) for r, v in plain.iter_rows()
        ]
        return tuple({"row": r, "value": v} for r, v in texts)
    return tuple({"row": r, "value": readable(v)} for r, v in rows.iter_rows())


def _figures(column: Column, value: pl.Expr) -> dict[str, pl.Expr]:
    parts = {"missing": value.null_count()}
    if column.kind is Kind.NUMBER:
        parts |= {"mean": value.mean(), "std": value.std()}
    if column.kind is Kind.TEXT:
        value = value.cast(pl.String)
        parts["longest"] = value.str.len_bytes().max()
    if column.kind is Kind.TIME:
        value = value.to_physical()
    if column.kind not in {Kind.OTHER, Kind.TEXT}:  # of texts they cost a seventh of a pass
        parts |= {"minimum": value.min(), "maximum": value.max()}
    return parts


def _one_in(value: pl.Expr, many: int) -> pl.Expr:
    """Choose one in so many values by their hash, so that equal ones go together."""
    return value.hash(seed=2) % many == 0


def _is_finite(summary: Summary) -> bool:
    figures = (summary.mean, summary.std if summary.std is not None else 0.0)
    return all(f is not None and math.isfinite(f) for f in figures)


def _count_repeated(hashes: pl.LazyFrame) -> tuple[int, int]:
    rows, distinct = (
        hashes.select(pl.len(), pl.col("hash").n_unique().alias("distinct"))
        .collect(engine="streaming")
        .row(0)
    )
    return int(rows) - int(distinct), int(rows)
