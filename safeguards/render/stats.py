"""Figures from the log."""

from __future__ import annotations

from typing import Any

from safeguards.history import Figures, Rate, Times
from safeguards.output import Style, aligned
from safeguards.units import seconds_text, share_text

_LEVELS = {1: "self-recovery", 2: "peer report", 3: "architecture review", 4: "user decision"}


def as_text(value: Figures, style: Style) -> list[str]:
    """Return rates and times in aligned lines."""
    del style
    rows = [("runs", _rate(value.runs, "succeeded"))]
    if value.stopped:
        rows.append(("", f"{value.stopped} not started"))
    if value.attempts.total:
        rows.append(("retried", _rate(value.attempts, "succeeded in the end")))
    for level, rate in value.levels.items():
        rows.append((f"level {level}", f"{_LEVELS.get(level, '')}: {_rate(rate, 'mended')}"))
    rows.append(("drills", _rate(value.drills, "fitted") + _times(value.drill_times)))
    rows.append(("rollbacks", _rate(value.restores, "verified") + _times(value.restore_times)))
    return aligned(rows)


def _rate(rate: Rate, what: str) -> str:
    if rate.share is None:
        return "none yet"
    return f"{rate.succeeded} of {rate.total} {what} ({share_text(rate.share)})"


def _times(times: Times | None) -> str:
    if times is None:
        return ""
    return (
        f"; median {seconds_text(times.median_s)}, 95 % {seconds_text(times.p95_s)},"
        f" slowest {seconds_text(times.max_s)}"
    )


def as_data(value: Figures) -> dict[str, Any]:
    """Return the figures as JSON."""
    return {
        "runs": _rate_data(value.runs),
        "not_started": value.stopped,
        "retried": _rate_data(value.attempts),
        "levels": {str(level): _rate_data(rate) for level, rate in value.levels.items()},
        "drills": {**_rate_data(value.drills), "times": _times_data(value.drill_times)},
        "rollbacks": {**_rate_data(value.restores), "times": _times_data(value.restore_times)},
    }


def _rate_data(rate: Rate) -> dict[str, Any]:
    return {"succeeded": rate.succeeded, "total": rate.total, "share": rate.share}


def _times_data(times: Times | None) -> dict[str, Any] | None:
    if times is None:
        return None
    return {
        "number": times.number,
        "median_s": times.median_s,
        "p95_s": times.p95_s,
        "max_s": times.max_s,
    }
