"""A part that is put back where other things stand now, and taken back again byte for byte."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from driving import Project
from manifest import assert_back, manifest
from rollback.engine import Engine
from rollback.inventory import EngineSettings
from rollback.model import Category
from rollback.reports import Selection


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A project with files in folders."""
    made = Project(tmp_path.resolve())
    (made.root / "a/b").mkdir(parents=True)
    (made.root / "a/b/c").write_text("c")
    (made.root / "a/b/d").write_text("d")
    (made.root / "a/e").mkdir()
    (made.root / "x").write_text("x")
    (made.root / "z").write_text("z")
    return made


def _only(*paths: Path) -> Selection:
    return Selection(tuple(os.fsencode(path) for path in paths))


def _file(path: Path) -> None:
    path.write_text("in the way")


def _link(path: Path) -> None:
    victim = path.parent.parent / "victim"
    (victim / "b").mkdir(parents=True)
    path.symlink_to(victim)


def _socket(path: Path) -> None:
    here = Path.cwd()
    os.chdir(path.parent)
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name)
    finally:
        os.chdir(here)


@pytest.mark.parametrize("put", [_file, _link])
def test_what_stands_where_a_folder_of_the_part_was_gives_way(
    project: Project, put: Callable[[Path], None]
) -> None:
    """It is kept like all that is displaced; an undo leaves nothing of the folders."""
    before = manifest(project.root)
    taken = project.snapshot().snapshot
    shutil.rmtree(project.root / "a")
    put(project.root / "a")
    (project.root / "z").write_text("changed")
    spoilt = manifest(project.root)
    outcome = project.rollback(taken, _only(project.root / "a/b/c"))
    assert outcome.skipped == ()
    assert (project.root / "a/b/c").read_text() == "c"
    assert not (project.root / "a/b/d").exists()
    assert (project.root / "z").read_text() == "changed"
    project.undo()
    assert_back(spoilt, manifest(project.root))
    project.redo()
    assert (project.root / "a/b/c").read_text() == "c"
    project.rollback(taken)
    assert_back(before, manifest(project.root))


def test_an_undo_leaves_what_was_made_in_such_a_folder_since(project: Project) -> None:
    """What stood in the way cannot come back then, and is named."""
    taken = project.snapshot().snapshot
    shutil.rmtree(project.root / "a")
    _file(project.root / "a")
    project.rollback(taken, _only(project.root / "a/b/c"))
    (project.root / "a/b/mine").write_text("mine")
    outcome = project.undo()
    assert [skip.what for skip in outcome.skipped] == [str(project.root / "a")]
    assert (project.root / "a/b/mine").read_text() == "mine"
    assert not (project.root / "a/b/c").exists()
    project.snapshot()


def test_a_socket_where_a_folder_was_gives_way(project: Project) -> None:
    """A socket holds nothing: it may not keep the folder from coming back."""
    before = manifest(project.root)
    taken = project.snapshot().snapshot
    shutil.rmtree(project.root / "a")
    _socket(project.root / "a")
    project.rollback(taken)
    assert_back(before, manifest(project.root))


def test_folders_that_a_part_needed_go_with_it(project: Project) -> None:
    """And the times of those around it are what they were."""
    taken = project.snapshot().snapshot
    shutil.rmtree(project.root / "a")
    spoilt = manifest(project.root)
    project.rollback(taken, _only(project.root / "a/b/c"))
    project.undo()
    assert_back(spoilt, manifest(project.root))


def test_times_around_a_part_are_what_they_were(project: Project) -> None:
    """A replaced file leaves no trace in its folder once that was taken back."""
    taken = project.snapshot().snapshot
    (project.root / "a/b/c").unlink()
    (project.root / "a/b/new").write_text("new")
    spoilt = manifest(project.root)
    project.rollback(taken, _only(project.root / "a/b/c", project.root / "a/b/new"))
    project.undo()
    assert_back(spoilt, manifest(project.root))


def test_a_category_that_was_gone_is_gone_again(project: Project) -> None:
    """An undo takes the folder of the repository along, and the project's time back."""
    git = project.root / ".git"
    for name in ("objects", "refs/heads"):
        (git / name).mkdir(parents=True)
    (git / "HEAD").write_text("ref: refs/heads/main\n")
    (git / "config").write_text("[core]\n\trepositoryformatversion = 0\n")
    taken = project.snapshot().snapshot
    assert any(state.location == str(git) for state in taken.states)
    shutil.rmtree(git)
    spoilt = manifest(project.root)
    project.rollback(taken, Selection((), frozenset({Category.CODE})))
    assert (git / "HEAD").exists()
    project.undo()
    assert_back(spoilt, manifest(project.root))


def test_what_is_outside_of_the_part_is_not_named(project: Project) -> None:
    """An undo of x has nothing to say of what became of another file since."""
    taken = project.snapshot().snapshot
    (project.root / "z").write_text("changed")
    (project.root / "x").write_text("changed")
    project.rollback(taken, _only(project.root / "x"))
    (project.root / "z").unlink()
    (project.root / "z").mkdir()
    assert project.undo().skipped == ()
    assert (project.root / "x").read_text() == "changed"
    assert (project.root / "z").is_dir()


def test_hard_links_that_were_not_kept_are_named_only(project: Project) -> None:
    """Names of a watched file cannot be made again, and stop nothing."""
    (project.root / "raw").mkdir()
    (project.root / "raw/a").write_text("a")
    os.link(project.root / "raw/a", project.root / "raw/b")
    settings = EngineSettings(project.root, store=project.store, watch=("raw/",))
    with Engine(settings) as engine:
        operation = engine.begin("snapshot", {})
        taken = engine.snapshot(operation, kind="manual", label="").snapshot
        engine.finish(operation, "done", {})
        (project.root / "raw/a").unlink()
        (project.root / "raw/b").unlink()
        (project.root / "x").write_text("changed")
        outcome = engine.restore(engine.plan(taken, Selection()))
    named = [str(project.root / name) for name in ("raw/a", "raw/b")]
    assert [skip.what for skip in outcome.skipped] == named
    assert (project.root / "x").read_text() == "x"
