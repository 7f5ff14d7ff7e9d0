"""Connections to SQLite files: odd names, bounded waits, and what a database says of itself."""

from __future__ import annotations

import contextlib
import errno
import os
import sqlite3
import time
import urllib.parse
from collections.abc import Callable, Iterator

from rollback.resources.sqlite.record import Facts, Image

FACTS_S = 0.25
"""Time for counting rows; tables that it does not suffice for are shown without a count."""
CHECK_S = 0.5
"""Time for `PRAGMA quick_check` of a database that is being captured."""
_RETRY_S = 0.005
_STEPS = 10_000
_BLOCKED = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
_MAX_TABLES = 1_000


class Blocked(Exception):
    """Another process kept the database locked past the deadline."""


class NotReadable(Exception):
    """SQLite does not read this file; the message is its own."""


@contextlib.contextmanager
def connect(path: bytes, mode: str, *, wait_s: float = 0.0) -> Iterator[sqlite3.Connection]:
    """Open a database by the bytes of its name and close it at the end.

    Args:
        path: Absolute path.
        mode: ``ro``, ``rw``, ``rwc``, or ``immutable`` (read only, without locks, without
            recovery, and without the side files that even ``ro`` leaves beside a WAL database).
        wait_s: How long SQLite itself waits for a lock.

    Raises:
        sqlite3.Error: As SQLite says.
    """
    options = "mode=ro&immutable=1" if mode == "immutable" else f"mode={mode}"
    uri = f"file:{urllib.parse.quote(path)}?{options}"
    connection = sqlite3.connect(uri, uri=True, isolation_level=None, timeout=wait_s)
    connection.text_factory = _text
    try:
        # The schema of a stranger's file runs no function with side effects.
        connection.execute("PRAGMA trusted_schema=OFF")
        yield connection
    finally:
        connection.close()


def hold(connection: sqlite3.Connection, deadline: float) -> None:
    """Begin a read transaction: from here on the connection sees one committed state.

    Asks often: SQLite's own waiting grows to 100 ms between tries, and a busy writer leaves the
    database free for less.

    Raises:
        Blocked: Somebody kept it locked past the deadline (monotonic clock).
    """
    connection.execute("BEGIN")
    while True:
        try:
            connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        except sqlite3.Error as error:
            if not is_blocked(error):
                raise
            if time.monotonic() > deadline:
                raise Blocked from error
            time.sleep(_RETRY_S)
        else:
            return


def is_blocked(error: sqlite3.Error) -> bool:
    """Whether the error is another connection's lock."""
    return (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF in _BLOCKED


def refuse_full(error: sqlite3.Error, path: str) -> None:
    """Tell a full disk from what is wrong with a database.

    Args:
        error: Of an operation on a copy in scratch.
        path: The copy.

    Raises:
        OSError: ENOSPC.
    """
    code = getattr(error, "sqlite_errorcode", None) or 0
    if code & 0xFF == sqlite3.SQLITE_FULL or code == sqlite3.SQLITE_IOERR_SHMSIZE:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path) from error


def patience(deadline: float) -> Callable[[int, int, int], None]:
    """Return a progress callback that ends a backup which stays blocked past the deadline.

    Python's `backup()` never gives up by itself on BUSY.
    """

    def check(status: int, _remaining: int, _total: int) -> None:
        if status in _BLOCKED and time.monotonic() > deadline:
            raise Blocked

    return check


def facts(connection: sqlite3.Connection, image: Image) -> Facts:
    """Return what people read about the database, inside a quarter of a second."""
    header = bytes.fromhex(image.header)
    wal = header[19:20] == b"\2"
    size = int.from_bytes(header[16:18], "big") if header else 0
    tables: dict[str, int | None] = {}
    version, revision = 0, None
    with contextlib.suppress(sqlite3.Error), time_limit(connection, FACTS_S):
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        listed = connection.execute(
            "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%'"
            " ESCAPE '\\' ORDER BY name LIMIT ?",
            (_MAX_TABLES,),
        )
        tables = {name: None for (name,) in listed.fetchall()}
        if "alembic_version" in tables:
            row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
            revision = str(row[0]) if row else None
        for name in tables:
            tables[name] = _count(connection, name)
    return Facts(
        tables, version, revision, "wal" if wal else "rollback", 65536 if size == 1 else size
    )


def check(connection: sqlite3.Connection, *, limit_s: float | None = None) -> str:
    """Return ``ok``, ``unchecked`` where the time did not suffice, or what is damaged."""
    try:
        with time_limit(connection, limit_s):
            row = connection.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.Error as error:
        # Out of time, or a module or collation that only the owner's program has.
        code = getattr(error, "sqlite_errorcode", None)
        return (
            "unchecked" if code in {sqlite3.SQLITE_INTERRUPT, sqlite3.SQLITE_ERROR} else str(error)
        )
    return str(row[0]).splitlines()[-1] if row else "ok"


def recover(path: str) -> None:
    """Make SQLite finish what a crash left beside a scratch copy, so that one file holds it all.

    Raises:
        NotReadable: SQLite does not read it.
        OSError: The disk is full.
    """
    try:
        with connect(os.fsencode(path), "rw", wait_s=1) as connection:
            connection.execute("PRAGMA synchronous=OFF")
            connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    except sqlite3.Error as error:
        refuse_full(error, path)
        raise NotReadable(str(error)) from error


def _count(connection: sqlite3.Connection, table: str) -> int | None:
    quoted = table.replace('"', '""')
    try:
        row = connection.execute(f'SELECT count(*) FROM "{quoted}"').fetchone()  # noqa: S608
    except UnicodeEncodeError:
        return None
    except sqlite3.Error as error:
        if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_INTERRUPT:
            raise
        return None  # a virtual table whose module is not here
    return int(row[0])


@contextlib.contextmanager
def time_limit(connection: sqlite3.Connection, limit_s: float | None) -> Iterator[None]:
    """Make queries fail with SQLITE_INTERRUPT once the time is over; None is no limit."""
    if limit_s is None:
        yield
        return
    end = time.monotonic() + limit_s
    connection.set_progress_handler(lambda: time.monotonic() > end, _STEPS)
    try:
        yield
    finally:
        connection.set_progress_handler(None, 0)


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")
