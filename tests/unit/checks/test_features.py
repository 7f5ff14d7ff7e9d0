"""Feature tables: types, nothing missing, ranges, and serving like training."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import polars as pl
import pytest

from checks.context import Context
from checks.features import FeaturesCheck, check

if TYPE_CHECKING:
    from pathlib import Path

    from checks.model import CheckReport

RNG = random.Random(11)
AGES = [RNG.randint(18, 90) for _ in range(500)]
TRAINING = pl.DataFrame(
    {
        "age": AGES,
        "score": [RNG.gauss(0, 1) for _ in AGES],
        "city": [RNG.choice(["Bern", "Oslo"]) for _ in AGES],
        "label": [RNG.random() < 0.5 for _ in AGES],
    }
)
TYPES = {"age": "int", "score": "float", "city": "text", "label": "bool"}


def judge(base: Path, training: pl.DataFrame, serving: pl.DataFrame | None = None) -> CheckReport:
    """Check a training table, and a serving table where there is one."""
    training.write_parquet(base / "train.parquet")
    if serving is not None:
        serving.write_parquet(base / "serve.parquet")
    declared = FeaturesCheck(
        path="train.parquet",
        serving=None if serving is None else "serve.parquet",
        types=TYPES,
        ranges={"age": (18.0, 120.0)},
        training_only=("label",),
    )
    return check(declared, Context(base=base))


def found(report: CheckReport) -> set[tuple[str, str, str | None]]:
    """Return subject, rule and column of all findings."""
    return {(f.subject, f.check.removeprefix("features."), f.column) for f in report.findings}


def test_good_tables_pass(tmp_path: Path) -> None:
    """The same distribution without the label is a good serving table."""
    serving = TRAINING.drop("label").sample(fraction=0.6, seed=1)
    report = judge(tmp_path, TRAINING, serving)
    assert found(report) == set()
    assert {"train.parquet", "serve.parquet"} == {subject for _, subject in report.checked}


def test_one_missing_value_is_one_too_many(tmp_path: Path) -> None:
    """Null and NaN alike fail at once, unless the column is nullable."""
    spoilt = TRAINING.with_columns(
        pl.when(pl.col("age") == AGES[0]).then(None).otherwise("age").alias("age"),
        pl.when(pl.int_range(pl.len()) == 3).then(float("nan")).otherwise("score").alias("score"),
    )
    report = judge(tmp_path, spoilt)
    assert found(report) == {("train.parquet", "missing", c) for c in ("age", "score")}
    (score,) = [f for f in report.findings if f.column == "score"]
    assert (score.count, score.samples) == (1, ({"row": 4, "value": "nan"},))
    spoilt.write_parquet(tmp_path / "train.parquet")
    allowed = FeaturesCheck(path="train.parquet", nullable=("age", "score"))
    assert check(allowed, Context(base=tmp_path)).ok


def test_types_ranges_and_absent_columns(tmp_path: Path) -> None:
    """A text where a number was, an age of 7, a column that is gone."""
    spoilt = TRAINING.drop("score").with_columns(
        pl.col("label").cast(pl.String), pl.lit(7, pl.Int64).alias("age")
    )
    rules = found(judge(tmp_path, spoilt))
    assert {
        ("train.parquet", "types", "label"),
        ("train.parquet", "range", "age"),
        ("train.parquet", "columns", "score"),
    } <= rules


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        (pl.col("score") + 2, "drift"),
        (pl.col("score").cast(pl.String), "reference"),
        (pl.lit("Rome").alias("city"), "categories"),
    ],
)
def test_serving_that_differs_is_found(tmp_path: Path, change: pl.Expr, rule: str) -> None:
    """Shifted values, another type, a new category."""
    serving = TRAINING.drop("label").with_columns(change)
    assert rule in {r for s, r, _ in found(judge(tmp_path, TRAINING, serving))}


def test_serving_that_lacks_a_feature_or_cannot_be_read(tmp_path: Path) -> None:
    """What training has and serving has not, and a file that is none."""
    report = judge(tmp_path, TRAINING, TRAINING.drop("label", "score"))
    assert ("serve.parquet", "reference", "score") in found(report)
    (tmp_path / "serve.parquet").write_bytes(b"no table")
    declared = FeaturesCheck(path="train.parquet", serving="serve.parquet")
    report = check(declared, Context(base=tmp_path))
    assert ("serve.parquet", "features.format", None) in {
        (f.subject, f.check, f.column) for f in report.findings
    }
