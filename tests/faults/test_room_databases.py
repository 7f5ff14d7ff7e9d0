"""Databases that the store has no room for: they are named, and stop nothing else."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from driving import Project, scratch_project
from manifest import assert_back, manifest
from rollback.model import Skip, Snapshot
from small_disk import mounted

_MIB = 1 << 20


def _grow(path: Path, mib: int, *, journal: str = "delete") -> None:
    """Add so many MiB of rows that are like no others."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute(f"PRAGMA journal_mode = {journal}")
        db.execute("CREATE TABLE IF NOT EXISTS runs (id INTEGER PRIMARY KEY, note BLOB)")
        db.execute("BEGIN")
        db.executemany(
            "INSERT INTO runs (note) VALUES (?)", ((os.urandom(2_000),) for _ in range(mib * 500))
        )
        db.execute("COMMIT")
    time.sleep(0.03)


def _spoil(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("DELETE FROM runs WHERE id % 2 = 0")
        db.commit()
    time.sleep(0.03)


@contextlib.contextmanager
def _in_use(path: Path) -> Iterator[None]:
    """Keep a database open as a server does, with something in its log."""
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA journal_mode = wal")
        db.execute("INSERT INTO runs (note) VALUES ('in the log')")
        db.commit()
        yield


def _unkept(taken: Snapshot) -> list[Skip]:
    return [skip for skip in taken.skipped if "not enough space" in skip.why]


def _is_sound(project: Project) -> None:
    with project.engine() as engine:
        found = engine.verify(repair=False)
    assert found.ok, found


@pytest.fixture
def project() -> Iterator[Project]:
    """Return a project with a small file and a database of 6 MiB; the quota is 3 MB."""
    with scratch_project() as made:
        made.max_store_bytes = 3_000_000
        (made.root / "train.py").write_text("print('ok')\n")
        _grow(made.root / "mlflow.db", 6)
        yield made


@pytest.mark.parametrize("journal", ["delete", "wal"])
def test_one_larger_than_the_quota_is_named(project: Project, journal: str) -> None:
    """All else is kept and comes back; it is left alone, and named once it is another."""
    path = project.root / "mlflow.db"
    _grow(path, 1, journal=journal)
    before = manifest(project.root)
    taken = project.snapshot().snapshot
    (said,) = _unkept(taken)
    assert said.what == str(path)
    assert "bytes are missing" in said.why
    assert "max_store" in said.fix
    assert project.rollback(taken).skipped == ()
    with project.engine() as engine:
        assert engine.drill(taken, mode="full").passed
        assert engine.diff(taken, None).changes == ()
    (project.root / "train.py").write_text("spoilt")
    _spoil(path)
    spoilt = manifest(project.root)
    with project.engine() as engine:
        changed = {change.path: change.detail for change in engine.diff(taken, None).changes}
    assert changed == {"train.py": "", "mlflow.db": "its content was not kept"}
    outcome = project.rollback(taken)
    assert [skip.what for skip in outcome.skipped] == [str(path)]
    after = manifest(project.root)
    assert after[b"mlflow.db"] == spoilt[b"mlflow.db"]
    assert after[b"train.py"] == before[b"train.py"]
    assert project.undo().skipped == ()
    assert_back(spoilt, manifest(project.root))
    _is_sound(project)


def test_one_that_is_all_there_is_stops_no_snapshot(project: Project) -> None:
    """The command is run, loudly: with nothing else in the project, too."""
    (project.root / "train.py").unlink()
    taken = project.snapshot().snapshot
    assert len(_unkept(taken)) == 1
    (project.root / "mlflow.db").unlink()
    outcome = project.rollback(taken)
    assert [skip.what for skip in outcome.skipped] == [str(project.root / "mlflow.db")]


def test_what_takes_the_place_of_one_that_was_not_kept_stays(project: Project) -> None:
    """Nothing could be put in its place, so nothing there goes."""
    path = project.root / "mlflow.db"
    taken = project.snapshot().snapshot
    path.write_text("no database")
    outcome = project.rollback(taken)
    assert path.read_text() == "no database"
    assert [skip.what for skip in outcome.skipped] == [str(path)]


def test_one_of_which_little_has_changed_is_kept(project: Project) -> None:
    """What counts is what is new in it."""
    path = project.root / "mlflow.db"
    project.max_store_bytes = 10 * _MIB
    project.snapshot()
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("UPDATE runs SET note = 'x' WHERE id < 10")
        db.commit()
    time.sleep(0.03)
    before = manifest(project.root)
    taken = project.snapshot().snapshot
    assert not _unkept(taken)
    _spoil(path)
    project.rollback(taken)
    assert_back(before, manifest(project.root))


def test_one_that_outgrows_its_room_while_it_is_kept_leaves_nothing(project: Project) -> None:
    """It was to be kept because little of it seemed new; all of it is. Others are kept."""
    path, small = project.root / "mlflow.db", project.root / "small.db"
    project.max_store_bytes = 11 * _MIB
    _grow(small, 1)
    taken = project.snapshot().snapshot
    assert not _unkept(taken)
    path.unlink()
    _grow(path, 6)
    _grow(small, 1)
    used = _used(project)
    taken = project.snapshot().snapshot
    assert [skip.what for skip in _unkept(taken)] == [str(path)]
    assert _used(project) < used + 2 * _MIB
    _is_sound(project)
    before = manifest(project.root)
    _spoil(small)
    assert project.rollback(taken).skipped == ()
    assert_back(before, manifest(project.root))


def _used(project: Project) -> int:
    return sum(path.stat().st_size for path in (project.store / "packs").iterdir())


def test_old_snapshots_go_for_one(project: Project) -> None:
    """As for a file; and none go for one that would not fit even then."""
    path = project.root / "mlflow.db"
    project.max_store_bytes = 11 * _MIB
    other = project.root / "other.db"
    _grow(other, 4)
    project.snapshot()
    other.unlink()
    project.snapshot()
    _grow(path, 3)
    report = project.snapshot()
    assert report.removed
    assert not _unkept(report.snapshot)
    _grow(path, 12)
    report = project.snapshot()
    assert not report.removed
    assert len(_unkept(report.snapshot)) == 1
    _is_sound(project)


@pytest.mark.parametrize("live", [False, True])
def test_one_larger_than_the_stores_disk_is_named(tmp_path: Path, *, live: bool) -> None:
    """Also where a reading needs a copy of it in scratch."""
    with mounted(tmp_path / "disk", 20) as disk, scratch_project() as project:
        project.store = disk / "store"
        path = project.root / "mlflow.db"
        (project.root / "train.py").write_text("print('ok')\n")
        _grow(path, 12 if live else 30)
        with _in_use(path) if live else contextlib.nullcontext():
            taken = project.snapshot().snapshot
            assert [skip.what for skip in _unkept(taken)] == [str(path)]
            fs = os.statvfs(disk)
            assert fs.f_bavail * fs.f_frsize > 10 * _MIB
        (project.root / "train.py").unlink()
        project.rollback(taken)
        assert (project.root / "train.py").exists()
        _is_sound(project)


def test_one_that_an_undo_could_not_hold_stays(tmp_path: Path) -> None:
    """What a rollback would replace does not fit into the store: the rest is put back."""
    with mounted(tmp_path / "disk", 30) as disk, scratch_project() as project:
        project.store = disk / "store"
        path, new = project.root / "mlflow.db", project.root / "new"
        (project.root / "train.py").write_text("print('ok')\n")
        _grow(path, 1)
        taken = project.snapshot().snapshot
        _grow(path, 40)
        new.mkdir()
        _grow(new / "new.db", 40)
        (project.root / "train.py").write_text("spoilt")
        spoilt = manifest(project.root)
        outcome = project.rollback(taken)
        assert {skip.what for skip in outcome.skipped} == {str(path), str(new / "new.db")}
        assert all("an undo could not bring it back" in skip.why for skip in outcome.skipped)
        after = manifest(project.root)
        assert after[b"mlflow.db"] == spoilt[b"mlflow.db"]
        assert after[b"new/new.db"] == spoilt[b"new/new.db"]
        assert (project.root / "train.py").read_text() == "print('ok')\n"
        assert project.undo().skipped == ()
        assert_back(spoilt, manifest(project.root))
        _is_sound(project)


def test_a_file_is_not_put_over_one_that_an_undo_could_not_hold(tmp_path: Path) -> None:
    """Its place is needed, and it stays in it."""
    with mounted(tmp_path / "disk", 30) as disk, scratch_project() as project:
        project.store = disk / "store"
        path = project.root / "result"
        path.write_text("a file")
        taken = project.snapshot().snapshot
        path.unlink()
        _grow(path, 40)
        spoilt = manifest(project.root)
        outcome = project.rollback(taken)
        assert [skip.what for skip in outcome.skipped] == [str(path)]
        assert manifest(project.root)[b"result"] == spoilt[b"result"]


def test_a_small_one_fits_beside_a_large_catalog(tmp_path: Path) -> None:
    """What a few pages change in the catalog is little, however large that is."""
    with mounted(tmp_path / "disk", 30) as disk, scratch_project() as project:
        project.store = disk / "store"
        for number in range(15_000):
            (project.root / f"f{number}").write_text(str(number))
        path = project.root / "mlflow.db"
        with contextlib.closing(sqlite3.connect(path)) as db:
            db.execute("CREATE TABLE runs (id INTEGER PRIMARY KEY, note BLOB)")
        time.sleep(0.03)
        before = manifest(project.root)
        taken = project.snapshot().snapshot
        with contextlib.closing(sqlite3.connect(path)) as db:
            db.execute("INSERT INTO runs (note) VALUES (?)", (os.urandom(40_000),))
            db.commit()
        fs = os.statvfs(disk)
        left = (project.store / "catalog.db").stat().st_size // 2
        (disk / "filler").write_bytes(bytes(fs.f_bavail * fs.f_frsize - left))
        assert project.rollback(taken).skipped == ()
        assert_back(before, manifest(project.root))
