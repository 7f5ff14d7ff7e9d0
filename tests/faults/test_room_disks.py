"""Store and project on two disks: what is written counts where it is written."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from pathlib import Path

import pytest

from driving import Project, scratch_project
from manifest import assert_back, manifest
from rollback.errors import NoSpace
from small_disk import mounted

_MIB = 1 << 20


def _build(project: Project) -> None:
    """Make small files, a large one, and a database, of some MiB each."""
    (project.root / "models").mkdir()
    for number in range(200):
        (project.root / "models" / f"m{number}").write_bytes(os.urandom(20_000))
    (project.root / "best.ckpt").write_bytes(os.urandom(5 * _MIB))
    with contextlib.closing(sqlite3.connect(project.root / "mlflow.db")) as db:
        db.execute("CREATE TABLE runs (note BLOB)")
        db.executemany("INSERT INTO runs VALUES (?)", ((os.urandom(2_000),) for _ in range(2_000)))
        db.commit()
    time.sleep(0.03)


def _remove(project: Project, part: str) -> None:
    for path in (project.root / "models").iterdir() if part == "models" else [project.root / part]:
        path.unlink()


def _fill(disk: Path, left: int) -> None:
    fs = os.statvfs(disk)
    (disk / "filler").write_bytes(bytes(fs.f_bavail * fs.f_frsize - left))


@pytest.mark.parametrize("part", ["models", "best.ckpt", "mlflow.db"])
def test_the_stores_disk_is_full(tmp_path: Path, part: str) -> None:
    """Nothing has to be written there: all is back."""
    with mounted(tmp_path / "disk", 40) as disk, scratch_project() as project:
        project.store = disk / "store"
        _build(project)
        before = manifest(project.root)
        taken = project.snapshot().snapshot
        _remove(project, part)
        _fill(disk, 300_000)
        assert project.rollback(taken).skipped == ()
        assert_back(before, manifest(project.root))


@pytest.mark.parametrize("part", ["models", "best.ckpt", "mlflow.db"])
def test_the_projects_disk_is_full(tmp_path: Path, part: str) -> None:
    """It is said beforehand how much is missing there; then there is room, and all is back."""
    with mounted(tmp_path / "disk", 40) as disk, scratch_project() as elsewhere:
        project = Project(disk)
        project.store = elsewhere.store
        _build(project)
        before = manifest(project.root)
        taken = project.snapshot().snapshot
        _remove(project, part)
        spoilt = manifest(project.root)
        _fill(disk, 300_000)
        with pytest.raises(NoSpace, match=str(project.root)) as refused:
            project.rollback(taken)
        assert refused.value.missing_bytes > 3 * _MIB
        assert_back(spoilt, manifest(project.root))
        (disk / "filler").unlink()
        assert project.rollback(taken).skipped == ()
        assert_back(before, manifest(project.root))
