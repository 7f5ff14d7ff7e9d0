"""A database beside which something else has the name of a side file, or cannot be read."""

from __future__ import annotations

import os
import shutil
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from driving import Project, scratch_project
from manifest import assert_back, manifest
from unprivileged import IS_ROOT, as_nobody, give_away

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
        return {change.detail for change in engine.diff(engine.snapshots()[0], None).changes}


def _roll_back(project: Project) -> str:
    with project.engine() as engine:
        [snapshot] = engine.snapshots()
    [skip] = project.rollback(snapshot).skipped
    return f"{skip.what}: {skip.why}"
