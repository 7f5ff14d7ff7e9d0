"""Each rule finds what it is for, counts it exactly, and shows rows."""

from __future__ import annotations

import math
import random
from typing import TYPE_CHECKING

import polars as pl
import pytest

from checks.context import Context
from checks.data import DataCheck, check
from checks.model import Severity

if TYPE_CHECKING:
    from pathlib import Path

    from checks.model import CheckReport, Finding

RNG = random.Random(7)
NORMAL = [RNG.gauss(100, 15) for _ in range(5000)]


def check_frame(base: Path, frame: pl.DataFrame, **declared: object) -> CheckReport:
    """Check a frame that was written as Parquet."""
    frame.write_parquet(base / "t.parquet")
    return check(DataCheck(path="t.parquet", **declared), Context(base=base))  # type: ignore[arg-type]


def errors(report: CheckReport) -> list[tuple[str, str | None]]:
    """Return rule and column of each error."""
    return [(f.check, f.column) for f in report.findings if f.severity is Severity.ERROR]


def only(report: CheckReport, rule: str) -> Finding:
    """Return the one finding of a rule."""
    (finding,) = [f for f in report.findings if f.check == rule]
    return finding


@pytest.mark.parametrize(("missing", "limit", "ok"), [
    (9, None, True),
    (10, None, False),
    (10, 0.1, True),
    (11, 0.1, False),
    (1, 0.0, False),
    (0, 0.0, True),
])  # fmt: skip
def test_missing_limit_is_exact(
    tmp_path: Path, missing: int, limit: float | None, *, ok: bool
) -> None:
    """The default asks for less than 10 %, a declared limit is the largest share allowed."""
    values: list[float | None] = [float(n) for n in range(100)]
    values[:missing] = [None] * missing
    report = check_frame(tmp_path, pl.DataFrame({"a": values}), max_missing=limit)
    assert report.ok is ok
    if not ok:
        finding = only(report, "data.missing")
        assert (finding.value, finding.count) == (missing / 100, missing)
        assert finding.samples[0] == {"row": 1, "value": None}


def test_nan_and_null_both_count_as_missing(tmp_path: Path) -> None:
    """Half null, half NaN is all missing; figures are of what is left."""
    values = [None] * 30 + [math.nan] * 30 + [float(n) for n in range(40)]
    report = check_frame(tmp_path, pl.DataFrame({"a": values}))
    assert only(report, "data.missing").count == 60
    assert report.figures["t.parquet"]["columns"]["a"]["mean"] == 19.5


def test_infinities_are_named_and_spoil_no_figure(tmp_path: Path) -> None:
    """Infinities are errors of their own; mean and sigma are of the finite values."""
    frame = pl.DataFrame({"a": [math.inf, -math.inf, *NORMAL]})
    report = check_frame(tmp_path, frame)
    assert errors(report) == [("data.infinite", "a")]
    assert only(report, "data.infinite").samples[0] == {"row": 1, "value": "inf"}
    mean = report.figures["t.parquet"]["columns"]["a"]["mean"]
    assert mean == pytest.approx(sum(NORMAL) / len(NORMAL), rel=1e-12)


@pytest.mark.parametrize("share", [0.01, 0.05, 0.10])
def test_gross_errors_are_found_at_any_share(tmp_path: Path, share: float) -> None:
    """At 10 % three sigma are blind, because the errors inflate sigma; the robust rule sees."""
    values = list(NORMAL)
    for n in range(int(share * len(values))):
        values[n * 7 % len(values)] = 99999.0
    report = check_frame(tmp_path, pl.DataFrame({"a": values}))
    finding = only(report, "data.outliers")
    assert finding.count == int(share * len(values))
    assert all(sample["value"] == 99999.0 for sample in finding.samples)
    assert len(finding.samples) == 10


@pytest.mark.parametrize(
    "draw",
    [
        lambda r: r.gauss(0, 1),
        lambda r: r.uniform(-5, 5),
        lambda r: r.expovariate(1),
        lambda r: r.lognormvariate(0, 0.5),
        lambda r: r.choice([-10, 10]) + r.gauss(0, 1),
        lambda r: float(r.random() < 0.03),
        lambda r: 0 if r.random() < 0.9 else r.randint(1, 30),
        lambda r: r.gauss(1e9, 1),
    ],
)
@pytest.mark.parametrize("rows", [100, 1000, 20_000])
def test_ordinary_distributions_pass(tmp_path: Path, draw: object, rows: int) -> None:
    """Skewed, bimodal, zero-inflated, nearly constant: no default fails healthy data."""
    rng = random.Random(rows)
    frame = pl.DataFrame({f"c{n}": [draw(rng) for _ in range(rows)] for n in range(5)})  # type: ignore[operator]
    assert errors(check_frame(tmp_path, frame)) == []


@pytest.mark.parametrize("method", ["sigma", "iqr", "mad"])
def test_declared_outlier_limit_is_exact(tmp_path: Path, method: str) -> None:
    """A declared limit knows no chance: one value more than allowed is an error."""
    values = [*NORMAL[:990], *[500.0] * 10]
    within = check_frame(
        tmp_path, pl.DataFrame({"a": values}), method=method, max_outliers=0.02,
        max_robust_outliers=1.0,
    )  # fmt: skip
    over = check_frame(
        tmp_path, pl.DataFrame({"a": values}), method=method, max_outliers=0.0099,
        max_robust_outliers=1.0,
    )  # fmt: skip
    assert within.ok
    assert errors(over) == [("data.outliers", "a")]


