"""Holds data against a pandera schema: every check counted, ten rows of each shown.

pandera's built-in checks become predicates, so that all of them cost one pass in bounded
memory and run on any engine. Checks that are functions are called with the lazy frame.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import re
import sys
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import polars as pl

from checks.data.polars_table import PolarsData, readable
from checks.data.schema import ANY_UNIT, polars_type
from checks.data.table import SHOWN_ROWS, Kind, Predicate
from checks.model import CheckSkip, Severity

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from checks.data.judgement import Judgement
    from checks.data.questions import Questions
    from checks.data.table import Column, Data

_NAMED = 12


@dataclass(frozen=True, slots=True)
class _Counted:
    """A check that is counted together with all others."""

    predicate: Predicate
    name: str
    limit: str
    warns: bool = False


def judge_schema(judgement: Judgement, data: Data, schema: Any, questions: Questions) -> None:
    """Find everything in which `data` differs from a pandera schema."""
    judgement.applied("data.schema")
    known = {column.name: column for column in data.columns}
    pairs = _match_columns(judgement, schema, known)
    _judge_names(judgement, schema, list(known), [c.name for c, _ in pairs])
    counted: list[_Counted] = []
    for column, declared in pairs:
        if _judge_type(judgement, column, declared, schema, counted):
            _judge_column(judgement, data, column, declared, counted)
    names = [schema.unique] if isinstance(schema.unique, str) else list(schema.unique or ())
    if names and set(names) <= set(known):
        _judge_unique(judgement, data, tuple(names))
    for rule in schema.checks or ():
        _judge_function(judgement, data, None, rule)
    questions.ask([c.predicate for c in counted], partial(_judge_counted, judgement, counted))


def _judge_column(
    judgement: Judgement, data: Data, column: Column, declared: Any, counted: list[_Counted]
) -> None:
    missing = judgement.summaries[column.name].missing
    if missing and not declared.nullable:
        _found(
            judgement,
            "nullable",
            f"{missing} values of {column.name!r} are missing, none may be",
            Predicate(column.name, "missing"),
            column=column.name,
            value=missing / judgement.rows,
            limit=0,
            count=missing,
        )
    if declared.unique:
        _judge_unique(judgement, data, (column.name,))
    for rule in declared.checks or ():
        _plan_check(judgement, data, column, rule, counted)


def _judge_counted(judgement: Judgement, counted: list[_Counted], counts: list[int]) -> None:
    for check, count in zip(counted, counts, strict=True):
        if count:
            column = check.predicate.column
            _found(
                judgement,
                check.name,
                f"{count} of {judgement.rows} values of {column!r} break "
                f"{check.name}({check.limit})",
                check.predicate,
                column=column,
                value=count / judgement.rows,
                limit=check.limit,
                count=count,
                severity=_severity(judgement, warns=check.warns),
            )


def _match_columns(
    judgement: Judgement, schema: Any, known: Mapping[str, Column]
) -> list[tuple[Column, Any]]:
    pairs = []
    for name, declared in schema.columns.items():
        if declared.regex:
            found = [c for n, c in known.items() if re.match(name, n)]
        else:
            found = [known[name]] if name in known else []
        if not found and declared.required:
            _found(
                judgement,
                "columns",
                f"column {name!r} of the schema is not there",
                column=name,
                hint=f"columns are: {', '.join(list(known)[:_NAMED])}",
            )
        pairs += [(column, declared) for column in found]
    return pairs


def _judge_names(judgement: Judgement, schema: Any, have: list[str], matched: list[str]) -> None:
    known = set(matched)
    extra = [name for name in have if name not in known]
    if schema.strict is True and extra:
        _found(
            judgement,
            "columns",
            f"{len(extra)} columns are not in the schema: {', '.join(extra[:_NAMED])}",
            value=len(extra),
            limit=0,
            count=len(extra),
        )
    order = [name for name in have if name in known]
    if schema.ordered and order != matched:
        _found(
            judgement,
            "columns",
            f"columns come in another order than in the schema: {', '.join(order[:_NAMED])}",
        )


def _judge_type(
    judgement: Judgement,
    column: Column,
    declared: Any,
    schema: Any,
    counted: list[_Counted],
) -> bool:
    """Return whether the column has (or can be read as) the declared type."""
    dtype = polars_type(declared.dtype)
    if dtype is None or _same_type(column.dtype, dtype):
        return True
    any_unit = (declared.metadata or {}).get(ANY_UNIT, False)
    if any_unit and _base(column.dtype) == _base(str(dtype)):
        return True
    if column.kind is Kind.TEXT and dtype not in (pl.String, pl.Categorical, pl.Enum):
        counted.append(_Counted(Predicate(column.name, "not_type", (dtype,)), "type", str(dtype)))
        return False
    if declared.coerce or schema.coerce:
        return True
    _found(
        judgement,
        "type",
        f"{column.name!r} is {column.dtype}, the schema wants {dtype}",
        column=column.name,
        value=column.dtype,
        limit=str(dtype),
    )
    return False


def _same_type(have: str, dtype: Any) -> bool:
    """Compare by name; a type without its parameters stands for all of its kind."""
    wanted = str(dtype)
    if have == wanted:
        return True
    bare = isinstance(dtype, type)
    return bare and _base(have) == _base(wanted)


def _base(name: str) -> str:
    return name.partition("(")[0]


def _plan_check(
    judgement: Judgement,
    data: Data,
    column: Column,
    rule: Any,
    counted: list[_Counted],
) -> None:
    name = str(rule.name)
    given = {k: _typed(v, column) for k, v in (rule.statistics or {}).items()}
    plan = _BUILT_IN.get(name)
    if plan is None or rule.element_wise:
        if name == "unique_values_eq" and given:
            _judge_values(judgement, data, column, given["values"])
        else:
            _judge_function(judgement, data, column, rule)
        return
    text_only = plan in _TEXT_PLANS and column.kind is not Kind.TEXT
    numbers_asked = any(
        isinstance(v, (int, float)) and not isinstance(v, bool) for v in given.values()
    )
    if text_only or (plan not in _TEXT_PLANS and numbers_asked and column.kind is Kind.TEXT):
        _found(
            judgement,
            name,
            f"{column.name!r} is {column.dtype}, which {name} cannot judge",
            column=column.name,
            value=column.dtype,
        )
        return
    op, args = plan(given)
    limit = ", ".join(str(v) for k, v in given.items() if not _is_default(k, v))[:120]
    predicate = Predicate(column.name, op, args, missing_fails=not rule.ignore_na)
    counted.append(_Counted(predicate, name, limit, bool(rule.raise_warning)))


def _judge_values(judgement: Judgement, data: Data, column: Column, values: Any) -> None:
    wanted = set(values)
    groups = data.groups(column.name, max(1_000, 2 * len(wanted)))
    if groups is None or set(groups) != wanted:
        absent = sorted(str(v) for v in wanted - set(groups or ()))
        extra = sorted(str(v) for v in set(groups or ()) - wanted)
        _found(
            judgement,
            "unique_values_eq",
            f"{column.name!r} does not hold exactly the declared values; "
            f"absent: {', '.join(absent[:5]) or 'none'}; extra: {', '.join(extra[:5]) or 'none'}",
            column=column.name,
            limit=len(wanted),
            value=None if groups is None else len(groups),
        )


def _judge_unique(judgement: Judgement, data: Data, columns: tuple[str, ...]) -> None:
    repeated, rows = data.repeated(columns, exact=True)
    if repeated:
        _found(
            judgement,
            "unique",
            f"{repeated} of {rows} rows repeat an earlier {' + '.join(columns)}",
            column=", ".join(columns),
            value=repeated / rows,
            limit=0,
            count=repeated,
        )


def _judge_function(judgement: Judgement, data: Data, column: Column | None, rule: Any) -> None:
    """Call a check that is a function; keeps one bit for each row, never the rows."""
    name = str(rule.name or getattr(rule, "error", None) or "check")
    key = column.name if column else None
    if not isinstance(data, PolarsData):
        judgement.skipped.append(
            CheckSkip(
                f"check {name} of {judgement.subject}",
                "it is a Python function, which runs on the embedded engine only",
                'declare it with a built-in check, or use engine = "auto"',
            )
        )
        return
    try:
        passed = _call(data, key, rule)
    except Exception as error:  # noqa: BLE001 - the project's code may raise anything
        _found(
            judgement,
            name,
            f"the check {name} failed to run: {type(error).__name__}: {error}"[:300],
            column=key,
            hint="correct the function in the schema",
        )
        return
    count, rows = passed
    if count:
        _found(
            judgement,
            name,
            f"{count} of {judgement.rows} rows break {name}",
            column=key,
            value=count / judgement.rows,
            limit=0,
            count=count,
            samples=rows,
            severity=_severity(judgement, warns=bool(rule.raise_warning)),
        )


def _call(
    data: PolarsData, key: str | None, rule: Any
) -> tuple[int, tuple[Mapping[str, Any], ...]]:
    from pandera.api.polars.types import PolarsData as Given  # noqa: PLC0415 - slow

    # pandera's own call keeps every failing row; only the function itself gives the bits.
    function = partial(rule._check_fn, **rule._check_kwargs)  # noqa: SLF001

    frame = data.frame
    with contextlib.redirect_stdout(sys.stderr):
        if rule.element_wise:
            value = pl.col(key) if key else pl.all()
            out = frame.select(
                value.map_elements(
                    lambda v: bool(function(v)),
                    return_dtype=pl.Boolean,
                )
            )
        else:
            out = function(Given(frame, key or "*"))
        if not isinstance(out, pl.LazyFrame):
            return (0 if bool(out) else 1), ()
        passes = pl.all_horizontal(pl.all().fill_null(bool(rule.ignore_na)))
        bits = out.select(passes.alias("passes")).collect(engine="streaming")["passes"]
    if bits.len() == 1:
        return (0 if bits[0] else 1), ()
    bad = bits.not_()
    first = bad.arg_true().head(SHOWN_ROWS)
    numbered = frame.select([key] if key else pl.all()).with_row_index("row number")
    rows = numbered.filter(pl.col("row number").is_in(first.to_list())).collect(engine="streaming")
    shown = tuple(
        {"row": int(r["row number"]) + 1, "value": readable(r[key] if key else _without_row(r))}
        for r in rows.iter_rows(named=True)
    )
    return int(bad.sum()), shown


def _without_row(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name != "row number"}


def _found(
    judgement: Judgement,
    rule: str,
    message: str,
    predicate: Predicate | None = None,
    **more: Any,
) -> None:
    more.setdefault("hint", f"mend the data, or correct {judgement.declaration.schema}")
    judgement.found(judgement.finding(f"data.schema.{rule}", message, **more), predicate)


def _severity(judgement: Judgement, *, warns: bool) -> Severity:
    return Severity.WARNING if warns else judgement.declaration.severity


def _is_default(key: str, value: Any) -> bool:
    return value is None or (key in {"include_min", "include_max"} and value is True)


def _typed(value: Any, column: Column) -> Any:
    """Return a limit from YAML in the type of the column: dates come as texts."""
    if column.kind is Kind.TIME and isinstance(value, str):
        try:
            return dt.datetime.fromisoformat(value)
        except ValueError:
            return value
    return value


def _one_sided(key: str, *, low: bool, included: bool) -> Callable[[Mapping[str, Any]], Any]:
    def plan(given: Mapping[str, Any]) -> tuple[str, tuple[Any, ...]]:
        limit = given[key]
        args = (limit, None, included, True) if low else (None, limit, True, included)
        return "outside_open", args

    return plan


def _pattern(given: Mapping[str, Any]) -> str:
    pattern = given["pattern"]
    return str(pattern.pattern if isinstance(pattern, re.Pattern) else pattern)


def _length(given: Mapping[str, Any]) -> tuple[str, tuple[Any, ...]]:
    exact = given.get("exact_value")
    if exact is not None:
        return "length", (exact, exact)
    return "length", (given.get("min_value"), given.get("max_value"))


_TEXT_BUILT_IN: dict[str, Callable[[Mapping[str, Any]], Any]] = {
    "str_matches": lambda g: ("no_match", (_pattern(g),)),
    "str_contains": lambda g: ("no_search", (_pattern(g),)),
    "str_startswith": lambda g: ("no_prefix", (g["string"],)),
    "str_endswith": lambda g: ("no_suffix", (g["string"],)),
    "str_length": _length,
}
_TEXT_PLANS = set(_TEXT_BUILT_IN.values())
_BUILT_IN: dict[str, Callable[[Mapping[str, Any]], Any]] = {
    **_TEXT_BUILT_IN,
    "equal_to": lambda g: ("differs", (g["value"],)),
    "not_equal_to": lambda g: ("equals", (g["value"],)),
    "greater_than": _one_sided("min_value", low=True, included=False),
    "greater_than_or_equal_to": _one_sided("min_value", low=True, included=True),
    "less_than": _one_sided("max_value", low=False, included=False),
    "less_than_or_equal_to": _one_sided("max_value", low=False, included=True),
    "in_range": lambda g: (
        "outside_open",
        (g["min_value"], g["max_value"], g.get("include_min", True), g.get("include_max", True)),
    ),
    "isin": lambda g: ("not_in", tuple(g["allowed_values"])),
    "notin": lambda g: ("in", tuple(g["forbidden_values"])),
}
