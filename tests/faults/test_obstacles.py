"""What stands in the way of a rollback stops that path and nothing else, and never for good."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import socket
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from database_processes import serving
from driving import Project
from manifest import assert_back, manifest
from rollback.applying import Application
from rollback.atomic import LiveWriter
from rollback.engine import Engine
from rollback.errors import RestoreIncomplete, RollbackError
from rollback.inventory import EngineSettings
from rollback.model import Entry
from rollback.reports import RestoreOutcome, Selection
from rollback.store.catalog import Catalog


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A project with files and folders."""
    made = Project(tmp_path.resolve())
    (made.root / "a/b").mkdir(parents=True)
    (made.root / "a/b/c").write_text("c")
    (made.root / "a/b/d").write_text("d")
    (made.root / "x").write_text("x")
    (made.root / "z").write_text("z")
    return made


@pytest.fixture
def _dead(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let operations of this process pass for those of one that has ended."""
    monkeypatch.setattr("rollback.store.store.is_alive", lambda _owner: False)


def _only(*paths: Path) -> Selection:
    return Selection(tuple(os.fsencode(path) for path in paths))


def _named(outcome: RestoreOutcome) -> list[str]:
    return [skip.what for skip in outcome.skipped]


def _stand_at(monkeypatch: pytest.MonkeyPatch, wanted: bytes) -> None:
    """Let every attempt to put one file in its place fail."""
    replace = LiveWriter.replace

    def refuse(self: LiveWriter, path: bytes, staged: bytes, kept: Entry | None) -> None:
        if path == wanted:
            raise OSError(errno.EPERM, os.strerror(errno.EPERM), self.root + b"/" + path)
        replace(self, path, staged, kept)

    monkeypatch.setattr(LiveWriter, "replace", refuse)


@pytest.mark.usefixtures("_dead")
def test_an_obstacle_that_stays_is_named_and_ends_with_the_next_command(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Everything else is put back, the operation ends, and guard works again."""
    taken = project.snapshot().snapshot
    (project.root / "x").write_text("changed")
    (project.root / "z").write_text("changed")
    (project.root / "new").write_text("new")
    spoilt = manifest(project.root)
    with monkeypatch.context() as patch:
        _stand_at(patch, b"x")
        with pytest.raises(RestoreIncomplete, match=str(project.root / "x")):
            project.rollback(taken)
        with project.engine() as engine:
            told = engine.recover()
            assert engine.status().unfinished == ()
            again = engine.restore(engine.plan(taken, Selection()))
        assert any(str(project.root / "x") in line for line in told)
        assert _named(again) == [str(project.root / "x")]
    assert (project.root / "x").read_text() == "changed"
    assert (project.root / "z").read_text() == "z"
    assert not (project.root / "new").exists()
    assert project.recover() == []
    project.snapshot()
    project.undo()
    assert_back(spoilt, manifest(project.root))


@pytest.mark.usefixtures("_dead")
def test_what_the_store_lost_meanwhile_does_not_keep_a_rollback_open(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is named, all else is put back, and guard goes on working."""
    folder = project.root / "models"
    folder.mkdir()
    for place in (project.root / "big", folder / "big", folder / "card"):
        place.write_bytes(os.urandom(2 << 20))
    taken = project.snapshot().snapshot
    lost = [project.root / "big", folder / "big"]
    card = (folder / "card").read_bytes()
    blobs = [hashlib.sha256(place.read_bytes()).hexdigest() for place in lost]
    lost[0].write_text("changed")
    shutil.rmtree(folder)
    (project.root / "x").write_text("changed")
    with monkeypatch.context() as patch:
        _fail_first(patch)
        with pytest.raises(RestoreIncomplete):
            project.rollback(taken)
    for blob in blobs:
        (project.store / "loose" / blob[:2] / blob).unlink()
    told = project.recover()
    for place in lost:
        assert any(f"not put back: {place}: " in line for line in told)
    assert (project.root / "x").read_text() == "x"
    assert (folder / "card").read_bytes() == card
    assert project.recover() == []
    project.snapshot()


def _fail_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a rollback stop before its first change."""

    def refuse(_: Application) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(Application, "run", refuse)


@pytest.mark.usefixtures("_dead")
def test_what_goes_on_being_written_is_named_at_the_next_command(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that writes all the time may not keep guard from ending the rollback."""
    taken = project.snapshot().snapshot
    (project.root / "z").write_text("changed")
    replace = LiveWriter.replace

    def write_on(self: LiveWriter, path: bytes, staged: bytes, kept: Entry | None) -> None:
        replace(self, path, staged, kept)
        (project.root / path.decode()).write_text(f"line {os.urandom(4).hex()}")

    monkeypatch.setattr(LiveWriter, "replace", write_on)
    with pytest.raises(RestoreIncomplete, match="differs"):
        project.rollback(taken)
    told = project.recover()
    assert any(str(project.root / "z") in line for line in told)
    assert project.recover() == []
    project.snapshot()


def _node_modules(folder: Path) -> None:
    (folder / "node_modules").mkdir(parents=True)
    (folder / "node_modules/f").write_text("left out")


def _socket(folder: Path) -> None:
    folder.mkdir()
    here = Path.cwd()
    os.chdir(folder)
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind("s")
    finally:
        os.chdir(here)


def _deep(folder: Path) -> None:
    _node_modules(folder / "y/w")
    (folder / "y/kept").write_text("kept in the undo")


@pytest.mark.parametrize("fill", [_node_modules, _socket, _deep])
def test_what_is_left_in_a_folder_whose_place_is_needed_moves_aside(
    project: Project, fill: object
) -> None:
    """Snapshots leave it out, so it is kept by its name and told."""
    before = manifest(project.root)
    taken = project.snapshot().snapshot
    (project.root / "x").unlink()
    assert callable(fill)
    fill(project.root / "x")
    outcome = project.rollback(taken)
    assert_back(before, manifest(project.root))
    assert outcome.skipped == ()
    (line,) = outcome.kept_aside
    shown, _, place = line.partition(" → ")
    assert shown == str(project.root / "x")
    assert os.listdir(place)
    project.undo()
    assert (project.root / "x").is_dir()
    project.redo()
    assert_back(before, manifest(project.root))


def test_what_is_left_where_a_database_was_moves_aside(project: Project) -> None:
    """The database comes back; what stood there is told."""
    path = project.root / "m.db"
    with closing(sqlite3.connect(path)) as made, made:
        made.execute("CREATE TABLE t (a)")
    made.close()
    before = manifest(project.root)
    taken = project.snapshot().snapshot
    path.unlink()
    _node_modules(path)
    outcome = project.rollback(taken)
    assert_back(before, manifest(project.root))
    assert len(outcome.kept_aside) == 1


def test_a_database_of_another_page_size_stays_while_a_server_has_its_log(
    project: Project,
) -> None:
    """All else is put back; the command that is named puts the database back once it is free."""
    path = project.root / "a/m.db"
    _rows(path, 1024, 300)
    before = manifest(project.root)
    taken = project.snapshot().snapshot
    (project.root / "x").write_text("spoilt")
    path.unlink()
    _rows(path, 4096, 7)
    spoilt = path.read_bytes()
    with serving(path) as server:
        outcome = project.rollback(taken)
        (named,) = outcome.skipped
        assert (named.what, named.why.split(" (")[0]) == (str(path), f"pid {server.pid}")
        assert named.fix.startswith(f"stop pid {server.pid} (")
        assert named.fix.endswith(f", then: guard rollback --to {taken.seq} {path}")
        assert server.run("SELECT count(*) FROM runs") == "[(7,)]"
    assert (project.root / "x").read_text() == "x"
    left = manifest(project.root)
    assert project.rollback(taken, _only(path)).skipped == ()
    assert_back(before, manifest(project.root))
    project.undo()
    assert_back(left, manifest(project.root))
    project.undo()
    assert (project.root / "x").read_text() == "spoilt"
    assert path.read_bytes() == spoilt


def _rows(path: Path, page_size: int, rows: int) -> None:
    db = sqlite3.connect(path, isolation_level=None)
    db.execute(f"PRAGMA page_size = {page_size}")
    db.execute("PRAGMA journal_mode = wal")
    db.execute("CREATE TABLE runs (id INTEGER PRIMARY KEY, note BLOB)")
    db.executemany("INSERT INTO runs (note) VALUES (?)", [(b"x" * 100,)] * rows)
    db.close()


def test_roots_in_a_folder_that_is_gone_are_made_after_it(tmp_path: Path) -> None:
    """The repository lies in the project's tree; both are gone, and the first try succeeds."""
    project = Project(tmp_path.resolve())
    made = project.root / "envs/py"
    (made / "bin").mkdir(parents=True)
    (made / "bin/python").symlink_to("/usr/bin/python3")
    (made / "pyvenv.cfg").write_text("home = /usr/bin\nversion = 3.11.0\n")
    (made / "lib/python3.11/site-packages").mkdir(parents=True)
    (project.root / "envs/notes").write_text("notes")
    environ = {"HOME": str(project.base), "PATH": "/usr/bin", "VIRTUAL_ENV": str(made)}
    before = manifest(project.root)
    with Engine(EngineSettings(project.root, store=project.store, environ=environ)) as engine:
        operation = engine.begin("snapshot", {})
        taken = engine.snapshot(operation, kind="manual", label="").snapshot
        engine.finish(operation, "done", {})
    assert any(state.location == str(made) for state in taken.states)
    shutil.rmtree(project.root / "envs")
    spoilt = manifest(project.root)
    project.rollback(taken)
    assert_back(before, manifest(project.root))
    project.undo()
    assert_back(spoilt, manifest(project.root))


@pytest.mark.usefixtures("_dead")
def test_a_catalog_that_fails_ends_a_rollback_with_an_error_that_says_so(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing was changed, the store is free, and the next command ends what was begun."""
    taken = project.snapshot().snapshot
    (project.root / "x").write_text("changed")
    spoilt = manifest(project.root)

    def fail(*_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO), "catalog.db")

    with project.engine() as engine:
        plan = engine.plan(taken, Selection())
        with monkeypatch.context() as patch:
            patch.setattr(Application, "run", pytest.fail)
            patch.setattr("rollback.restore.Restorer._prove_catalog", fail)
            patch.setattr(Catalog, "operation", fail)
            with pytest.raises(RollbackError, match="nothing was changed"):
                engine.restore(plan)
        assert engine.store.lock.depth == 0
    assert_back(spoilt, manifest(project.root))
    told = project.recover()
    assert any("nothing of it was kept" in line for line in told), told
    project.rollback(taken)
    assert (project.root / "x").read_text() == "x"
