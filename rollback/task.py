"""One restore while it is carried out: what it works with, and what it has to say."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field

from rollback.metadata import AS_OWNER
from rollback.model import Operation, Skip
from rollback.obstacles import (
    Obstacle,
)
from rollback.plan import TreePlan
from rollback.store.store import Store
from rollback.store.vault import StoreVault
from rollback.work import Work


@dataclass(slots=True)
class Task:
    """What the parts of one restore share.

    Attributes:
        store: Its lock is held.
        operation: The line in the log; it has been begun.
        work: From `make_plan`.
        environ: Variables of the user's command; guard's own where None.
        resumed: Whether this finishes what stopped half way: what stands in the way now stays
            there, so it is named, and everything else is put back.
        stages: Number of a root → top of a file system in it → its staging folder.
        share: Whether large blobs are put in place themselves, for want of space.
        shared: Those that were.
        kept_aside: What was found changed in the middle of it and is kept elsewhere.
        notes: What could not be done.
        by_hand: What is left to do although the state is back.
        obstacles: What stood in the way of a step.
    """

    store: Store
    operation: Operation
    work: Work
    environ: Mapping[str, str] | None = None
    resumed: bool = False
    stages: dict[int, dict[bytes, bytes]] = field(default_factory=dict)
    share: bool = False
    shared: set[bytes] = field(default_factory=set)
    kept_aside: list[str] = field(default_factory=list)
    notes: list[Skip] = field(default_factory=list)
    by_hand: list[Skip] = field(default_factory=list)
    obstacles: list[Obstacle] = field(default_factory=list)

    def databases_in(self, plan: TreePlan) -> set[bytes]:
        """Return the paths of databases in a root that are put back or removed."""
        below = plan.target.root.path + b"/"
        paths = {work.path for work in self.work.databases if work.path.startswith(below)}
        return {path[len(below) :] for path in paths}

    def vault(self) -> StoreVault:
        """Return where databases find their content."""
        scratch = os.path.join(self.store.work(self.operation.seq), b"vault")
        os.makedirs(scratch, mode=0o700, exist_ok=True)
        return StoreVault(self.store.reader, None, scratch)

    def note(self, plan: TreePlan, path: bytes, why: str, fix: str = AS_OWNER) -> None:
        """Name what could not be done at a path of a root, once."""
        shown = os.fsdecode(os.path.join(plan.target.root.path, path))
        skip = Skip(shown, why, fix)
        if skip not in self.notes:
            self.notes.append(skip)
