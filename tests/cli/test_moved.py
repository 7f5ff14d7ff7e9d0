"""A project that was moved: its past is found by what it is, and never taken for another's."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from e2e.guard_command import Guard, Result
from manifest import assert_back, manifest


@pytest.fixture
def moving(guard: Guard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Guard:
    """Guard with its store in the state folder, as it is where nobody names one."""
    monkeypatch.delenv("GUARD_STORE")
    guard.env.update(HOME=str(tmp_path / "home"), XDG_STATE_HOME=str(tmp_path / "state"))
    for folder in ("home", "state"):
        (tmp_path / folder).mkdir()
    return guard


def _spoil(guard: Guard) -> None:
    assert guard("run", "--drill", "off", "--", "sh", "-c", "echo bad > params.yaml").status == 0


def _move_back(result: Result) -> None:
    """Type what the hint says."""
    hint = result.err.split("next: ")[1].strip()
    command = hint.removesuffix(", then the same command")
    assert command != hint
    subprocess.run(command, shell=True, check=True)  # noqa: S602 - as it is typed


@pytest.mark.parametrize("how", ["renamed", "linked", "its parent goes", "a file is there"])
def test_a_project_that_was_moved_is_known_again(moving: Guard, tmp_path: Path, how: str) -> None:
    """Where its past is, and the one command that leads to it."""
    parent = tmp_path / "parent"
    parent.mkdir()
    old = parent / "my project"
    moving.project.rename(old)
    moving = replace(moving, project=old)
    before = manifest(old)
    _spoil(moving)
    new = tmp_path / ("my project" if how == "its parent goes" else "other")
    old.rename(new)
    if how == "linked":
        old.symlink_to(new)
    elif how == "its parent goes":
        parent.rmdir()
    elif how == "a file is there":
        old.write_text("something")
    there = replace(moving, project=new)
    said = there("rollback", "--last", "--yes")
    assert said.status == 10, said.said
    assert f"there is no snapshot of {new}: it was {old} when they were taken" in said.err
    assert f"{new} was {old}: its snapshots stay there" in there("status").err
    assert there("log").status == 10
    _move_back(said)
    assert moving("rollback", "--last", "--yes").status == 0
    assert_back(before, manifest(old))
    if how == "a file is there":
        assert (parent / "my project.aside").read_text() == "something"


def test_a_new_store_for_a_moved_project_is_said(moving: Guard, tmp_path: Path) -> None:
    """It has no past there; who wants it has to know before going on."""
    _spoil(moving)
    there = replace(moving, project=tmp_path / "other")
    moving.project.rename(there.project)
    said = there("run", "--drill", "off", "--", "true")
    assert said.status == 0, said.said
    assert f"{there.project} was {moving.project}: its snapshots stay there" in said.err
    assert "its snapshots stay" not in there("run", "--drill", "off", "--", "true").err


def test_a_copy_of_a_project_is_another_one(moving: Guard, tmp_path: Path) -> None:
    """The same content, names and times; the one that is gone is named as such, with its log."""
    _spoil(moving)
    there = replace(moving, project=tmp_path / "copy")
    subprocess.run(["cp", "-a", moving.project, there.project], check=True)
    shutil.rmtree(moving.project)
    said = there("rollback", "--last", "--yes")
    assert said.status == 10, said.said
    assert "it was" not in said.err
    command = f"guard --project {moving.project} log"
    assert command in said.err
    assert moving("--project", moving.project, "log", cwd=tmp_path).status == 0
    assert "its snapshots stay" not in there("snapshot").err


def test_a_project_that_is_there_is_not_named(moving: Guard, tmp_path: Path) -> None:
    """Others that are well are nobody's business here."""
    _spoil(moving)
    there = replace(moving, project=tmp_path / "another")
    there.project.mkdir()
    said = there("rollback", "--last", "--yes")
    assert said.status == 10
    assert str(moving.project) not in said.err


def test_a_store_in_the_project_moves_along(moving: Guard, tmp_path: Path) -> None:
    """The hint leads to where it is, not to a place that is empty by now."""
    with _another_disk(tmp_path) as state:
        moving.env["XDG_STATE_HOME"] = str(state)
        assert moving("snapshot").status == 0
        before = manifest(moving.project)
        _spoil(moving)
        assert (moving.project / ".guard/STORE").exists()
        there = replace(moving, project=tmp_path / "other")
        moving.project.rename(there.project)
        for words in (["--last"], ["--to", "1"]):
            said = there("rollback", *words, "--yes")
            assert said.status == 10, said.said
            hint = said.err.split("next: ")[1].strip()
            move = f"mv {there.project} {moving.project} && cd {moving.project} && guard rollback "
            assert hint.removeprefix(move) == " ".join(words)
        there.project.rename(moving.project)
        assert moving("rollback", "--last", "--yes").status == 0
        assert_back(before, manifest(moving.project))


@contextmanager
def _another_disk(tmp_path: Path) -> Iterator[Path]:
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK) or memory.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is no other file system")
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        yield Path(folder)
