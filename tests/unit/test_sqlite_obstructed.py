"""A database beside which something else has the name of a side file, or cannot be read."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from database_processes import crash
from driving import Project, scratch_project
from manifest import Entry, assert_back, manifest
from rollback import failpoints
from rollback.errors import RestoreIncomplete
from rollback.model import Snapshot
from rollback.reports import Selection
from rollback.resources.sqlite import SqliteResource
from unprivileged import IS_ROOT, as_nobody, give_away
from vault import FolderVault

SIDES = ("-wal", "-journal", "-shm")


def _fifo(path: Path) -> None:
    os.mkfifo(path)


def _folder(path: Path) -> None:
    path.mkdir()
    (path / "in").write_text("kept")


def _link(path: Path) -> None:
    path.symlink_to("nowhere")


OBSTACLES = (_fifo, _folder, _link)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """Return a project with a database in WAL mode, at rest."""
    made = Project(tmp_path.resolve())
    _write(made)
    time.sleep(0.03)
    return made


def _write(project: Project) -> None:
    db = sqlite3.connect(project.root / "runs.db", timeout=0)
    db.execute("CREATE TABLE IF NOT EXISTS runs (note)")
    db.execute("INSERT INTO runs VALUES ('a run')")
    db.commit()
    db.close()


def _side(project: Project, suffix: str) -> Path:
    return project.root / f"runs.db{suffix}"


@pytest.mark.parametrize("suffix", SIDES)
@pytest.mark.parametrize("plant", OBSTACLES)
@pytest.mark.timeout(20)
def test_it_is_kept_and_comes_back_beside_the_database(
    project: Project, plant: Callable[[Path], None], suffix: str
) -> None:
    """Nobody waits at a FIFO; what lies there is an entry of the project like any other."""
    plant(_side(project, suffix))
    time.sleep(0.03)
    built = manifest(project.root)
    taken = project.snapshot().snapshot
    side = _side(project, suffix)
    shutil.rmtree(side) if side.is_dir() else side.unlink()
    _write(project)
    project.rollback(taken)
    assert_back(built, manifest(project.root))


@pytest.mark.parametrize("changed", [False, True])
@pytest.mark.parametrize("suffix", SIDES)
@pytest.mark.parametrize("plant", OBSTACLES)
@pytest.mark.timeout(20)
def test_what_a_run_left_there_goes_and_the_undo_has_it(
    project: Project, plant: Callable[[Path], None], suffix: str, *, changed: bool
) -> None:
    """Whether the database changed with it or not."""
    built = manifest(project.root)
    taken = project.snapshot().snapshot
    if changed:
        _write(project)
    plant(_side(project, suffix))
    time.sleep(0.03)
    left = manifest(project.root)
    project.rollback(taken)
    assert_back(built, manifest(project.root))
    project.undo()
    assert_back(left, manifest(project.root))


def _inside(project: Project) -> dict[bytes, Entry]:
    """Return the manifest of all that is in the project's folder."""
    return {path: entry for path, entry in manifest(project.root).items() if path != b"."}


def _crashed(path: Path) -> None:
    """Leave a database behind whose last commit lies in its log."""
    wal = ("PRAGMA journal_mode = WAL", "PRAGMA wal_autocheckpoint = 0")
    crash(path, *wal, "CREATE TABLE runs (note)", "INSERT INTO runs VALUES ('a run')")
    time.sleep(0.03)


@pytest.mark.parametrize("plant", OBSTACLES)
@pytest.mark.timeout(20)
def test_a_part_does_not_take_the_place_of_what_it_leaves_alone(
    tmp_path: Path, plant: Callable[[Path], None]
) -> None:
    """What was not asked for would go without an undo; all of it comes back when asked for."""
    project = Project(tmp_path.resolve())
    _crashed(project.root / "runs.db")
    built = manifest(project.root)
    taken = project.snapshot().snapshot
    for path in project.root.iterdir():
        path.unlink()
    _write(project)
    plant(_side(project, "-wal"))
    time.sleep(0.03)
    left = manifest(project.root)
    database = os.fsencode(project.root / "runs.db")
    [skip] = project.rollback(taken, Selection((database,))).skipped
    assert f"{skip.what}-wal is no file" in skip.why
    assert skip.fix == f"move that away, then: guard rollback --to {taken.seq} {skip.what}"
    assert_back(left, manifest(project.root))
    sides = (database + os.fsencode(suffix) for suffix in SIDES)
    project.rollback(taken, Selection((database, *sides)))
    assert _inside(project) == {path: built[path] for path in built if path != b"."}
    project.undo()
    assert_back(left, manifest(project.root))


