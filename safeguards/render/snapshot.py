"""A snapshot that was taken."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rollback.model import Category, Skip, Snapshot
from rollback.reports import SnapshotReport
from safeguards.output import Style, Tone, aligned, one_line
from safeguards.record import skip_data
from safeguards.units import bytes_text, count_text, iso_text, seconds_text


@dataclass(frozen=True, slots=True)
class Taken:
    """A snapshot, what it cost, and what it could not protect."""

    report: SnapshotReport
    skips: tuple[Skip, ...]


def as_text(value: Taken, style: Style) -> list[str]:
    """Return the snapshot in a line, its categories, and what is not in it."""
    report = value.report
    snapshot = report.snapshot
    name = f" {one_line(snapshot.label)!r}" if snapshot.label else ""
    took, new = seconds_text(report.elapsed_s), bytes_text(report.new_bytes)
    return [
        f"snapshot {snapshot.seq} ({snapshot.id[:8]}){name} taken in {took}, {new} new",
        *category_lines(report.categories),
        *(style.paint(f"  {line}", Tone.WARN) for line in made_room(report.removed)),
        *skip_lines(value.skips, style),
    ]


def made_room(removed: Sequence[Snapshot]) -> list[str]:
    """Return what went for a snapshot to have room, a sentence or none."""
    if not removed:
        return []
    numbers = ", ".join(str(snapshot.seq) for snapshot in removed)
    what = count_text(len(removed), "old snapshot")
    return [f"removed {what} to make room ({numbers}): raise max_store to keep more"]


def category_lines(categories: Mapping[Category, tuple[int, int]]) -> list[str]:
    """Return files and bytes by category, in the categories' own order."""
    rows = [
        (str(category), count_text(files, "file"), bytes_text(size))
        for category in Category
        for files, size in [categories.get(category, (0, 0))]
        if files
    ]
    return aligned(rows, "  ")


def skip_lines(skips: Iterable[Skip], style: Style) -> list[str]:
    """Return what is not protected: what, why, and the mend."""
    lines = []
    for skip in skips:
        lines.append(style.paint(one_line(f"  skipped {skip.what}: {skip.why}"), Tone.WARN))
        if skip.fix:
            lines.append(one_line(f"          mend: {skip.fix}"))
    return lines


def as_data(value: Taken) -> dict[str, Any]:
    """Return the snapshot as JSON."""
    snapshot = value.report.snapshot
    return {
        "snapshot_id": snapshot.id,
        "seq": snapshot.seq,
        "label": snapshot.label,
        "created_at": iso_text(snapshot.created_at),
        "elapsed_s": value.report.elapsed_s,
        "new_bytes": value.report.new_bytes,
        "categories": {
            str(category): {"files": files, "bytes": size}
            for category, (files, size) in value.report.categories.items()
        },
        "removed": [snapshot.seq for snapshot in value.report.removed],
        "skipped": [skip_data(skip) for skip in value.skips],
    }
