"""What a project demands of a data set: one ``[[check.data]]`` table."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

from checks.model import Severity

if TYPE_CHECKING:
    from collections.abc import Mapping

    from checks.tables import Table

METHODS = ("sigma", "iqr", "mad")
DRIFT_METHODS = ("psi", "ks", "js")
_SEVERITIES = ("error", "warning")

DEFAULT_MISSING = 0.10
DEFAULT_OUTLIERS = 0.02
DEFAULT_ROBUST_OUTLIERS = 0.005
DEFAULT_DRIFT = 0.2


@dataclass(frozen=True, slots=True)
class DataCheck:
    """The declaration of one data set.

    Shares lie between 0 and 1. None stands for the default, which allows for chance and
    skew where a declared limit is exact (see ``docs/checks.md``).

    Attributes:
        path: A file, a glob or a partitioned folder, from the project folder.
        schema: A pandera schema: a YAML or JSON file, or ``file.py:Name``.
        target: The column with the classes, for the balance.
        max_missing: Largest share of null and NaN a column may have.
        sigma: How many standard deviations from the mean are still inside.
        max_outliers: Largest share of values beyond `sigma`.
        max_robust_outliers: Largest share beyond twice `sigma`, measured robustly.
        method: ``sigma`` (with the robust rule beside it), ``iqr`` or ``mad``.
        min_class_share: Smallest share a class of `target` may have.
        max_duplicates: Largest share of rows that repeat an earlier row.
        unique: Columns that together identify a row.
        categories: The values that are allowed, by column.
        required: Columns that have to be there.
        no_missing: Columns in which nothing may be missing.
        ranges: Smallest and largest allowed value, by column.
        reference: Data of an earlier, good run, to compare distributions with.
        max_drift: Largest drift from `reference`, in the unit of `drift`.
        drift: ``psi``, ``ks`` or ``js``.
        ignore: Columns that no statistical rule looks at.
        separator: What stands between two fields of a CSV file; None recognises it.
        null_values: Texts that mean a missing value in a CSV file.
        engine: ``auto``, or a Spark master such as ``spark://host:7077``.
        severity: What a finding weighs.
    """

    path: str
    schema: str | None = None
    target: str | None = None
    max_missing: float | None = None
    sigma: float = 3.0
    max_outliers: float | None = None
    max_robust_outliers: float | None = None
    method: str = "sigma"
    min_class_share: float | None = None
    max_duplicates: float | None = None
    unique: tuple[str, ...] = ()
    categories: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    required: tuple[str, ...] = ()
    no_missing: tuple[str, ...] = ()
    ranges: Mapping[str, tuple[float | None, float | None]] = field(default_factory=dict)
    reference: str | None = None
    max_drift: float = DEFAULT_DRIFT
    drift: str = "psi"
    ignore: tuple[str, ...] = ()
    separator: str | None = None
    null_values: tuple[str, ...] | None = None
    engine: str = "auto"
    severity: Severity = Severity.ERROR

    @classmethod
    def from_table(cls, table: Table) -> Self:
        """Read the declaration from its configuration table.

        Raises:
            DeclarationError: A key is unknown, missing, of another type or out of range.
        """
        declaration = cls(
            path=table.get("path", str),
            schema=table.optional("schema", str),
            target=table.optional("target", str),
            max_missing=_share(table, "max_missing"),
            sigma=_positive(table, "sigma", 3.0),
            max_outliers=_share(table, "max_outliers"),
            max_robust_outliers=_share(table, "max_robust_outliers"),
            method=table.choice("method", METHODS, "sigma"),
            min_class_share=_share(table, "min_class_share"),
            max_duplicates=_share(table, "max_duplicates"),
            unique=table.strings("unique"),
            categories=read_categories(table),
            required=table.strings("required"),
            no_missing=table.strings("no_missing"),
            ranges=read_ranges(table),
            reference=table.optional("reference", str),
            max_drift=_positive(table, "max_drift", DEFAULT_DRIFT),
            drift=table.choice("drift", DRIFT_METHODS, "psi"),
            ignore=table.strings("ignore"),
            separator=_separator(table),
            null_values=table.strings("null_values") if "null_values" in table.values else None,
            engine=_engine(table),
            severity=Severity(table.choice("severity", _SEVERITIES, "error")),
        )
        table.strings("null_values")
        table.finish()
        return declaration


def read_categories(table: Table) -> dict[str, tuple[Any, ...]]:
    """Return the allowed values by column from the sub-table ``categories``."""
    below = table.table("categories")
    if below is None:
        return {}
    allowed: dict[str, tuple[Any, ...]] = {}
    for column in below.values:
        values = below.get(column, list)
        if not values or not all(isinstance(v, (str, int, float, bool)) for v in values):
            raise below.wrong(column, f"has to be a list of texts or numbers, not {values!r}")
        allowed[column] = tuple(values)
    return allowed


def read_ranges(table: Table) -> dict[str, tuple[float | None, float | None]]:
    """Return the smallest and largest allowed value by column from the sub-table ``ranges``."""
    below = table.table("ranges")
    if below is None:
        return {}
    ranges: dict[str, tuple[float | None, float | None]] = {}
    for column in below.values:
        (limits,) = below.tables(column)
        low, high = limits.optional("min", float), limits.optional("max", float)
        limits.finish()
        if low is None and high is None:
            raise below.wrong(column, "needs `min`, `max` or both")
        if low is not None and high is not None and low > high:
            raise below.wrong(column, f"has a `min` of {low:g} above its `max` of {high:g}")
        ranges[column] = (low, high)
    return ranges


def _share(table: Table, key: str) -> float | None:
    if key not in table.values:
        table.optional(key, float)
        return None
    return table.share(key, 0.0)


def _positive(table: Table, key: str, default: float) -> float:
    value = table.get(key, float, default)
    if not 0 < value < float("inf"):
        raise table.wrong(key, f"has to be a number above 0, not {value}")
    return value


def _separator(table: Table) -> str | None:
    value = table.optional("separator", str)
    if value is not None and (len(value.encode()) != 1 or value in '"\r\n'):
        raise table.wrong("separator", f"has to be one ASCII character, not {value!r}")
    return value


def _engine(table: Table) -> str:
    value = table.get("engine", str, "auto")
    if value not in {"auto", "polars"} and not value.startswith(("spark://", "local[")):
        raise table.wrong("engine", f"has to be auto or spark://host:port, not {value!r}")
    return value
