"""Which tables hold other values although they have as many rows as before.

The number of rows says nothing of an UPDATE: metrics that were zeroed, a run whose status changed.
Small databases are therefore compared row by row, both as private copies, inside a time limit.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
import urllib.parse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import IO

from rollback.model import TableChange
from rollback.resources.base import StateChange
from rollback.resources.sqlite import connection as sql
from rollback.resources.sqlite.record import Mode, Record

MOST_BYTES = 64_000_000
"""Larger databases are told by their row counts alone: nobody waits for seconds to read a list."""
LIMIT_S = 0.5


class CopyTo:
    """Keeps what is read of a database in one file; side files are not needed.

    Args:
        path: Of the file, which must not exist.
    """

    def __init__(self, path: str) -> None:
        self.path = path

    def pages(self, source: IO[bytes]) -> str:
        """Take the main file."""
        with open(self.path, "xb") as target:
            shutil.copyfileobj(source, target, 1 << 20)
        return ""

    def file(self, source: IO[bytes]) -> str:
        """Read a side file to its end."""
        while source.read(1 << 20):
            pass
        return ""


def with_rewritten(
    change: StateChange,
    old: Record,
    new: Record,
    copies: Callable[[str], tuple[str, str]],
    scratch: str,
) -> StateChange:
    """Return what differs, with the tables added that have other values in as many rows.

    Args:
        change: What names and row counts say.
        old: The state before.
        new: The state after.
        copies: Makes copies of both in an empty folder and returns their paths.
        scratch: A private folder.
    """
    counted = {table.name for table in change.tables}
    both = [
        name
        for name in old.facts.tables
        if name in new.facts.tables and name not in counted and new.facts.tables[name] != 0
    ]
    small = max(old.image.size, new.image.size) <= MOST_BYTES
    whole = old.mode is new.mode is Mode.DATABASE
    if change.action != "modified" or not (both and small and whole) or old.means(new):
        return change
    with _folder(scratch) as folder:
        try:
            found = list(_rewritten(*copies(folder), both))
        except (OSError, sqlite3.Error):
            return change  # what is counted is true all the same
    if not found:
        return change
    rows = new.facts.tables
    more = tuple(TableChange("modified", n, rows[n], rows[n], number) for n, number in found)
    tables = tuple(sorted((*change.tables, *more), key=lambda table: table.name))
    detail = change.detail if change.tables or "other content" not in change.detail else ""
    return replace(change, tables=tables, detail=detail)


def _rewritten(before: str, after: str, names: list[str]) -> Iterator[tuple[str, int]]:
    """Yield each table that has rows which it had not before, and how many."""
    with sql.connect(os.fsencode(after), "immutable") as db:
        uri = f"file:{urllib.parse.quote(os.fsencode(before))}?mode=ro&immutable=1"
        db.execute("ATTACH ? AS before", (uri,))
        with sql.time_limit(db, LIMIT_S):
            for name in names:
                quoted = name.replace('"', '""')
                query = (
                    f'SELECT count(*) FROM (SELECT * FROM main."{quoted}"'  # noqa: S608 - quoted
                    f' EXCEPT SELECT * FROM before."{quoted}")'
                )
                try:
                    number = int(db.execute(query).fetchone()[0])
                except UnicodeEncodeError:
                    continue
                except sqlite3.Error as error:
                    if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_INTERRUPT:
                        return  # out of time
                    continue  # other columns, or a virtual table whose module is not here
                if number:
                    yield name, number


@contextmanager
def _folder(scratch: str) -> Iterator[str]:
    folder = tempfile.mkdtemp(prefix="sqlite-", dir=scratch)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
