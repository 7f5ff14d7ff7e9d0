"""How far two distributions lie apart: PSI, Kolmogorov-Smirnov, Jensen-Shannon."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import polars as pl

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping, Sequence

BINS = 10
EMPTY_SHARE = 1e-4


def population_stability_index(expected: Sequence[float], actual: Sequence[float]) -> float:
    """Return the PSI of two histograms over the same bins.

    The sum of ``(a - e) * ln(a / e)`` over the shares; an empty bin counts as one in ten
    thousand. Usual reading: below 0.1 no change, above 0.2 (or 0.25) a shift.

    Args:
        expected: Counts of the reference by bin.
        actual: Counts of the new data by bin.

    Source: N. Siddiqi, "Credit Risk Scorecards", Wiley 2006, chapter on population
    stability; as a symmetrised divergence: S. Kullback, R. Leibler, "On Information and
    Sufficiency", Annals of Mathematical Statistics 22 (1951), 79-86.
    """
    before = [max(share, EMPTY_SHARE) for share in _shares(expected)]
    after = [max(share, EMPTY_SHARE) for share in _shares(actual)]
    return math.fsum((a - e) * math.log(a / e) for e, a in zip(before, after, strict=True))


def jensen_shannon_distance(expected: Sequence[float], actual: Sequence[float]) -> float:
    """Return the square root of the Jensen-Shannon divergence to base 2, between 0 and 1.

    Args:
        expected: Counts of the reference by bin.
        actual: Counts of the new data by bin.

    Source: J. Lin, "Divergence Measures Based on the Shannon Entropy", IEEE Transactions on
    Information Theory 37 (1991), 145-151; that the root is a metric: D. Endres,
    J. Schindelin, "A New Metric for Probability Distributions", ibid. 49 (2003), 1858-1860.
    """
    total = 0.0
    for e, a in zip(_shares(expected), _shares(actual), strict=True):
        middle = (e + a) / 2
        total += e * math.log2(e / middle) if e else 0.0
        total += a * math.log2(a / middle) if a else 0.0
    return math.sqrt(max(0.0, total / 2))


def kolmogorov_smirnov(expected: pl.Series, actual: pl.Series) -> float:
    """Return the largest distance between two empirical distribution functions.

    Args:
        expected: Finite values of the reference.
        actual: Finite values of the new data.

    Source: N. Smirnov, "Table for Estimating the Goodness of Fit of Empirical
    Distributions", Annals of Mathematical Statistics 19 (1948), 279-281.
    """
    if expected.is_empty() or actual.is_empty():
        return 0.0
    joined = pl.concat(
        values.cast(pl.Float64).alias("value").to_frame().with_columns(step=pl.lit(step, pl.Int64))
        for values, step in ((expected, actual.len()), (actual, -expected.len()))
    )
    steps = joined.group_by("value").agg(pl.col("step").sum()).sort("value")
    furthest = steps.select(pl.col("step").cum_sum().abs().max()).item()
    return float(furthest) / (expected.len() * actual.len())


def bin_edges(reference: pl.Series, bins: int = BINS) -> list[float]:
    """Return the inner edges of bins that hold about equally many values of `reference`."""
    quantiles = (reference.quantile(n / bins, "linear") for n in range(1, bins))
    return sorted({float(q) for q in quantiles if q is not None})


def bin_counts(values: pl.Series, edges: Sequence[float]) -> list[int]:
    """Return how many values lie in each bin; a value on an edge belongs to the lower bin."""
    place = pl.Series([float(e) for e in edges], dtype=pl.Float64).search_sorted(
        values.cast(pl.Float64), side="left"
    )
    counts = dict(place.value_counts().iter_rows())
    return [int(counts.get(n, 0)) for n in range(len(edges) + 1)]


def align(
    expected: Mapping[Hashable, int], actual: Mapping[Hashable, int]
) -> tuple[list[int], list[int]]:
    """Return the counts of two sets of categories in one order."""
    keys: list[Any] = sorted({*expected, *actual}, key=lambda k: (str(type(k)), str(k)))
    return [expected.get(k, 0) for k in keys], [actual.get(k, 0) for k in keys]


def noise_floor(bins: int, expected: int, actual: int) -> float:
    """Return the PSI that chance alone exceeds once in a thousand times.

    Without drift PSI divided by ``1/n + 1/m`` follows a chi-square distribution with one
    degree of freedom less than there are bins; its quantile is by Wilson and Hilferty.

    Args:
        bins: How many bins or categories.
        expected: Rows of the reference.
        actual: Rows of the new data.

    Source: B. Yurdakul, J. Naranjo, "Statistical properties of the population stability
    index", Journal of Risk Model Validation 14 (2020).
    """
    freedom = bins - 1
    if freedom < 1 or not expected or not actual:
        return 0.0
    term = 2 / (9 * freedom)
    quantile = freedom * (1 - term + 3.0902 * math.sqrt(term)) ** 3
    return quantile * (1 / expected + 1 / actual)


def _shares(counts: Sequence[float]) -> list[float]:
    total = math.fsum(counts)
    return [c / total if total else 0.0 for c in counts]
