"""What changed in a database, in words that people read."""

from __future__ import annotations

from collections.abc import Iterator

from rollback.model import TableChange
from rollback.resources.base import StateChange
from rollback.resources.sqlite.record import Facts, Mode, Record

_SHOWN = 4
_SHORT = 12


def describe_records(old: Record, new: Record) -> str:
    """Return what differs between two records: tables, rows, schema revision.

    Args:
        old: The state before.
        new: The state after.

    Returns:
        Such as ``runs: 12 → 10 rows, alembic 4f… → 3a…``; empty when nothing differs.
    """
    if old.means(new) and old.is_exactly(new):
        return ""
    if old.mode is Mode.ABSENT:
        return _appeared(new)
    if new.mode is Mode.ABSENT:
        return "is missing"
    if Mode.RAW in {old.mode, new.mode}:
        return _damage(old, new)
    if old.means(new):
        return "same content, other header or side files"
    return ", ".join(_differences(old.facts, new.facts)) or "other content, same row counts"


def compare_records(old: Record, new: Record) -> StateChange:
    """Return what two records that differ say of what happened between them.

    Args:
        old: The state before.
        new: The state after.
    """
    size = None if new.mode is Mode.ABSENT else new.size
    tables = tuple(_tables(old.facts, new.facts))
    if old.mode is Mode.ABSENT:
        return StateChange("added", "", tables, size)
    if new.mode is Mode.ABSENT:
        return StateChange("deleted", "", tables, size)
    if old.is_exactly(new):
        return StateChange("metadata", "", (), size)
    if Mode.RAW in {old.mode, new.mode}:
        return StateChange("modified", _damage(old, new), (), size)
    if old.means(new):
        return StateChange("modified", "same content, other header or side files", (), size)
    detail = ", ".join(_besides_tables(old.facts, new.facts))
    if not tables and not detail:
        detail = "other content, same tables and row counts"
    return StateChange("modified", detail, tables, size)


def compare_looks(old: Record, new: Record) -> StateChange | None:
    """Return what happened between two records of which one at least has no content.

    Sizes and times have to tell; None where they are the same.

    Args:
        old: The state before.
        new: The state after.
    """
    if old.looks_like(new.signature):
        return None
    before, after = ("" in record.signature for record in (old, new))
    size = new.signature[""][0] if after else None
    action = "modified" if before and after else "added" if after else "deleted"
    return StateChange(action, "its content was not kept", (), size)


def _tables(old: Facts, new: Facts) -> Iterator[TableChange]:
    for name in sorted(old.tables.keys() | new.tables.keys()):
        before, after = old.tables.get(name), new.tables.get(name)
        if name not in old.tables:
            yield TableChange("added", name, None, after)
        elif name not in new.tables:
            yield TableChange("deleted", name, before, None)
        elif None not in {before, after} and before != after:
            yield TableChange("modified", name, before, after)


def _appeared(new: Record) -> str:
    count = len(new.facts.tables)
    return f"{count} table{'s' * (count != 1)}" if count else "is new"


def _damage(old: Record, new: Record) -> str:
    if new.mode is Mode.RAW and old.mode is not Mode.RAW:
        return f"not readable by SQLite ({new.health})"
    if old.mode is Mode.RAW and new.mode is not Mode.RAW:
        return "readable by SQLite again"
    return "other bytes, not readable by SQLite"


def _differences(old: Facts, new: Facts) -> list[str]:
    then, now = old.tables, new.tables
    parts = []
    if added := [name for name in now if name not in then]:
        parts.append(_named("new", added))
    if gone := [name for name in then if name not in now]:
        parts.append(_named("gone", gone))
    rows = [
        f"{_safe(name)}: {before} → {now[name]} rows"
        for name, before in then.items()
        if name in now and None not in {before, now[name]} and before != now[name]
    ]
    # The schema's own bookkeeping says less than the revision that follows.
    parts += rows[:_SHOWN]
    if len(rows) > _SHOWN:
        more = len(rows) - _SHOWN
        parts.append(f"rows of {more} more table{'s' * (more != 1)}")
    return [*parts, *_besides_tables(old, new)]


def _besides_tables(old: Facts, new: Facts) -> list[str]:
    parts = []
    if old.alembic != new.alembic:
        parts.append(f"alembic {_revision(old.alembic)} → {_revision(new.alembic)}")
    if old.user_version != new.user_version:
        parts.append(f"user_version {old.user_version} → {new.user_version}")
    if old.page_size != new.page_size:
        parts.append(f"page size {old.page_size} → {new.page_size}")
    return parts


def _named(what: str, names: list[str]) -> str:
    shown = ", ".join(_safe(name) for name in sorted(names)[:_SHOWN])
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{what} table{'s' * (len(names) != 1)} {shown}{more}"


def _revision(revision: str | None) -> str:
    return "none" if revision is None else _safe(revision[:_SHORT])


def _safe(name: str) -> str:
    # A table can be called anything, a terminal's control sequence included.
    return name if name.isprintable() else ascii(name)
