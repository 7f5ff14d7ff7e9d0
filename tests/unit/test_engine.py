"""The engine's face: what is found, what is undone, and what a failure leaves."""

from __future__ import annotations

import contextlib
import errno
import os
import sqlite3
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from driving import Project
from manifest import assert_back, manifest
from rollback import atomic, failpoints
from rollback.applying import Application
from rollback.errors import NothingToDo, RestoreIncomplete, RollbackError, StoreUnusable
from rollback.reports import Selection


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A project with two files."""
    made = Project(tmp_path.resolve())
    (made.root / "models").mkdir()
    (made.root / "models/m").write_text("weights")
    (made.root / "train.py").write_text("one")
    return made


def _failing(monkeypatch: pytest.MonkeyPatch, module: object, place: str, number: int) -> None:
    def reached(name: str) -> None:
        if name == place:
            raise OSError(number, os.strerror(number), place)

    monkeypatch.setattr(module, "reach", reached)
    assert place in failpoints.FAILPOINTS


def test_snapshots_are_found_by_number_prefix_and_last(project: Project) -> None:
    """And what fits none, or several, is said."""
    first, second = project.snapshot().snapshot, project.snapshot().snapshot
    with project.engine() as engine:
        assert engine.find_snapshot("last").id == second.id
        assert engine.find_snapshot(first.id[:9]).id == first.id
        assert engine.find_snapshot(str(first.seq)).id == first.id
        for nothing in ("nothing", "999", "", "*", "?"):
            with pytest.raises(NothingToDo):
                engine.find_snapshot(nothing)


def test_undo_goes_back_through_several_rollbacks(project: Project) -> None:
    """Each undo takes one more back, each redo one again; a new rollback ends the redoing."""
    states = [manifest(project.root)]
    taken = [project.snapshot().snapshot]
    for text in ("two", "three"):
        (project.root / "train.py").write_text(text)
        states.append(manifest(project.root))
        taken.append(project.snapshot().snapshot)
    project.rollback(taken[0])
    project.rollback(taken[1])
    project.undo()
    assert_back(states[0], manifest(project.root))
    project.undo()
    assert_back(states[2], manifest(project.root))
    with pytest.raises(NothingToDo):
        project.undo()
    project.redo()
    project.redo()
    assert_back(states[1], manifest(project.root))
    with pytest.raises(NothingToDo):
        project.redo()
    project.undo()
    project.rollback(taken[2])
    with pytest.raises(NothingToDo):
        project.redo()


def test_a_part_is_put_back_and_undone_alone(project: Project) -> None:
    """What was not chosen keeps its changes, through the undo as well."""
    taken = project.snapshot().snapshot
    (project.root / "models/m").write_text("spoilt")
    (project.root / "train.py").write_text("edited")
    (project.root / "results.txt").write_text("new")
    chosen = Selection(paths=(os.fsencode(project.root / "models"),))
    project.rollback(taken, chosen)
    assert (project.root / "models/m").read_text() == "weights"
    assert (project.root / "train.py").read_text() == "edited"
    (project.root / "train.py").write_text("edited again")
    project.undo()
    assert (project.root / "models/m").read_text() == "spoilt"
    assert (project.root / "train.py").read_text() == "edited again"
    assert (project.root / "results.txt").read_text() == "new"


def test_a_plan_changes_nothing_and_says_all(project: Project) -> None:
    """The dry run."""
    taken = project.snapshot().snapshot
    (project.root / "models/m").unlink()
    (project.root / "train.py").write_text("edited")
    (project.root / "extra").write_text("x")
    before = manifest(project.root)
    with project.engine() as engine:
        plan = engine.plan(taken, Selection())
        again = engine.plan(taken, Selection())
    assert plan.steps == again.steps
    assert {(step.action, step.path) for step in plan.steps} == {
        ("create", "models/m"), ("replace", "train.py"), ("remove", "extra"),
    }  # fmt: skip
    assert_back(before, manifest(project.root))


def test_a_rollback_of_nothing_does_nothing(project: Project) -> None:
    """No step, no file read again, and it can be undone all the same."""
    before = manifest(project.root)
    taken = project.snapshot().snapshot
    outcome = project.rollback(taken)
    assert outcome.steps == ()
    assert_back(before, manifest(project.root))


@pytest.mark.parametrize("place", ["operation.begin", "operation.begun"])
def test_an_intent_that_cannot_be_written_leaves_the_store_free(
    project: Project, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """The lock is given back, the error is one of the engine's."""
    from rollback.store import store  # noqa: PLC0415

    with project.engine() as engine:
        _failing(monkeypatch, store, place, errno.EIO)
        with pytest.raises(StoreUnusable):
            engine.begin("run", {})
        monkeypatch.undo()
        assert not engine.store.lock.held
    project.snapshot()


