"""Infers a pandera schema from data that is known to be good."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from checks.context import Context
from checks.data.declaration import DataCheck
from checks.data.panics import panics_unseen
from checks.data.reading import open_data
from checks.data.source import SourceProblem
from checks.data.table import Kind
from checks.errors import CheckError

if TYPE_CHECKING:
    from pathlib import Path

    from checks.data.table import Column, Data, Summary

_MAX_CATEGORIES = 20
_MIN_REPEATS = 10


def infer_from(path: Path) -> str:
    """Return a pandera schema in YAML that the data at `path` satisfies.

    Types, missing values, numeric ranges, and the categories of texts with few values are
    taken from all rows; memory stays bounded.

    Args:
        path: A data file or a partitioned folder.

    Raises:
        CheckError: It cannot be read as data.
    """
    import yaml  # noqa: PLC0415 - needed only here

    context = Context(base=path.parent)
    try:
        with panics_unseen():
            data = open_data(path.name, DataCheck(path.name), context)
            rows, summaries = data.summarize()
            columns = {c.name: _describe(c, summaries[c.name], rows, data) for c in data.columns}
    except SourceProblem as problem:
        raise CheckError(str(problem), hint=problem.hint) from None
    schema = {
        "schema_type": "polars_dataframe",
        "api": "polars",
        "columns": columns,
        "strict": True,
        "coerce": False,
    }
    dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
    return str(yaml.dump(schema, Dumper=dumper, sort_keys=False, allow_unicode=True))


def _describe(column: Column, summary: Summary, rows: int, data: Data) -> dict[str, Any]:
    described: dict[str, Any] = {"dtype": column.dtype, "nullable": summary.missing > 0}
    if column.kind is Kind.NUMBER and summary.minimum is not None and not summary.infinite:
        described["in_range"] = {
            "min_value": _plain(summary.minimum),
            "max_value": _plain(summary.maximum),
            "include_min": True,
            "include_max": True,
        }
    if column.kind is Kind.TEXT and rows >= _MIN_REPEATS * 2:
        groups = data.groups(column.name, min(_MAX_CATEGORIES, rows // _MIN_REPEATS))
        if groups:
            described["isin"] = sorted(groups)
    return described


def _plain(value: Any) -> int | float:
    return value if isinstance(value, (int, float)) else float(value)
