"""A SQLite database that other processes have open, write, lock, or died at."""

from __future__ import annotations

import json
import os
import sqlite3
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from database_processes import crash, hammering, serving
from rollback.errors import RestoreIncomplete
from rollback.model import ResourceState
from rollback.resources.sqlite import SqliteResource, holders
from rollback.resources.sqlite.holders import shown_command
from vault import FolderVault

MODES = pytest.mark.parametrize("mode", ["delete", "truncate", "persist", "wal"])


@pytest.fixture
def vault(tmp_path: Path) -> FolderVault:
    """Return an empty vault."""
    return FolderVault(tmp_path / "vault")


def make(folder: Path, mode: str, *, rows: int = 300, page_size: int = 4096) -> Path:
    """Write a database in a folder of its own."""
    path = folder / "project" / "mlflow.db"
    path.parent.mkdir(exist_ok=True)
    db = sqlite3.connect(path, isolation_level=None)
    db.execute(f"PRAGMA page_size = {page_size}")
    db.execute(f"PRAGMA journal_mode = {mode}")
    db.execute("CREATE TABLE pairs (n INTEGER, filler BLOB)")
    db.execute("CREATE TABLE tally (n INTEGER)")
    db.execute("INSERT INTO tally VALUES (?)", (rows,))
    db.execute("BEGIN")
    db.executemany("INSERT INTO pairs VALUES (?, zeroblob(300))", [(n,) for n in range(rows)])
    db.execute("COMMIT")
    db.close()
    time.sleep(0.03)
    return path


def take(path: Path, vault: FolderVault, *, wait_s: float = 10) -> ResourceState:
    """Capture, expect no complaint, and send the state through JSON."""
    resource = SqliteResource(path, name="mlflow.db", wait_s=wait_s)
    state, skips = resource.capture(vault, None)
    assert skips == ()
    return replace(state, data=json.loads(json.dumps(state.data)))


def put_back(state: ResourceState, vault: FolderVault, *, wait_s: float = 10) -> None:
    """Restore and verify; afterwards nothing is left to do."""
    resource = SqliteResource.from_state(state, wait_s=wait_s)
    assert resource.plan(state, vault) != ()
    resource.restore(state, vault)
    resource.verify(state, vault)
    assert resource.plan(state, vault) == ()


def rows(path: Path, *, at_least: int = 0) -> int:
    """Return the number of pairs, which every committed state agrees with its tally on."""
    db = sqlite3.connect(path, isolation_level=None)
    try:
        db.execute("BEGIN")
        (pairs,) = db.execute("SELECT count(*) FROM pairs").fetchone()
        assert db.execute("SELECT n FROM tally").fetchone() == (pairs,)
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    finally:
        db.close()
    assert pairs % 2 == 0
    assert pairs >= at_least
    return int(pairs)


@MODES
def test_capture_under_a_writer(tmp_path: Path, vault: FolderVault, mode: str) -> None:
    """A writer without a pause: each capture is a committed state, and they move on."""
    database = make(tmp_path, mode)
    counts: list[int] = []
    with hammering(database, mode) as writer:
        for _ in range(5):
            state = take(database, vault)
            assert state.data["mode"] == "database"
            copy = tmp_path / f"copy{len(counts)}.db"
            copy.write_bytes(vault.get(state.data["blob"]))
            counts.append(rows(copy, at_least=300))
            time.sleep(0.05)
        assert writer.poll() is None, "the writer did not survive the captures"
    assert counts == sorted(counts)
    assert counts[0] < counts[-1]
    # The writer was killed in the middle of it: back to the last capture all the same.
    put_back(state, vault)
    assert rows(database) == counts[-1]
    assert [p.name for p in database.parent.iterdir()] == ["mlflow.db"]


@MODES
def test_restore_under_a_writer(tmp_path: Path, vault: FolderVault, mode: str) -> None:
    """A writer loses its rows but neither its connection nor the database its consistency."""
    database = make(tmp_path, mode)
    state = take(database, vault)
    inode = database.stat().st_ino
    with hammering(database, mode, pause_s=0.002) as writer:
        time.sleep(0.2)
        SqliteResource.from_state(state).restore(state, vault)
        time.sleep(0.2)
        assert writer.poll() is None, "the writer did not survive the restore"
        assert rows(database) > 300
    assert database.stat().st_ino == inode