@pytest.mark.parametrize("place", ["restore.database", "sqlite.swap"])
@pytest.mark.parametrize("plant", OBSTACLES)
@pytest.mark.timeout(20)
def test_a_live_database_keeps_its_log_until_it_is_replaced(
    tmp_path: Path, plant: Callable[[Path], None], place: str
) -> None:
    """Who opens it after a kill finds one state or the other, never one without its log."""
    project = Project(tmp_path.resolve())
    _write(project)
    plant(_side(project, "-wal"))
    time.sleep(0.03)
    built = manifest(project.root)
    taken = project.snapshot().snapshot
    side = _side(project, "-wal")
    shutil.rmtree(side) if side.is_dir() else side.unlink()
    (project.root / "runs.db").unlink()
    _crashed(project.root / "runs.db")
    _die(lambda: project.rollback(taken), f"{place}:kill")
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in project.root.glob("runs.db*"):
        if path.is_file() and not path.is_symlink():
            shutil.copy(path, copy)
    with contextlib.closing(sqlite3.connect(copy / "runs.db")) as db:
        assert db.execute("SELECT * FROM runs").fetchall() == [("a run",)]
    assert project.recover()
    assert_back(built, manifest(project.root))


def _die(work: Callable[[], object], armed: str) -> None:
    """Do something in a child that is killed on the way."""
    pid = os.fork()
    if pid == 0:
        failpoints._armed = failpoints._arm(armed)
        try:
            work()
        finally:
            os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL


@pytest.mark.parametrize("plant", OBSTACLES)
def test_what_comes_to_lie_there_at_the_last_moment_is_not_replaced(
    tmp_path: Path, plant: Callable[[Path], None]
) -> None:
    """Nobody has kept it."""
    path = tmp_path / "runs.db"
    _crashed(path)
    vault = FolderVault(tmp_path / "vault")
    resource = SqliteResource(path, name="runs.db")
    state, _ = resource.capture(vault, None)
    for suffix in ("", *SIDES):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    plant(tmp_path / "runs.db-wal")
    before = manifest(tmp_path)
    with pytest.raises(RestoreIncomplete, match="-wal is no file"):
        resource.restore(state, vault)
    assert manifest(tmp_path)[b"runs.db-wal"] == before[b"runs.db-wal"]


@pytest.mark.parametrize("part", [False, True])
def test_a_database_that_became_unreadable_stays_with_all_that_lies_beside_it(
    *, part: bool
) -> None:
    """It is no database to a walk then, and its log a file that no snapshot has."""
    with scratch_project() as theirs:
        if IS_ROOT:
            give_away([theirs.base, theirs.root])
        as_nobody(lambda: _build(theirs))
        as_nobody(lambda: _hide(theirs))
        left = manifest(theirs.root)
        chosen = Selection((os.fsencode(theirs.root / "runs.db"),)) if part else Selection()
        said = as_nobody(lambda: _roll_back(theirs, chosen))
        assert said.startswith(f"{theirs.root}/runs.db: what is there now cannot be read")
        now = manifest(theirs.root)
        assert {path: now[path] for path in now if b"runs" in path} == {
            path: left[path] for path in left if b"runs" in path
        }
        assert (theirs.root / "file").read_text() == ("spoilt" if part else "built")


def _hide(project: Project) -> None:
    (project.root / "file").write_text("spoilt")
    _write(project)
    _side(project, "-wal").write_bytes(b"x" * 4096)
    (project.root / "runs.db").chmod(0)


def test_what_is_not_put_back_beside_an_unreadable_one_is_named() -> None:
    """A rollback that leaves something out and says nothing of it would be no rollback."""
    with scratch_project() as theirs:
        if IS_ROOT:
            give_away([theirs.base, theirs.root])
        as_nobody(lambda: _write(theirs))
        as_nobody(lambda: _link(_side(theirs, "-journal")))
        as_nobody(theirs.snapshot)
        as_nobody(lambda: _side(theirs, "-journal").unlink())
        as_nobody(lambda: _hide(theirs))
        said = as_nobody(lambda: _said(theirs))
        assert f"{theirs.root}/runs.db: what is there now cannot be read" in said
        assert f"{theirs.root}/runs.db-journal: it lies beside a database that stays" in said


def test_a_folder_is_not_moved_away_with_an_unreadable_database_in_it() -> None:
    """It stays, as is said of it, and so does the folder."""
    with scratch_project() as theirs:
        if IS_ROOT:
            give_away([theirs.base, theirs.root])
        as_nobody(lambda: _build(theirs))
        as_nobody(lambda: _cover(theirs))
        left = manifest(theirs.root)
        said = as_nobody(lambda: _said(theirs))
        assert f"{theirs.root}/file: it is a folder now" in said
        assert _inside(theirs) == {path: left[path] for path in left if path != b"."}


def _cover(project: Project) -> None:
    (project.root / "file").unlink()
    (project.root / "file").mkdir()
    shutil.copy(project.root / "runs.db", project.root / "file" / "new.db")
    (project.root / "file" / "new.db-wal").touch(mode=0)


