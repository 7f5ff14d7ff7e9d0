"""What every resource has to do, whatever its state is made of.

A new resource adds one `Subject`: how to make a state, spoil it, and look at it.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from rollback.errors import DrillFailed, RestoreIncomplete, StoreCorrupt
from rollback.model import Category, ResourceState
from rollback.resources.base import Resource
from rollback.resources.sqlite import SqliteResource
from vault import FolderVault


@dataclass(frozen=True)
class Subject:
    """One resource with a state of its own.

    Attributes:
        make: Makes the state in a folder and returns the resource for it.
        again: Returns the resource from a recorded state alone.
        spoil: Changes the state as a bad run does.
        destroy: Makes it absent.
    """

    make: Callable[[Path], Resource]
    again: Callable[[ResourceState], Resource]
    spoil: Callable[[Path], None]
    destroy: Callable[[Path], None]


def _sqlite(mode: str) -> Subject:
    def make(folder: Path) -> Resource:
        db = sqlite3.connect(folder / "tracking.db", isolation_level=None)
        db.execute(f"PRAGMA journal_mode = {mode}")
        db.execute("CREATE TABLE runs (id INTEGER PRIMARY KEY, note TEXT)")
        db.execute("INSERT INTO runs (note) VALUES ('kept')")
        db.close()
        return SqliteResource(folder / "tracking.db", name="tracking.db")

    def spoil(folder: Path) -> None:
        db = sqlite3.connect(folder / "tracking.db", isolation_level=None)
        db.execute("UPDATE runs SET note = 'lost'")
        db.execute("CREATE TABLE evil (x)")
        db.close()

    def destroy(folder: Path) -> None:
        (folder / "tracking.db").unlink()

    return Subject(make, SqliteResource.from_state, spoil, destroy)


SUBJECTS = {"sqlite-rollback": _sqlite("delete"), "sqlite-wal": _sqlite("wal")}


class Stage:
    """A subject set up in a folder, with a vault."""

    def __init__(self, subject: Subject, folder: Path) -> None:
        self.subject = subject
        self.folder = folder / "project"
        self.folder.mkdir()
        self.vault = FolderVault(folder / "vault")
        self.resource = subject.make(self.folder)
        time.sleep(0.03)  # younger times are not trusted

    def look(self) -> dict[str, tuple[str, int, int]]:
        """Return all that can be seen of the state from outside."""
        return {
            str(p.relative_to(self.folder)): (
                hashlib.sha256(p.read_bytes()).hexdigest() if p.is_file() else "",
                p.lstat().st_mode,
                p.lstat().st_mtime_ns,
            )
            for p in self.folder.rglob("*")
        }

    def take(self) -> ResourceState:
        """Capture, as it comes back from a store."""
        state, skips = self.resource.capture(self.vault, None)
        assert skips == ()
        return replace(state, data=json.loads(json.dumps(state.data)))

    def put_back(self, state: ResourceState) -> None:
        """Restore from the recorded state alone, and verify."""
        resource = self.subject.again(state)
        resource.restore(state, self.vault)
        resource.verify(state, self.vault)
        assert resource.plan(state, self.vault) == ()
        assert list(Path(self.vault.scratch).iterdir()) == []


@pytest.fixture(params=SUBJECTS)
def stage(request: pytest.FixtureRequest, tmp_path: Path) -> Stage:
    """Return each subject in turn."""
    return Stage(SUBJECTS[request.param], tmp_path)


def test_capture_describes_and_changes_nothing(stage: Stage) -> None:
    """A capture is seen by nobody, and says what it recorded."""
    before = stage.look()
    state = stage.take()
    assert stage.look() == before
    resource = stage.resource
    assert (state.resource, state.name) == (resource.resource, resource.name)
    assert isinstance(state.category, Category)
    assert state.location.startswith("/")
    assert state.files > 0
    assert state.bytes > 0
    assert list(Path(stage.vault.scratch).iterdir()) == []


def test_capture_again_without_a_change(stage: Stage) -> None:
    """The previous state comes back as it is, and nothing goes into the vault."""
    state = stage.take()
    puts = stage.vault.puts
    again, skips = stage.resource.capture(stage.vault, state)
    assert again is state
    assert (skips, stage.vault.puts) == ((), puts)


def test_capture_again_after_a_change(stage: Stage) -> None:
    """A change is captured, whatever the previous state says."""
    state = stage.take()
    stage.subject.spoil(stage.folder)
    after, _ = stage.resource.capture(stage.vault, state)
    assert after is not state
    changed = stage.look()
    stage.put_back(state)
    stage.put_back(after)
    assert stage.look() == changed


def test_plan_reads_only(stage: Stage) -> None:
    """A plan is empty without a difference, says it otherwise, and changes nothing."""
    state = stage.take()
    resource = stage.subject.again(state)
    assert resource.plan(state, stage.vault) == ()
    stage.subject.spoil(stage.folder)
    before = stage.look()
    steps = resource.plan(state, stage.vault)
    assert stage.look() == before
    assert steps
    assert all(step.resource and step.path and step.action for step in steps)
    json.dumps([step.detail for step in steps])


@pytest.mark.parametrize("damage", ["spoil", "destroy"])
def test_difference_reads_only(stage: Stage, damage: str) -> None:
    """What has become of the state is told from the snapshot on, and nothing is changed."""
    state = stage.take()
    resource = stage.subject.again(state)
    assert resource.difference(state, stage.vault) is None
    getattr(stage.subject, damage)(stage.folder)
    before = stage.look()
    found = resource.difference(state, stage.vault)
    assert stage.look() == before
    assert found is not None
    assert found.action == {"spoil": "modified", "destroy": "deleted"}[damage]
    assert (found.new_bytes is None) == (damage == "destroy")


@pytest.mark.parametrize("damage", ["spoil", "destroy"])
def test_restore_is_exact(stage: Stage, damage: str) -> None:
    """After a restore nobody can tell that anything happened."""
    before = stage.look()
    state = stage.take()
    getattr(stage.subject, damage)(stage.folder)
    stage.put_back(state)
    assert stage.look() == before


def test_restore_twice(stage: Stage) -> None:
    """A restore that is carried out again changes nothing."""
    before = stage.look()
    state = stage.take()
    stage.subject.spoil(stage.folder)
    stage.put_back(state)
    stage.put_back(state)
    assert stage.look() == before


def test_there_and_back(stage: Stage) -> None:
    """An undo brings the spoilt state back byte for byte, and a redo the good one."""
    before = stage.look()
    good = stage.take()
    stage.subject.spoil(stage.folder)
    spoilt = stage.look()
    bad = stage.take()
    stage.put_back(good)
    assert stage.look() == before
    stage.put_back(bad)
    assert stage.look() == spoilt
    stage.put_back(good)
    assert stage.look() == before


def test_verify_sees_a_difference(stage: Stage) -> None:
    """What is not the recorded state is never called so."""
    state = stage.take()
    resource = stage.subject.again(state)
    resource.verify(state, stage.vault)
    for damage in (stage.subject.spoil, stage.subject.destroy):
        damage(stage.folder)
        with pytest.raises(RestoreIncomplete) as caught:
            resource.verify(state, stage.vault)
        assert caught.value.hint


def test_rehearse_stays_in_scratch(stage: Stage) -> None:
    """A drill counts what it restored, and neither the state nor scratch shows it."""
    state = stage.take()
    before = stage.look()
    rehearsal = stage.subject.again(state).rehearse(state, stage.vault)
    assert (rehearsal.files, rehearsal.bytes) == (state.files, state.bytes)
    assert rehearsal.elapsed_s > 0
    assert stage.look() == before
    assert list(Path(stage.vault.scratch).iterdir()) == []


def test_clean_touches_nothing_that_is_alive(stage: Stage) -> None:
    """There is nothing to clean where no restore was killed, nor where the state is gone."""
    before = stage.look()
    stage.resource.clean()
    assert stage.look() == before
    stage.subject.destroy(stage.folder)
    gone = stage.look()
    stage.resource.clean()
    assert stage.look() == gone


def test_remove(stage: Stage) -> None:
    """Removing leaves nothing, may be done again, and a restore makes the state anew."""
    before = stage.look()
    state = stage.take()
    resource = stage.subject.again(state)
    resource.remove(stage.vault)
    assert stage.look() == {}
    resource.remove(stage.vault)
    stage.put_back(state)
    assert stage.look() == before


def test_lost_content_stops_before_anything_changes(stage: Stage) -> None:
    """Without its content in the vault neither a restore nor a drill does harm."""
    state = stage.take()
    stage.subject.spoil(stage.folder)
    before = stage.look()
    for blob in stage.vault.folder.iterdir():
        if blob.is_file():
            blob.unlink()
    resource = stage.subject.again(state)
    with pytest.raises(StoreCorrupt):
        resource.restore(state, stage.vault)
    with pytest.raises((StoreCorrupt, DrillFailed)):
        resource.rehearse(state, stage.vault)
    assert stage.look() == before
    assert list(Path(stage.vault.scratch).iterdir()) == []


def test_what_is_not_kept_is_left_alone_and_told(stage: Stage) -> None:
    """Nothing is put back from it; that it is another one now is seen by its looks."""
    left = stage.resource.leave()
    state = replace(left, data=json.loads(json.dumps(left.data)))
    again = stage.subject.again(state)
    assert (state.files, state.bytes) == (0, 0)
    assert not again.is_lacking(state)
    assert again.difference(state, stage.vault) is None
    assert again.rehearse(state, stage.vault).files == 0
    for spoil, action in ((stage.subject.spoil, "modified"), (stage.subject.destroy, "deleted")):
        spoil(stage.folder)
        spoilt = stage.look()
        assert again.is_lacking(state)
        change = again.difference(state, stage.vault)
        assert change is not None
        assert change.action == action
        assert again.plan(state, stage.vault) == ()
        again.restore(state, stage.vault)
        again.verify(state, stage.vault)
        assert stage.look() == spoilt


def test_what_a_capture_and_a_restore_take_is_known_beforehand(stage: Stage) -> None:
    """All of it at first, nothing where nothing changed."""
    first = stage.resource.weigh(None)
    assert first.most >= first.least > 0
    state = stage.take()
    assert first.most >= state.bytes
    assert stage.resource.weigh(state).most == 0
    assert stage.resource.needs(state)[0] >= state.bytes
    stage.subject.spoil(stage.folder)
    assert stage.resource.weigh(state).most > 0