@MODES
def test_a_server_sees_the_old_state_without_opening_again(
    tmp_path: Path, vault: FolderVault, mode: str
) -> None:
    """The same connection reads the old rows with its next query, and can write."""
    database = make(tmp_path, mode)
    state = take(database, vault)
    inode = database.stat().st_ino
    with serving(database, mode) as server:
        assert server.run("SELECT count(*) FROM pairs") == "[(300,)]"
        server.run("DELETE FROM pairs WHERE n > 10")
        server.run("CREATE TABLE evil (x)")
        resource = SqliteResource.from_state(state)
        (step,) = resource.plan(state, vault)
        assert f"pid {server.pid} (" in step.detail
        put_back(state, vault)
        assert server.run("SELECT count(*) FROM pairs") == "[(300,)]"
        assert "no such table" in server.run("SELECT * FROM evil")
        assert server.run("INSERT INTO pairs VALUES (-1, NULL)") == "[]"
    assert database.stat().st_ino == inode
    db = sqlite3.connect(database)
    assert db.execute("SELECT count(*) FROM pairs").fetchone() == (301,)
    db.close()


@MODES
def test_after_the_server_is_gone_the_bytes_are_back(
    tmp_path: Path, vault: FolderVault, mode: str
) -> None:
    """What SQLite had to change in the header under a server is put right without one."""
    database = make(tmp_path, mode)
    before = database.read_bytes()
    state = take(database, vault)
    with serving(database, mode) as server:
        server.run("DELETE FROM pairs WHERE n > 10")
        put_back(state, vault)
    assert SqliteResource.from_state(state).plan(state, vault) != ()
    put_back(state, vault)
    assert database.read_bytes() == before
    assert {p.name for p in database.parent.iterdir()} - {"mlflow.db-journal"} == {"mlflow.db"}


def test_a_log_in_use_is_captured_with_what_is_only_in_it(
    tmp_path: Path, vault: FolderVault
) -> None:
    """Committed rows that are not in the main file yet belong to the state."""
    database = make(tmp_path, "wal")
    with serving(database) as server:
        server.run("INSERT INTO pairs VALUES (-1, NULL)")
        server.run("INSERT INTO pairs VALUES (-2, NULL)")
        server.run("UPDATE tally SET n = 302")
        time.sleep(0.03)
        beside = {p.name: p.stat().st_mtime_ns for p in database.parent.iterdir()}
        state = take(database, vault)
        assert state.data["mode"] == "database"
        assert set(beside) == {p.name for p in database.parent.iterdir()}
        again, _ = SqliteResource(database, name="mlflow.db").capture(vault, state)
        assert again is state
    # The server was killed: the log with the rows is still there, and means the same.
    resource = SqliteResource.from_state(state)
    assert resource.plan(state, vault) == ()
    server_gone = take(database, vault)
    assert server_gone.data["mode"] == "recover"
    crash(database, "DELETE FROM pairs")
    put_back(state, vault)
    assert rows(database) == 302
    assert [p.name for p in database.parent.iterdir()] == ["mlflow.db"]


CRASHES: dict[str, tuple[str, ...]] = {
    "delete": (
        "BEGIN IMMEDIATE",
        "UPDATE pairs SET filler = randomblob(300)",
        "UPDATE tally SET n = -1",
    ),
    "wal": (
        "BEGIN IMMEDIATE",
        "INSERT INTO pairs SELECT n, randomblob(300) FROM pairs LIMIT 2",
        "UPDATE tally SET n = n + 2",
        "COMMIT",
        "BEGIN IMMEDIATE",
        "UPDATE pairs SET filler = randomblob(300)",
    ),
}


@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_what_a_crash_left_is_kept_as_it_lies(
    tmp_path: Path, vault: FolderVault, mode: str
) -> None:
    """A hot journal or log is not touched; file and journal come back as the pair they were."""
    database = make(tmp_path, mode)
    crash(database, *CRASHES[mode])
    time.sleep(0.03)
    before = {p.name: p.read_bytes() for p in database.parent.iterdir()}
    assert len(before) > 1
    state = take(database, vault)
    assert state.data["mode"] == "recover"
    assert {p.name: p.read_bytes() for p in database.parent.iterdir()} == before
    resource = SqliteResource.from_state(state)
    assert resource.rehearse(state, vault).files == len(before)
    expected = rows(database)
    assert expected == (300 if mode == "delete" else 302)
    assert {p.name: p.read_bytes() for p in database.parent.iterdir()} != before
    put_back(state, vault)
    assert {p.name: p.read_bytes() for p in database.parent.iterdir()} == before
    assert rows(database) == expected