def test_codes_and_ignored_columns_have_no_outliers(tmp_path: Path) -> None:
    """At most ten distinct values are codes; `ignore` leaves a column out."""
    codes = [1] * 480 + [999] * 20
    wild = [float(n) for n in range(480)] + [1e9 + n for n in range(20)]
    frame = pl.DataFrame({"codes": codes, "wild": wild})
    assert errors(check_frame(tmp_path, frame)) == [("data.outliers", "wild")]
    assert errors(check_frame(tmp_path, frame, ignore=("wild",))) == []


def test_spike_hides_no_gross_error(tmp_path: Path) -> None:
    """A column that is mostly zero is judged by its other values."""
    rng = random.Random(3)
    values = [0.0] * 8000 + [rng.gauss(50, 5) for _ in range(1800)] + [1e6 + n for n in range(200)]
    report = check_frame(tmp_path, pl.DataFrame({"a": values}))
    assert errors(report) == [("data.outliers", "a")]


def test_class_balance(tmp_path: Path) -> None:
    """The rare class is named with its share; a single class and a regression are told apart."""
    frame = pl.DataFrame({"y": ["a"] * 970 + ["b"] * 30, "x": NORMAL[:1000]})
    finding = only(check_frame(tmp_path, frame, target="y"), "data.balance")
    assert (finding.value, finding.limit, finding.count) == (0.03, 0.05, 30)
    assert check_frame(tmp_path, frame, target="y", min_class_share=0.02).ok
    single = check_frame(tmp_path, pl.DataFrame({"y": [1] * 50}), target="y")
    assert errors(single) == [("data.balance", "y")]
    regression = check_frame(tmp_path, frame, target="x")
    assert regression.ok
    assert "too many different values" in regression.skipped[0].why
    absent = check_frame(tmp_path, frame, target="z")
    assert errors(absent) == [("data.columns", "z")]


def test_class_that_the_sample_misses_is_counted(tmp_path: Path) -> None:
    """A class with five rows in 300,000 is found, though no sample holds it."""
    labels = [0] * 150_000 + [1] * 149_995 + [2] * 5
    frame = pl.DataFrame({"y": labels, "x": range(300_000)}).sample(
        fraction=1, shuffle=True, seed=1
    )
    report = check_frame(tmp_path, frame, target="y")
    assert only(report, "data.balance").count == 5


def test_duplicates_and_keys(tmp_path: Path) -> None:
    """Repeated rows warn by default, fail when declared, and keys are exact."""
    frame = pl.DataFrame({"id": [*range(95), *range(5)], "x": [*NORMAL[:95], *NORMAL[:5]]})
    report = check_frame(tmp_path, frame)
    assert report.ok
    assert only(report, "data.duplicates").count == 5
    assert errors(check_frame(tmp_path, frame, max_duplicates=0.01)) == [("data.duplicates", None)]
    assert errors(check_frame(tmp_path, frame, unique=("id",))) == [("data.unique", "id")]


def test_constant_column_warns(tmp_path: Path) -> None:
    """A column that says nothing is named, and stops nothing."""
    report = check_frame(tmp_path, pl.DataFrame({"a": [5] * 20, "b": ["x"] * 20, "c": range(20)}))
    assert report.ok
    assert {f.column for f in report.findings if f.check == "data.constant"} == {"a", "b"}


def test_categories_ranges_and_required_columns(tmp_path: Path) -> None:
    """Undeclared values are counted and shown; an absent column is never passed over."""
    frame = pl.DataFrame({"color": ["red"] * 90 + ["mauve"] * 10, "age": [*range(99), -1]})
    report = check_frame(
        tmp_path,
        frame,
        categories={"color": ("red", "blue")},
        ranges={"age": (0.0, 120.0), "color": (0.0, 1.0)},
        required=("gone",),
    )
    assert only(report, "data.categories").count == 10
    found = [f for f in report.findings if f.check == "data.range"]
    assert {f.column: f.count for f in found} == {"age": 1, "color": None}
    assert found[0].samples or found[1].samples == ({"row": 100, "value": -1},)
    assert ("data.columns", "gone") in errors(report)


def test_mixed_identifiers_only_warn(tmp_path: Path) -> None:
    """Ticket numbers of which some have a prefix are a text; words among numbers are not."""
    tickets = [str(n) for n in range(700)] + [f"PC {n}" for n in range(300)]
    report = check_frame(tmp_path, pl.DataFrame({"ticket": tickets}))
    assert report.ok
    assert only(report, "data.types").severity is Severity.WARNING
    words = [str(n) for n in range(700)] + ["unknown"] * 300
    assert errors(check_frame(tmp_path, pl.DataFrame({"n": words}))) == [("data.types", "n")]


def test_severity_is_as_declared(tmp_path: Path) -> None:
    """With `severity = "warning"` nothing stops a run, the unreadable file included."""
    values = [None] * 50 + [1.0] * 50
    report = check_frame(tmp_path, pl.DataFrame({"a": values}), severity=Severity.WARNING)
    assert report.ok
    assert report.warned
    missing = check(DataCheck("no.csv", severity=Severity.WARNING), Context(base=tmp_path))
    assert missing.ok
    assert missing.warned == 1


def test_two_large_dates_and_lists_do_no_harm(tmp_path: Path) -> None:
    """Types that no statistical rule knows are passed over, missing values are not."""
    frame = pl.DataFrame(
        {
            "big": [1e308, 1e308, 1.0],
            "list": [[1], [2], None],
            "bin": [b"1", b"2", b"3"],
            "when": ["2020-01-01", "2020-01-02", "2020-01-03"],
        }
    ).with_columns(pl.col("when").str.to_date())
    assert errors(check_frame(tmp_path, frame)) == [("data.missing", "list")]
