"""Data checks beside hand-written polars, pandera on pandas and Great Expectations.

All variants answer the same questions about the same file: missing values, values beyond
three sigma, values beyond six robust sigma, class balance. Each run is a process of its own;
variants take turns, so that a busy machine spoils them alike, and the median is compared.

    python benchmarks/checks_data.py --others /path/to/venv/bin/python

The other environment needs polars, pandas, pyarrow, pandera and great_expectations.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).resolve().parent.parent
ROW_GROUP = 250_000
CLASSES = (0, 1, 2)


def make_data(path: Path, rows: int) -> None:
    """Write 20 columns: 12 floats (4 with 3 % null), 4 ints, 2 texts, a flag, a label."""
    import polars as pl  # noqa: PLC0415 - each variant imports its own

    row = pl.col("row")

    def uniform(seed: int) -> pl.Expr:
        return (row.hash(seed=seed) // 2**11).cast(pl.Float64) / 2**53

    def normal(seed: int) -> pl.Expr:
        size = (-2 * (1 - uniform(seed)).log()).sqrt()
        return size * (2 * 3.141592653589793 * uniform(seed + 100)).cos()

    floats = [(n + (1 + n) * normal(n)).alias(f"f{n}") for n in range(12)]
    floats[:4] = [
        pl.when(uniform(50 + n) < 0.03).then(None).otherwise(value).alias(f"f{n}")
        for n, value in enumerate(floats[:4])
    ]
    frame = (
        pl.LazyFrame({"row": [0]})
        .select(pl.int_range(rows).alias("row"))
        .with_columns(
            *floats,
            *[(uniform(200 + n) * 1000 * (n + 1)).cast(pl.Int64).alias(f"i{n}") for n in range(4)],
            pl.concat_str(pl.lit("c"), (uniform(300) * 3).cast(pl.Int64)).alias("color"),
            pl.concat_str(pl.lit("k"), (uniform(301) * 50).cast(pl.Int64)).alias("kind"),
            (uniform(302) < 0.3).alias("flag"),
            (uniform(303) * 3).cast(pl.Int64).alias("label"),
        )
    )
    frame = frame.drop("row")
    if path.suffix == ".csv":
        frame.sink_csv(path)
    else:
        frame.sink_parquet(path, row_group_size=ROW_GROUP)


def run_guard(path: Path) -> None:
    """Check with guard's defaults, which look for duplicates, drift of types and more besides."""
    sys.path.insert(0, str(ROOT))
    context, data = (importlib.import_module(f"checks.{name}") for name in ("context", "data"))
    report = data.check(data.DataCheck(path.name, target="label"), context.Context(path.parent))
    assert report.ok, report.findings  # noqa: S101


def run_polars(path: Path) -> None:
    """Answer the same questions in two passes and a sample, as an expert would by hand."""
    import polars as pl  # noqa: PLC0415 - each variant imports its own

    lazy = (
        pl.scan_csv(path, infer_schema_length=10_000)
        if path.suffix == ".csv"
        else (pl.scan_parquet(path))
    )
    schema = lazy.collect_schema()
    numbers = [n for n, t in schema.items() if t.is_numeric() and n != "label"]
    first = (
        lazy.select(
            pl.len().alias("rows"),
            *[pl.col(n).null_count().alias(f"{n}:null") for n in schema],
            *[pl.col(n).mean().alias(f"{n}:mean") for n in numbers],
            *[pl.col(n).std().alias(f"{n}:std") for n in numbers],
            *[(pl.col("label") == c).sum().alias(f"class {c}") for c in CLASSES],
        )
        .collect(engine="streaming")
        .row(0, named=True)
    )
    rows = first["rows"]
    if path.suffix == ".csv":
        sample = lazy.head(100_000).collect(engine="streaming")
    else:
        starts = [n * (rows - 5000) // 19 for n in range(20)]
        sample = pl.concat([lazy.slice(s, 5000) for s in starts]).collect(engine="streaming")
    far = []
    for n in numbers:
        low, middle, high = (sample[n].quantile(q, "linear") or 0.0 for q in (0.25, 0.5, 0.75))
        mean, std, sigma = first[f"{n}:mean"], first[f"{n}:std"], (high - low) / 1.349
        plain = pl.col(n).is_between(mean - 3 * std, mean + 3 * std).not_()
        robust = pl.col(n).is_between(middle - 6 * sigma, middle + 6 * sigma).not_()
        far += [plain.sum().alias(f"{n}:far"), robust.sum().alias(f"{n}:robust")]
    second = lazy.select(far).collect(engine="streaming").row(0, named=True)
    assert all(first[f"{n}:null"] < 0.1 * rows for n in schema)  # noqa: S101
    assert all(second[f"{n}:far"] < 0.02 * rows for n in numbers)  # noqa: S101


def _read_pandas(path: Path) -> Any:
    pd: Any = importlib.import_module("pandas")

    return pd.read_csv(path) if path.suffix == ".csv" else pd.read_parquet(path)


def _bounds(values: Any) -> tuple[float, float]:
    sample = values.sample(min(len(values), 100_000), random_state=0)
    low, middle, high = sample.quantile([0.25, 0.5, 0.75])
    return middle - 6 * (high - low) / 1.349, middle + 6 * (high - low) / 1.349


def run_pandera(path: Path) -> None:
    """Validate with pandera on pandas."""
    pa: Any = importlib.import_module("pandera.pandas")

    frame = _read_pandas(path)

    def few_missing(values: Any) -> bool:
        return bool(values.isna().mean() < 0.1)

    def few_far(values: Any) -> bool:
        return bool(((values - values.mean()).abs() > 3 * values.std()).mean() <= 0.02)

    def few_robust(values: Any) -> bool:
        low, high = _bounds(values)
        return bool((~values.between(low, high)).mean() <= 0.035)

    numbers = [n for n in frame.select_dtypes("number").columns if n != "label"]
    columns = {
        n: pa.Column(
            None,
            [
                pa.Check(c, ignore_na=False)
                for c in ((few_missing, few_far, few_robust) if n in numbers else (few_missing,))
            ],
            nullable=True,
        )
        for n in frame.columns
    }
    columns["label"].checks.append(pa.Check.isin(list(CLASSES)))
    pa.DataFrameSchema(columns).validate(frame, lazy=True)


def run_expectations(path: Path) -> None:
    """Validate with Great Expectations on pandas."""
    os.environ["GX_ANALYTICS_ENABLED"] = "false"
    gx: Any = importlib.import_module("great_expectations")

    frame = _read_pandas(path)
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False}
    asset = context.data_sources.add_pandas("source").add_dataframe_asset("asset")
    batch = asset.add_batch_definition_whole_dataframe("all").get_batch({"dataframe": frame})
    expect = gx.expectations
    numbers = [n for n in frame.select_dtypes("number").columns if n != "label"]
    suite = gx.ExpectationSuite("suite")
    for name in frame.columns:
        suite.add_expectation(expect.ExpectColumnValuesToNotBeNull(column=name, mostly=0.9))
    for name in numbers:
        low, high = _bounds(frame[name])
        suite.add_expectation(
            expect.ExpectColumnValueZScoresToBeLessThan(
                column=name, threshold=3, double_sided=True, mostly=0.98
            )
        )
        suite.add_expectation(
            expect.ExpectColumnValuesToBeBetween(
                column=name, min_value=float(low), max_value=float(high), mostly=0.995
            )
        )
    suite.add_expectation(
        expect.ExpectColumnValuesToBeInSet(column="label", value_set=list(CLASSES))
    )
    result = batch.validate(suite, result_format="BOOLEAN_ONLY")
    assert result.success, [r for r in result.results if not r.success][:1]  # noqa: S101


