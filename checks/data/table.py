"""What every engine gives: columns, summaries, counts of failing rows, samples.

The rules are written against this protocol, so that the same declaration means the same on
one machine and on a cluster.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import polars as pl

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from checks.data.source import SourceProblem

SAMPLE_ROWS = 100_000
SHOWN_ROWS = 10
ESTIMATED_ROWS = 1_000_000


class Kind(enum.StrEnum):
    """How the rules look at a column."""

    NUMBER = "number"
    TEXT = "text"
    BOOLEAN = "boolean"
    TIME = "time"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Column:
    """One column: its name, its type as the engine calls it, and how the rules see it."""

    name: str
    dtype: str
    kind: Kind
    is_float: bool = False


@dataclass(frozen=True, slots=True)
class Summary:
    """The figures of one column over all rows; null and NaN both count as missing.

    Attributes:
        missing: Null and NaN.
        infinite: Positive and negative infinities; they are in no other figure.
        mean: Of the finite values.
        std: Of the finite values, with n - 1 in the denominator.
        minimum: Of the finite values; of times the whole number that the file holds; not of texts.
        maximum: The same.
        longest: Bytes of the longest text.
    """

    missing: int
    infinite: int = 0
    mean: float | None = None
    std: float | None = None
    minimum: Any = None
    maximum: Any = None
    longest: int | None = None


@dataclass(frozen=True, slots=True)
class Predicate:
    """What is wrong with a row, in one column; every engine compiles it to its own query.

    Attributes:
        column: The column it looks at.
        op: One of the operators of `OPERATORS`.
        args: What the operator needs.
        unless: Rows with this value in `column` are left out.
        missing_fails: Whether a missing value fails too (it passes otherwise).
    """

    column: str
    op: str
    args: tuple[Any, ...] = ()
    unless: Any = None
    missing_fails: bool = False


#: Operator → what a failing value is like. ``low`` and ``high`` may be None.
OPERATORS = {
    "missing": "null or NaN",
    "outside": "below low or above high",
    "outside_open": "at or below low, or at or above high; flags say which bound is strict",
    "equals": "the value",
    "differs": "another than the value",
    "not_in": "none of the values",
    "in": "one of the values",
    "no_match": "no match of the regular expression at its start",
    "no_search": "no match of the regular expression anywhere",
    "no_prefix": "does not start with the text",
    "no_suffix": "does not end with the text",
    "length": "fewer or more characters than low and high",
    "not_numeric": "a text that is no number",
    "not_numeric_wordy": "a text that is no number and holds no digit",
    "numeric": "a text that is a number",
    "not_type": "a text that is not of the polars type",
    "longer": "more bytes than the limit",
    "infinite": "an infinity",
    "beyond_years": "a moment whose number lies below the first or above the last",
    "repeats": "the same value again, among one in so many values; it has no failing rows",
}


class Data(Protocol):
    """A data set on some engine."""

    @property
    def columns(self) -> tuple[Column, ...]:
        """The columns in the order of the data."""

    @property
    def oddity(self) -> SourceProblem | None:
        """What the types of the columns hide, such as texts among the numbers of JSON lines."""

    def summarize(
        self, names: Sequence[str] | None = None, unless: Mapping[str, Any] | None = None
    ) -> tuple[int, dict[str, Summary]]:
        """Return the number of rows and the summary of each column, in one pass.

        Args:
            names: The columns wanted; all by default.
            unless: A value by column; rows with it are left out of that column's figures.
        """

    def count(self, predicates: Sequence[Predicate]) -> list[int]:
        """Return how many rows fail each predicate, in one pass."""

    def failing(self, predicates: Sequence[Predicate]) -> list[tuple[Mapping[str, Any], ...]]:
        """Return at most ten failing rows for each predicate."""

    def sample(self, rows: int) -> pl.DataFrame:
        """Return about `len` rows evenly spread over the data; all where they are fewer."""

    def groups(self, column: str, limit: int) -> dict[Any, int] | None:
        """Return how often each value occurs, missing left out; None for more than `limit`."""

    def repeated(self, columns: Sequence[str], *, exact: bool) -> tuple[int, int]:
        """Return (rows that repeat an earlier one, rows looked at) over `columns`."""