@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_what_a_crash_left_goes_recovered_into_a_live_database(
    tmp_path: Path, vault: FolderVault, mode: str
) -> None:
    """A server gets the state that the journal stands for, not the journal."""
    database = make(tmp_path, mode)
    crash(database, *CRASHES[mode])
    time.sleep(0.03)
    state = take(database, vault)
    with serving(database) as server:
        server.run("DELETE FROM pairs")
        put_back(state, vault)
        assert server.run("SELECT (SELECT count(*) FROM pairs), n FROM tally") == (
            "[(300, 300)]" if mode == "delete" else "[(302, 302)]"
        )
        assert not server.run("SELECT count(*) FROM pairs WHERE n < 0").startswith("Op")


def test_a_hot_journal_beside_an_idle_server_is_captured(
    tmp_path: Path, vault: FolderVault
) -> None:
    """A training run that died while a server has the database open: its journal is kept."""
    database = make(tmp_path, "delete")
    with serving(database):
        crash(database, *CRASHES["delete"])
        time.sleep(0.03)
        before = {p.name: p.read_bytes() for p in database.parent.iterdir()}
        state = take(database, vault)
        assert state.data["mode"] == "recover"
        assert {p.name: p.read_bytes() for p in database.parent.iterdir()} == before
    rows(database)
    put_back(state, vault)
    assert {p.name: p.read_bytes() for p in database.parent.iterdir()} == before


@MODES
def test_locked_for_ever_is_captured_inside_the_wait(
    tmp_path: Path, vault: FolderVault, mode: str
) -> None:
    """A transaction that never ends delays a capture, does not stop it, and is not in it."""
    database = make(tmp_path, mode)
    with serving(database, mode) as server:
        server.run("PRAGMA locking_mode = exclusive")
        server.run("BEGIN EXCLUSIVE")
        server.run("DELETE FROM pairs")
        start = time.monotonic()
        state = take(database, vault, wait_s=1)
        assert time.monotonic() - start < 5
        server.run("ROLLBACK")
    crash(database, "DELETE FROM pairs")
    put_back(state, vault)
    assert rows(database) == 300


@MODES
@pytest.mark.parametrize("begin", ["BEGIN EXCLUSIVE", "BEGIN IMMEDIATE"])
def test_locked_for_ever_is_named_and_nothing_is_changed(
    tmp_path: Path, vault: FolderVault, mode: str, begin: str
) -> None:
    """A restore ends at its deadline and says who is in the way; later it goes through."""
    database = make(tmp_path, mode)
    state = take(database, vault)
    with serving(database, mode) as server:
        server.run("DELETE FROM pairs WHERE n > 99")
        server.run(begin)
        resource = SqliteResource.from_state(state, wait_s=0.5)
        start = time.monotonic()
        with pytest.raises(RestoreIncomplete, match=f"pid {server.pid} ") as caught:
            resource.restore(state, vault)
        assert time.monotonic() - start < 5
        assert "stop that process" in caught.value.hint
        assert server.run("SELECT count(*) FROM pairs") == "[(100,)]"
        server.run("COMMIT")
        put_back(state, vault)
        assert server.run("SELECT count(*) FROM pairs") == "[(300,)]"
    assert not [p for p in database.parent.iterdir() if p.name.startswith(".guard")]


def test_an_open_reader_delays_only_as_long_as_it_reads(tmp_path: Path, vault: FolderVault) -> None:
    """In a rollback-journal mode a reader in the middle of a query blocks, and is named."""
    database = make(tmp_path, "delete")
    state = take(database, vault)
    with serving(database) as server:
        server.run("DELETE FROM pairs WHERE n > 99")
        server.run("BEGIN")
        server.run("SELECT count(*) FROM pairs")
        with pytest.raises(RestoreIncomplete, match=f"pid {server.pid} "):
            SqliteResource.from_state(state, wait_s=0.5).restore(state, vault)
        assert server.run("SELECT count(*) FROM pairs") == "[(100,)]"
        server.run("COMMIT")
        put_back(state, vault)


