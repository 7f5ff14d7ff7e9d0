"""Figures equal an independent computation by NumPy and SciPy; seeded defects are all found."""

from __future__ import annotations

import math
import warnings
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy import stats  # type: ignore[import-untyped]
from scipy.spatial import distance  # type: ignore[import-untyped]
from sklearn import datasets  # type: ignore[import-untyped]

from checks.context import Context
from checks.data import DataCheck, check
from checks.data.drift import (
    EMPTY_SHARE,
    bin_counts,
    bin_edges,
    jensen_shannon_distance,
    kolmogorov_smirnov,
    noise_floor,
    population_stability_index,
)

if TYPE_CHECKING:
    from checks.model import CheckReport

FORMATS = ("csv", "parquet", "arrow", "jsonl")
relaxed = settings(deadline=None, max_examples=60, suppress_health_check=list(HealthCheck))
offsets = st.sampled_from([0.0, 1.0, -1e6, 1e9, 1e12])
cells = st.one_of(
    st.floats(-100, 100, allow_nan=False).map(lambda v: round(v, 6)),
    st.sampled_from([None, math.nan, math.inf, -math.inf]),
)


def check_frame(frame: pl.DataFrame, suffix: str = "parquet", **declared: Any) -> CheckReport:
    """Write a frame in a format and check it."""
    with TemporaryDirectory() as folder:
        base = Path(folder)
        writers = {"jsonl": "write_ndjson", "arrow": "write_ipc"}
        getattr(frame, writers.get(suffix, f"write_{suffix}"))(base / f"t.{suffix}")
        return check(DataCheck(path=f"t.{suffix}", **declared), Context(base=base))


@relaxed
@given(st.lists(cells, min_size=2, max_size=60), offsets, st.sampled_from(["csv", "parquet"]))
def test_column_figures_equal_numpy(values: list[float | None], offset: float, suffix: str) -> None:
    """Missing, infinite, mean, sigma, extremes, quartiles and shares, far from zero too."""
    shifted = [None if v is None else v + offset for v in values]
    frame = pl.DataFrame({"a": pl.Series(shifted, dtype=pl.Float64), "b": range(len(values))})
    report = check_frame(frame, suffix)
    present = np.array([v for v in shifted if v is not None and not math.isnan(v)])
    finite = present[np.isfinite(present)]
    figures = report.figures[f"t.{suffix}"]["columns"]["a"]
    assert figures["missing"] == len(values) - len(present)
    if not len(present):
        return
    assert figures["infinite"] == len(present) - len(finite)
    if not len(finite):
        return
    assert figures["mean"] == pytest.approx(finite.mean(), rel=1e-12, abs=1e-9)
    assert (figures["min"], figures["max"]) == (finite.min(), finite.max())
    if len(finite) > 1:
        scale = np.spacing(abs(offset) + 100) * 16
        assert figures["std"] == pytest.approx(finite.std(ddof=1), rel=1e-9, abs=scale)
    assert figures["quartiles"] == pytest.approx(list(np.quantile(finite, [0.25, 0.5, 0.75])))


@relaxed
@given(
    st.integers(0, 2**32 - 1),
    st.integers(30, 3000),
    st.floats(0, 0.2),
    st.sampled_from([0.0, 1e9]),
    st.sampled_from(FORMATS),
)
def test_outlier_counts_equal_numpy(
    seed: int, rows: int, share: float, offset: float, suffix: str
) -> None:
    """The counts beyond 3 sigma and beyond 6 robust sigma are those of NumPy."""
    rng = np.random.default_rng(seed)
    values = rng.normal(offset, 1, rows)
    spoilt = rng.random(rows) < share
    values[spoilt] += rng.choice([-1, 1], spoilt.sum()) * rng.uniform(5, 500, spoilt.sum())
    report = check_frame(pl.DataFrame({"a": values}), suffix)
    figures = report.figures[f"t.{suffix}"]["columns"]["a"]
    sigma = values.std(ddof=1)
    assert figures["beyond_sigma"] == int((abs(values - values.mean()) > 3 * sigma).sum())
    low, middle, high = np.quantile(values, [0.25, 0.5, 0.75])
    half = stats.norm.ppf(0.75)
    below = max((high - low) / (2 * half), (middle - low) / half)
    above = max((high - low) / (2 * half), (high - middle) / half)
    far = (values < middle - 6 * below) | (values > middle + 6 * above)
    assert figures["beyond_robust"] == int(far.sum())


