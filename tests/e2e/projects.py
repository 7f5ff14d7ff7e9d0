"""Projects that the black-box tests spoil, made with real git and real SQLite."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
from pathlib import Path

WEIGHTS = bytes(range(256)) * 4096
"""One megabyte that stands for a trained model."""

SECRET = "canary-7f3a9c51-do-not-print"  # noqa: S105 - it is the canary that tests look for


def git(folder: Path, *arguments: str) -> str:
    """Run git in `folder` and return what it printed; a failure fails the test."""
    done = subprocess.run(
        ["git", *arguments], cwd=folder, check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, f"git {' '.join(arguments)}: {done.stderr}"
    return done.stdout


def assert_repository_whole(folder: Path) -> None:
    """Fail unless `git fsck` finds every object and every link between them."""
    done = subprocess.run(
        ["git", "fsck", "--full", "--no-dangling"],
        cwd=folder,
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "missing" not in done.stdout + done.stderr, done.stdout + done.stderr


def commit_all(folder: Path, message: str) -> None:
    """Commit everything that is not ignored."""
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "-m", message)


def make_small_project(folder: Path) -> None:
    """Make a repository with code, parameters, an ignored model and an ignored .env."""
    folder.mkdir(exist_ok=True)
    git(folder, "init", "-q")
    (folder / ".gitignore").write_text("models/\n*.db\n.env\n.venv/\nmlruns/\n")
    (folder / "train.py").write_text("print('training')\n")
    (folder / "params.yaml").write_text("lr: 0.1\n")
    commit_all(folder, "Start")
    (folder / "models").mkdir()
    (folder / "models" / "best.ckpt").write_bytes(WEIGHTS)
    write_env(folder)


def make_messy_project(folder: Path) -> None:
    """Make a repository in which HEAD, index and work tree differ, with all kinds of files.

    Times are set apart from now, so that a file that is merely written again is noticed.
    """
    make_small_project(folder)
    (folder / "src").mkdir()
    (folder / "src" / "model.py").write_text("LAYERS = 3\n")
    (folder / "src" / "data.py").write_text("ROWS = 10\n")
    commit_all(folder, "Add a model")
    git(folder, "branch", "experiment")
    git(folder, "tag", "-a", "v1", "-m", "first")
    for number in (1, 2):
        (folder / "src" / "data.py").write_text(f"ROWS = {number}000\n")
        git(folder, "stash", "-q", "-m", f"idea {number}")
    (folder / "src" / "model.py").write_text("LAYERS = 4  # staged\n")
    git(folder, "add", "src/model.py")
    (folder / "src" / "model.py").write_text("LAYERS = 5  # not staged\n")
    git(folder, "rm", "-q", "--cached", "src/data.py")
    _add_odd_files(folder)
    _add_notebook(folder)
    make_database(folder / "tracking.db", rows=50)
    _set_times(folder)


def write_env(folder: Path) -> None:
    """Write an .env of mode 0600 that holds the canary."""
    (folder / ".env").write_text(f"API_TOKEN={SECRET}\n")
    (folder / ".env").chmod(0o600)


def make_database(path: Path, *, rows: int, wal: bool = False) -> None:
    """Make an SQLite database with the table ``runs`` of `rows` rows."""
    database = sqlite3.connect(path)
    if wal:
        database.execute("PRAGMA journal_mode=WAL")
    with database:
        database.execute("CREATE TABLE runs (id INTEGER PRIMARY KEY, note TEXT)")
        database.executemany(
            "INSERT INTO runs VALUES (?, ?)", ((n, f"note {n}") for n in range(rows))
        )
    database.close()


def count_runs(path: Path) -> int:
    """Return the number of rows of ``runs``, read by a new connection."""
    database = sqlite3.connect(path)
    (count,) = database.execute("SELECT count(*) FROM runs").fetchone()
    database.close()
    return int(count)


def _add_odd_files(folder: Path) -> None:
    (folder / "empty" / "deeper").mkdir(parents=True)
    (folder / "scratch").mkdir(mode=0o750)
    (folder / "scratch" / "run.sh").write_text("#!/bin/sh\n")
    (folder / "scratch" / "run.sh").chmod(0o755)
    (folder / "scratch" / "sealed.bin").write_bytes(b"sealed")
    (folder / "scratch" / "sealed.bin").chmod(0o444)
    (folder / "latest.ckpt").symlink_to("models/best.ckpt")
    (folder / "nowhere").symlink_to("../does/not/exist")
    os.link(folder / "models" / "best.ckpt", folder / "models" / "same.ckpt")
    odd = os.path.join(os.fsencode(folder), b"odd-\xff\n name")
    with open(odd, "wb") as file:
        file.write(b"odd")
    os.truncate(_touch(folder / "sparse.bin"), 8 << 20)
    (folder / "zero").touch()


def _add_notebook(folder: Path) -> None:
    cell = {"cell_type": "code", "source": ["1 + 1"], "metadata": {}, "outputs": []}
    notebook = {"cells": [cell], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
    (folder / "explore.ipynb").write_text(json.dumps(notebook))


def _touch(path: Path) -> Path:
    path.touch()
    return path


def _set_times(folder: Path) -> None:
    """Give all paths outside .git times of last year, each its own, to the nanosecond."""
    stamp = 1_700_000_000_123_456_789
    for base, folders, files in os.walk(os.fsencode(folder), topdown=False):
        if b".git" in base.split(b"/"):
            continue
        for name in [*files, *(f for f in folders if f != b".git"), b"."]:
            stamp += 1_000_000_007
            os.utime(os.path.join(base, name), ns=(stamp, stamp), follow_symlinks=False)