def test_a_reader_of_a_log_keeps_its_state_and_the_restore_goes_through(
    tmp_path: Path, vault: FolderVault
) -> None:
    """In WAL mode a reader in the middle of a query delays nothing."""
    database = make(tmp_path, "wal")
    state = take(database, vault)
    with serving(database) as server:
        server.run("DELETE FROM pairs WHERE n > 99")
        server.run("BEGIN")
        assert server.run("SELECT count(*) FROM pairs") == "[(100,)]"
        put_back(state, vault, wait_s=1)
        assert server.run("SELECT count(*) FROM pairs") == "[(100,)]"
        server.run("COMMIT")
        assert server.run("SELECT count(*) FROM pairs") == "[(300,)]"


def _cut(path: Path) -> None:
    os.truncate(path, 5000)


def _noise(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(os.urandom(30_000))


def _empty(path: Path) -> None:
    os.truncate(path, 0)


@pytest.mark.parametrize("spoil", [_cut, _noise, _empty])
def test_spoilt_under_an_idle_server(
    tmp_path: Path, vault: FolderVault, spoil: Callable[[Path], None]
) -> None:
    """A live file that SQLite does not read any more is mended in place, for the server too."""
    database = make(tmp_path, "delete")
    state = take(database, vault)
    inode = database.stat().st_ino
    with serving(database) as server:
        server.run("SELECT count(*) FROM pairs")
        spoil(database)
        put_back(state, vault)
        assert server.run("SELECT (SELECT count(*) FROM pairs), n FROM tally") == "[(300, 300)]"
        assert server.run("UPDATE tally SET n = 300") == "[]"
    assert database.stat().st_ino == inode
    assert rows(database) == 300


def test_spoilt_under_a_server_with_a_log_is_named(tmp_path: Path, vault: FolderVault) -> None:
    """With a log in memory of a server the file cannot be mended under it: who is named."""
    database = make(tmp_path, "wal")
    state = take(database, vault)
    with serving(database) as server:
        server.run("INSERT INTO pairs VALUES (1, NULL)")
        _noise(database)
        with pytest.raises(RestoreIncomplete, match=f"pid {server.pid} "):
            SqliteResource.from_state(state, wait_s=0.5).restore(state, vault)
    put_back(state, vault)
    assert rows(database) == 300


@pytest.mark.parametrize(("then", "now"), [(4096, 1024), (1024, 4096), (512, 65536)])
def test_another_page_size_under_a_server(
    tmp_path: Path, vault: FolderVault, then: int, now: int
) -> None:
    """A live database that was rebuilt with another page size takes the old one again."""
    database = make(tmp_path, "delete", page_size=then)
    before = database.read_bytes()
    state = take(database, vault)
    with serving(database) as server:
        server.run(f"PRAGMA page_size = {now}")
        server.run("VACUUM")
        assert server.run("PRAGMA page_size") == f"[({now},)]"
        put_back(state, vault)
        assert server.run("SELECT (SELECT count(*) FROM pairs), n FROM tally") == "[(300, 300)]"
        assert server.run("PRAGMA page_size") == f"[({then},)]"
    put_back(state, vault)
    assert database.read_bytes() == before


def test_another_page_size_under_a_log_is_named(tmp_path: Path, vault: FolderVault) -> None:
    """SQLite cannot change the page size of a WAL database that somebody has open."""
    database = make(tmp_path, "delete", page_size=1024)
    state = take(database, vault)
    with serving(database) as server:
        server.run("PRAGMA page_size = 4096")
        server.run("VACUUM")
        server.run("PRAGMA journal_mode = wal")
        server.run("INSERT INTO pairs VALUES (1, NULL)")
        resource = SqliteResource.from_state(state, wait_s=0.5)
        obstacle = resource.obstacle(state)
        assert obstacle is not None
        assert obstacle[0].startswith(f"pid {server.pid} (")
        assert "pages of 4,096 bytes" in obstacle[0]
        assert "those of the snapshot, 1,024," in obstacle[0]
        assert obstacle[1].startswith(f"stop pid {server.pid} (")
        with pytest.raises(RestoreIncomplete) as raised:
            resource.restore(state, vault)
        assert obstacle[0] in str(raised.value)
        assert raised.value.hint == f"{obstacle[1]}, then run the rollback again"
        assert server.run("SELECT count(*) FROM pairs") == "[(301,)]"
    assert resource.obstacle(state) is None
    put_back(state, vault)
    assert rows(database) == 300


def test_journal_mode_changed_under_a_server(tmp_path: Path, vault: FolderVault) -> None:
    """A server that went over to WAL sees the old rows; its mode stays until it is gone."""
    database = make(tmp_path, "delete")
    before = database.read_bytes()
    state = take(database, vault)
    with serving(database) as server:
        server.run("PRAGMA journal_mode = wal")
        server.run("DELETE FROM pairs")
        put_back(state, vault)
        assert server.run("SELECT count(*) FROM pairs") == "[(300,)]"
    put_back(state, vault)
    assert database.read_bytes() == before
    assert [p.name for p in database.parent.iterdir()] == ["mlflow.db"]


@pytest.mark.parametrize("made_again", [False, True])
def test_deleted_under_a_server(tmp_path: Path, vault: FolderVault, *, made_again: bool) -> None:
    """The file comes back byte for byte, and who still has the deleted one open is named."""
    database = make(tmp_path, "delete")
    before = database.read_bytes()
    state = take(database, vault)
    with serving(database) as server:
        database.unlink()
        if made_again:
            make(tmp_path, "delete", rows=4)
        assert [pid for pid, _ in holders(database)] == [server.pid]
        assert holders(database, deleted=False) == []
        (step,) = SqliteResource.from_state(state).plan(state, vault)
        assert f"restart pid {server.pid} (" in step.detail
        (skip,) = SqliteResource.from_state(state).restore(state, vault)
        assert f"pid {server.pid}" in skip.what
        assert skip.fix.startswith(f"restart pid {server.pid}")
        assert database.read_bytes() == before
    assert SqliteResource.from_state(state).restore(state, vault) == ()


def test_without_scratch_it_ends(tmp_path: Path, vault: FolderVault) -> None:
    """A scratch folder that is gone is an error inside the wait, not a loop."""
    database = make(tmp_path, "delete")
    crash(database, *CRASHES["delete"])
    time.sleep(0.03)
    Path(vault.scratch).rmdir()
    with pytest.raises(FileNotFoundError):
        SqliteResource(database, name="mlflow.db", wait_s=0.3).capture(vault, None)


def test_never_standing_still_is_said(
    tmp_path: Path, vault: FolderVault, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A locked file whose times never rest is copied as it lies, with a loud skip."""
    database = make(tmp_path, "delete")
    with serving(database) as server, hammer_times(database):
        server.run("BEGIN EXCLUSIVE")
        resource = SqliteResource(database, name="mlflow.db", wait_s=0.5)
        state, skips = resource.capture(vault, None)
    assert [skip.what for skip in skips] == ["a consistent copy of mlflow.db"]
    assert f"pid {server.pid}" in skips[0].why
    assert state.data["settled"] is False


class hammer_times:  # noqa: N801 - reads like a function
    """Touches a file from a thread as long as the block runs."""

    def __init__(self, path: Path) -> None:
        import threading  # noqa: PLC0415

        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(path,))

    def _run(self, path: Path) -> None:
        while not self._stop.wait(0.005):
            os.utime(path)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


@pytest.mark.skipif(not os.access("/dev/shm", os.W_OK), reason="there are no files in memory")
def test_holders_of_a_database_in_memory() -> None:
    """Projects lie there for speed; a file there is no device."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        database = make(Path(folder).resolve(), "delete")
        with serving(database) as server:
            assert [pid for pid, _ in holders(database, deleted=False)] == [server.pid]


def test_holders(tmp_path: Path) -> None:
    """Who has the database open is listed by pid and program, without what may be a secret."""
    database = make(tmp_path, "wal")
    assert holders(database) == []
    with serving(database) as server:
        ((pid, command),) = holders(database)
        assert pid == server.pid
        assert command.startswith("python")
        assert "mlflow.db" not in command


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        (["/opt/bin/python3", "/x/train.py", "hunter2"], "python3 train.py"),
        (["python", "-m", "mlflow", "hunter2"], "python -m mlflow"),
        (["mlflow", "--password=hunter2"], "mlflow"),
        (["tool", "postgresql://me:hunter2@host/db"], "tool"),
        (["python", "-c", "password = 'hunter2'"], "python"),
        (["tool", "PASSWORD=hunter2"], "tool"),
    ],
)
def test_commands_are_shown_without_secrets(arguments: list[str], shown: str) -> None:
    """Only the program and its script are named."""
    assert shown_command(arguments) == shown
