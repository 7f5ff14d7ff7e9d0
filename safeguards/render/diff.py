"""Differences between two states: files, tables with their rows, packages with their versions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from rollback.model import TableChange
from rollback.reports import Change, Difference
from safeguards.changed import (
    changed_data,
    changed_text,
    is_database,
    is_of_git,
    packages_data,
    tables_data,
)
from safeguards.output import Style, Tone, aligned, one_line
from safeguards.render.paths import Row, folded, gathered, short_path
from safeguards.units import bytes_text, count_text

MARKS = {"added": "+", "modified": "~", "deleted": "-", "metadata": "m"}
_TONES = {"added": Tone.GOOD, "modified": Tone.WARN, "deleted": Tone.BAD, "metadata": Tone.FAINT}
_MOST_ROWS = 40
_MOST_BELOW = 20
_WIDEST = 48


@dataclass(frozen=True, slots=True)
class Differences:
    """What differs, the numbers of both sides (None is now), and whether it is only counted."""

    difference: Difference
    old_seq: int
    new_seq: int | None
    counted: bool
    project: Path | None = None

    @property
    def found(self) -> bool:
        """Whether anything differs."""
        return bool(self.difference.changes or self.difference.distributions)

    @property
    def until(self) -> str:
        """The later side, as people read it."""
        return "now" if self.new_seq is None else str(self.new_seq)

    @property
    def told(self) -> str:
        """All of it in a line."""
        told = changed_text(changed_data(self.difference), counted=True)
        return f"{self.old_seq} → {self.until}: {told}"


def as_text(value: Differences, style: Style) -> list[str]:
    """Return a line for each change, those of tables and packages below it, and the sum."""
    if not value.found:
        return [f"nothing differs between {value.old_seq} and {value.until}"]
    lines = _counts(value.difference) if value.counted else list(_lines(value, style))
    return [*lines, value.told]


def change_rows(difference: Difference, most: int = 0) -> list[Row]:
    """Return the files that differ as rows, without those that came with a package.

    Args:
        difference: What differs.
        most: From how many rows on a folder stands for what is in it; 0 for never.
    """
    plain = [c for c in difference.changes if not is_database(c) and not c.owner]
    if not most:
        return [_row(change) for change in plain]
    own = folded(gathered([_row(c) for c in plain if is_of_git(c)]), most // 4)
    return [*folded([_row(c) for c in plain if not is_of_git(c)], most), *own]


def _row(change: Change) -> Row:
    return Row(change.action, change.path, sizes(change), change.detail)


def _lines(value: Differences, style: Style) -> Iterable[str]:
    difference = value.difference
    most = 0 if style.verbose else _MOST_ROWS
    cells = [
        (row.action, (MARKS.get(row.action, "?"), short_path(row.path), row.size, row.detail))
        for row in change_rows(difference, most)
    ]
    yield from _painted(cells, style)
    for change in filter(is_database, difference.changes):
        mark = MARKS.get(change.action, "?")
        whole = change.action in {"added", "deleted"} and not style.verbose
        detail = count_text(len(change.tables), "table") if whole else change.detail
        head = (mark, short_path(change.path), sizes(change), detail)
        yield from _painted([(change.action, head)], style)
        below = [] if whole else [(t.action, _table(t)) for t in change.tables]
        yield from _below(below, style, "table")
    for prefix, group in groupby(difference.distributions, lambda change: change.environment):
        changes = list(group)
        place = short_path(prefix, value.project)
        owned = sum(bool(change.owner) for change in difference.changes)
        told = f"{count_text(len(changes), 'package')}, {count_text(owned, 'file')} of them"
        yield from _painted([("modified", ("~", place, told, ""))], style)
        below = [
            (c.action, (MARKS[c.action], c.name, versions_text(c.old_version, c.new_version)))
            for c in changes
        ]
        yield from _below(below, style, "package")


def _below(cells: Sequence[tuple[str, tuple[str, ...]]], style: Style, noun: str) -> Iterable[str]:
    shown = cells if style.verbose else cells[:_MOST_BELOW]
    yield from _painted(shown, style, "     ")
    if len(shown) < len(cells):
        yield f"     and {count_text(len(cells) - len(shown), 'more ' + noun)} (-v shows all)"


def _painted(
    cells: Sequence[tuple[str, tuple[str, ...]]], style: Style, indent: str = ""
) -> list[str]:
    rows = [tuple(map(one_line, row)) for _, row in cells]
    lines = aligned(rows, indent, _WIDEST)
    return [
        style.paint(line, tone) if (tone := _TONES.get(action)) else line
        for line, (action, _) in zip(lines, cells, strict=True)
    ]


def _table(table: TableChange) -> tuple[str, ...]:
    return (
        MARKS[table.action],
        f"table {table.name}",
        rows_text(table.old_rows, table.new_rows, table.rewritten),
    )


def rows_text(old: int | None, new: int | None, rewritten: int | None = None) -> str:
    """Return the rows of a table before and after, as far as they were counted."""
    if rewritten is not None and new is not None:
        return f"{count_text(new, 'row')}, {rewritten:,} with other values"
    if old is not None and new is not None:
        return f"{old:,} → {count_text(new, 'row')}"
    known = new if old is None else old
    return "" if known is None else count_text(known, "row")


def versions_text(old: str | None, new: str | None) -> str:
    """Return the versions of a package before and after."""
    return " → ".join(version for version in (old, new) if version is not None)


def _counts(difference: Difference) -> list[str]:
    """Return how many things of which category were changed and how."""
    found = Counter((str(c.category), c.action) for c in difference.changes)
    by_category: dict[str, list[str]] = {}
    for (category, action), number in sorted(found.items()):
        name = "attributes changed" if action == "metadata" else action
        by_category.setdefault(category, []).append(f"{number:,} {name}")
    return aligned([(name, ", ".join(parts)) for name, parts in by_category.items()])


def sizes(change: Change) -> str:
    """Return the size of a file before and after."""
    old, new = change.old_bytes, change.new_bytes
    if change.action == "metadata":
        return ""
    shown = [bytes_text(size) for size in (old, new) if size is not None]
    return " → ".join(dict.fromkeys(shown))


def as_data(value: Differences) -> dict[str, Any]:
    """Return the differences as JSON."""
    difference = value.difference
    data: dict[str, Any] = {
        "old_id": difference.old_id,
        "new_id": difference.new_id,
        "counts": {action: difference.count(action) for action in MARKS},
        "changed": changed_data(difference),
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
                "tables": tables_data(c),
                "package": c.owner or None,
            }
            for c in difference.changes
        ]
        data["packages"] = packages_data(difference.distributions)
    return data