def test_a_second_try_in_one_process_takes_the_first_one_up(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It stopped half way, then it goes through: the undo brings back what was there first."""
    taken = project.snapshot().snapshot
    built = manifest(project.root)
    (project.root / "train.py").write_text("edited")
    (project.root / "models/m").write_text("spoilt")
    spoilt = manifest(project.root)
    with project.engine() as engine:
        _failing_at_second(monkeypatch)
        with pytest.raises(RestoreIncomplete):
            engine.restore(engine.plan(taken, Selection()))
        monkeypatch.undo()
        engine._planned = None
        engine.restore(engine.plan(taken, Selection()))
        assert_back(built, manifest(project.root))
        assert not [op for op in engine.operations() if op.state in {"applying", "running"}]
    project.undo()
    assert_back(spoilt, manifest(project.root))


def _failing_at_second(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    def reached(name: str) -> None:
        seen.append(name)
        if seen.count("restore.replace") == 2:
            raise OSError(errno.EIO, "the disk failed", name)

    monkeypatch.setattr(atomic, "reach", reached)


def test_a_completed_rollback_is_never_taken_up_again(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a full rollback, an older half one is history: later work is not rolled back."""
    first = project.snapshot().snapshot
    (project.root / "train.py").write_text("two")
    second = project.snapshot().snapshot
    (project.root / "train.py").write_text("edited")
    (project.root / "models/m").write_text("spoilt")
    with project.engine() as engine:
        _failing_at_second(monkeypatch)
        with pytest.raises(RestoreIncomplete):
            engine.restore(engine.plan(first, Selection()))
        monkeypatch.undo()
        engine._planned = None
        engine.restore(engine.plan(second, Selection()))
    (project.root / "train.py").write_text("a day of work later")
    assert project.recover() == []
    assert (project.root / "train.py").read_text() == "a day of work later"


def test_a_rollback_that_cannot_be_prepared_changes_nothing(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the intent is written, every error means that nothing happened."""
    from rollback import writing  # noqa: PLC0415

    taken = project.snapshot().snapshot
    (project.root / "train.py").write_text("edited")
    spoilt = manifest(project.root)
    _failing(monkeypatch, writing, "stage.file", errno.ENOSPC)
    with pytest.raises(RollbackError, match="nothing was changed"):
        project.rollback(taken)
    monkeypatch.undo()
    assert_back(spoilt, manifest(project.root))
    with project.engine() as engine:
        assert engine.operations(1)[0].state == "failed"


@pytest.mark.parametrize(
    "look", [lambda e: e.status(), lambda e: e.operations(), lambda e: e.snapshots()]
)
def test_looking_takes_no_lock(project: Project, look: Callable[[object], object]) -> None:
    """``guard status`` and ``guard log`` answer while a run is on."""
    project.snapshot()
    with project.engine() as busy:
        busy.begin("run", {})
        with project.engine() as engine:
            look(engine)


def test_labels_of_any_text(project: Project) -> None:
    """A label comes from the command line, in whatever encoding."""
    with project.engine() as engine:
        operation = engine.begin("snapshot", {})
        taken = engine.snapshot(operation, kind="manual", label="caf\udcff\n").snapshot
        engine.finish(operation, "done", {})
        assert engine.find_snapshot("last").id == taken.id


def test_drafts_are_no_cache(project: Project) -> None:
    """What no snapshot has and no tool makes again is not removed with the folder around it."""
    taken = project.snapshot().snapshot
    draft = project.root / "notebooks/.ipynb_checkpoints/n-checkpoint.ipynb"
    cache = project.root / "notebooks/__pycache__/m.pyc"
    for path in (draft, cache):
        path.parent.mkdir(parents=True)
        path.write_text("a draft")
    (project.root / "notebooks/n.ipynb").write_text("a notebook")
    project.rollback(taken)
    assert not (project.root / "notebooks/n.ipynb").exists()
    assert draft.read_text() == "a draft"
    project.undo()
    assert (project.root / "notebooks/n.ipynb").read_text() == "a notebook"


def test_what_is_no_step_can_be_taken_back_too(project: Project) -> None:
    """The time of a folder is in no list of changes; a rollback to where one is, is not counted."""
    taken = project.snapshot().snapshot
    os.utime(project.root / "models", ns=(5, 5))
    spoilt = manifest(project.root)
    assert project.rollback(taken).steps == ()
    assert project.rollback(taken).steps == ()
    project.undo()
    assert_back(spoilt, manifest(project.root))
    with pytest.raises(NothingToDo):
        project.undo()


def test_a_second_name_of_a_database_leaves_the_time_of_the_root(project: Project) -> None:
    """Parted from its new name by a rename in the root; the root's time is part of the state."""
    (project.root / "a").mkdir()
    with contextlib.closing(sqlite3.connect(project.root / "runs.db")) as database:
        database.execute("CREATE TABLE t (x)")
        database.commit()
    before = manifest(project.root)
    taken = project.snapshot().snapshot
    os.link(project.root / "runs.db", project.root / "a" / "runs")
    project.rollback(taken)
    assert_back(before, manifest(project.root))


def test_the_root_itself_is_read_again(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its mode, owner and time are part of what a rollback declares to be back."""
    taken = project.snapshot().snapshot
    (project.root / "train.py").unlink()
    monkeypatch.setattr(Application, "_apply_metadata", lambda *_: None)
    with pytest.raises(RestoreIncomplete, match="another owner, mode, time"):
        project.rollback(taken)
    monkeypatch.undo()
    project.recover()


def test_names_that_belong_together_again_leave_the_times_of_their_folders(
    project: Project,
) -> None:
    """One of three names got a file of its own; the undo takes that back, names in `models` too."""
    (project.root / "alone").write_text("")
    os.link(project.root / "alone", project.root / "both")
    os.link(project.root / "alone", project.root / "models/three")
    taken = project.snapshot().snapshot
    info = (project.root / "alone").stat()
    (project.root / "alone").unlink()
    (project.root / "alone").write_text("")
    os.utime(project.root / "alone", ns=(info.st_atime_ns, info.st_mtime_ns))
    apart = manifest(project.root)
    project.rollback(taken)
    together = manifest(project.root)
    project.undo()
    assert_back(apart, manifest(project.root))
    project.redo()
    assert_back(together, manifest(project.root))


def test_what_befell_folders_alone_is_shown_and_can_be_undone(project: Project) -> None:
    """A mode, an empty folder that came and one that went: none of them is nothing."""
    (project.root / "empty").mkdir()
    taken = project.snapshot().snapshot
    (project.root / "train.py").write_text("edited")
    project.rollback(taken)
    spoil: dict[str, Callable[[], None]] = {
        "models/": partial((project.root / "models").chmod, 0o700),
        "new/": (project.root / "new").mkdir,
        "empty/": (project.root / "empty").rmdir,
    }
    for path, act in spoil.items():
        act()
        spoilt = manifest(project.root)
        assert [step.path for step in project.rollback(taken).steps] == [path]
        project.undo()
        assert_back(spoilt, manifest(project.root))
        project.redo()
