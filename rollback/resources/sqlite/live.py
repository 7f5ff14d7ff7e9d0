"""A database that other processes have open: who, and what it cannot become under them."""

from __future__ import annotations

from rollback.resources.sqlite.files import Files
from rollback.resources.sqlite.holders import describe, holders
from rollback.resources.sqlite.record import Mode, Record

_WAL = b"\2"
"""At offset 19 of the header: the version that a reader has to know."""
_LARGEST = 65_536


def live_users(files: Files, record: Record) -> list[tuple[int, str]]:
    """Return the processes under which a record goes into the live file; none: it is replaced."""
    plain = record.mode in {Mode.DATABASE, Mode.RECOVER}
    if not plain or not files.is_file() or files.is_obstructed():
        return []
    return holders(files.path, deleted=False)


def page_size_obstacle(files: Files, record: Record) -> tuple[str, str] | None:
    """Return who keeps a database from having the recorded page size, and the mend; else None.

    SQLite's backup refuses another page size while the log of the live file is in use
    (https://www.sqlite.org/c3ref/backup_finish.html#sqlite3backupstep: SQLITE_READONLY), and a
    connection keeps it from leaving WAL mode for as long as it is open.
    """
    if not files.is_file():
        return None  # whatever stands there now is moved away
    now, then = files.head(), bytes.fromhex((record.recovered or record.image).header)
    if now[19:20] != _WAL or not then or now[16:18] == then[16:18]:
        return None
    users = live_users(files, record)
    if not users:
        return None
    who = describe(users)
    why = (
        f"{who} has it open in WAL mode with pages of {_page_size(now):,} bytes, and SQLite"
        f" gives it those of the snapshot, {_page_size(then):,}, only when nobody has"
    )
    return why, f"stop {who}"


def _page_size(header: bytes) -> int:
    size = int.from_bytes(header[16:18], "big")
    return _LARGEST if size == 1 else size
