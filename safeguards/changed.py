"""What a command changed, counted as people ask for it: files, tables, packages."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from rollback.reports import Change, Difference, DistributionChange
from safeguards.units import count_text

_MOST = 200
_ACTIONS = {
    "added": "added",
    "modified": "modified",
    "deleted": "deleted",
    "metadata": "attributes only",
}


def is_database(change: Change) -> bool:
    """Return whether a change is that of a database as a whole."""
    return str(change.category) == "databases" and change.resource == change.path


def is_of_git(change: Change) -> bool:
    """Return whether a change is git's own book-keeping."""
    return change.resource == "git" or change.resource.startswith("git ")


def changed_data(difference: Difference) -> dict[str, Any]:
    """Return what changed as JSON that the log keeps: counts of files, names of all else.

    Args:
        difference: Between the state before and the state after.
    """
    plain = [c for c in difference.changes if not (is_database(c) or is_of_git(c) or c.owner)]
    databases = [c for c in difference.changes if is_database(c)]
    return {
        "files": dict(Counter(change.action for change in plain)),
        "git": sum(map(is_of_git, difference.changes)),
        "databases": [
            {
                "name": c.path,
                "action": c.action,
                "detail": c.detail,
                "tables_total": len(c.tables),
                # Of a database that came or went as a whole, the number says enough.
                "tables": tables_data(c) if c.action == "modified" else [],
            }
            for c in databases[:_MOST]
        ],
        "packages": packages_data(difference.distributions[:_MOST]),
        "packages_total": len(difference.distributions),
    }


def tables_data(change: Change) -> list[dict[str, Any]]:
    """Return the tables of a database that differ, as JSON."""
    return [
        {
            "name": t.name,
            "action": t.action,
            "old_rows": t.old_rows,
            "new_rows": t.new_rows,
            "rewritten": t.rewritten,
        }
        for t in change.tables[:_MOST]
    ]


def packages_data(changes: Iterable[DistributionChange]) -> list[dict[str, Any]]:
    """Return distributions that differ, as JSON."""
    return [
        {
            "name": c.name,
            "action": c.action,
            "environment": c.environment,
            "old_version": c.old_version,
            "new_version": c.new_version,
        }
        for c in changes
    ]


def changed_text(changed: Mapping[str, Any], *, counted: bool = False) -> str:
    """Return a line such as ``3 files, 1 database: 2 tables, 12 packages``.

    Args:
        changed: From `changed_data`.
        counted: Whether files are told by what happened to them, too.
    """
    parts = [_files(changed.get("files") or {}, counted=counted)]
    if databases := changed.get("databases"):
        tables = sum(database["tables_total"] for database in databases)
        told = f": {count_text(tables, 'table')}" if tables else ""
        parts.append(count_text(len(databases), "database") + told)
    if packages := changed.get("packages_total"):
        parts.append(count_text(packages, "package"))
    if own := changed.get("git"):
        parts.append(f"{own:,} in git's folder")
    return ", ".join(part for part in parts if part) or "nothing"


def _files(found: Mapping[str, int], *, counted: bool) -> str:
    number = sum(found.values())
    if not number:
        return ""
    text = count_text(number, "file")
    if not counted:
        return text
    if len(found) == 1 and "metadata" in found:
        return f"attributes of {text}"
    told = [f"{found[name]:,} {word}" for name, word in _ACTIONS.items() if found.get(name)]
    if len(told) == 1:
        return f"{text} {told[0].partition(' ')[2]}"
    return f"{text} ({', '.join(told)})"
