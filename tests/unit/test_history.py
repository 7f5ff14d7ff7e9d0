"""What a store knows of the past: whose it is, and what an undo takes back."""

from __future__ import annotations

import errno
import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from driving import Project
from manifest import assert_back, manifest
from rollback import atomic
from rollback.errors import NothingToDo, RestoreIncomplete
from rollback.model import Snapshot
from rollback.reports import Selection


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A project with some files, a folder and a database."""
    made = Project(tmp_path.resolve())
    (made.root / "models").mkdir()
    for number in range(4):
        (made.root / f"f{number}").write_text(f"{number}")
    (made.root / "models/m").write_text("weights")
    (made.root / "notes").write_text("keep")
    with closing(sqlite3.connect(made.root / "runs.db")) as database:
        database.execute("CREATE TABLE t (x)")
        database.commit()
    return made


@pytest.fixture
def other(project: Project) -> Project:
    """Another project with the same store."""
    made = Project(project.base, b"other")
    (made.root / "b").write_text("1")
    return made


def _spoil(project: Project) -> None:
    """Do what a bad run does: files changed, made, removed; a folder made a file; rows added."""
    for number in range(4):
        (project.root / f"f{number}").write_text(f"bad {number}")
    (project.root / "made").mkdir()
    (project.root / "made/x").write_text("x")
    (project.root / "models/m").unlink()
    (project.root / "models").rmdir()
    (project.root / "models").write_text("no folder any more")
    with closing(sqlite3.connect(project.root / "runs.db")) as database:
        database.execute("INSERT INTO t VALUES (1)")
        database.commit()


def _stop_at(monkeypatch: pytest.MonkeyPatch, place: str, count: int) -> None:
    seen: list[str] = []

    def reached(name: str) -> None:
        seen.append(name)
        if seen.count(place) == count:
            raise OSError(errno.EIO, "the disk failed", name)

    monkeypatch.setattr(atomic, "reach", reached)


def _die(project: Project) -> None:
    """Let what stopped half way be of a process that is no more."""
    with project.engine() as engine:
        for operation in engine.store.catalog.operations("WHERE state = 'applying'"):
            engine.update(operation, {"owner": {}})


def _half(project: Project, taken: Snapshot, monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    """Roll back until the disk fails."""
    _stop_at(monkeypatch, "restore.replace", count)
    with pytest.raises(RestoreIncomplete):
        project.rollback(taken)
    monkeypatch.undo()
    _die(project)


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_what_is_resumed_is_undone_in_one_step(
    project: Project, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    """Nobody changed anything since it stopped: a mixture is no state to go back to."""
    taken = project.snapshot().snapshot
    _spoil(project)
    spoilt = manifest(project.root, live_databases=("runs.db",))
    _half(project, taken, monkeypatch, count)
    (told,) = project.recover()
    assert told.endswith("it is finished now")
    project.undo()
    assert_back(spoilt, manifest(project.root, live_databases=("runs.db",)))
    with pytest.raises(NothingToDo):
        project.undo()


def test_edits_after_a_rollback_that_stopped_come_back_by_undo(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was edited meanwhile is one undo away, the state before the rollback another."""
    taken = project.snapshot().snapshot
    built = manifest(project.root)
    for number in range(4):
        (project.root / f"f{number}").write_text(f"bad {number}")
    spoilt = manifest(project.root)
    _half(project, taken, monkeypatch, 2)
    (project.root / "f0").write_text("mine")
    (project.root / "notes").write_text("keep and more")
    (project.root / "new.py").write_text("new")
    edited = manifest(project.root)
    (told,) = project.recover()
    assert "guard undo" in told
    assert_back(built, manifest(project.root))
    project.undo()
    assert_back(edited, manifest(project.root))
    project.undo()
    assert_back(spoilt, manifest(project.root))
    with pytest.raises(NothingToDo):
        project.undo()
    project.redo()
    assert_back(edited, manifest(project.root))
    project.redo()
    assert_back(built, manifest(project.root))


@pytest.mark.parametrize("edit", ["a database", "a file removed", "a file outside"])
def test_what_counts_as_an_edit(
    project: Project, monkeypatch: pytest.MonkeyPatch, edit: str
) -> None:
    """Rows and removals do; what the rollback was never to touch does not."""
    taken = project.snapshot().snapshot
    for number in range(4):
        (project.root / f"f{number}").write_text(f"bad {number}")
    chosen = Selection(paths=tuple(os.fsencode(project.root / f) for f in ("f0", "f1", "runs.db")))
    _stop_at(monkeypatch, "restore.replace", 2)
    with pytest.raises(RestoreIncomplete):
        project.rollback(taken, chosen)
    monkeypatch.undo()
    _die(project)
    if edit == "a database":
        with closing(sqlite3.connect(project.root / "runs.db")) as database:
            database.execute("INSERT INTO t VALUES (2)")
            database.commit()
    elif edit == "a file removed":
        (project.root / "f0").unlink()
    else:
        (project.root / "notes").write_text("keep and more")
    (told,) = project.recover()
    assert ("guard undo" in told) is (edit != "a file outside")


