"""Other processes at a SQLite database, for tests: idle servers, writers, and the killed."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

_SERVER = """
import os, sqlite3, sys
db = sqlite3.connect(os.fsencode(sys.argv[1]), isolation_level=None, timeout=5)
db.execute("PRAGMA journal_mode = " + sys.argv[2])
for line in sys.stdin:
    try:
        print(repr(db.execute(line).fetchall()), flush=True)
    except sqlite3.Error as error:
        print(repr(error), flush=True)
"""

_HAMMER = """
import os, sqlite3, sys, time
db = sqlite3.connect(os.fsencode(sys.argv[1]), isolation_level=None, timeout=60)
db.execute("PRAGMA journal_mode = " + sys.argv[2])
print("ready", flush=True)
for n in range(10**9):
    db.execute("BEGIN IMMEDIATE")
    db.execute("INSERT INTO pairs VALUES (?, zeroblob(300))", (n,))
    db.execute("UPDATE tally SET n = n + 1")
    db.execute("INSERT INTO pairs VALUES (?, zeroblob(300))", (n,))
    db.execute("UPDATE tally SET n = n + 1")
    db.execute("COMMIT")
    time.sleep(float(sys.argv[3]))
"""

_CRASH = """
import os, signal, sqlite3, sys
db = sqlite3.connect(os.fsencode(sys.argv[1]), isolation_level=None)
db.execute("PRAGMA cache_size = 5")
for statement in sys.argv[2:]:
    db.execute(statement)
os.kill(os.getpid(), signal.SIGKILL)
"""


class Server:
    """A process that keeps one connection open and runs one statement a line."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.pid = process.pid

    def run(self, statement: str) -> str:
        """Return the rows of a statement, or the error, as `repr` writes them."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(statement + "\n")
        self._process.stdin.flush()
        ready, _, _ = select.select([self._process.stdout], [], [], 30)
        assert ready, "the server does not answer"
        return self._process.stdout.readline().strip()


@contextlib.contextmanager
def serving(path: Path, mode: str = "") -> Iterator[Server]:
    """Give a server that has the database open and cached.

    Args:
        path: The database.
        mode: Journal mode; each connection sets its own, but for WAL, which is in the file.
    """
    process = _start(_SERVER, os.fspath(path), mode or _mode_of(path))
    try:
        server = Server(process)
        server.run("SELECT count(*) FROM sqlite_master")
        yield server
    finally:
        _end(process)


@contextlib.contextmanager
def hammering(
    path: Path, mode: str = "", *, pause_s: float = 0.0
) -> Iterator[subprocess.Popen[str]]:
    """Give a process that commits a pair of rows and a tally in each transaction."""
    process = _start(_HAMMER, os.fspath(path), mode or _mode_of(path), str(pause_s))
    try:
        assert process.stdout is not None
        assert process.stdout.readline().strip() == "ready"
        yield process
    finally:
        _end(process)


def crash(path: Path, *statements: str) -> None:
    """Run statements in a process that then dies by SIGKILL without closing anything."""
    process = _start(_CRASH, os.fspath(path), *statements)
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL


def _mode_of(path: Path) -> str:
    with path.open("rb") as file:
        return "wal" if file.read(20)[18:] == b"\2\2" else "delete"


def _start(code: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def _end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()
