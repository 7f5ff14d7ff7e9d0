"""Gathers what all rules want to have counted, so that it costs a single pass."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from checks.data.table import Data, Predicate


class Questions:
    """Predicates to be counted, each group with the function that takes its counts."""

    def __init__(self) -> None:
        self._asked: list[tuple[tuple[Predicate, ...], Callable[[list[int]], None]]] = []

    def ask(self, predicates: Sequence[Predicate], answer: Callable[[list[int]], None]) -> None:
        """Have `answer` called with the count of each of `predicates`, in their order."""
        self._asked.append((tuple(predicates), answer))

    def resolve(self, data: Data) -> None:
        """Count everything that was asked in one pass, and hand out the answers."""
        asked, self._asked = self._asked, []
        counts = iter(data.count([p for predicates, _ in asked for p in predicates]))
        for predicates, answer in asked:
            answer([int(next(counts)) for _ in predicates])
