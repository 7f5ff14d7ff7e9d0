"""A SQLite database that nobody has open: every byte of it, and what is said about it."""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import stat
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from rollback.errors import DrillFailed, RestoreIncomplete, StoreCorrupt
from rollback.model import ResourceState, TableChange
from rollback.resources.sqlite import SqliteResource, comparing, describe_change, is_sqlite
from vault import FolderVault

Spoil = Callable[[Path], None]


@pytest.fixture
def vault(tmp_path: Path) -> FolderVault:
    """Return an empty vault."""
    return FolderVault(tmp_path / "vault")


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """Return a database with 300 runs, at rest, in a folder of its own."""
    return make(tmp_path / "project" / "mlflow.db")


def make(path: Path, *, wal: bool = False, rows: int = 300, page_size: int = 4096) -> Path:
    """Write a database and let its times settle."""
    path.parent.mkdir(exist_ok=True)
    db = sqlite3.connect(path, isolation_level=None)
    db.execute(f"PRAGMA page_size = {page_size}")
    db.execute(f"PRAGMA journal_mode = {'wal' if wal else 'delete'}")
    db.execute("CREATE TABLE runs (id INTEGER PRIMARY KEY, note TEXT)")
    db.execute("CREATE TABLE alembic_version (version_num TEXT)")
    db.execute("INSERT INTO alembic_version VALUES ('aaaa')")
    db.execute("BEGIN")
    db.executemany("INSERT INTO runs (note) VALUES (?)", [("x" * 50,)] * rows)
    db.execute("COMMIT")
    db.close()
    time.sleep(0.03)
    return path


def change(path: Path) -> None:
    """Do to a database what a bad run does."""
    db = sqlite3.connect(path)
    db.execute("DELETE FROM runs WHERE id > 5")
    db.execute("CREATE TABLE evil (x)")
    db.execute("UPDATE alembic_version SET version_num = 'bbbb'")
    db.commit()
    db.close()


def listing(folder: Path) -> dict[str, tuple[str, int, int]]:
    """Return name to digest, mode and mtime of all that is in a folder."""
    return {
        p.name: (
            hashlib.sha256(p.read_bytes()).hexdigest(),
            stat.S_IMODE(p.stat().st_mode),
            p.stat().st_mtime_ns,
        )
        for p in folder.iterdir()
    }


def take(path: Path, vault: FolderVault) -> ResourceState:
    """Capture, expect no complaint, and send the state through JSON as the store does."""
    state, skips = SqliteResource(path, name=path.name).capture(vault, None)
    assert skips == ()
    return replace(state, data=json.loads(json.dumps(state.data)))


def put_back(state: ResourceState, vault: FolderVault) -> None:
    """Restore and verify by the state alone; afterwards nothing is left to do."""
    resource = SqliteResource.from_state(state, wait_s=2)
    assert resource.plan(state, vault) != ()
    resource.restore(state, vault)
    resource.verify(state, vault)
    assert resource.plan(state, vault) == ()
    assert list(Path(vault.scratch).iterdir()) == []


def unlink(path: Path) -> None:
    """Delete the database."""
    path.unlink()


