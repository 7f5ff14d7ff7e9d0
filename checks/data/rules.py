"""The rules of a data set that need one pass: structure, missing values, ranges, outliers."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import polars as pl

from checks.data.declaration import DEFAULT_MISSING
from checks.data.judgement import number, percent
from checks.data.moments import is_moment, limits, readable_moment
from checks.data.outliers import (
    Rule,
    Spread,
    is_judged,
    measure_spread,
    plan_rules,
    second_opinion,
)
from checks.data.table import Kind, Predicate
from checks.model import Severity

if TYPE_CHECKING:
    from checks.data.judgement import Judgement
    from checks.data.questions import Questions
    from checks.data.table import Column, Data, Summary

LONGEST_TEXT_BYTES = 1_000_000
_MIXED_SHARE = 0.5
_FEWEST_ROWS = 2
_LISTED = 12
_NUMERIC_SHARE = 0.9


def require_columns(judgement: Judgement, data: Data) -> None:
    """Find declared columns that the data does not have."""
    declaration = judgement.declaration
    have = {column.name for column in data.columns}
    wanted = {
        **dict.fromkeys(declaration.required, "required"),
        **dict.fromkeys(declaration.no_missing, "no_missing"),
        **dict.fromkeys(declaration.ranges, "ranges"),
        **dict.fromkeys(declaration.categories, "categories"),
        **dict.fromkeys(declaration.unique, "unique"),
    }
    if declaration.target:
        wanted[declaration.target] = "target"
    judgement.applied("data.columns")
    for name, key in wanted.items():
        if name not in have:
            judgement.found(
                judgement.finding(
                    "data.columns",
                    f"column {name!r} is not there (declared in `{key}`)",
                    column=name,
                    hint=f"columns are: {_listed(sorted(have))}",
                )
            )


def judge_missing(judgement: Judgement, data: Data) -> None:
    """Hold the share of null and NaN in each column against its limit."""
    declaration, rows = judgement.declaration, judgement.rows
    judgement.applied("data.missing")
    for column in data.columns:
        summary = judgement.summaries[column.name]
        share = summary.missing / rows
        figures = judgement.column_figures(column.name)
        figures |= {"type": column.dtype, "missing": summary.missing, "missing_share": share}
        limit, excluded = DEFAULT_MISSING, True
        if declaration.max_missing is not None:
            limit, excluded = declaration.max_missing, False
        over = share >= limit if excluded else share > limit
        if column.name in declaration.no_missing:
            limit, excluded, over = 0.0, False, summary.missing > 0
        elif column.name in declaration.ignore:
            continue
        if over:
            judgement.found(
                judgement.finding(
                    "data.missing",
                    f"{percent(share)} of {column.name!r} is missing, "
                    f"{'less than' if excluded else 'at most'} {percent(limit)} may be",
                    column=column.name,
                    value=share,
                    limit=limit,
                    count=summary.missing,
                    hint="mend the data, or raise `max_missing` for this [[check.data]]",
                ),
                Predicate(column.name, "missing"),
            )


def judge_values(
    judgement: Judgement, data: Data, sample: pl.DataFrame, questions: Questions
) -> None:
    """Find infinities, endless texts, constant columns, and values that are not declared."""
    declaration = judgement.declaration
    judgement.applied("data.infinite")
    judgement.applied("data.constant")
    for column in data.columns:
        summary = judgement.summaries[column.name]
        _note_figures(judgement, column, summary)
        _judge_infinite(judgement, column, summary)
        _judge_longest(judgement, column, summary)
        if column.kind is Kind.TEXT:
            _ask_constant(judgement, column, sample[column.name], questions)
        elif summary.minimum is not None and summary.minimum == summary.maximum:
            _judge_constant(judgement, column, _shown(summary.minimum, column))
        _ask_moments(judgement, column, summary, questions)
        if column.name in declaration.categories:
            _ask_categories(judgement, column, questions)
        if column.name in declaration.ranges:
            _ask_range(judgement, column, questions)


def judge_types(
    judgement: Judgement, data: Data, sample: pl.DataFrame, questions: Questions
) -> None:
    """Find text columns that are mostly numbers: one stray word makes a column text."""
    judgement.applied("data.types")
    for column in data.columns:
        ignored = column.name in judgement.declaration.ignore
        if column.kind is Kind.TEXT and not ignored and _looks_mixed(sample[column.name]):
            questions.ask(
                [Predicate(column.name, op) for op in ("not_numeric", "not_numeric_wordy")],
                partial(_judge_mixed, judgement, column.name),
            )


def judge_outliers(
    judgement: Judgement, data: Data, sample: pl.DataFrame, questions: Questions
) -> None:
    """Hold the shares of values far out against their limits, plain and robust."""
    judgement.applied("data.outliers")
    spreads = _measure_spreads(judgement, data, sample)
    rules: list[Rule] = []
    for name, spread in spreads.items():
        present = _present(judgement, name)
        summary = judgement.summaries[name]
        rules += plan_rules(judgement.declaration, summary, spread, present, name)
    asked = [rule for rule in rules if rule.can_break(judgement.summaries[rule.column])]

    def answer(counts: list[int]) -> None:
        broken = _note_outside(judgement, rules, dict(zip(asked, counts, strict=True)))
        if judgement.declaration.max_outliers is None:
            broken |= second_opinion(data, judgement.declaration, broken, spreads)
        for found in broken.values():
            for rule, count in found[:1]:
                _found_outliers(judgement, rule, count)

    questions.ask([rule.predicate() for rule in asked], answer)


def _note_outside(
    judgement: Judgement, rules: list[Rule], counts: dict[Rule, int]
) -> dict[str, list[tuple[Rule, int]]]:
    """Note how many values lie outside each rule's bounds; return the rules that broke."""
    broken: dict[str, list[tuple[Rule, int]]] = {}
    for rule in rules:
        count = counts.get(rule, 0)
        figures = judgement.column_figures(rule.column)
        figures[f"beyond_{rule.kind}"] = count
        figures[f"beyond_{rule.kind}_share"] = count / rule.rows if rule.rows else 0.0
        if rule.exceeded(count):
            broken.setdefault(rule.column, []).append((rule, count))
    return broken


