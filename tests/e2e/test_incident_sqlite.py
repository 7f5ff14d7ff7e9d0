"""Incident 5: a database written to during the snapshot, and served during the rollback."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from e2e.guard_command import Guard
from e2e.projects import count_runs, make_database, make_small_project
from manifest import assert_back, differences, manifest

# Commits pairs of rows, so that an odd count is never a committed state.
_WRITER = """
import sqlite3, sys, time
database = sqlite3.connect(sys.argv[1], timeout=30, isolation_level=None)
for number in range(10**9):
    database.execute("BEGIN IMMEDIATE")
    database.execute("INSERT INTO runs (note) VALUES ('first')")
    database.execute("INSERT INTO runs (note) VALUES ('second')")
    database.execute("COMMIT")
    if number == 0:
        print("writing", flush=True)
    time.sleep(0.005)
"""

# Answers with the number of rows through one connection that it never closes.
_SERVER = """
import sqlite3, sys
database = sqlite3.connect(sys.argv[1], timeout=30, isolation_level=None)
print("ready", flush=True)
for line in sys.stdin:
    if line.strip() == "add":
        database.execute("INSERT INTO runs (note) VALUES ('by the server')")
    print(database.execute("SELECT count(*) FROM runs").fetchone()[0], flush=True)
"""


class Process:
    """A Python program with a connection of its own, spoken to by lines."""

    def __init__(self, program: str, database: Path) -> None:
        self.popen = subprocess.Popen(
            [sys.executable, "-c", program, str(database)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.popen.stdout is not None
        assert self.popen.stdout.readline(), "the process ended at its start"

    def ask(self, line: str) -> int:
        """Send a line and return the number that comes back."""
        assert self.popen.stdin is not None
        assert self.popen.stdout is not None
        print(line, file=self.popen.stdin, flush=True)
        return int(self.popen.stdout.readline())

    def end(self) -> None:
        """Kill the process, as a machine that goes down would."""
        self.popen.kill()
        self.popen.communicate()


@pytest.fixture(params=["wal", "delete"])
def tracked(request: pytest.FixtureRequest, guard: Guard) -> Guard:
    """Return guard for a project with a database in either journal mode."""
    make_small_project(guard.project)
    make_database(guard.project / "mlflow.db", rows=500, wal=request.param == "wal")
    return guard


@pytest.fixture
def server(tracked: Guard) -> Iterator[Process]:
    """Run a server on the database until the test ends."""
    process = Process(_SERVER, tracked.project / "mlflow.db")
    yield process
    process.end()


def test_5_a_database_written_during_the_snapshot_is_a_committed_state(
    tracked: Guard, server: Process
) -> None:
    """The restored rows are a committed state, and the server serves them with no restart."""
    path = tracked.project / "mlflow.db"
    writer = Process(_WRITER, path)
    low = server.ask("count")
    run = tracked.shell(f"kill -9 {writer.popen.pid}")
    assert run.status == 0, run.said
    writer.end()
    high = server.ask("count")
    database = sqlite3.connect(path, timeout=30)
    with database:
        database.execute("DELETE FROM runs")
        database.execute("CREATE TABLE junk (x)")
    database.close()
    assert server.ask("count") == 0

    tracked.roll_back(live_databases=("mlflow.db",))
    served = server.ask("count")
    assert low <= served <= high
    assert served % 2 == 0, "half of a transaction came back"
    assert server.ask("add") == served + 1, "the server cannot write any more"
    server.end()
    assert count_runs(path) == served + 1
    _assert_sound(path)


def test_5_an_old_wal_does_not_poison_what_is_put_back(tracked: Guard) -> None:
    """A -wal left by a killed writer belongs to the bad state and must not be replayed."""
    path = tracked.project / "mlflow.db"
    spoilt = tracked.project.parent / "spoilt"
    spoilt.mkdir()
    shutil.copy(path, spoilt)
    writer = Process(_WRITER, spoilt / "mlflow.db")
    time.sleep(0.2)
    writer.end()
    before = manifest(tracked.project)
    run = tracked.shell("cp ../spoilt/mlflow.db* . ; exit 1")
    assert run.status == 1, run.said

    assert_back(before, tracked.roll_back())
    assert not list(tracked.project.glob("mlflow.db-*"))
    assert count_runs(path) == 500
    _assert_sound(path)


def test_a_database_is_found_by_its_content(guard: Guard) -> None:
    """A database without a suffix, and one that the run deletes, are back to the byte."""
    make_small_project(guard.project)
    make_database(guard.project / "study", rows=20)
    make_database(guard.project / "feature-store.sqlite", rows=20, wal=True)
    before = manifest(guard.project)
    program = (
        "import sqlite3; d = sqlite3.connect('study'); d.execute('DELETE FROM runs'); d.commit()"
    )
    run = guard.shell(f'python3 -c "{program}" ; rm feature-store.sqlite ; : > other.sqlite')
    assert run.status == 0, run.said
    assert differences(before, manifest(guard.project))
    assert_back(before, guard.roll_back())
    assert count_runs(guard.project / "study") == 20


def test_a_writer_that_never_stops_does_not_block_the_run(tracked: Guard) -> None:
    """The snapshot of a busy database takes a bounded time."""
    writer = Process(_WRITER, tracked.project / "mlflow.db")
    try:
        started = time.monotonic()
        run = tracked.shell("true")
        assert run.status == 0, run.said
        assert time.monotonic() - started < 30
    finally:
        writer.end()


def _assert_sound(path: Path) -> None:
    database = sqlite3.connect(path)
    assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert not database.execute("SELECT * FROM sqlite_master WHERE name = 'junk'").fetchall()
    database.close()