VARIANTS: dict[str, Callable[[Path], None]] = {
    "guard": run_guard,
    "polars by hand": run_polars,
    "pandera on pandas": run_pandera,
    "great expectations": run_expectations,
}


def measure(python: str, variant: str, path: Path) -> tuple[float, float, float]:
    """Run a variant in a process of its own; return seconds, peak MB and CPU seconds."""
    command = [python, __file__, "--variant", variant, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{variant} failed:\n{done.stderr[-2000:]}")
    seconds, peak, cpu = json.loads(done.stdout.splitlines()[-1])
    return float(seconds), float(peak), float(cpu)


def run_one(variant: str, path: Path) -> None:
    """Time one variant inside this process, its imports included."""
    started = time.perf_counter()
    VARIANTS[variant](path)
    seconds = time.perf_counter() - started
    usage = resource.getrusage(resource.RUSAGE_SELF)
    print(json.dumps([seconds, usage.ru_maxrss / 1024, usage.ru_utime + usage.ru_stime]))


def compare(path: Path, variants: list[str], options: argparse.Namespace) -> None:
    """Print median seconds, peak memory and ratio of each variant on one file."""
    found: dict[str, list[tuple[float, float, float]]] = {v: [] for v in variants}
    for turn in range(options.runs):
        for variant in variants:
            if turn and variant == "great expectations":
                continue
            python = sys.executable if variant in {"guard", "polars by hand"} else options.others
            found[variant].append(measure(python, variant, path))
    base = statistics.median(run[0] for run in found["guard"])
    size = path.stat().st_size / 1e6
    print(f"\n{options.rows:,} rows, {path.suffix[1:]}, {size:.0f} MB")
    for variant, runs in found.items():
        seconds = statistics.median(run[0] for run in runs)
        cpu = statistics.median(run[2] for run in runs)
        peak = max(run[1] for run in runs)
        ratio = f"{seconds / base:6.2f} x guard"
        print(f"  {variant:20} {seconds:8.2f} s {cpu:8.2f} s CPU {peak:7.0f} MB {ratio}")


def main() -> None:
    """Make the data, run the variants in turns, print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--others", help="python with pandera, pandas, great_expectations")
    parser.add_argument("--formats", nargs="+", default=["parquet", "csv"])
    parser.add_argument("--skip", nargs="+", default=[])
    parser.add_argument("--variant")
    parser.add_argument("path", nargs="?", type=Path)
    options = parser.parse_args()
    if options.variant:
        run_one(options.variant, options.path)
        return
    variants = [v for v in VARIANTS if v not in options.skip]
    if not options.others:
        variants = variants[:2]
    with tempfile.TemporaryDirectory(prefix="guard-bench-") as folder:
        for suffix in options.formats:
            path = Path(folder) / f"data.{suffix}"
            make_data(path, options.rows)
            compare(path, variants, options)
            path.unlink()


if __name__ == "__main__":
    main()
