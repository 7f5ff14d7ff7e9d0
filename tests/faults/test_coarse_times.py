"""A file system that keeps whole seconds: what is written twice in one is no file unchanged."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from driving import Project
from rollback.resources.sqlite.files import is_settled, settles_in
from rollback.times import coarse_ns


@pytest.fixture
def coarse(tmp_path: Path) -> Iterator[Project]:
    """A project on an ext4 whose inodes have no room for nanoseconds, mounted."""
    mkfs = shutil.which("mkfs.ext4", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if mkfs is None or os.geteuid() != 0:
        pytest.skip("needs root and mkfs.ext4 (package e2fsprogs)")
    image, place = tmp_path / "ext4.img", tmp_path / "ext4"
    place.mkdir()
    with image.open("wb") as file:
        file.truncate(64 << 20)
    subprocess.run([mkfs, "-q", "-I", "128", image], check=True, capture_output=True)
    done = subprocess.run(["mount", "-o", "loop", image, place], check=False, capture_output=True)
    if done.returncode:
        pytest.skip(f"no loop device may be mounted here: {done.stderr.decode().strip()}")
    yield Project(place)
    subprocess.run(["umount", place], check=True)


def _early_in_a_second() -> None:
    time.sleep(1.0 - time.time() % 1)


def _write_file(root: Path, value: int) -> None:
    (root / "epoch.ckpt").write_text(str(value))


def _write_row(root: Path, value: int) -> None:
    with contextlib.closing(sqlite3.connect(root / "runs.db")) as db:
        db.execute("CREATE TABLE IF NOT EXISTS t (a)")
        db.execute("INSERT INTO t SELECT 0 WHERE NOT EXISTS (SELECT * FROM t)")
        db.execute("UPDATE t SET a = ?", (value,))
        db.commit()


def _read(root: Path) -> str:
    if (root / "epoch.ckpt").exists():
        return (root / "epoch.ckpt").read_text()
    with contextlib.closing(sqlite3.connect(root / "runs.db")) as db:
        return str(db.execute("SELECT a FROM t").fetchone()[0])


@pytest.mark.parametrize("write", [_write_file, _write_row])
def test_what_changes_in_the_second_of_its_snapshot_comes_back(
    coarse: Project, write: Callable[[Path, int], None]
) -> None:
    """As large as before, and as old: its times tell nothing, so it is read."""
    write(coarse.root, 1000)
    coarse.snapshot()
    for _ in range(3):
        _early_in_a_second()
        write(coarse.root, 2000)
        time.sleep(0.05)
        taken = coarse.snapshot().snapshot
        write(coarse.root, 3000)
        coarse.rollback(taken)
        assert _read(coarse.root) == "2000"


def test_whole_seconds_are_waited_for() -> None:
    """Two of them; a time with nanoseconds is one of a finer clock."""
    now = time.time_ns()
    second = now - now % 1_000_000_000
    assert coarse_ns(second) == 2_000_000_000
    assert coarse_ns(second + 1) == 0
    assert not is_settled({"": [1, second, second, 7]})
    assert 0 < settles_in({"": [1, second, second, 7]}) <= 2.02
    long_ago = second - 3_000_000_000
    assert is_settled({"": [1, long_ago, long_ago, 7]})
    assert is_settled({"": [1, long_ago, now - 30_000_000, 7]})
    assert is_settled({"": [1, long_ago, long_ago, 7], "-wal": [0, now - 30_000_001, 0, 8]})
