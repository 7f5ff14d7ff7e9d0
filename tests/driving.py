"""Driving the engine as a command does: one engine a verb, opened and closed."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rollback import unseen
from rollback.engine import Engine
from rollback.folders import allow_many_files
from rollback.inventory import EngineSettings
from rollback.model import Snapshot
from rollback.repairing import repair_store
from rollback.reports import RestoreOutcome, Selection, SnapshotReport, VerifyReport

# The engine raises limits when it is opened; hypothesis objects to what changes during a test.
allow_many_files()
# Projects in memory stand for those on a disk, whose files are not read again without need. What is
# special to memory has its tests in `unit/test_unseen.py`.
IN_MEMORY, unseen.IN_MEMORY = unseen.IN_MEMORY, ()


class Project:
    """A project and its store in one scratch folder.

    Args:
        base: Holds both; the project is made where absent.
        name: Base name of the project's folder, any bytes.
        create: Whether to make the project; the bad run may have removed it.
    """

    def __init__(self, base: Path, name: bytes = b"project", *, create: bool = True) -> None:
        self.base = base
        self.root = base / os.fsdecode(name)
        self.store = base / "store"
        self.max_store_bytes = 20_000_000_000
        if create:
            self.root.mkdir(exist_ok=True)

    @property
    def path(self) -> bytes:
        """The project as bytes."""
        return os.fsencode(self.root)

    def engine(self, *, create: bool = True) -> Engine:
        """Open an engine."""
        return Engine(self.settings, create=create)

    @property
    def settings(self) -> EngineSettings:
        """What the engine is told."""
        environ = {"HOME": str(self.base), "PATH": str(self.base / "bin")}
        return EngineSettings(
            self.root, store=self.store, max_store_bytes=self.max_store_bytes, environ=environ
        )

    def snapshot(self) -> SnapshotReport:
        """Take a snapshot."""
        with self.engine() as engine:
            operation = engine.begin("snapshot", {})
            try:
                report = engine.snapshot(operation, kind="manual", label="")
            except BaseException:
                engine.finish(operation, "failed", {})
                raise
            engine.finish(operation, "done", {})
            return report

    def rollback(self, snapshot: Snapshot, selection: Selection | None = None) -> RestoreOutcome:
        """Put a snapshot back."""
        with self.engine() as engine:
            return engine.restore(engine.plan(snapshot, selection or Selection()))

    def undo(self) -> RestoreOutcome:
        """Take the newest rollback back."""
        with self.engine() as engine:
            target = engine.undo_target()
            return engine.restore(engine.plan(target, engine.selection_of(target)), kind="undo")

    def redo(self) -> RestoreOutcome:
        """Take the newest undo back."""
        with self.engine() as engine:
            target = engine.redo_target()
            return engine.restore(engine.plan(target, engine.selection_of(target)), kind="redo")

    def repair(self) -> tuple[VerifyReport, list[str]]:
        """Mend what can be mended."""
        return repair_store(self.settings)

    def recover(self) -> list[str]:
        """Finish or take back what died."""
        with self.engine() as engine:
            return engine.recover()


@contextmanager
def scratch_project(name: bytes = b"project") -> Iterator[Project]:
    """Give a project in memory where there is a place for that, else on disk; gone afterwards."""
    memory = "/dev/shm"
    place = memory if os.access(memory, os.W_OK) and not os.environ.get("GUARD_TEST_DISK") else None
    with tempfile.TemporaryDirectory(prefix="guard-", dir=place) as base:
        yield Project(Path(base).resolve(), name)
