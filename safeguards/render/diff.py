"""Differences between two states."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

from rollback.reports import Change, Difference
from safeguards.output import Style, Tone, aligned, one_line
from safeguards.render.paths import Row, gathered, short_path
from safeguards.units import bytes_text

_MARKS = {"added": "+", "modified": "~", "deleted": "-", "metadata": "m"}
_TONES = {"added": Tone.GOOD, "modified": Tone.WARN, "deleted": Tone.BAD, "metadata": Tone.FAINT}


@dataclass(frozen=True, slots=True)
class Differences:
    """What differs, the numbers of both sides (None is now), and whether it is only counted."""

    difference: Difference
    old_seq: int
    new_seq: int | None
    counted: bool


def as_text(value: Differences, style: Style) -> list[str]:
    """Return a line for each change, and how many there are."""
    changes = value.difference.changes
    new = "now" if value.new_seq is None else str(value.new_seq)
    if not changes:
        return [f"nothing differs between {value.old_seq} and {new}"]
    lines = [] if value.counted else _lines(changes, style)
    return [*lines, f"{value.old_seq} → {new}: {counts(value.difference)}"]


def _lines(changes: tuple[Change, ...], style: Style) -> list[str]:
    rows = [Row(c.action, c.path, _sizes(c), c.detail) for c in changes]
    rows = rows if style.verbose else gathered(rows)
    cells = [
        (_MARKS.get(row.action, "?"), short_path(row.path), row.size, one_line(row.detail))
        for row in rows
    ]
    return [
        style.paint(line, tone) if (tone := _TONES.get(row.action)) else line
        for line, row in zip(aligned(cells), rows, strict=True)
    ]


def counts(difference: Difference) -> str:
    """Return how many things of which category were changed and how."""
    found = Counter((str(c.category), c.action) for c in difference.changes)
    by_category: dict[str, list[str]] = {}
    for (category, action), number in sorted(found.items()):
        name = "attributes changed" if action == "metadata" else action
        by_category.setdefault(category, []).append(f"{number:,} {name}")
    return "; ".join(f"{name}: {', '.join(parts)}" for name, parts in by_category.items())


def _sizes(change: Change) -> str:
    if (
        change.action == "modified"
        and change.old_bytes is not None
        and change.new_bytes is not None
    ):
        if change.old_bytes == change.new_bytes:
            return bytes_text(change.new_bytes)
        return f"{bytes_text(change.old_bytes)} → {bytes_text(change.new_bytes)}"
    size = change.new_bytes if change.action == "added" else change.old_bytes
    return "" if size is None or change.action == "metadata" else bytes_text(size)


def as_data(value: Differences) -> dict[str, Any]:
    """Return the differences as JSON."""
    difference = value.difference
    actions = ("added", "modified", "deleted", "metadata")
    data: dict[str, Any] = {
        "old_id": difference.old_id,
        "new_id": difference.new_id,
        "counts": {action: difference.count(action) for action in actions},
    }
    if not value.counted:
        data["changes"] = [
            {
                "action": c.action,
                "resource": c.resource,
                "category": str(c.category),
                "path": c.path,
                "detail": c.detail,
                "old_bytes": c.old_bytes,
                "new_bytes": c.new_bytes,
            }
            for c in difference.changes
        ]
    return data