def test_the_states_before_and_in_between_survive_a_prune(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All that the newest rollback is taken back by."""
    taken = project.snapshot().snapshot
    _spoil(project)
    spoilt = manifest(project.root, live_databases=("runs.db",))
    _half(project, taken, monkeypatch, 2)
    project.recover()
    with project.engine() as engine:
        engine.prune(keep_last=0, keep_days=0)
    project.undo()
    assert_back(spoilt, manifest(project.root, live_databases=("runs.db",)))


def test_a_pruned_state_is_said_to_be_pruned(project: Project) -> None:
    """Not only that there is none: the log still tells of it."""
    taken = project.snapshot().snapshot
    (project.root / "notes").write_text("two")
    project.rollback(taken)
    (project.root / "notes").write_text("three")
    project.rollback(taken)
    project.snapshot()
    with project.engine() as engine:
        engine.prune(keep_last=0, keep_days=0)
    project.undo()
    with project.engine() as engine:
        with pytest.raises(NothingToDo, match="pruned"):
            engine.undo_target()
        with pytest.raises(NothingToDo, match="pruned"):
            engine.find_snapshot(str(taken.seq))
        with pytest.raises(NothingToDo, match="there is no snapshot 77"):
            engine.find_snapshot("77")


def test_what_shows_nothing_stands_before_nothing(project: Project) -> None:
    """A rollback that only set the time of a folder is not what the next undo is about."""
    taken = project.snapshot().snapshot
    built = manifest(project.root)
    (project.root / "notes").write_text("mine")
    spoilt = manifest(project.root)
    project.rollback(taken)
    os.utime(project.root / "models", ns=(5, 5))
    assert project.rollback(taken).steps == ()
    project.snapshot()
    with project.engine() as engine:
        engine.prune(keep_last=0, keep_days=0)
    project.undo()
    assert_back(spoilt, manifest(project.root))
    os.utime(project.root / "models", ns=(5, 5))
    with project.engine() as engine:
        chosen = Selection(paths=(os.fsencode(project.root / "models"),))
        assert engine.restore(engine.plan(taken, chosen)).steps == ()
    project.redo()
    assert_back(built, manifest(project.root))


def test_each_project_has_a_past_of_its_own(project: Project, other: Project) -> None:
    """Last, undo and redo mean this project's, whatever another did since."""
    first = project.snapshot().snapshot
    theirs = other.snapshot().snapshot
    (project.root / "notes").write_text("mine")
    (other.root / "b").write_text("2")
    mine = manifest(project.root)
    project.rollback(first)
    other.rollback(theirs)
    with project.engine() as engine:
        assert engine.find_snapshot("last").id == first.id
    project.undo()
    assert_back(mine, manifest(project.root))
    with pytest.raises(NothingToDo):
        project.undo()
    with other.engine() as engine:
        assert engine.undo_target().project == str(other.root)
        with pytest.raises(NothingToDo):
            engine.redo_target()


def test_the_last_run_is_that_of_the_project(project: Project, other: Project) -> None:
    """A run whose snapshot was pruned is still whose it was."""
    for whose in (project, other):
        with whose.engine() as engine:
            operation = engine.begin("run", {})
            engine.snapshot(operation, kind="run", label="")
            engine.finish(operation, "done", {})
    with other.engine() as engine:
        engine.store.catalog.db.execute("DELETE FROM snapshot WHERE seq = 2")
    with project.engine() as engine:
        assert engine.last_run().seq == 1


def test_what_died_in_another_project_is_left_to_it(
    project: Project, other: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither resumed from here, nor taken for done by a rollback here."""
    taken, theirs = project.snapshot().snapshot, other.snapshot().snapshot
    (project.root / "notes").write_text("mine")
    (other.root / "b").write_text("2")
    _stop_at(monkeypatch, "restore.replace", 1)
    with pytest.raises(RestoreIncomplete):
        other.rollback(theirs)
    monkeypatch.undo()
    _die(other)
    assert project.recover() == []
    project.rollback(taken)
    with project.engine() as engine:
        assert engine.status().unfinished == ()
    assert (other.root / "b").read_text() == "2"
    assert len(other.recover()) == 1
    assert (other.root / "b").read_text() == "1"


def test_a_prune_keeps_the_newest_good_of_each_project(project: Project, other: Project) -> None:
    """And counts for each by itself."""
    first = project.snapshot().snapshot
    (project.root / "notes").write_text("mine")
    project.rollback(first)
    for number in range(3):
        (other.root / "b").write_text(f"{number}")
        other.snapshot()
    with other.engine() as engine:
        report = engine.prune(keep_last=1, keep_days=0, max_bytes=0)
    assert {snapshot.project for snapshot in report.removed} == {str(other.root)}
    assert len(report.removed) == 2
    with project.engine() as engine:
        assert engine.find_snapshot("last").id == first.id
    project.undo()
    assert (project.root / "notes").read_text() == "mine"