def _measure_spreads(judgement: Judgement, data: Data, sample: pl.DataFrame) -> dict[str, Spread]:
    """Return the spread of each column that the outlier rules look at."""
    spreads = {}
    for column in data.columns:
        if column.kind is not Kind.NUMBER or column.name in judgement.declaration.ignore:
            continue
        spread = measure_spread(sample[column.name])
        if spread is None:
            continue
        figures = judgement.column_figures(column.name)
        figures["quartiles"] = list(spread.quartiles)
        figures["quartiles_sampled"] = sample.height < judgement.rows
        if is_judged(column.kind, spread):
            spreads[column.name] = spread
    return spreads


def _ask_moments(
    judgement: Judgement, column: Column, summary: Summary, questions: Questions
) -> None:
    """Have moments counted that no calendar knows: seconds were taken for milliseconds."""
    if not is_moment(column.dtype) or not isinstance(summary.minimum, int):
        return
    first, last = limits(column.dtype)
    if summary.minimum < first or summary.maximum > last:
        predicate = Predicate(column.name, "beyond_years", (first, last))
        what = "data.time", "years 1 to 9999", "lies outside the years 1 to 9999"
        questions.ask([predicate], partial(_judge_undeclared, judgement, predicate, what))


def _ask_categories(judgement: Judgement, column: Column, questions: Questions) -> None:
    allowed = judgement.declaration.categories[column.name]
    shown = ", ".join(str(a) for a in allowed[:_LISTED])
    judgement.applied("data.categories")
    predicate = Predicate(column.name, "not_in", allowed)
    what = "data.categories", shown, "is not an allowed category"
    questions.ask([predicate], partial(_judge_undeclared, judgement, predicate, what))


def _ask_range(judgement: Judgement, column: Column, questions: Questions) -> None:
    low, high = judgement.declaration.ranges[column.name]
    limits = f"{'-∞' if low is None else number(low)} to {'∞' if high is None else number(high)}"
    judgement.applied("data.range")
    if column.kind is not Kind.NUMBER:
        judgement.found(
            judgement.finding(
                "data.range",
                f"{column.name!r} is {column.dtype}, so it has no numeric range",
                column=column.name,
                value=column.dtype,
                limit=limits,
                hint="correct `ranges`, or mend the column's type",
            )
        )
        return
    predicate = Predicate(column.name, "outside", (low, high))
    what = "data.range", limits, f"lies outside {limits}"
    questions.ask([predicate], partial(_judge_undeclared, judgement, predicate, what))


def _judge_undeclared(
    judgement: Judgement, predicate: Predicate, what: tuple[str, str, str], counts: list[int]
) -> None:
    rule, limit, fault = what
    if counts[0]:
        judgement.found(
            judgement.finding(
                rule,
                f"{counts[0]} of {judgement.rows} values of {predicate.column!r}: each {fault}",
                column=predicate.column,
                value=counts[0] / judgement.rows,
                limit=limit,
                count=counts[0],
                hint="mend the rows, or correct the declaration",
            ),
            predicate,
        )


def _judge_mixed(judgement: Judgement, name: str, counts: list[int]) -> None:
    """Judge a text column by how many values are no numbers, and how many of these words."""
    strays, wordy = counts
    present = judgement.rows - judgement.summaries[name].missing
    numeric = present - strays
    if not strays or numeric < _MIXED_SHARE * present:
        return
    certain = numeric >= _NUMERIC_SHARE * present or 2 * wordy >= strays
    judgement.found(
        judgement.finding(
            "data.types",
            f"{name!r} mixes types: {strays} of {present} values are no numbers",
            column=name,
            value=strays / present,
            limit=0,
            count=strays,
            severity=judgement.declaration.severity if certain else Severity.WARNING,
            hint=f"mend these values, or add {name!r} to `ignore` where it is a text",
        ),
        Predicate(name, "not_numeric"),
    )


