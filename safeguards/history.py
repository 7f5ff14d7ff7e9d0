"""Figures from the log: how often runs and rollbacks succeeded, and how long they took."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rollback.model import Operation

_RESTORES = ("rollback", "undo", "redo")
_ENDED = ("done", "failed", "interrupted")


@dataclass(frozen=True, slots=True)
class Rate:
    """How many of how many succeeded."""

    succeeded: int
    total: int

    @property
    def share(self) -> float | None:
        """The share that succeeded, None where there was nothing."""
        return self.succeeded / self.total if self.total else None


@dataclass(frozen=True, slots=True)
class Times:
    """How long something took, in seconds: number, median, the slowest of 95 in 100, maximum."""

    number: int
    median_s: float
    p95_s: float
    max_s: float


@dataclass(frozen=True, slots=True)
class Figures:
    """What the log says.

    Attributes:
        runs: Commands that were started, and ended with status 0.
        stopped: Runs that were not started, by the reason's code or state.
        levels: Escalation level → runs that reached it and were mended.
        attempts: Runs that needed more than one attempt, and succeeded in the end.
        restores: Rollbacks, undos and redos that ended verified.
        drills: Rehearsals that fitted the budget.
        restore_times: How long restores took, None for none.
        drill_times: How long rehearsals took, None for none.
    """

    runs: Rate
    stopped: int
    levels: Mapping[int, Rate]
    attempts: Rate
    restores: Rate
    drills: Rate
    restore_times: Times | None
    drill_times: Times | None


def summarize(operations: Iterable[Operation]) -> Figures:
    """Return the figures of a log; what did not end counts as not succeeded."""
    ended = [operation for operation in operations if operation.state in _ENDED]
    runs = [operation for operation in ended if operation.kind == "run"]
    started = [run for run in runs if run.data.get("child_exit") is not None]
    restores = [operation for operation in ended if operation.kind in _RESTORES]
    drills = [d for operation in ended if isinstance(d := operation.data.get("drill"), Mapping)]
    again = [run for run in started if _number(run.data.get("attempts")) > 1]
    return Figures(
        runs=_rate(run.data["child_exit"] == 0 for run in started),
        stopped=len(runs) - len(started),
        levels=_levels(runs),
        attempts=_rate(run.data["child_exit"] == 0 for run in again),
        restores=_rate(r.state == "done" and bool(r.data.get("verified")) for r in restores),
        drills=_rate(bool(drill.get("passed")) for drill in drills),
        restore_times=_times(
            [_number(r.data["elapsed_s"]) for r in restores if "elapsed_s" in r.data]
        ),
        drill_times=_times(
            [_number(drill["elapsed_s"]) for drill in drills if "elapsed_s" in drill]
        ),
    )


def _levels(runs: Sequence[Operation]) -> dict[int, Rate]:
    by_level: dict[int, list[bool]] = {}
    for run in runs:
        level = int(_number(run.data.get("level")))
        if level > 0:
            mended = run.data.get("child_exit") == 0 or bool(run.data.get("rolled_back"))
            by_level.setdefault(level, []).append(mended)
    return {level: _rate(mended) for level, mended in sorted(by_level.items())}


def _rate(results: Iterable[bool]) -> Rate:
    found = list(results)
    return Rate(sum(found), len(found))


def _times(seconds: list[float]) -> Times | None:
    if not seconds:
        return None
    ordered = sorted(seconds)
    last = len(ordered) - 1
    # Nearest rank, so that each figure is one that was measured.
    return Times(
        len(ordered), ordered[last // 2], ordered[-(-95 * len(ordered) // 100) - 1], ordered[-1]
    )


def _number(value: Any) -> float:
    return float(value) if isinstance(value, (int, float)) else 0.0
