"""A run that takes the project's own folder: the shell still stands in what is not there."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from e2e.guard_command import Guard
from manifest import assert_back, manifest

_STALE = ("sh", "-c", 'rmdir "$PWD"; exec "$@"', "sh")
"""Starts what follows in a folder that has just been removed."""


@pytest.fixture
def inner(guard: Guard, tmp_path: Path) -> Guard:
    """Return guard for a project in another repository, whose own file names its store."""
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    (guard.project / "guard.toml").write_text(f'[guard]\nstore = "{tmp_path / "named"}"\n')
    info = guard.project / ".venv/lib/python3.11/site-packages/idna-3.7.dist-info"
    info.mkdir(parents=True)
    (guard.project / ".venv" / "pyvenv.cfg").write_text("home = /usr/bin\nversion = 3.11.7\n")
    (info / "METADATA").write_text("Name: idna\nVersion: 3.7\n")
    (info / "RECORD").write_text(f"{info.name}/METADATA,,\n{info.name}/RECORD,,\n")
    return replace(guard, env={"GUARD_STORE": ""})


def remove(guard: Guard) -> str:
    """Let a run remove the whole project; return what guard said of it."""
    result = guard("run", "--", "sh", "-c", f"rm -rf {guard.project}; exit 1")
    assert result.status == 1, result.said
    return result.err


def stale(guard: Guard, *arguments: str) -> tuple[int, str, str]:
    """Call guard from the folder that is gone."""
    guard.project.mkdir()
    result = replace(guard, wrapper=_STALE)(*arguments)
    return result.status, result.out, result.err


def test_the_run_says_what_it_took(inner: Guard) -> None:
    """All of it, with the packages."""
    said = remove(inner)
    assert "what it changed is not known" not in said, said
    assert "files deleted" in said
    assert "1 package" in said


def test_the_way_back_from_where_the_project_was(inner: Guard) -> None:
    """The project is the one that was here, not the repository around it."""
    before = manifest(inner.project)
    remove(inner)
    status, out, err = stale(inner, "status")
    assert status == 0, err
    assert f"{inner.project} (gone)" in out
    status, out, err = stale(inner, "diff")
    assert status == 1, err
    assert "idna" in out
    status, out, err = stale(inner, "rollback", "--last", "--yes")
    assert status == 0, err
    assert f"cd {inner.project}" in err
    assert_back(before, manifest(inner.project))
    assert "cd " not in inner("undo").err


def test_looking_from_a_stale_folder_of_a_project_that_is_there(inner: Guard) -> None:
    """After the rollback the shell still stands in the old folder: guard works on the new one."""
    remove(inner)
    moved = inner.project.with_name("moved")
    moved.mkdir()
    script = f'mkdir -p {moved}/x; cd {moved}/x; rm -rf {moved}; exec "$@"'
    elsewhere = replace(inner, wrapper=("sh", "-c", script, "sh"))
    project = ("--project", str(inner.project))
    result = elsewhere(*project, "rollback", "--last", "--yes", cwd=inner.project.parent)
    assert result.status == 0, result.said
    for command in ("status", "diff", "log", "verify"):
        result = elsewhere(*project, command, cwd=inner.project.parent)
        assert result.status == 0, result.said


def test_a_store_of_several_projects_knows_which_was_here(inner: Guard, tmp_path: Path) -> None:
    """`GUARD_STORE` is asked for the past of the folder that is gone."""
    (inner.project / "guard.toml").unlink()
    subprocess.run(["git", "init", "-q", inner.project], check=True)
    shared = replace(inner, env={"GUARD_STORE": str(tmp_path / "shared")})
    remove(shared)
    status, out, err = stale(shared, "rollback", "--last", "--dry-run")
    assert status == 0, err
    assert "train.py" in out


def test_a_store_of_another_project_names_the_command_that_is_meant(guard: Guard) -> None:
    """Who stands in the wrong folder is told what to type, not where to look."""
    assert guard("run", "--", "rm", "params.yaml").status == 0
    other = guard.project.with_name("other one")
    other.mkdir()
    result = replace(guard, project=other)("rollback", "--last", "--yes")
    assert result.status == 10, result.said
    assert f"next: guard --project {guard.project} rollback --last" in result.err
