"""The share of values too far out: by standard deviations, and robustly beside it.

"Any value beyond 3 sigma" fails nearly all normal data from 1,000 rows on, and 3 sigma is
blind to gross errors at 10 %, because they inflate sigma: z = sqrt((1 - p) / p) <= 3. So two
rules stand side by side: more than 2 % beyond 3 sigma, or more than 0.5 % beyond 6 robust
sigma. Columns with at most ten distinct values are codes or flags and left out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import polars as pl

from checks.data.declaration import DEFAULT_OUTLIERS, DEFAULT_ROBUST_OUTLIERS
from checks.data.table import Kind, Predicate

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from checks.data.declaration import DataCheck
    from checks.data.table import Data, Summary

#: Quartile range and median deviation of a normal distribution, in standard deviations.
#: Source: P. Rousseeuw, C. Croux, "Alternatives to the Median Absolute Deviation", Journal
#: of the American Statistical Association 88 (1993), 1273-1283.
IQR_SIGMAS = 1.3489795003921634
MAD_SIGMAS = 0.6744897501960817

FEW_DISTINCT = 10
_ROBUST_FACTOR = 2
_GROSS_SIGMAS = 20
_CHANCE_SIGMAS = 1.645


@dataclass(frozen=True, slots=True)
class Spread:
    """Where the middle of a column lies, from a sample.

    Attributes:
        distinct: Distinct values in the sample.
        quartiles: The first, second and third.
        deviation: Median absolute deviation from the median.
        rest: The spread without the value that most rows share, where there is one.
        spike: That value.
    """

    distinct: int
    quartiles: tuple[float, float, float]
    deviation: float
    spike: float | None = None
    rest: Spread | None = None


@dataclass(frozen=True, slots=True)
class Rule:
    """One limit for one column: values outside `low` and `high` may make up `limit`.

    Attributes:
        kind: ``sigma``, ``robust``, ``iqr`` or ``mad``.
        sigmas: How many sigmas the bounds lie from the middle.
        limit: The share that may lie outside.
        chance: Whether the limit allows for chance (the default limits do).
        rows: How many values the share refers to.
    """

    column: str
    kind: str
    low: float
    high: float
    sigmas: float
    limit: float
    chance: bool
    rows: int
    unless: float | None = None

    def predicate(self) -> Predicate:
        """Return what a row outside the bounds is like."""
        return Predicate(self.column, "outside", (self.low, self.high), unless=self.unless)

    def can_break(self, summary: Summary) -> bool:
        """Return whether any value lies outside the bounds, by the extremes alone."""
        return bool(summary.minimum < self.low or summary.maximum > self.high)

    def exceeded(self, count: int) -> bool:
        """Return whether `count` values outside are too many.

        A default limit is only exceeded by more than chance explains (the one-sided 95 %
        bound of a binomial count).
        """
        allowed = self.limit * self.rows
        if self.chance:
            allowed += _CHANCE_SIGMAS * math.sqrt(allowed * (1 - self.limit))
        return count > allowed


def measure_spread(values: pl.Series) -> Spread | None:
    """Return the spread of the finite values of a sample; None where there are none."""
    finite = values.alias("value").drop_nulls().cast(pl.Float64)
    finite = finite.filter(finite.is_finite())
    if finite.is_empty():
        return None
    spread = _spread(finite)
    low, middle, high = spread.quartiles
    if low < middle < high:
        return spread
    rest = finite.filter(finite != middle)
    return Spread(
        spread.distinct,
        spread.quartiles,
        spread.deviation,
        spike=middle,
        rest=_spread(rest) if rest.len() else None,
    )


def plan_rules(
    declaration: DataCheck,
    summary: Summary,
    spread: Spread,
    rows: int,
    column: str,
) -> list[Rule]:
    """Return the rules of one column, those that no value can break included.

    Args:
        declaration: Method, sigma and limits.
        summary: Mean and standard deviation over all rows.
        spread: Quartiles and deviation of the same values.
        rows: How many values there are.
        column: Its name.
    """
    chance = declaration.max_outliers is None
    limit = DEFAULT_OUTLIERS if declaration.max_outliers is None else declaration.max_outliers
    low, middle, high = spread.quartiles
    if declaration.method != "sigma":
        sigma = spread.deviation / MAD_SIGMAS
        if declaration.method == "iqr":
            sigma = (high - low) / IQR_SIGMAS
        reach = declaration.sigma * sigma
        bounds = (middle - reach, middle + reach)
        kind = declaration.method
        return (
            [Rule(column, kind, *bounds, declaration.sigma, limit, chance, rows)] if sigma else []
        )
    rules = []
    if summary.mean is not None and summary.std:
        reach = declaration.sigma * summary.std
        bounds = (summary.mean - reach, summary.mean + reach)
        rules.append(Rule(column, "sigma", *bounds, declaration.sigma, limit, chance, rows))
    others = spread.rest if low == high else spread
    if others is not None and others.quartiles[0] < others.quartiles[2]:
        robust = _robust_rule(declaration, summary, others, rows, column)
        rules.append(robust if others is spread else replace(robust, unless=spread.spike))
    return rules


def _count_outside(
    data: Data, rules: Sequence[Rule], summaries: Mapping[str, Summary]
) -> list[int]:
    """Return how many values break each rule; a pass only where the extremes ask for one."""
    asked = [rule for rule in rules if rule.can_break(summaries[rule.column])]
    counts = data.count([rule.predicate() for rule in asked])
    by_rule = dict(zip(asked, counts, strict=True))
    return [int(by_rule.get(rule, 0)) for rule in rules]


def second_opinion(
    data: Data,
    declaration: DataCheck,
    suspects: Iterable[str],
    spreads: Mapping[str, Spread],
) -> dict[str, list[tuple[Rule, int]]]:
    """Judge columns again without the value that most of their rows share.

    A column that is nearly always zero has a tiny sigma, and every other value lies beyond
    it; what matters there is whether the other values hold together.

    Returns:
        By column the rules that the other values break, with their number; columns without
        such a value are absent.
    """
    spikes = {
        name: spreads[name]
        for name in suspects
        if spreads[name].spike is not None and spreads[name].rest is not None
    }
    if not spikes:
        return {}
    unless = {name: spread.spike for name, spread in spikes.items()}
    rows, summaries = data.summarize(list(spikes), unless)
    rules: list[Rule] = []
    for name, spread in spikes.items():
        summary = summaries[name]
        left = rows - summary.missing - summary.infinite
        planned = plan_rules(declaration, summary, spread.rest or spread, left, name)
        rules += [replace(rule, unless=spread.spike) for rule in planned]
    judged: dict[str, list[tuple[Rule, int]]] = {name: [] for name in spikes}
    for rule, count in zip(rules, _count_outside(data, rules, summaries), strict=True):
        if rule.exceeded(count):
            judged[rule.column].append((rule, count))
    return judged


def is_judged(kind: Kind, spread: Spread | None) -> bool:
    """Return whether the outlier rules look at a column at all."""
    return kind is Kind.NUMBER and spread is not None and spread.distinct > FEW_DISTINCT


def _robust_rule(
    declaration: DataCheck, summary: Summary, spread: Spread, rows: int, column: str
) -> Rule:
    """Return the robust rule; on the long side of a skewed column it reaches further.

    Each side takes the larger of two estimates of sigma: from the whole quartile range and
    from that side's half of it. They agree where the column is symmetric.
    """
    low, middle, high = spread.quartiles
    sigmas = _ROBUST_FACTOR * declaration.sigma
    whole = (high - low) / IQR_SIGMAS
    below = max(whole, (middle - low) / MAD_SIGMAS)
    above = max(whole, (high - middle) / MAD_SIGMAS)
    gross = max(
        (middle - summary.minimum) / below,
        (summary.maximum - middle) / above,
    )
    declared = declaration.max_robust_outliers
    return Rule(
        column,
        "robust",
        middle - sigmas * below,
        middle + sigmas * above,
        sigmas,
        DEFAULT_ROBUST_OUTLIERS if declared is None else declared,
        chance=declared is None and gross <= _GROSS_SIGMAS,
        rows=rows,
    )


def _spread(values: pl.Series) -> Spread:
    ordered = values.sort()
    quartiles = [float(ordered.quantile(share, "linear") or 0.0) for share in (0.25, 0.5, 0.75)]
    deviation = (ordered - quartiles[1]).abs().median()
    return Spread(
        distinct=ordered.n_unique(),
        quartiles=(quartiles[0], quartiles[1], quartiles[2]),
        deviation=float(deviation) if isinstance(deviation, float) else 0.0,
    )
