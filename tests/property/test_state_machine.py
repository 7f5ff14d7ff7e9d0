"""The engine against a model: fingerprints of every state, and two stacks for undo and redo."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from driving import Project
from manifest import Entry, assert_back, differences, manifest
from rollback.errors import NothingToDo
from rollback.model import Snapshot
from trees import Step, carry_out, damage, owners, trees

EXAMPLES = int(os.environ.get("GUARD_EXAMPLES", "120"))
Manifest = dict[bytes, Entry]


class EngineMachine(RuleBasedStateMachine):
    """Snapshots, damage, rollbacks to any of them, undo, redo and pruning, in any order."""

    def __init__(self) -> None:
        super().__init__()
        memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
        self.base = Path(tempfile.mkdtemp(prefix="guard-machine-", dir=memory)).resolve()
        self.project = Project(self.base)
        self.taken: list[tuple[Snapshot, Manifest]] = []
        self.owned: dict[str, dict[bytes, tuple[int, int]]] = {}
        self.undoable: list[Manifest] = []
        self.redoable: list[Manifest] = []

    def teardown(self) -> None:
        """Remove what the run made."""
        shutil.rmtree(self.base)

    def now(self) -> Manifest:
        """Return the project as it is."""
        return manifest(self.project.root)

    @initialize(tree=trees(8))
    def begin(self, tree: list[Step]) -> None:
        """Make a project."""
        carry_out(self.project.path, tree)

    @rule(spoiling=damage(4))
    def spoil(self, spoiling: list[Step]) -> None:
        """Change something by hand."""
        carry_out(self.project.path, spoiling)

    @rule()
    def snapshot(self) -> None:
        """Take a snapshot; the project is not touched by it."""
        before = self.now()
        taken = self.project.snapshot().snapshot
        assert_back(before, self.now())
        self.taken.append((taken, before))
        self.owned[taken.id] = owners(self.project.path)

    @precondition(lambda self: self.taken)
    @rule(number=st.integers(0, 100))
    def roll_back(self, number: int) -> None:
        """Put any snapshot back that there is."""
        taken, wanted = self.taken[number % len(self.taken)]
        before, owned, depth = self.now(), owners(self.project.path), self._depth()
        assert self.project.rollback(taken).verified
        assert_back(wanted, self.now())
        assert owners(self.project.path) == self.owned[taken.id]
        if self._depth() == depth:  # it found everything in place: nothing to take back
            assert_back(wanted, before)
            assert owned == self.owned[taken.id]
            return
        self.undoable.append(before)
        self.redoable.clear()

    def _depth(self) -> int:
        with self.project.engine() as engine:
            return len(engine._displaced()[0])

    @rule()
    def undo(self) -> None:
        """Take the newest rollback back that was not taken back yet; without end."""
        before = self.now()
        if not self.undoable:
            with pytest.raises(NothingToDo):
                self.project.undo()
            return
        self.project.undo()
        assert_back(self.undoable.pop(), self.now())
        self.redoable.append(before)

    @rule()
    def redo(self) -> None:
        """Take the newest undo back."""
        before = self.now()
        if not self.redoable:
            with pytest.raises(NothingToDo):
                self.project.redo()
            return
        self.project.redo()
        assert_back(self.redoable.pop(), self.now())
        self.undoable.append(before)

    @precondition(lambda self: len(self.taken) > 1)
    @rule(keep=st.integers(1, 3))
    def prune(self, keep: int) -> None:
        """Forget old snapshots; the newest stays, and what is kept is whole."""
        with self.project.engine() as engine:
            removed = {s.id for s in engine.prune(keep_last=keep).removed}
            left = {s.id for s in engine.snapshots()}
        assert self.taken[-1][0].id in left
        self.taken = [(s, m) for s, m in self.taken if s.id not in removed]
        assert {s.id for s, _ in self.taken} <= left
        self._forget_undone(removed)

    def _forget_undone(self, removed: set[str]) -> None:
        """Drop from the model what can no longer be undone since its snapshot is gone."""
        with self.project.engine() as engine:
            undo, redo = engine._displaced()
        while self.undoable and len(undo) >= len(self.undoable) and undo[0] in removed:
            undo.pop(0)
            self.undoable.pop(0)
        while self.redoable and redo and redo[0] in removed:
            redo.pop(0)
            self.redoable.pop(0)

    @precondition(lambda self: self.taken)
    @rule(number=st.integers(0, 100))
    def diff(self, number: int) -> None:
        """Nothing differs exactly where the fingerprints agree, times of folders aside."""
        taken, then = self.taken[number % len(self.taken)]
        with self.project.engine() as engine:
            changes = engine.diff(taken, None).changes
        told = [line for line in differences(then, self.now()) if not _only_of_folder(line)]
        if not told and owners(self.project.path) == self.owned[taken.id]:
            assert not changes, (changes, told)
        content = [line for line in told if "sha256" in line and "-shm" not in line]
        if content:
            assert changes

    @precondition(lambda self: self.taken)
    @rule()
    def drill(self) -> None:
        """A rehearsal passes and touches nothing."""
        before = self.now()
        with self.project.engine() as engine:
            report = engine.drill(engine.find_snapshot("last"))
        assert report.passed, report.failures
        assert_back(before, self.now())

    @invariant()
    def the_store_is_whole(self) -> None:
        """Whatever was done, nothing in the store is damaged or unfinished."""
        with contextlib.suppress(NothingToDo), self.project.engine(create=False) as engine:
            report = engine.verify(repair=False)
            assert report.ok, report.damage
            assert not engine.status().unfinished


def _only_of_folder(line: str) -> bool:
    return "mtime_ns" in line or "group" in line


EngineMachine.TestCase.settings = settings(
    max_examples=max(10, EXAMPLES // 4),
    stateful_step_count=12,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    database=None,
)
TestEngineMachine: Any = pytest.mark.timeout(120 + 4 * EXAMPLES)(EngineMachine.TestCase)
