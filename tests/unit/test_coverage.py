"""What a snapshot that somebody else took does not have: named, and nothing else."""

from __future__ import annotations

import contextlib
import sqlite3
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from driving import Project
from rollback.coverage import not_taken
from rollback.engine import Engine


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A small project."""
    made = Project(tmp_path.resolve())
    (made.root / "file").write_text("before")
    return made


def _missing(project: Project, before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Take a snapshot with some settings and return what others would take besides."""
    with Engine(replace(project.settings, **before)) as engine:
        operation = engine.begin("snapshot", {})
        taken = engine.snapshot(operation, kind="manual", label="").snapshot
        engine.finish(operation, "done", {})
    with Engine(replace(project.settings, **now)) as engine:
        return not_taken(taken, engine.inspect())


def _environment(folder: Path) -> str:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    return str(folder / "bin" / "python")


def _database(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as made:
        made.execute("CREATE TABLE runs (name TEXT)")


def test_the_same_is_taken(project: Project) -> None:
    """A folder and a database elsewhere, by whatever name leads there."""
    (project.base / "elsewhere").mkdir()
    _database(project.base / "runs.db")
    (project.base / "link").symlink_to("elsewhere")
    now = {"also": (project.base / "elsewhere",), "databases": (project.base / "runs.db",)}
    assert _missing(project, now, now) == []
    assert _missing(project, now, {**now, "also": (project.base / "link",)}) == []


def test_what_is_not_there_is_not_missing(project: Project) -> None:
    """Nothing would be taken of it now either."""
    assert _missing(project, {}, {"databases": (project.base / "runs.db",)}) == []


def test_what_lies_elsewhere_is_named(project: Project) -> None:
    """Folders, databases, environments."""
    (project.base / "elsewhere").mkdir()
    _database(project.base / "runs.db")
    python = _environment(project.base / "environment")
    now = {"also": (project.base / "elsewhere",), "databases": (project.base / "runs.db",)}
    names = ["elsewhere", "environment", "runs.db"]
    found = _missing(project, {}, {**now, "command": (python,)})
    assert sorted(found) == [str(project.base / name) for name in names]


def test_what_lies_in_the_project_is_named_where_that_leaves_it_out(project: Project) -> None:
    """An environment that came meanwhile goes with a rollback, unless nobody looks there."""
    with Engine(project.settings) as engine:
        operation = engine.begin("snapshot", {})
        taken = engine.snapshot(operation, kind="manual", label="").snapshot
        engine.finish(operation, "done", {})
    python = _environment(project.root / "scratch" / "environment")
    with Engine(replace(project.settings, command=(python,))) as engine:
        assert not_taken(taken, engine.inspect()) == []
    subprocess.run(["rm", "-r", project.root / "scratch"], check=True)
    with Engine(replace(project.settings, exclude=("scratch/",))) as engine:
        operation = engine.begin("snapshot", {})
        taken = engine.snapshot(operation, kind="manual", label="").snapshot
        engine.finish(operation, "done", {})
    _environment(project.root / "scratch" / "environment")
    with Engine(replace(project.settings, command=(python,))) as engine:
        found = not_taken(taken, engine.inspect())
    assert found == [str(project.root / "scratch" / "environment")]