def cut(path: Path) -> None:
    """Keep the first half of it."""
    os.truncate(path, path.stat().st_size // 2)


def empty(path: Path) -> None:
    """Keep nothing of it."""
    os.truncate(path, 0)


def overwrite(path: Path) -> None:
    """Put something else in its place."""
    path.write_bytes(b"no database at all\n" * 500)


def link_away(path: Path) -> None:
    """Plant a link to a victim in its place."""
    victim = path.parent.parent / "victim"
    victim.write_bytes(b"precious")
    path.unlink()
    path.symlink_to(victim)


def plant_fifo(path: Path) -> None:
    """Put a pipe without a writer in its place."""
    path.unlink()
    os.mkfifo(path)


def remove_folder(path: Path) -> None:
    """Delete the folder too."""
    path.unlink()
    path.parent.rmdir()


def plant_folder(path: Path) -> None:
    """Put an empty folder in its place."""
    path.unlink()
    path.mkdir()


def plant_stale_log(path: Path) -> None:
    """Leave a log and an index of another database beside it."""
    other = make(path.parent.parent / "other" / "o.db", wal=True, rows=2000)
    db = sqlite3.connect(other)
    db.execute("UPDATE runs SET note = 'stale'")
    db.commit()
    for suffix in ("-wal", "-shm"):
        Path(f"{path}{suffix}").write_bytes(Path(f"{other}{suffix}").read_bytes())
    db.close()


def plant_journal(path: Path) -> None:
    """Change the database and leave an unfinished journal beside it."""
    change(path)
    Path(f"{path}-journal").write_bytes(bytes.fromhex("d9d505f920a163d7") + b"\0" * 504)


def rebuild(path: Path) -> None:
    """Make a new database with another page size."""
    path.unlink()
    make(path, page_size=1024, rows=3)


def to_wal(path: Path) -> None:
    """Change nothing but the journal mode."""
    db = sqlite3.connect(path)
    db.execute("PRAGMA journal_mode = wal")
    db.close()


SPOILS = [
    change,
    unlink,
    cut,
    empty,
    overwrite,
    link_away,
    plant_fifo,
    remove_folder,
    plant_folder,
    plant_stale_log,
    plant_journal,
    rebuild,
    to_wal,
]


@pytest.mark.parametrize("wal", [False, True], ids=["rollback", "wal"])
@pytest.mark.parametrize("spoil", SPOILS, ids=lambda spoil: spoil.__name__)
def test_whatever_happened_the_folder_is_back(
    tmp_path: Path, vault: FolderVault, spoil: Spoil, *, wal: bool
) -> None:
    """Bytes, mode and time of the database are back, nothing else is in the folder."""
    database = make(tmp_path / "project" / "mlflow.db", wal=wal)
    if wal and spoil is to_wal:
        pytest.skip("it is in that mode already")
    database.chmod(0o640)
    before = listing(database.parent)
    state = take(database, vault)
    assert listing(database.parent) == before, "a capture left something behind"
    spoil(database)
    put_back(state, vault)
    assert listing(database.parent) == before
    victim = tmp_path / "victim"
    assert not victim.exists() or victim.read_bytes() == b"precious"


def test_a_linked_folder_is_refused_and_nothing_is_written_through_it(
    tmp_path: Path, database: Path, vault: FolderVault
) -> None:
    """A folder on the way that has become a link stops the restore."""
    state = take(database, vault)
    elsewhere = make(tmp_path / "elsewhere" / "mlflow.db", rows=7)
    before = listing(elsewhere.parent)
    database.unlink()
    database.parent.rmdir()
    database.parent.symlink_to(elsewhere.parent)
    resource = SqliteResource.from_state(state)
    with pytest.raises(RestoreIncomplete, match="link"):
        resource.restore(state, vault)
    with pytest.raises(RestoreIncomplete):
        resource.verify(state, vault)
    assert listing(elsewhere.parent) == before


def test_a_full_folder_in_its_place_is_named(database: Path, vault: FolderVault) -> None:
    """A folder with something in it is neither emptied nor replaced, and no stage is left."""
    state = take(database, vault)
    database.unlink()
    (database / "inside").mkdir(parents=True)
    with pytest.raises(RestoreIncomplete, match="is a folder now"):
        SqliteResource.from_state(state).restore(state, vault)
    assert [p.name for p in database.parent.iterdir()] == ["mlflow.db"]


def test_the_project_may_lie_behind_a_link(tmp_path: Path, vault: FolderVault) -> None:
    """A link that led to the database when it was captured is no threat."""
    real = make(tmp_path / "real" / "mlflow.db")
    (tmp_path / "project").symlink_to(real.parent)
    before = listing(real.parent)
    state = take(tmp_path / "project" / "mlflow.db", vault)
    assert state.location == str(tmp_path / "project" / "mlflow.db")
    change(real)
    put_back(state, vault)
    assert listing(real.parent) == before


@pytest.mark.parametrize(
    "name", [b"a b?mode=memory#%41.db", b"\xff\xfe.db", b"new\nline.db", b"'\";--.db", b"n" * 200]
)
@pytest.mark.parametrize("wal", [False, True], ids=["rollback", "wal"])
def test_odd_names(tmp_path: Path, vault: FolderVault, name: bytes, *, wal: bool) -> None:
    """A name is bytes: none of them means anything to SQLite's URIs or to JSON."""
    database = Path(os.fsdecode(os.fsencode(tmp_path) + b"/project/" + name))
    database.parent.mkdir()
    make(tmp_path / "plain" / "plain.db", wal=wal).rename(database)
    before = listing(database.parent)
    state = take(database, vault)
    assert state.data["mode"] == "database"
    assert state.data["facts"]["tables"] == {"alembic_version": 1, "runs": 300}
    database.write_bytes(b"spoilt")
    put_back(state, vault)
    assert listing(database.parent) == before


def test_unchanged_is_not_read_again(database: Path, vault: FolderVault) -> None:
    """The very state of the last snapshot comes back, and the vault sees nothing."""
    state, _ = SqliteResource(database, name="mlflow.db").capture(vault, None)
    puts = vault.puts
    again, skips = SqliteResource(database, name="mlflow.db").capture(vault, state)
    assert again is state
    assert (skips, vault.puts) == ((), puts)


@pytest.mark.parametrize("touch", [change, cut, to_wal], ids=lambda touch: touch.__name__)
def test_changed_is_read_again_beside_the_last(
    database: Path, vault: FolderVault, touch: Spoil
) -> None:
    """A change by SQLite or behind its back is seen, and the last content is handed on."""
    state, _ = SqliteResource(database, name="mlflow.db").capture(vault, None)
    touch(database)
    again, _ = SqliteResource(database, name="mlflow.db").capture(vault, state)
    assert again is not state
    assert again.data["image"] != state.data["image"]
    assert vault.previous == [None, state.data["blob"]]


def test_a_file_too_young_is_not_trusted(
    database: Path, vault: FolderVault, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A write in the same tick of the clock as the capture cannot hide behind the times."""
    written = database.stat().st_mtime_ns
    monkeypatch.setattr("time.time_ns", lambda: written + 5_000_000)
    state, _ = SqliteResource(database, name="mlflow.db").capture(vault, None)
    assert state.data["settled"] is False
    puts = vault.puts
    again, _ = SqliteResource(database, name="mlflow.db").capture(vault, state)
    assert vault.puts > puts
    assert again.data["image"] == state.data["image"]
    monkeypatch.undo()
    state, _ = SqliteResource(database, name="mlflow.db").capture(vault, again)
    assert state.data["settled"] is True


def test_a_time_in_the_future_is_trusted(database: Path, vault: FolderVault) -> None:
    """A clock that was set back does not make every snapshot read everything."""
    future = time.time_ns() + 10**18
    os.utime(database, ns=(future, future))
    time.sleep(0.03)
    state, _ = SqliteResource(database, name="mlflow.db").capture(vault, None)
    again, _ = SqliteResource(database, name="mlflow.db").capture(vault, state)
    assert again is state


def test_only_metadata(database: Path, vault: FolderVault) -> None:
    """Mode, time and attributes are put back without writing the content."""
    os.setxattr(database, "user.note", b"kept")
    time.sleep(0.03)
    state = take(database, vault)
    inode = database.stat().st_ino
    database.chmod(0o600)
    os.utime(database, ns=(1, 1))
    os.setxattr(database, "user.note", b"lost")
    resource = SqliteResource.from_state(state)
    assert [step.action for step in resource.plan(state, vault)] == ["metadata"]
    resource.restore(state, vault)
    assert resource.plan(state, vault) == ()
    assert os.getxattr(database, "user.note") == b"kept"
    assert database.stat().st_ino == inode


def test_zero_bytes(tmp_path: Path, vault: FolderVault) -> None:
    """An empty file is an empty database."""
    database = tmp_path / "project" / "empty.db"
    database.parent.mkdir()
    database.touch()
    time.sleep(0.03)
    before = listing(database.parent)
    state = take(database, vault)
    assert (state.data["mode"], state.bytes) == ("database", 0)
    assert SqliteResource.from_state(state).rehearse(state, vault).bytes == 0
    make(database)
    put_back(state, vault)
    assert listing(database.parent) == before


def _half(path: Path) -> None:
    cut(path)


def _encrypted(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:16] + hashlib.sha512(content).digest() * (len(content) // 64))


def _magic_alone(path: Path) -> None:
    path.write_bytes(b"SQLite format 3\0")


@pytest.mark.parametrize("damage", [_half, _encrypted, _magic_alone, overwrite])
def test_what_sqlite_does_not_read_is_kept_as_bytes(
    database: Path, vault: FolderVault, damage: Spoil
) -> None:
    """Half a database never fails a snapshot, is named, and comes back as it was."""
    damage(database)
    time.sleep(0.03)
    before = listing(database.parent)
    state, skips = SqliteResource(database, name="mlflow.db").capture(vault, None)
    assert state.data["mode"] == "raw"
    assert [skip.what for skip in skips] == ["the check of mlflow.db"]
    again, said = SqliteResource(database, name="mlflow.db").capture(vault, state)
    assert again is state
    assert said == skips, "damage is said with each snapshot"
    assert listing(database.parent) == before
    rehearsal = SqliteResource.from_state(state).rehearse(state, vault)
    assert (rehearsal.files, rehearsal.bytes) == (1, database.stat().st_size)
    database.unlink()
    make(database)
    put_back(state, vault)
    assert listing(database.parent) == before


def test_damage_deep_inside_is_named(database: Path, vault: FolderVault) -> None:
    """A page of noise behind an intact header is found by the check and put back as it was."""
    with database.open("r+b") as file:
        file.seek(2 * 4096)
        file.write(b"\xaa" * 4096)
    time.sleep(0.03)
    before = listing(database.parent)
    state, skips = SqliteResource(database, name="mlflow.db").capture(vault, None)
    assert len(skips) == 1
    assert state.data["health"] != "ok"
    resource = SqliteResource.from_state(state)
    resource.rehearse(state, vault)
    change_bytes = database.read_bytes()[:-1] + b"z"
    database.write_bytes(change_bytes)
    put_back(state, vault)
    assert listing(database.parent) == before


def test_inert_journal_belongs_to_the_state(tmp_path: Path, vault: FolderVault) -> None:
    """What `journal_mode = persist` leaves beside the file is kept and put back."""
    database = make(tmp_path / "project" / "mlflow.db")
    db = sqlite3.connect(database)
    db.execute("PRAGMA journal_mode = persist")
    db.execute("INSERT INTO runs (note) VALUES ('more')")
    db.commit()
    db.close()
    time.sleep(0.03)
    before = listing(database.parent)
    assert set(before) == {"mlflow.db", "mlflow.db-journal"}
    state = take(database, vault)
    assert state.files == 2
    change(database)
    Path(f"{database}-journal").unlink(missing_ok=True)
    put_back(state, vault)
    assert listing(database.parent) == before


def test_absent(tmp_path: Path, vault: FolderVault) -> None:
    """A file that vanished is recorded as absent, and a restore makes it so again."""
    database = tmp_path / "project" / "gone.db"
    state = take(database, vault)
    assert (state.data["mode"], state.files) == ("absent", 0)
    resource = SqliteResource.from_state(state)
    assert resource.plan(state, vault) == ()
    make(database, wal=True)
    plant_stale_log(database)
    assert [step.action for step in resource.plan(state, vault)] == ["remove"]
    resource.restore(state, vault)
    resource.verify(state, vault)
    assert list(database.parent.iterdir()) == []
    resource.remove(vault)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_unreadable_is_named(database: Path, vault: FolderVault) -> None:
    """A database that may not be read does not stop the snapshot."""
    database.chmod(0)
    state, skips = SqliteResource(database, name="mlflow.db").capture(vault, None)
    assert state.data["mode"] == "unreadable"
    assert "chmod" in skips[0].fix
    assert SqliteResource.from_state(state).plan(state, vault) == ()


def test_a_vault_that_cannot_be_written_is_not_taken_for_an_unreadable_database(
    database: Path, vault: FolderVault, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trouble in the store stops the snapshot instead of leaving the database out."""

    def refuse(*_: object) -> str:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(vault, "put_pages", refuse)
    with pytest.raises(PermissionError):
        SqliteResource(database, name="mlflow.db").capture(vault, None)


def test_a_folder_that_cannot_be_written_is_captured(tmp_path: Path, vault: FolderVault) -> None:
    """Nothing is created beside the database, not even for a moment."""
    database = make(tmp_path / "project" / "mlflow.db", wal=True)
    database.parent.chmod(0o500)
    before = database.parent.stat().st_mtime_ns
    try:
        state = take(database, vault)
        SqliteResource.from_state(state).verify(state, vault)
    finally:
        database.parent.chmod(0o700)
    assert database.parent.stat().st_mtime_ns == before


def test_a_file_that_cannot_be_written_is_put_back(database: Path, vault: FolderVault) -> None:
    """Read-only is a mode like any other: what stands in the folder is replaced."""
    database.chmod(0o444)
    time.sleep(0.03)
    before = listing(database.parent)
    state = take(database, vault)
    database.chmod(0o600)
    change(database)
    database.chmod(0o400)
    put_back(state, vault)
    assert listing(database.parent) == before


def test_facts_and_changes(database: Path, vault: FolderVault) -> None:
    """People read tables, rows and the revision of the schema."""
    state = take(database, vault)
    assert state.data["facts"] == {
        "tables": {"alembic_version": 1, "runs": 300},
        "user_version": 0,
        "alembic": "aaaa",
        "journal_mode": "rollback",
        "page_size": 4096,
    }
    change(database)
    after = take(database, vault)
    found = describe_change(state, after, vault)
    assert found is not None
    assert (found.action, found.detail) == ("modified", "alembic aaaa → bbbb")
    assert found.tables == (
        TableChange("modified", "alembic_version", 1, 1, 1),
        TableChange("added", "evil", None, 0),
        TableChange("modified", "runs", 300, 5),
    )
    assert SqliteResource.from_state(state).difference(state, vault) == found
    assert describe_change(state, state, vault) is None
    (step,) = SqliteResource.from_state(state).plan(state, vault)
    assert (step.action, step.bytes) == ("database", state.bytes)
    assert step.detail == "gone table evil, runs: 5 → 300 rows, alembic bbbb → aaaa"
    to_wal(database)
    same = describe_change(after, take(database, vault), vault)
    assert same is not None
    assert same.detail.startswith("same content")


def test_other_values_in_as_many_rows_are_seen(database: Path, vault: FolderVault) -> None:
    """Live and between two states; a table with other columns is not guessed at."""
    db = sqlite3.connect(database)
    db.execute("CREATE TABLE metrics (key TEXT, value REAL)")
    db.executemany("INSERT INTO metrics VALUES (?, ?)", [(f"m{n}", n) for n in range(9)])
    db.execute("CREATE TABLE untouched (x)")
    db.execute("INSERT INTO untouched VALUES (1)")
    db.commit()
    state = take(database, vault)
    db.execute("UPDATE metrics SET value = 0 WHERE value > 5")
    db.execute("ALTER TABLE untouched ADD COLUMN y")
    db.commit()
    db.close()
    before = listing(database.parent)
    live = SqliteResource.from_state(state).difference(state, vault)
    assert listing(database.parent) == before
    assert live is not None
    assert live.tables == (TableChange("modified", "metrics", 9, 9, 3),)
    assert live.detail == ""
    assert describe_change(state, take(database, vault), vault) == live
    assert list(Path(vault.scratch).iterdir()) == []


def test_a_large_database_is_told_by_its_counts(
    database: Path, vault: FolderVault, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And one whose rows cannot be compared in time: what is counted is said all the same."""
    state = take(database, vault)
    db = sqlite3.connect(database)
    db.execute("UPDATE runs SET id = id + 1000")
    db.commit()
    db.close()
    resource = SqliteResource.from_state(state)
    full = resource.difference(state, vault)
    assert full is not None
    assert [(t.name, t.rewritten) for t in full.tables] == [("runs", 300)]
    monkeypatch.setattr(comparing, "MOST_BYTES", 1)
    small = resource.difference(state, vault)
    assert small is not None
    assert (small.tables, small.detail) == ((), "other content, same tables and row counts")


def test_names_of_tables_never_reach_the_terminal_raw(database: Path, vault: FolderVault) -> None:
    """A table called by a control sequence is shown escaped; odd quoting is counted."""
    state = take(database, vault)
    db = sqlite3.connect(database)
    db.execute('CREATE TABLE "\x1b[31m" (x)')
    db.execute('CREATE TABLE "a""b; DROP TABLE runs" (x)')
    db.commit()
    db.close()
    after = take(database, vault)
    assert after.data["facts"]["tables"]['a"b; DROP TABLE runs'] == 0
    (step,) = SqliteResource.from_state(state).plan(state, vault)
    assert step.action == "database"
    assert "\x1b" not in step.detail


def test_rehearsal(database: Path, vault: FolderVault) -> None:
    """A drill counts what it put into scratch, and leaves nothing there."""
    state = take(database, vault)
    rehearsal = SqliteResource.from_state(state).rehearse(state, vault)
    assert (rehearsal.files, rehearsal.bytes) == (1, database.stat().st_size)
    assert rehearsal.elapsed_s > 0
    assert list(Path(vault.scratch).iterdir()) == []


def test_rehearsal_finds_another_content(database: Path, vault: FolderVault) -> None:
    """A vault that gives other bytes than it was given does not pass."""
    state = take(database, vault)
    other = vault.put(database.read_bytes()[:-1] + b"z")
    spoilt = replace(state, data={**state.data, "blob": other})
    with pytest.raises(DrillFailed, match="differs"):
        SqliteResource.from_state(spoilt).rehearse(spoilt, vault)


def test_a_damaged_blob_changes_nothing(database: Path, vault: FolderVault) -> None:
    """Damage in the store shows before the live database is touched."""
    state = take(database, vault)
    change(database)
    before = listing(database.parent)
    blob = vault.folder / state.data["blob"]
    blob.write_bytes(blob.read_bytes()[:-1] + b"z")
    with pytest.raises(StoreCorrupt):
        SqliteResource.from_state(state).restore(state, vault)
    assert listing(database.parent) == before


def test_a_state_of_another_kind_is_refused(database: Path, vault: FolderVault) -> None:
    """A record that cannot be read is damage, not a crash."""
    state = take(database, vault)
    for data in ({}, {**state.data, "mode": "?"}, {**state.data, "image": 3}):
        with pytest.raises(StoreCorrupt):
            SqliteResource.from_state(replace(state, data=data))


def test_verify_says_what_differs(database: Path, vault: FolderVault) -> None:
    """Verification reads again, even where the times pretend that nothing changed."""
    state = take(database, vault)
    info = database.stat()
    content = database.read_bytes()
    database.write_bytes(content[:-1] + b"z")
    os.utime(database, ns=(info.st_mtime_ns, info.st_mtime_ns))
    with pytest.raises(RestoreIncomplete, match=r"mlflow\.db is not what the snapshot holds"):
        SqliteResource.from_state(state).verify(state, vault)


def test_magic() -> None:
    """A database is known by its first bytes."""
    assert is_sqlite(b"SQLite format 3\0and more")
    assert not is_sqlite(b"SQLite format 3")
    assert not is_sqlite(b"")