def _found_outliers(judgement: Judgement, rule: Rule, count: int) -> None:
    ways = {
        "sigma": f"{number(rule.sigmas)} standard deviations from the mean",
        "robust": f"{number(rule.sigmas)} robust sigma (quartiles) from the median",
        "iqr": f"{number(rule.sigmas)} sigma (quartile range / 1.349) from the median",
        "mad": f"{number(rule.sigmas)} sigma (median deviation / 0.6745) from the median",
    }
    share = count / rule.rows
    others = "" if rule.unless is None else f" other than {number(rule.unless)}"
    judgement.found(
        judgement.finding(
            "data.outliers",
            f"{percent(share)} of the values of {rule.column!r}{others} lie beyond "
            f"{ways[rule.kind]}, at most {percent(rule.limit)} may "
            f"(outside {number(rule.low)} to {number(rule.high)})",
            column=rule.column,
            value=share,
            limit=rule.limit,
            count=count,
            hint="look at the rows; a column with heavy tails wants `max_outliers`, "
            "`max_robust_outliers` or `ignore`",
        ),
        rule.predicate(),
    )


def _judge_infinite(judgement: Judgement, column: Column, summary: Summary) -> None:
    if summary.infinite:
        judgement.found(
            judgement.finding(
                "data.infinite",
                f"{summary.infinite} of {judgement.rows} values of {column.name!r} are infinite",
                column=column.name,
                value=summary.infinite / judgement.rows,
                limit=0,
                count=summary.infinite,
                hint="look for divisions by zero and logarithms of zero upstream",
            ),
            Predicate(column.name, "infinite"),
        )


def _judge_longest(judgement: Judgement, column: Column, summary: Summary) -> None:
    if summary.longest is not None and summary.longest > LONGEST_TEXT_BYTES:
        judgement.found(
            judgement.finding(
                "data.length",
                f"a value of {column.name!r} is {summary.longest} bytes long: "
                "an unclosed quote or a missing newline?",
                column=column.name,
                value=summary.longest,
                limit=LONGEST_TEXT_BYTES,
                hint="look at the line; keep large objects in files of their own",
            ),
            Predicate(column.name, "longer", (LONGEST_TEXT_BYTES,)),
        )


def _ask_constant(
    judgement: Judgement, column: Column, sample: pl.Series, questions: Questions
) -> None:
    """Have a text column looked at whole whose sample holds a single value."""
    values = sample.alias("value").cast(pl.String)
    if values.is_empty() or values[0] is None or values[0] != values[-1]:
        return
    text = values[0]
    if not bool((values == text).all()) or values.null_count():
        return

    def answer(counts: list[int]) -> None:
        if not counts[0]:
            _judge_constant(judgement, column, text)

    questions.ask([Predicate(column.name, "differs", (text,))], answer)


def _judge_constant(judgement: Judgement, column: Column, shown: str) -> None:
    if column.name in judgement.declaration.ignore or judgement.rows < _FEWEST_ROWS:
        return
    summary = judgement.summaries[column.name]
    if not summary.missing and not summary.infinite:
        judgement.found(
            judgement.finding(
                "data.constant",
                f"{column.name!r} holds one and the same value in all {judgement.rows} rows",
                column=column.name,
                value=shown[:80],
                severity=Severity.WARNING,
                hint="leave it out of training, or add it to `ignore`",
            )
        )


def _shown(value: Any, column: Column) -> str:
    moment = is_moment(column.dtype) and isinstance(value, int)
    return readable_moment(value, column.dtype) if moment else str(value)


def _note_figures(judgement: Judgement, column: Column, summary: Summary) -> None:
    figures = judgement.column_figures(column.name)
    if column.kind is Kind.NUMBER:
        figures |= {
            "mean": summary.mean,
            "std": summary.std,
            "min": summary.minimum,
            "max": summary.maximum,
            "infinite": summary.infinite,
        }


def _present(judgement: Judgement, column: str) -> int:
    summary = judgement.summaries[column]
    return judgement.rows - summary.missing - summary.infinite


def _looks_mixed(values: pl.Series) -> bool:
    texts = values.alias("value").cast(pl.String).drop_nulls()
    if texts.is_empty():
        return False
    numeric = texts.str.strip_chars().cast(pl.Float64, strict=False).is_not_null().mean()
    return isinstance(numeric, float) and numeric >= _MIXED_SHARE / 2


def _listed(names: list[str]) -> str:
    return ", ".join(names[:_LISTED]) + (" …" if len(names) > _LISTED else "")
