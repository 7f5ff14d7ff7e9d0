"""SQLite's files, told by their names and first bytes; none is opened as a database."""

from __future__ import annotations

import os
import re
import stat

SIDE_SUFFIXES = (b"-wal", b"-shm", b"-journal")
SQLITE_MAGIC = b"SQLite format 3\0"
_SIDE_FILE = re.compile(b"-(?:wal|shm|journal)\0")


def side_files(fd: int, names: list[bytes]) -> set[bytes]:
    """Return which of the names in a folder are side files of SQLite databases among them."""
    if not _SIDE_FILE.search(b"\0".join(names) + b"\0"):
        return set()
    here = set(names)
    bases: dict[bytes, bool] = {}

    def is_side(name: bytes) -> bool:
        for suffix in SIDE_SUFFIXES:
            base = name.removesuffix(suffix)
            if base != name and base in here and _is_regular(fd, name):
                if base not in bases:
                    bases[base] = _is_regular(fd, base) and has_sqlite_magic(fd, base)
                return bases[base]
        return False

    return {name for name in names if is_side(name)}


def _is_regular(fd: int, name: bytes) -> bool:
    try:
        return stat.S_ISREG(os.stat(name, dir_fd=fd, follow_symlinks=False).st_mode)
    except OSError:
        return False


def has_sqlite_magic(fd: int, name: bytes) -> bool:
    """Return whether the file `name` in an open folder begins like a SQLite database."""
    try:
        file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=fd)
    except OSError:
        return False
    try:
        return os.read(file, len(SQLITE_MAGIC)) == SQLITE_MAGIC
    except OSError:
        return False
    finally:
        os.close(file)
