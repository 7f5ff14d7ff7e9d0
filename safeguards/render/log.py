"""The log of operations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rollback.lock import is_alive
from rollback.model import Operation
from safeguards.changed import changed_text
from safeguards.output import Style, Tone, aligned, one_line
from safeguards.render.paths import command_line
from safeguards.units import count_text, iso_text, moment_text, seconds_text

_COMMAND_WIDTH = 32
_LEFT_OUT = frozenset({"owner", "child"})
_TONES = {
    "failed": Tone.BAD,
    **dict.fromkeys(("interrupted", "unfinished", "running", "applying"), Tone.WARN),
}


@dataclass(frozen=True, slots=True)
class Log:
    """Operations, newest first; and how many older ones there are."""

    operations: tuple[Operation, ...]
    older: int = 0


def as_text(value: Log, style: Style) -> list[str]:
    """Return a line for each operation."""
    if not value.operations:
        return ["nothing was done yet; guard run -- COMMAND takes the first snapshot"]
    rows = [
        (str(o.seq), o.id[:8], moment_text(o.started_at), o.kind, state_of(o), summary(o))
        for o in value.operations
    ]
    lines = [
        style.paint(line, tone) if (tone := _TONES.get(state_of(operation))) else line
        for line, operation in zip(aligned(rows), value.operations, strict=True)
    ]
    if value.older:
        everything = len(value.operations) + value.older
        lines.append(f"and {value.older:,} older: guard log -n {everything}")
    return lines


def as_data(value: Log) -> dict[str, Any]:
    """Return the operations as JSON."""
    operations = [operation_data(operation) for operation in value.operations]
    return {"operations": operations, "older": value.older}


def operation_data(operation: Operation) -> dict[str, Any]:
    """Return one operation as JSON; what it recorded stands beside its own fields."""
    recorded = {key: item for key, item in operation.data.items() if key not in _LEFT_OUT}
    return {
        **recorded,
        "seq": operation.seq,
        "id": operation.id,
        "kind": operation.kind,
        "state": state_of(operation),
        "started_at": iso_text(operation.started_at),
        "ended_at": None if operation.ended_at is None else iso_text(operation.ended_at),
    }


def state_of(operation: Operation) -> str:
    """Return the state that was noted, or ``unfinished`` where nobody is at work any more."""
    noted = operation.state in {"running", "applying"}
    if noted and not is_alive(operation.data.get("owner", {})):
        return "unfinished"
    return operation.state


def run_line(operation: Operation) -> str:
    """Return a run in one line: number, time, how it ended, command."""
    return f"{operation.seq}, {moment_text(operation.started_at)}, {summary(operation)}"


def summary(operation: Operation) -> str:
    """Return what an operation was about, in a few words."""
    data = operation.data
    if operation.kind == "run":
        return _run(operation)
    if operation.kind in {"rollback", "undo", "redo"}:
        took = data.get("elapsed_s")
        time_text = f" in {seconds_text(float(took))}" if isinstance(took, (int, float)) else ""
        steps = data.get("steps")
        count = f", {count_text(steps, 'change')}" if isinstance(steps, int) else ""
        failed = sum(not probe.get("passed") for probe in data.get("probes", ()))
        probes = f" · {count_text(failed, 'probe')} failed" if failed else ""
        return f"to {data.get('target_seq', '?')}{time_text}{count}{probes}"
    if operation.kind == "drill":
        return _drill(data.get("drill"))
    return one_line(str(data.get("label") or ""))


def outcome(operation: Operation) -> list[tuple[str, str]]:
    """Return how a run ended, what it changed and what it is called, as rows of two cells."""
    data = operation.data
    ending = _ending(operation) + (", rolled back" if data.get("rolled_back") else "")
    rows = [("ended", ending)] if ending else []
    if changed := _changed(data, counted=True):
        rows.append(("changed", changed))
    if data.get("label"):
        rows.append(("label", one_line(str(data["label"]))))
    return rows


def _run(operation: Operation) -> str:
    data = operation.data
    parts = [command_line(data.get("command", ()), _COMMAND_WIDTH), _ending(operation)]
    parts.append(_changed(data, counted=False))
    if data.get("rolled_back"):
        parts.append("rolled back")
    if data.get("label"):
        parts.append(one_line(repr(data["label"])))
    return " · ".join(part for part in parts if part)


def _ending(operation: Operation) -> str:
    status = operation.data.get("child_exit")
    if isinstance(status, int):
        return f"exit {status}"
    if operation.state in {"failed", "interrupted"}:
        # Of a run whose guard was killed nobody can say so: the command may have begun unnoted.
        known = "child_exit" in operation.data and not operation.data.get("child")
        return "not started" if known else operation.state
    return ""


def _changed(data: Mapping[str, Any], *, counted: bool) -> str:
    changed, changes = data.get("changed"), data.get("changes")
    if isinstance(changed, Mapping):
        told = changed_text(changed, counted=counted)
        return "" if told == "nothing" else told
    if isinstance(changes, Mapping) and any(changes.values()):
        return ", ".join(f"{number} {name}" for name, number in changes.items() if number)
    return ""


def _drill(drill: Any) -> str:
    if not isinstance(drill, Mapping):
        return ""
    verdict = "fits" if drill.get("passed") else "does not fit"
    if drill.get("failures"):
        return "not everything came back"
    bound, budget = seconds_text(drill["bound_s"]), seconds_text(drill["budget_s"])
    return f"{bound} of {budget}, {verdict}"
