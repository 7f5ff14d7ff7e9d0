"""One operation with its snapshot."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rollback.model import Operation, Snapshot
from safeguards.output import Style, Tone, aligned, one_line
from safeguards.record import skip_data
from safeguards.render.diff import MARKS, rows_text, versions_text
from safeguards.render.log import operation_data, outcome, state_of, summary
from safeguards.render.paths import command_line, short_path
from safeguards.render.snapshot import skip_lines
from safeguards.units import bytes_text, count_text, iso_text, moment_text, seconds_text

_MOST_CHANGED = 40


@dataclass(frozen=True, slots=True)
class Shown:
    """An operation, a snapshot, or both; None for what there is not."""

    operation: Operation | None
    snapshot: Snapshot | None


def as_text(value: Shown, style: Style) -> list[str]:
    """Return everything that is known, in aligned lines."""
    lines: list[str] = []
    if value.operation is not None:
        lines += _operation(value.operation, style)
    if value.snapshot is not None:
        lines += ([""] if lines else []) + _snapshot(value.snapshot, style)
    return lines


def as_data(value: Shown) -> dict[str, Any]:
    """Return it as JSON; the record of a run as the contract names its fields."""
    data = {} if value.operation is None else operation_data(value.operation)
    if value.snapshot is not None:
        data["snapshot"] = snapshot_data(value.snapshot)
        data.setdefault("snapshot_id", value.snapshot.id)
    return data


def snapshot_data(snapshot: Snapshot) -> dict[str, Any]:
    """Return a snapshot as JSON, without what only the engine understands."""
    return {
        "id": snapshot.id,
        "seq": snapshot.seq,
        "kind": snapshot.kind,
        "label": snapshot.label,
        "created_at": iso_text(snapshot.created_at),
        "project": snapshot.project,
        "resources": [
            {
                "resource": state.resource,
                "name": state.name,
                "category": str(state.category),
                "location": state.location,
                "files": state.files,
                "bytes": state.bytes,
            }
            for state in snapshot.states
        ],
        "skipped": [skip_data(skip) for skip in snapshot.skipped],
    }


def _operation(operation: Operation, style: Style) -> list[str]:
    data = operation.data
    rows = [(operation.kind, f"{operation.seq} ({operation.id}), {state_of(operation)}")]
    if data.get("command"):
        rows.append(("command", command_line(data["command"])))
    rows.append(("started", moment_text(operation.started_at)))
    rows += outcome(operation) if operation.kind == "run" else [("", summary(operation))]
    if data.get("error"):
        rows.append(("error", one_line(str(data["error"]))))
    phases = data.get("phases")
    if isinstance(phases, list) and phases:
        told = ", ".join(f"{p['name']} {seconds_text(p['elapsed_s'])}" for p in phases)
        rows.append(("phases", told))
    rows += _verdicts(data)
    lines = [*aligned(rows), *_changed(data.get("changed"))]
    checks = data.get("checks")
    if isinstance(checks, Mapping):
        for finding in checks.get("findings", ()):
            tone = Tone.BAD if finding["severity"] == "error" else Tone.WARN
            lines.append(style.paint(one_line(f"  {finding['message']}"), tone))
    return lines


def _changed(changed: Any) -> list[str]:
    """Return the tables and packages that a run changed, a line each."""
    if not isinstance(changed, Mapping):
        return []
    rows = [
        (MARKS.get(table["action"], "?"), f"{database['name']}: {table['name']}",
         rows_text(table["old_rows"], table["new_rows"], table.get("rewritten")))
        for database in changed.get("databases", ())
        for table in database["tables"]
    ]  # fmt: skip
    rows += [
        (MARKS.get(package["action"], "?"), package["name"],
         versions_text(package["old_version"], package["new_version"]))
        for package in changed.get("packages", ())
    ]  # fmt: skip
    shown = [tuple(map(one_line, row)) for row in rows[:_MOST_CHANGED]]
    hidden = len(rows) - len(shown)
    return [*aligned(shown, "  "), *([f"  and {hidden} more (--json has all)"] if hidden else [])]


def _verdicts(data: Mapping[str, Any]) -> list[tuple[str, str]]:
    rows = []
    checks, drill = data.get("checks"), data.get("drill")
    if isinstance(checks, Mapping):
        told = f"{checks['passed']} passed, {checks['failed']} failed, {checks['warned']} warned"
        rows.append(("checks", told))
    if isinstance(drill, Mapping):
        verdict = "passed" if drill["passed"] else "not passed"
        bound, budget = seconds_text(drill["bound_s"]), seconds_text(drill["budget_s"])
        rows.append(("drill", f"{verdict}: {bound} at most of {budget} ({drill['mode']})"))
    for probe in data.get("probes", ()):
        verdict = "passed" if probe["passed"] else "failed"
        took = seconds_text(probe["elapsed_s"])
        rows.append(("probe", one_line(f"{probe['name']}: {verdict} ({took})")))
    if data.get("undo_id"):
        rows.append(("undo", f"holds what was displaced: {data['undo_id']}"))
    return rows


def _snapshot(snapshot: Snapshot, style: Style) -> list[str]:
    head = f"snapshot {snapshot.seq} ({snapshot.id}), {moment_text(snapshot.created_at)}"
    rows = [
        (s.resource, str(s.category), count_text(s.files, "file"), bytes_text(s.bytes),
         short_path(s.location, Path(snapshot.project)))
        for s in snapshot.states
    ]  # fmt: skip
    return [head, *aligned(rows, "  "), *skip_lines(snapshot.skipped, style)]
