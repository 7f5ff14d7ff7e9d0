"""What an MLflow database says about where artifacts are, read without changing it."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from pathlib import Path
from urllib.parse import quote_from_bytes

MAGIC = b"SQLite format 3\0"
_MOST = 200
_QUERIES = (
    "SELECT DISTINCT artifact_location FROM experiments",
    # What lies below its experiment, as a rule all, is found by that; only exceptions are asked.
    """SELECT DISTINCT r.artifact_uri FROM runs r JOIN experiments e USING (experiment_id)
       WHERE substr(r.artifact_uri, 1, length(e.artifact_location)) <> e.artifact_location""",
    """SELECT DISTINCT m.artifact_location FROM logged_models m
       JOIN experiments e USING (experiment_id)
       WHERE substr(m.artifact_location, 1, length(e.artifact_location)) <> e.artifact_location""",
    """SELECT DISTINCT storage_location FROM model_versions
       WHERE storage_location NOT LIKE 'models:%'""",
)


def is_sqlite(path: Path | str) -> bool:
    """Return whether a regular file begins like an SQLite database."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return os.read(fd, len(MAGIC)) == MAGIC
    except OSError:
        return False
    finally:
        os.close(fd)


def artifact_locations(database: Path) -> list[str]:
    """Return the artifact URIs that an MLflow database names; empty for any other database.

    Nothing is written, not even a side file: a database without a write-ahead log is opened as
    immutable, one that has it is open elsewhere and has its shared memory already.
    """
    if not is_sqlite(database):
        return []
    side = os.fspath(database)
    if os.path.exists(f"{side}-journal"):
        return []  # a writer is at work, or died; the engine deals with that, not we
    mode = "mode=ro" if os.path.exists(f"{side}-shm") else "immutable=1"
    uri = f"file:{quote_from_bytes(os.fsencode(database))}?{mode}"
    found: list[str] = []
    with contextlib.suppress(sqlite3.Error):
        connection = sqlite3.connect(uri, uri=True, timeout=0.2)
        try:
            for query in _QUERIES:
                # Older versions lack some of the tables.
                with contextlib.suppress(sqlite3.Error):
                    rows = connection.execute(f"{query} LIMIT {_MOST}").fetchall()
                    found += [row[0] for row in rows if isinstance(row[0], str)]
        finally:
            connection.close()
    return list(dict.fromkeys(found))
