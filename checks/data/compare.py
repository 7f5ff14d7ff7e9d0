"""Compares a data set with a reference: new categories, and drift of every column."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import polars as pl

from checks.data.drift import (
    align,
    bin_counts,
    bin_edges,
    jensen_shannon_distance,
    kolmogorov_smirnov,
    noise_floor,
    population_stability_index,
)
from checks.data.judgement import number
from checks.data.table import Kind, Predicate

if TYPE_CHECKING:
    from collections.abc import Mapping

    from checks.data.judgement import Judgement
    from checks.data.table import Column, Data

MAX_CATEGORIES = 100
_NAMES = {"psi": "PSI", "ks": "Kolmogorov-Smirnov", "js": "Jensen-Shannon"}


@dataclass(frozen=True, slots=True)
class Compared:
    """One side of a comparison: the data and a sample of it."""

    data: Data
    sample: pl.DataFrame


@dataclass(frozen=True, slots=True)
class Drift:
    """How far a column has moved, by all three measures.

    Attributes:
        floor: The PSI that chance alone would exceed once in a thousand times.
    """

    psi: float
    js: float
    ks: float | None
    floor: float

    def by(self, method: str) -> float | None:
        """Return the figure of one measure; None where it does not apply."""
        return {"psi": self.psi, "js": self.js, "ks": self.ks}[method]


def judge_reference(judgement: Judgement, now: Compared, before: Compared) -> None:
    """Find columns that the reference has otherwise, new categories, and drift."""
    judgement.applied("data.drift")
    known = {column.name: column for column in now.data.columns}
    for column in before.data.columns:
        if column.name in judgement.declaration.ignore:
            continue
        mine = known.get(column.name)
        if mine is None or mine.kind is not column.kind:
            have = "is not there" if mine is None else f"is {mine.dtype}"
            judgement.found(
                judgement.finding(
                    "data.reference",
                    f"column {column.name!r} {have}; the reference has it as {column.dtype}",
                    column=column.name,
                    value=None if mine is None else mine.dtype,
                    limit=column.dtype,
                    hint="make the data as before, or renew the reference",
                )
            )
        else:
            _judge_column(judgement, now, before, column)


def measure_numbers(expected: pl.Series, actual: pl.Series) -> Drift | None:
    """Return the drift between two samples of numbers; None where one has no finite value."""
    expected, actual = _finite(expected), _finite(actual)
    if expected.is_empty() or actual.is_empty():
        return None
    edges = bin_edges(expected)
    counts = bin_counts(expected, edges), bin_counts(actual, edges)
    return Drift(
        population_stability_index(*counts),
        jensen_shannon_distance(*counts),
        kolmogorov_smirnov(expected, actual),
        noise_floor(len(edges) + 1, expected.len(), actual.len()),
    )


def measure_categories(expected: Mapping[Any, int], actual: Mapping[Any, int]) -> Drift | None:
    """Return the drift between the counts of two sets of categories."""
    before, after = align(expected, actual)
    if not sum(before) or not sum(after):
        return None
    floor = noise_floor(len(before), sum(before), sum(after))
    return Drift(
        population_stability_index(before, after),
        jensen_shannon_distance(before, after),
        None,
        floor,
    )


def _judge_column(judgement: Judgement, now: Compared, before: Compared, column: Column) -> None:
    name = column.name
    if column.kind is Kind.NUMBER:
        drift = measure_numbers(before.sample[name], now.sample[name])
    elif column.kind in {Kind.TEXT, Kind.BOOLEAN}:
        if before.sample[name].n_unique() > MAX_CATEGORIES:
            return
        expected = before.data.groups(name, MAX_CATEGORIES)
        if not expected:
            return
        if column.name not in judgement.declaration.categories:
            _judge_categories(judgement, now.data, name, expected)
        actual = _count_known(now, name, expected)
        drift = measure_categories(expected, actual)
    else:
        return
    if drift is not None:
        _judge_drift(judgement, name, drift)


def _judge_categories(
    judgement: Judgement, data: Data, name: str, expected: Mapping[Any, int]
) -> None:
    judgement.applied("data.categories")
    predicate = Predicate(name, "not_in", tuple(expected))
    (count,) = data.count([predicate])
    if count:
        judgement.found(
            judgement.finding(
                "data.categories",
                f"{count} of {judgement.rows} values of {name!r} are categories that the "
                "reference does not have",
                column=name,
                value=count / judgement.rows,
                limit=0,
                count=count,
                hint="mend the values, declare `categories`, or renew the reference",
            ),
            predicate,
        )


def _count_known(now: Compared, name: str, expected: Mapping[Any, int]) -> dict[Any, int]:
    """Return the counts of the reference's categories, and of all others as one."""
    found = now.data.groups(name, 10 * MAX_CATEGORIES)
    if found is not None:
        return found
    values = list(expected)
    counts = now.data.count([Predicate(name, "in", (value,)) for value in values])
    (others,) = now.data.count([Predicate(name, "not_in", tuple(values))])
    return dict(zip(values, counts, strict=True)) | {"all others": others}


def _judge_drift(judgement: Judgement, name: str, drift: Drift) -> None:
    declaration = judgement.declaration
    figures = judgement.column_figures(name)
    figures |= {"psi": drift.psi, "js": drift.js, "ks": drift.ks}
    method = declaration.drift if drift.by(declaration.drift) is not None else "psi"
    value = drift.by(method)
    if value is None or value <= declaration.max_drift:
        return
    if method == "psi" and value <= drift.floor:
        return
    judgement.found(
        judgement.finding(
            "data.drift",
            f"{name!r} has moved away from {declaration.reference}: {_NAMES[method]} "
            f"{number(value)}, at most {number(declaration.max_drift)}",
            column=name,
            value=value,
            limit=declaration.max_drift,
            hint="find out what changed upstream; renew the reference where it is meant",
        )
    )


def _finite(values: pl.Series) -> pl.Series:
    numbers = values.alias("value").drop_nulls().cast(pl.Float64)
    return numbers.filter(numbers.is_finite())
