"""The rules that compare rows or values with one another: balance, duplicates."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import polars as pl

from checks.data.judgement import percent
from checks.data.table import ESTIMATED_ROWS, Kind, Predicate
from checks.model import CheckSkip, Severity

if TYPE_CHECKING:
    from checks.data.judgement import Judgement
    from checks.data.questions import Questions
    from checks.data.table import Column, Data

MAX_CLASSES = 1_000
DEFAULT_DUPLICATES = 0.01
_DEFAULT_CLASS_SHARE = 0.05
_FAIR_SHARE = 0.25
_SHOWN_CLASSES = 20
_COUNTED_CLASSES = 20


def judge_balance(
    judgement: Judgement, data: Data, sample: pl.DataFrame, questions: Questions
) -> None:
    """Hold the share of the rarest class of the target against its limit.

    The classes of a sample are counted with everything else; only where they are not all
    there are, the target is grouped in a pass of its own.
    """
    target = judgement.declaration.target
    known = {column.name: column for column in data.columns}
    if target is None or target not in known:
        return
    column = known[target]
    if column.kind in {Kind.TIME, Kind.OTHER}:
        _judge_classes(judgement, column, None)
        return
    seen = sample[target].unique().drop_nulls().to_list()
    if column.is_float:
        seen = [value for value in seen if not math.isnan(value)]
    if len(seen) > MAX_CLASSES:
        _judge_classes(judgement, column, None)
        return
    asked = seen if len(seen) <= _COUNTED_CLASSES else []

    def answer(counts: list[int]) -> None:
        present = judgement.rows - judgement.summaries[target].missing
        groups: dict[Any, int] | None = dict(zip(asked, counts, strict=True))
        if sum(counts) != present:
            groups = data.groups(target, MAX_CLASSES)
        _judge_classes(judgement, column, groups)

    questions.ask([Predicate(target, "in", (value,)) for value in asked], answer)


def _judge_classes(judgement: Judgement, column: Column, groups: dict[Any, int] | None) -> None:
    """Judge how often each class occurs; None stands for too many to be classes."""
    declaration = judgement.declaration
    target = column.name
    many = groups is not None and len(groups) > MAX_CLASSES / 10
    continuous = column.kind is Kind.NUMBER and many and declaration.min_class_share is None
    if groups is None or continuous:
        judgement.skipped.append(
            CheckSkip(
                f"class balance of {judgement.subject}",
                f"{target!r} has too many different values to be classes",
                "leave `target` out for a regression",
            )
        )
        return
    groups = dict(sorted(groups.items(), key=lambda item: (-item[1], str(item[0]))))
    judgement.applied("data.balance")
    total = sum(groups.values())
    if not total:
        return
    shares = {str(value): rows / total for value, rows in groups.items()}
    judgement.figures["classes"] = dict(list(shares.items())[:_SHOWN_CLASSES])
    limit = declaration.min_class_share
    if limit is None:
        limit = min(_DEFAULT_CLASS_SHARE, _FAIR_SHARE / len(groups))
    if len(groups) == 1:
        judgement.found(
            judgement.finding(
                "data.balance",
                f"the target {target!r} has a single class, {next(iter(shares))!r}",
                column=target,
                value=1,
                limit=2,
                count=total,
                hint="look at how the rows were selected or joined",
            )
        )
        return
    for value, rows in groups.items():
        if rows / total < limit:
            judgement.found(
                judgement.finding(
                    "data.balance",
                    f"class {str(value)[:80]!r} of {target!r} makes up {percent(rows / total)}, "
                    f"at least {percent(limit)} is wanted",
                    column=target,
                    value=rows / total,
                    limit=limit,
                    count=rows,
                    hint="collect or weight the rare class, or lower `min_class_share`",
                ),
                Predicate(target, "equals", (value,)),
            )


def judge_duplicates(
    judgement: Judgement, data: Data, sample: pl.DataFrame, questions: Questions
) -> None:
    """Count rows that repeat an earlier one, by the declared key and as a whole."""
    declaration = judgement.declaration
    comparable = [c.name for c in data.columns if c.kind is not Kind.OTHER]
    if not comparable:
        return
    if declaration.unique and set(declaration.unique) <= set(comparable):
        _judge_unique(judgement, data)
    judgement.applied("data.duplicates")
    first = max(comparable, key=lambda name: sample[name].n_unique())
    ordered = [first, *(name for name in comparable if name != first)]
    if declaration.max_duplicates is not None:
        _judge_repeated(judgement, *data.repeated(ordered, exact=True))
        return
    one_in = -(-judgement.rows // ESTIMATED_ROWS)

    def answer(counts: list[int]) -> None:
        """Rows can only be equal where the most distinct column is."""
        (repeated,) = counts
        if repeated * one_in <= DEFAULT_DUPLICATES * judgement.rows:
            return
        _judge_repeated(judgement, *data.repeated(ordered, exact=False))

    questions.ask([Predicate(first, "repeats", (one_in,))], answer)


def _judge_unique(judgement: Judgement, data: Data) -> None:
    unique = judgement.declaration.unique
    judgement.applied("data.unique")
    repeated, looked_at = data.repeated(unique, exact=True)
    if repeated:
        judgement.found(
            judgement.finding(
                "data.unique",
                f"{repeated} of {looked_at} rows repeat an earlier {' + '.join(unique)}",
                column=", ".join(unique),
                value=repeated / looked_at,
                limit=0,
                count=repeated,
                hint="remove the repeated rows, or correct `unique`",
            )
        )


def _judge_repeated(judgement: Judgement, repeated: int, looked_at: int) -> None:
    """Judge how many of the rows that were looked at repeat an earlier one."""
    declared = judgement.declaration.max_duplicates
    estimated = looked_at < judgement.rows
    share = repeated / looked_at if looked_at else 0.0
    judgement.figures |= {"duplicate_share": share, "duplicates_estimated": estimated}
    limit = DEFAULT_DUPLICATES if declared is None else declared
    if share > limit:
        count = round(share * judgement.rows)
        judgement.found(
            judgement.finding(
                "data.duplicates",
                f"{'about ' * estimated}{count} of {judgement.rows} rows ({percent(share)}) "
                f"repeat an earlier row, at most {percent(limit)} may",
                value=share,
                limit=limit,
                count=count,
                severity=Severity.WARNING if declared is None else judgement.declaration.severity,
                hint="remove repeated rows, or set `max_duplicates`",
            )
        )