@relaxed
@given(st.lists(st.integers(0, 6), min_size=1, max_size=300), st.sampled_from(FORMATS))
def test_classes_and_duplicates_equal_counting(labels: list[int], suffix: str) -> None:
    """Class shares and repeated rows are those of a plain count."""
    frame = pl.DataFrame({"y": [f"c{v}" for v in labels], "x": [v % 3 for v in labels]})
    report = check_frame(frame, suffix, target="y", max_duplicates=1.0)
    figures = report.figures[f"t.{suffix}"]
    counted = Counter(labels)
    shares = {f"c{value}": n / len(labels) for value, n in counted.items()}
    if len(counted) > 1:
        assert figures["classes"] == pytest.approx(shares)
    assert figures["duplicate_share"] == pytest.approx(1 - len(counted) / len(labels))


@relaxed
@given(
    st.lists(st.integers(-50, 50), min_size=1, max_size=300),
    st.lists(st.integers(-60, 60), min_size=1, max_size=300),
)
def test_kolmogorov_smirnov_equals_scipy(before: list[int], after: list[int]) -> None:
    """Ties included, which is where home-made versions go wrong."""
    ours = kolmogorov_smirnov(pl.Series(before), pl.Series(after))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of its p-value, which nobody asked for
        theirs = float(stats.ks_2samp(before, after, method="asymp").statistic)
    assert ours == pytest.approx(theirs, abs=1e-12)


@relaxed
@given(st.lists(st.tuples(st.integers(0, 500), st.integers(0, 500)), min_size=2, max_size=12))
def test_divergences_equal_scipy(pairs: list[tuple[int, int]]) -> None:
    """Jensen-Shannon is SciPy's distance; PSI is the sum of both relative entropies."""
    before, after = [p[0] for p in pairs], [p[1] for p in pairs]
    if not sum(before) or not sum(after):
        return
    ours = jensen_shannon_distance(before, after)
    assert ours == pytest.approx(float(distance.jensenshannon(before, after, base=2)), abs=1e-7)
    e = np.maximum(np.array(before) / sum(before), EMPTY_SHARE)
    a = np.maximum(np.array(after) / sum(after), EMPTY_SHARE)
    expected = float(np.sum((a - e) * np.log(a / e)))
    assert population_stability_index(before, after) == pytest.approx(expected, abs=1e-12)
    if min(before) and min(after):
        p, q = np.array(before) / sum(before), np.array(after) / sum(after)
        entropies = float(stats.entropy(p, q) + stats.entropy(q, p))
        if min(p.min(), q.min()) >= EMPTY_SHARE:
            assert population_stability_index(before, after) == pytest.approx(entropies, abs=1e-9)


@relaxed
@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=200))
def test_bins_hold_every_value_once(values: list[float]) -> None:
    """Edges are NumPy's deciles, and the counts are those of a histogram over them."""
    series = pl.Series(values)
    edges = bin_edges(series)
    deciles = np.unique(np.quantile(values, np.arange(1, 10) / 10))
    assert len(edges) <= 9
    assert sum(bin_counts(series, edges)) == len(values)
    assert edges[0] == pytest.approx(deciles[0])
    placed = np.searchsorted(edges, values, side="left")
    assert bin_counts(series, edges) == list(np.bincount(placed, minlength=len(edges) + 1))


@pytest.mark.parametrize("bins", [2, 5, 10, 50])
def test_noise_floor_is_a_chi_square_quantile(bins: int) -> None:
    """The approximation lies within 4 % of SciPy's quantile at one in a thousand."""
    exact = float(stats.chi2.ppf(0.999, bins - 1)) * (1 / 300 + 1 / 500)
    assert noise_floor(bins, 300, 500) == pytest.approx(exact, rel=0.04)


