"""Checks one declared data set."""

from __future__ import annotations

import contextlib
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from checks.data.compare import Compared, judge_reference
from checks.data.csv_reading import require_alike
from checks.data.groups import judge_balance, judge_duplicates
from checks.data.judgement import Judgement
from checks.data.panics import panics_unseen
from checks.data.questions import Questions
from checks.data.reading import open_data, readable_as_data
from checks.data.rules import (
    judge_missing,
    judge_outliers,
    judge_types,
    judge_values,
    require_columns,
)
from checks.data.schema import SchemaProblem, load_schema, wanted_types
from checks.data.schema_rules import judge_schema
from checks.data.source import SourceProblem, find_source
from checks.data.table import SAMPLE_ROWS
from checks.data.text import ends_with_newline
from checks.model import Severity

if TYPE_CHECKING:
    from collections.abc import Iterator

    from checks.context import Context
    from checks.data.declaration import DataCheck
    from checks.data.source import Source
    from checks.data.table import Data
    from checks.model import CheckReport


def check_data(declaration: DataCheck, context: Context) -> CheckReport:
    """Return everything that is wrong with a data set; a bad input is never an exception.

    Args:
        declaration: What the project demands.
        context: Where the check runs.

    Raises:
        EngineUnavailable: The declared engine is not installed or does not answer.
    """
    with panics_unseen():
        return _check(declaration, context)


def _check(declaration: DataCheck, context: Context) -> CheckReport:
    started = time.monotonic()
    judgement = Judgement(declaration.path, declaration)
    try:
        source = find_source(declaration.path, context)
        schema = load_declared(judgement, context)
        with (
            open_declared(declaration, schema, context) as data,
            readable_as_data(source, context),
        ):
            _judge(judgement, data, schema, context)
            _note_ending(judgement, source, context)
            return judgement.report(data, time.monotonic() - started)
    except SourceProblem as problem:
        judgement.unreadable(problem)
        return judgement.report(None, time.monotonic() - started)


@contextlib.contextmanager
def open_declared(declaration: DataCheck, schema: Any | None, context: Context) -> Iterator[Data]:
    """Give the data of a declaration on the engine that it names.

    Text files are read with the types of the schema; a Spark session ends with the block.

    Raises:
        EngineUnavailable: The engine is not installed or does not answer.
        SourceProblem: It cannot be read as data.
    """
    wanted = wanted_types(schema) if schema is not None else {}
    if declaration.engine not in {"auto", "polars"}:
        from checks.data.spark_table import SparkData  # noqa: PLC0415 - an extra

        source = find_source(declaration.path, context)
        if source.format == "csv":
            separator = require_alike(source, declaration.separator, context)
            declaration = replace(declaration, separator=separator)
        with SparkData(source, declaration, wanted) as data:
            if data.summarize()[0] == 0:
                raise SourceProblem(
                    "data.empty", f"{declaration.path} has no rows", "make the data again"
                )
            yield data
        return
    yield open_data(declaration.path, declaration, context, wanted)


def load_declared(judgement: Judgement, context: Context) -> Any | None:
    """Return the schema; one that cannot be read is a finding, and the rest is checked."""
    try:
        return load_schema(judgement, context)
    except SchemaProblem as problem:
        judgement.found(judgement.finding(problem.rule, str(problem), hint=problem.hint))
        return None


def _judge(judgement: Judgement, data: Data, schema: Any, context: Context) -> None:
    judgement.rows, judgement.summaries = data.summarize()
    sample = data.sample(SAMPLE_ROWS)
    questions = Questions()
    require_columns(judgement, data)
    if schema is not None:
        judge_schema(judgement, data, schema, questions)
    judge_missing(judgement, data)
    judge_values(judgement, data, sample, questions)
    judge_types(judgement, data, sample, questions)
    judge_outliers(judgement, data, sample, questions)
    judge_balance(judgement, data, sample, questions)
    judge_duplicates(judgement, data, sample, questions)
    questions.resolve(data)
    judge_oddity(judgement, data)
    if judgement.declaration.reference is not None:
        compare_with(judgement, Compared(data, sample), context)


def _note_ending(judgement: Judgement, source: Source, context: Context) -> None:
    """Note text files without a last newline: their last value may be cut, and nothing tells."""
    if source.format != "csv" or source.compressed:
        return
    for file in source.files:
        if not ends_with_newline(file):
            judgement.found(
                judgement.finding(
                    "data.truncated",
                    f"{context.subject(file)} ends without a newline: its last value may be cut",
                    severity=Severity.INFO,
                    hint="look at its last line; writers end each line with a newline",
                )
            )


def judge_oddity(judgement: Judgement, data: Data) -> None:
    """Find what the types of the columns hide, unless a rule has found it by the values."""
    if data.oddity is not None and not judgement.has_found(data.oddity.rule):
        judgement.unreadable(data.oddity)


def compare_with(judgement: Judgement, now: Compared, context: Context) -> None:
    """Compare with the reference; one that cannot be read is a finding of its own."""
    declaration = judgement.declaration
    path = declaration.reference or ""
    try:
        source = find_source(path, context)
        with readable_as_data(source, context):
            before = open_data(path, declaration, context)
            sample = before.sample(SAMPLE_ROWS)
            judge_reference(judgement, now, Compared(before, sample))
    except SourceProblem as problem:
        judgement.found(
            judgement.finding("data.reference", f"the reference: {problem}", hint=problem.hint)
        )
