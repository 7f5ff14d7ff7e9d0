"""SQLite databases: captured consistently, put back under a live server."""

from __future__ import annotations

from rollback.resources.sqlite.files import is_sqlite
from rollback.resources.sqlite.holders import SIDE_FILES, holders
from rollback.resources.sqlite.recorded import describe_change, is_on_the_way
from rollback.resources.sqlite.resource import SqliteResource

__all__ = [
    "SIDE_FILES",
    "SqliteResource",
    "describe_change",
    "holders",
    "is_on_the_way",
    "is_sqlite",
]
