"""Predicates as ibis expressions."""

from __future__ import annotations

import functools
import operator
from typing import TYPE_CHECKING, Any

from checks.data.source import SourceProblem
from checks.data.table import Kind

if TYPE_CHECKING:
    from collections.abc import Callable

    from checks.data.table import Column, Predicate


def fails(table: Any, predicate: Predicate, column: Column) -> Any:
    """Return the expression that is true for a row that fails, and never null.

    Args:
        table: The ibis table.
        predicate: What is wrong with a row.
        column: The column it looks at.

    Raises:
        SourceProblem: Spark has no way to ask this.
    """
    value = table[column.name]
    missing = value.isnull()
    if column.is_float:
        missing |= value.isnan().fill_null(False)
    if predicate.op == "missing":
        return missing
    if predicate.op in {"in", "not_in"}:
        bad = _member(value, predicate.args, column)
        bad = bad if predicate.op == "in" else ~bad
    elif predicate.op in _OPERATORS:
        bad = _OPERATORS[predicate.op](value, predicate.args)
    else:
        raise SourceProblem(
            "data.engine",
            f"{predicate.op} of {column.name!r} cannot be checked on Spark",
            "leave `engine` out, or declare the type that the data has",
        )
    if predicate.unless is not None:
        bad &= value != predicate.unless
    if column.is_float:
        bad &= ~value.isnan()
    bad = bad.fill_null(False)
    return bad | missing if predicate.missing_fails else bad


def repeats(value: Any) -> Any:
    """Return how many values occur before; a cluster counts them all."""
    return value.count() - value.nunique()


def _member(value: Any, args: tuple[Any, ...], column: Column) -> Any:
    if column.kind is Kind.NUMBER:
        return value.isin([a for a in args if isinstance(a, (int, float))])
    if column.kind is Kind.TEXT:
        return value.isin([str(a) for a in args])
    return value.isin(list(args))


def _outside(value: Any, args: tuple[Any, ...]) -> Any:
    low, high = args
    return _outside_open(value, (low, high, True, True))


def _outside_open(value: Any, args: tuple[Any, ...]) -> Any:
    low, high, low_included, high_included = args
    bad = []
    if low is not None:
        bad.append(value < low if low_included else value <= low)
    if high is not None:
        bad.append(value > high if high_included else value >= high)
    return functools.reduce(operator.or_, bad)


def _not_numeric(value: Any, _args: tuple[Any, ...]) -> Any:
    return value.notnull() & ~value.re_search(r"^\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*$")


_OPERATORS: dict[str, Callable[[Any, tuple[Any, ...]], Any]] = {
    "outside": _outside,
    "outside_open": _outside_open,
    "equals": lambda value, args: value == args[0],
    "differs": lambda value, args: value != args[0],
    "no_match": lambda value, args: ~value.re_search(f"^(?:{args[0]})"),
    "no_search": lambda value, args: ~value.re_search(args[0]),
    "no_prefix": lambda value, args: ~value.startswith(args[0]),
    "no_suffix": lambda value, args: ~value.endswith(args[0]),
    "length": lambda value, args: _outside(value.length(), args),
    "not_numeric": _not_numeric,
    "not_numeric_wordy": lambda value, args: _not_numeric(value, args) & ~value.re_search("[0-9]"),
    "longer": lambda value, args: value.length() > args[0],
    "infinite": lambda value, _args: value.isinf(),
}