def test_drift_without_change_stays_quiet_and_with_change_does_not() -> None:
    """200 pairs of small samples from one distribution: no alarm; one sigma apart: always."""
    rng = np.random.default_rng(5)
    with TemporaryDirectory() as folder:
        base = Path(folder)
        same, moved = {}, {}
        reference = {f"c{n}": rng.normal(0, 1, 300) for n in range(200)}
        same = {name: rng.normal(0, 1, 300) for name in reference}
        moved = {name: rng.normal(1, 1, 300) for name in reference}
        pl.DataFrame(reference).write_parquet(base / "before.parquet")
        pl.DataFrame(same).write_parquet(base / "same.parquet")
        pl.DataFrame(moved).write_parquet(base / "moved.parquet")
        declared = DataCheck("same.parquet", reference="before.parquet")
        quiet = check(declared, Context(base=base))
        declared = DataCheck("moved.parquet", reference="before.parquet")
        loud = check(declared, Context(base=base))
    assert [f for f in quiet.findings if f.check == "data.drift"] == []
    assert sum(f.check == "data.drift" for f in loud.findings) == 200


DEFECTS = ("missing", "outliers", "infinite", "types", "constant", "categories", "drift", "columns")


@settings(deadline=None, max_examples=40, suppress_health_check=list(HealthCheck))
@given(
    st.sets(st.sampled_from(DEFECTS), min_size=1),
    st.integers(0, 2**32 - 1),
    st.integers(400, 3000),
)
def test_seeded_defects_are_all_found(defects: set[str], seed: int, rows: int) -> None:
    """Any combination of defects is found, each in its own column, and nothing else fails."""
    rng = np.random.default_rng(seed)
    names = ("missing", "outliers", "types", "constant", "categories", "drift", "columns")
    good: dict[str, Any] = {name: rng.normal(10, 2, rows) for name in names}
    good["infinite"] = rng.uniform(0, 1, rows)
    good["categories"] = rng.choice(["a", "b", "c"], rows)
    bad = {name: list(rng.permutation(values)) for name, values in good.items()}
    some = rng.choice(rows, max(10, rows // 20), replace=False)
    spoil: dict[str, Any] = {"infinite": math.inf, "types": "broken", "outliers": 1e6}
    spoil["categories"] = "z"
    for name in defects:
        if name in spoil:
            bad[name] = [spoil[name] if n in set(some) else v for n, v in enumerate(bad[name])]
    if "missing" in defects:
        bad["missing"] = [None if n % 8 == 0 else v for n, v in enumerate(bad["missing"])]
    if "constant" in defects:
        bad["constant"] = [1.0] * rows
    if "drift" in defects:
        bad["drift"] = [v + 3 for v in bad["drift"]]
    if "columns" in defects:
        del bad["columns"]
    if "types" in defects:
        bad["types"] = [str(v) for v in bad["types"]]
    with TemporaryDirectory() as folder:
        base = Path(folder)
        pl.DataFrame(good).write_csv(base / "before.csv")
        pl.DataFrame(bad).write_csv(base / "now.csv")
        report = check(DataCheck("now.csv", reference="before.csv"), Context(base=base))
    found = {f.column for f in report.findings}
    assert found == set(defects)
    assert report.ok is False


@pytest.mark.parametrize(
    "name", ["iris", "wine", "breast_cancer", "diabetes", "digits", "linnerud"]
)
@pytest.mark.parametrize("suffix", FORMATS)
def test_clean_public_data_passes_with_the_defaults(name: str, suffix: str) -> None:
    """scikit-learn's bundled data sets fail no default, with their target or without."""
    bunch = getattr(datasets, f"load_{name}")()
    target = bunch.target if bunch.target.ndim == 1 else bunch.target[:, 0]
    columns = {f"{n} {label}": bunch.data[:, n] for n, label in enumerate(bunch.feature_names)}
    report = check_frame(pl.DataFrame({**columns, "target": target}), suffix, target="target")
    assert [f for f in report.findings if f.severity == "error"] == []
    assert len(report.checked) >= 6