@pytest.mark.parametrize("suffix", ["-wal", "-journal"])
def test_one_that_became_unreadable_stays_and_stops_nothing_else(suffix: str) -> None:
    """An undo could not hold it, so it stays and is named; `guard diff` says it too."""
    with scratch_project() as theirs:
        if IS_ROOT:
            give_away([theirs.base, theirs.root])
        as_nobody(lambda: _build(theirs))
        as_nobody(lambda: _shut(theirs, suffix))
        assert "it cannot be read now" in as_nobody(lambda: _details(theirs))
        said = as_nobody(lambda: _roll_back(theirs))
        assert said.startswith(f"{theirs.root}/runs.db: what is there now cannot be read")
        assert (theirs.root / "file").read_text() == "built"
        assert _side(theirs, suffix).stat().st_mode & 0o777 == 0


@pytest.mark.parametrize("suffix", ["-wal", "-journal"])
def test_a_new_one_that_cannot_be_read_is_not_removed(suffix: str) -> None:
    """Nothing goes that no undo brings back."""
    with scratch_project() as theirs:
        if IS_ROOT:
            give_away([theirs.base, theirs.root])
        as_nobody(theirs.snapshot)
        as_nobody(lambda: _write(theirs))
        as_nobody(lambda: _shut(theirs, suffix))
        said = as_nobody(lambda: _roll_back(theirs))
        assert said.startswith(f"{theirs.root}/runs.db: what is there now cannot be read")
        assert not (theirs.root / "file").exists()
        assert (theirs.root / "runs.db").exists()
        assert _side(theirs, suffix).exists()


@pytest.mark.parametrize("versions", [b"\1\2", b"\2\2"])
def test_looking_leaves_no_log_where_readers_alone_are_told_of_one(
    project: Project, versions: bytes
) -> None:
    """Of the two versions in a header SQLite opens a log for that of readers alone."""
    taken = project.snapshot().snapshot
    with (project.root / "runs.db").open("r+b") as file:
        os.pwrite(file.fileno(), versions, 18)
    time.sleep(0.03)
    left = manifest(project.root)
    with project.engine() as engine:
        assert engine.diff(taken, None).changes
    project.rollback(taken)
    project.undo()
    assert_back(left, manifest(project.root))


def _build(project: Project) -> None:
    _write(project)
    (project.root / "file").write_text("built")
    time.sleep(0.03)
    project.snapshot()


def _shut(project: Project, suffix: str) -> None:
    (project.root / "file").write_text("spoilt")
    _side(project, suffix).write_bytes(b"x" * 4096)
    _side(project, suffix).chmod(0)


def _details(project: Project) -> set[str]:
    with project.engine() as engine:
        return {change.detail for change in engine.diff(engine.snapshots()[-1], None).changes}


def _oldest(project: Project) -> Snapshot:
    with project.engine() as engine:
        return engine.snapshots()[-1]


def _said(project: Project, chosen: Selection | None = None) -> list[str]:
    skipped = project.rollback(_oldest(project), chosen).skipped
    return [f"{skip.what}: {skip.why}" for skip in skipped]


def _roll_back(project: Project, chosen: Selection | None = None) -> str:
    [said] = _said(project, chosen)
    return said


@pytest.mark.parametrize("part", [False, True])
def test_one_in_a_folder_that_was_shut_comes_back(*, part: bool) -> None:
    """The folder is opened for it; an undo shuts it again, also where the database alone came."""
    with scratch_project() as theirs:
        if IS_ROOT:
            give_away([theirs.base, theirs.root])
        as_nobody(lambda: _keep_in_folder(theirs))
        built = manifest(theirs.root)
        as_nobody(lambda: _shut_folder(theirs))
        left = manifest(theirs.root)
        assert "it cannot be read now" in as_nobody(lambda: _details(theirs))
        database = os.fsencode(theirs.root / "in" / "runs.db")
        chosen = Selection((database,)) if part else Selection()
        assert as_nobody(lambda: _said(theirs, chosen)) == "[]"
        assert manifest(theirs.root)[b"in/runs.db"] == built[b"in/runs.db"]
        as_nobody(theirs.undo)
        assert_back(left, manifest(theirs.root))
        as_nobody(theirs.redo)
        assert manifest(theirs.root)[b"in/runs.db"] == built[b"in/runs.db"]


def _keep_in_folder(project: Project) -> None:
    _write(project)
    (project.root / "in").mkdir()
    (project.root / "runs.db").rename(project.root / "in" / "runs.db")
    time.sleep(0.03)
    project.snapshot()


def _shut_folder(project: Project) -> None:
    (project.root / "in" / "runs.db").unlink()
    _write(project)
    (project.root / "runs.db").rename(project.root / "in" / "runs.db")
    (project.root / "in").chmod(0)
