"""Predicates as polars expressions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import polars as pl

from checks.data.table import Kind

if TYPE_CHECKING:
    from collections.abc import Callable

    from checks.data.table import Column, Predicate


def fails(predicate: Predicate, column: Column, name: str) -> pl.Expr:
    """Return the expression that is true for a row that fails, and never null.

    Args:
        predicate: What is wrong with a row.
        column: The column it looks at.
        name: What the column is called in the frame.
    """
    value = pl.col(name)
    missing = value.is_null()
    if column.is_float:
        missing |= value.is_nan()
    if predicate.op == "missing":
        return missing.fill_null(True)
    if predicate.op in {"in", "not_in"}:
        bad = _member(value, predicate.args, column)
        bad = bad if predicate.op == "in" else bad.not_()
    else:
        bad = _OPERATORS[predicate.op](value, predicate.args)
    if predicate.unless is not None:
        bad &= value != predicate.unless
    if column.is_float:
        bad &= value.is_not_nan()
    return bad.fill_null(predicate.missing_fails) if not predicate.missing_fails else bad | missing


def parsed(text: pl.Expr, dtype: Any) -> pl.Expr:
    """Return the values of `dtype` that texts stand for, null where they do not."""
    if dtype == pl.Boolean:
        return text.str.to_lowercase().replace_strict(
            {"true": True, "false": False}, default=None, return_dtype=pl.Boolean
        )
    if dtype == pl.Date:
        return text.str.to_date(strict=False)
    if isinstance(dtype, pl.Datetime) or dtype == pl.Datetime:
        return text.str.to_datetime(strict=False)
    if dtype == pl.Time:
        return text.str.to_time(strict=False)
    if dtype.is_numeric():
        return text.cast(dtype, strict=False)
    return text


def _outside(value: pl.Expr, args: tuple[Any, ...]) -> pl.Expr:
    low, high = args
    if low is None:
        return pl.Expr.gt(value, high)
    if high is None:
        return pl.Expr.lt(value, low)
    return value.is_between(low, high).not_()


def _outside_open(value: pl.Expr, args: tuple[Any, ...]) -> pl.Expr:
    low, high, low_included, high_included = args
    bad = []
    if low is not None:
        bad.append((value < low) if low_included else (value <= low))
    if high is not None:
        bad.append((value > high) if high_included else (value >= high))
    return pl.any_horizontal(bad)


def _member(value: pl.Expr, args: tuple[Any, ...], column: Column) -> pl.Expr:
    """Compare like with like: numbers as numbers, everything else as its text."""
    if column.kind is Kind.NUMBER:
        numbers = [float(a) for a in args if isinstance(a, (int, float))]
        return value.cast(pl.Float64).is_in(numbers)
    if column.kind is Kind.BOOLEAN:
        return value.is_in([a for a in args if isinstance(a, bool)])
    if column.kind is Kind.TIME:
        return value.is_in(list(args))
    return value.cast(pl.String).is_in([str(a) for a in args])


def _no_match(value: pl.Expr, args: tuple[Any, ...]) -> pl.Expr:
    return value.str.contains(f"^(?:{args[0]})").not_()


def _length(value: pl.Expr, args: tuple[Any, ...]) -> pl.Expr:
    return _outside(value.str.len_chars(), args)


def _number(value: pl.Expr) -> pl.Expr:
    return value.str.strip_chars().cast(pl.Float64, strict=False)


def _not_numeric(value: pl.Expr, _args: tuple[Any, ...]) -> pl.Expr:
    return value.is_not_null() & _number(value).is_null()


def _not_numeric_wordy(value: pl.Expr, args: tuple[Any, ...]) -> pl.Expr:
    return _not_numeric(value, args) & value.str.contains("[0-9]").not_()


def _not_type(value: pl.Expr, args: tuple[Any, ...]) -> pl.Expr:
    return value.is_not_null() & parsed(value, args[0]).is_null()


_OPERATORS: dict[str, Callable[[pl.Expr, tuple[Any, ...]], pl.Expr]] = {
    "outside": _outside,
    "outside_open": _outside_open,
    "equals": lambda value, args: value == args[0],
    "differs": lambda value, args: value != args[0],
    "no_match": _no_match,
    "no_search": lambda value, args: value.str.contains(args[0]).not_(),
    "no_prefix": lambda value, args: value.str.starts_with(args[0]).not_(),
    "no_suffix": lambda value, args: value.str.ends_with(args[0]).not_(),
    "length": _length,
    "not_numeric": _not_numeric,
    "not_numeric_wordy": _not_numeric_wordy,
    "numeric": lambda value, _args: _number(value).is_not_null(),
    "not_type": _not_type,
    "longer": lambda value, args: value.str.len_bytes() > args[0],
    "beyond_years": lambda value, args: _outside(value.to_physical(), args),
    "infinite": lambda value, _args: value.is_infinite(),
}
