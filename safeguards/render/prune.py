"""What retention removes and keeps."""

from __future__ import annotations

from typing import Any

from rollback.model import Snapshot
from rollback.reports import PruneReport
from safeguards.output import Style, aligned, one_line
from safeguards.units import bytes_text, count_text, iso_text, moment_text


def as_text(value: PruneReport, style: Style) -> list[str]:
    """Return the snapshots that go, those that stay with the reason, and what is freed."""
    going = "would go" if value.dry_run else "gone"
    rows = [_row(snapshot, f"{going}: {_why(value, snapshot)}") for snapshot in value.removed]
    if value.dry_run or style.verbose:
        rows += [_row(snapshot, f"stays: {why}") for snapshot, why in value.kept]
    freed = "would free" if value.dry_run else "freed"
    number = count_text(len(value.removed), "snapshot")
    verb = "would be removed" if value.dry_run else "removed"
    lines = [
        *aligned(rows),
        f"{number} {verb}, {len(value.kept)} kept; {freed} {bytes_text(value.freed_bytes)}",
    ]
    if value.excess_bytes:
        lines.append(f"that is {bytes_text(value.excess_bytes)} too few: what is left has to stay")
    return lines


def _why(value: PruneReport, snapshot: Snapshot) -> str:
    return "the store is too large" if snapshot in value.for_room else "no rule keeps it"


def _row(snapshot: Snapshot, fate: str) -> tuple[str, ...]:
    moment = moment_text(snapshot.created_at)
    return (
        str(snapshot.seq),
        snapshot.id[:8],
        moment,
        snapshot.kind,
        fate,
        one_line(snapshot.label),
    )


def as_data(value: PruneReport) -> dict[str, Any]:
    """Return the report as JSON."""
    return {
        "dry_run": value.dry_run,
        "freed_bytes": value.freed_bytes,
        "excess_bytes": value.excess_bytes,
        "removed": [
            {**_data(snapshot), "why": _why(value, snapshot)} for snapshot in value.removed
        ],
        "kept": [{**_data(snapshot), "why": why} for snapshot, why in value.kept],
    }


def _data(snapshot: Snapshot) -> dict[str, Any]:
    return {
        "snapshot_id": snapshot.id,
        "seq": snapshot.seq,
        "kind": snapshot.kind,
        "label": snapshot.label,
        "created_at": iso_text(snapshot.created_at),
    }
