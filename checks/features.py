"""Feature tables: types, no missing values, ranges, and training compared with serving."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Self

from checks.data.declaration import (
    DEFAULT_DRIFT,
    DRIFT_METHODS,
    DataCheck,
    read_categories,
    read_ranges,
)
from checks.model import CheckReport, Severity, merge

if TYPE_CHECKING:
    from collections.abc import Mapping

    from checks.context import Context
    from checks.data.judgement import Judgement
    from checks.data.table import Column, Data
    from checks.tables import Table

TYPES = ("int", "float", "number", "text", "bool", "time")


@dataclass(frozen=True, slots=True)
class FeaturesCheck:
    """The declaration of one feature table: ``[[check.features]]``.

    Attributes:
        path: The features that training reads.
        serving: The features that serving reads, to be compared with training.
        schema: A pandera schema that both have to satisfy.
        types: By column ``int``, ``float``, ``number``, ``text``, ``bool`` or ``time``.
        nullable: Columns in which values may be missing; in all others none may.
        ranges: Smallest and largest allowed value, by column.
        categories: The values that are allowed, by column.
        training_only: Columns that serving does not have, such as the label.
        max_drift: Largest drift of serving from training, in the unit of `drift`.
        drift: ``psi``, ``ks`` or ``js``.
        severity: What a finding weighs.
    """

    path: str
    serving: str | None = None
    schema: str | None = None
    types: Mapping[str, str] = field(default_factory=dict)
    nullable: tuple[str, ...] = ()
    ranges: Mapping[str, tuple[float | None, float | None]] = field(default_factory=dict)
    categories: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    training_only: tuple[str, ...] = ()
    max_drift: float = DEFAULT_DRIFT
    drift: str = "psi"
    severity: Severity = Severity.ERROR

    @classmethod
    def from_table(cls, table: Table) -> Self:
        """Read the declaration from its configuration table.

        Raises:
            DeclarationError: A key is unknown, missing, of another type or out of range.
        """
        below = table.table("types")
        types = {} if below is None else {n: below.choice(n, TYPES, "") for n in below.values}
        max_drift = table.get("max_drift", float, DEFAULT_DRIFT)
        if max_drift <= 0:
            raise table.wrong("max_drift", f"has to be above 0, not {max_drift}")
        declaration = cls(
            path=table.get("path", str),
            serving=table.optional("serving", str),
            schema=table.optional("schema", str),
            types=types,
            nullable=table.strings("nullable"),
            ranges=read_ranges(table),
            categories=read_categories(table),
            training_only=table.strings("training_only"),
            max_drift=max_drift,
            drift=table.choice("drift", DRIFT_METHODS, "psi"),
            severity=Severity(table.choice("severity", ("error", "warning"), "error")),
        )
        table.finish()
        return declaration

    def as_data(self, path: str, reference: str | None) -> DataCheck:
        """Return what the rules for data need to know of one of the two tables."""
        declared = {**self.types, **self.ranges, **self.categories}
        absent = self.training_only if reference else ()
        return DataCheck(
            path=path,
            schema=self.schema,
            required=tuple(name for name in declared if name not in absent),
            ranges={n: r for n, r in self.ranges.items() if n not in absent},
            categories={n: c for n, c in self.categories.items() if n not in absent},
            reference=reference,
            max_drift=self.max_drift,
            drift=self.drift,
            severity=self.severity,
        )


def check(declaration: FeaturesCheck, context: Context) -> CheckReport:
    """Return everything that is wrong with a feature table, and between training and serving.

    Args:
        declaration: What the project demands.
        context: Where the check runs.
    """
    from checks.data.panics import panics_unseen  # noqa: PLC0415 - beside polars

    with panics_unseen():
        reports = [_check_table(declaration, declaration.as_data(declaration.path, None), context)]
        if declaration.serving is not None:
            serving = declaration.as_data(declaration.serving, declaration.path)
            reports.append(_check_table(declaration, serving, context))
    return merge(reports)


def _check_table(declaration: FeaturesCheck, table: DataCheck, context: Context) -> CheckReport:
    from checks.data.dataset import load_declared, open_declared  # noqa: PLC0415 - imports polars
    from checks.data.judgement import Judgement  # noqa: PLC0415 - same
    from checks.data.reading import readable_as_data  # noqa: PLC0415 - same
    from checks.data.source import SourceProblem, find_source  # noqa: PLC0415 - same

    started = time.monotonic()
    judgement = Judgement(table.path, table, family="features")
    try:
        source = find_source(table.path, context)
        schema = load_declared(judgement, context)
        with open_declared(table, schema, context) as data, readable_as_data(source, context):
            _judge(judgement, declaration, data, schema)
            if table.reference is not None:
                _compare(judgement, declaration, data, context)
            return judgement.report(data, time.monotonic() - started)
    except SourceProblem as problem:
        judgement.unreadable(problem)
        return judgement.report(None, time.monotonic() - started)


def _judge(judgement: Judgement, declaration: FeaturesCheck, data: Data, schema: Any) -> None:
    from checks.data.dataset import judge_oddity  # noqa: PLC0415 - imports polars
    from checks.data.questions import Questions  # noqa: PLC0415 - beside polars
    from checks.data.rules import judge_values, require_columns  # noqa: PLC0415 - imports polars
    from checks.data.schema_rules import judge_schema  # noqa: PLC0415 - same
    from checks.data.table import SAMPLE_ROWS  # noqa: PLC0415 - same

    judgement.rows, judgement.summaries = data.summarize()
    questions = Questions()
    require_columns(judgement, data)
    if schema is not None:
        judge_schema(judgement, data, schema, questions)
    for column in data.columns:
        _judge_type(judgement, declaration, column)
        _judge_missing(judgement, declaration, column)
    judge_values(judgement, data, data.sample(SAMPLE_ROWS), questions)
    questions.resolve(data)
    judge_oddity(judgement, data)


def _judge_type(judgement: Judgement, declaration: FeaturesCheck, column: Column) -> None:
    wanted = declaration.types.get(column.name)
    judgement.applied("features.types")
    if wanted is None or _is_type(column, wanted):
        return
    judgement.found(
        judgement.finding(
            "features.types",
            f"{column.name!r} is {column.dtype}, declared is {wanted}",
            column=column.name,
            value=column.dtype,
            limit=wanted,
            hint="mend the step that makes the feature, or correct `types`",
        )
    )


def _is_type(column: Column, wanted: str) -> bool:
    """Return whether a column has a declared type; an unsigned or short int is an int."""
    kinds = {"number": "number", "text": "text", "bool": "boolean", "time": "time"}
    if wanted in {"int", "float"}:
        return column.kind == "number" and column.is_float == (wanted == "float")
    return column.kind == kinds[wanted]


def _judge_missing(judgement: Judgement, declaration: FeaturesCheck, column: Column) -> None:
    from checks.data.table import Predicate  # noqa: PLC0415 - beside polars

    judgement.applied("features.missing")
    missing = judgement.summaries[column.name].missing
    figures = judgement.column_figures(column.name)
    figures |= {"type": column.dtype, "missing": missing}
    if not missing or column.name in declaration.nullable:
        return
    judgement.found(
        judgement.finding(
            "features.missing",
            f"{missing} of {judgement.rows} values of {column.name!r} are missing, none may be",
            column=column.name,
            value=missing / judgement.rows,
            limit=0,
            count=missing,
            hint=f"fill them in, or add {column.name!r} to `nullable`",
        ),
        Predicate(column.name, "missing"),
    )


def _compare(
    judgement: Judgement, declaration: FeaturesCheck, data: Data, context: Context
) -> None:
    """Compare serving with training; what only training has is left out."""
    from checks.data.compare import Compared  # noqa: PLC0415 - same
    from checks.data.dataset import compare_with  # noqa: PLC0415 - imports polars
    from checks.data.table import SAMPLE_ROWS  # noqa: PLC0415 - same

    judgement.declaration = replace(judgement.declaration, ignore=declaration.training_only)
    compare_with(judgement, Compared(data, data.sample(SAMPLE_ROWS)), context)
