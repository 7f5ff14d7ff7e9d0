"""Submodules that come and go between a snapshot and its rollback."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from gitrepo import commit, git, repository
from manifest import assert_back, manifest
from rollback.engine import Engine
from rollback.inventory import EngineSettings
from rollback.reports import Selection


@pytest.mark.parametrize("nested", [False, True])
def test_a_submodule_added_since_can_be_added_again(tmp_path: Path, *, nested: bool) -> None:
    """Nothing of its repository stays behind, or git would refuse to clone there."""
    project = repository(tmp_path / "p")
    path = repository(project / "inner") if nested else project
    library = repository(tmp_path / "library")
    settings = EngineSettings(project, tmp_path / "store", command=("true",))
    with Engine(settings) as engine:
        operation = engine.begin("snapshot", {})
        snapshot = engine.snapshot(operation, kind="manual", label="").snapshot
        engine.finish(operation, "done", {})
    before = manifest(project)
    git(path, "submodule", "--quiet", "add", str(library), "lib")
    with Engine(settings) as engine:
        engine.restore(engine.plan(snapshot, Selection()))
    assert_back(before, manifest(project))
    left = path / ".git" / "modules"
    assert not left.exists() or os.listdir(left) == []
    git(path, "submodule", "--quiet", "add", str(library), "lib")


def test_a_submodule_removed_since_is_back(tmp_path: Path) -> None:
    """Its repository lies below `.git/modules`, which git never cleans but people do."""
    project = repository(tmp_path / "p")
    git(project, "submodule", "--quiet", "add", str(repository(tmp_path / "library")), "a/lib")
    git(project, "commit", "--quiet", "-m", "with a submodule")
    settings = EngineSettings(project, tmp_path / "store", command=("true",))
    with Engine(settings) as engine:
        operation = engine.begin("snapshot", {})
        snapshot = engine.snapshot(operation, kind="manual", label="").snapshot
        engine.finish(operation, "done", {})
    before = manifest(project)
    git(project, "rm", "-qf", "a/lib")
    shutil.rmtree(project / ".git" / "modules")
    with Engine(settings) as engine:
        engine.restore(engine.plan(snapshot, Selection()))
    assert_back(before, manifest(project))
    assert git(project, "submodule", "status")[0] not in "+-U"  # present, and as recorded


@pytest.mark.parametrize("nested", [False, True])
def test_objects_of_a_repository_that_was_there_are_kept(tmp_path: Path, *, nested: bool) -> None:
    """Commits made since stay reachable, in a submodule and as large files too."""
    project = repository(tmp_path / "p")
    path = repository(project / "inner") if nested else project
    git(path, "submodule", "--quiet", "add", str(repository(tmp_path / "library")), "lib")
    git(path, "commit", "--quiet", "-m", "with a submodule")
    settings = EngineSettings(project, tmp_path / "store", command=("true",))
    with Engine(settings) as engine:
        operation = engine.begin("snapshot", {})
        snapshot = engine.snapshot(operation, kind="manual", label="").snapshot
        engine.finish(operation, "done", {})
    made = [commit(path, "new.py", "new\n"), commit(path / "lib", "new.py", "other\n")]
    git(path, "branch", "lfs")
    name = "ab" * 32
    large = [
        path / ".git" / below / "lfs" / "objects" / "ab" / "ab" / name
        for below in (".", "modules/lib")
    ]
    for file in large:
        file.parent.mkdir(parents=True)
        file.write_text("large")
    (path / ".git" / "lfs" / "tmp").mkdir()
    with Engine(settings) as engine:
        engine.restore(engine.plan(snapshot, Selection()))
    for where, identity in zip((path, path / "lib"), made, strict=True):
        assert git(where, "cat-file", "-t", identity) == "commit"
        assert git(where, "status", "--porcelain") == ""
    assert [file.read_text() for file in large] == ["large", "large"]
    assert not (path / ".git" / "lfs" / "tmp").exists()
    assert not (path / ".git" / "refs" / "heads" / "lfs").exists()
