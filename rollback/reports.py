"""What the engine's verbs return; plain values that one place renders as text or JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from rollback.model import Category, Operation, Skip, Snapshot, Step, TableChange


@dataclass(frozen=True, slots=True)
class SnapshotReport:
    """A snapshot that was taken, and what taking it cost.

    Attributes:
        snapshot: The snapshot.
        elapsed_s: Wall time in seconds.
        new_bytes: Bytes that were added to the store.
        categories: Files and bytes protected, by category.
        removed: Old snapshots that went to make room for it.
    """

    snapshot: Snapshot
    elapsed_s: float
    new_bytes: int
    categories: Mapping[Category, tuple[int, int]]
    removed: tuple[Snapshot, ...] = ()


@dataclass(frozen=True, slots=True)
class DrillPart:
    """One part of a rehearsal: a root or a resource."""

    name: str
    files: int
    bytes: int
    elapsed_s: float
    estimated_s: float


@dataclass(frozen=True, slots=True)
class DrillReport:
    """The verdict of a rehearsal.

    Attributes:
        snapshot_id: What was rehearsed.
        mode: ``full`` or ``sample``.
        elapsed_s: Measured wall time of the rehearsal.
        estimate_s: Time that a rollback of everything is expected to take.
        bound_s: Time that a rollback of everything will not exceed; measured in full mode,
            computed from the sample otherwise.
        budget_s: What it is held against.
        passed: Whether the content was reproduced and the bound fits the budget.
        files: Files that were restored.
        bytes: Bytes that were restored.
        parts: Slowest first.
        failures: What did not come back right; empty where `passed` only failed on time.
        notes: What did not work before either: a rollback will bring it back as it is.
        skips: What could not be proven.
    """

    snapshot_id: str
    mode: str
    elapsed_s: float
    estimate_s: float
    bound_s: float
    budget_s: float
    passed: bool
    files: int
    bytes: int
    parts: tuple[DrillPart, ...] = ()
    failures: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    skips: tuple[Skip, ...] = ()


@dataclass(frozen=True, slots=True)
class Selection:
    """Which part of a snapshot is put back; empty means everything.

    Attributes:
        paths: Absolute paths, files or folders, bytes.
        categories: Categories; a path has to match one of each that is given.
    """

    paths: tuple[bytes, ...] = ()
    categories: frozenset[Category] = frozenset()


@dataclass(frozen=True, slots=True)
class RestorePlan:
    """What a rollback would do; `apply` consumes it.

    Attributes:
        snapshot: The state that is put back.
        steps: In the order in which people read them; empty where nothing differs.
        selection: What was asked for.
        unrestorable: Paths whose content the store does not have (watched, unprotected, damaged).
    """

    snapshot: Snapshot
    steps: tuple[Step, ...]
    selection: Selection
    unrestorable: tuple[Skip, ...] = ()


@dataclass(frozen=True, slots=True)
class RestoreOutcome:
    """A rollback, undo or redo that was carried out.

    Attributes:
        operation_id: Its line in the log.
        snapshot_id: What was put back.
        undo_id: The snapshot that holds what was displaced.
        steps: What was changed.
        elapsed_s: Wall time in seconds, verification included.
        verified: Whether the state was read again and equals the snapshot.
        kept_aside: Things that were found changed in the middle of it and kept elsewhere.
        skipped: What could not be put back, and why.
        problems: What is back as it was and does not work: a broken repository or environment.
        unchecked: What could not be found out about that, or is left to do by hand although the
            state is back: a server to be restarted.
    """

    operation_id: str
    snapshot_id: str
    undo_id: str
    steps: tuple[Step, ...]
    elapsed_s: float
    verified: bool
    kept_aside: tuple[str, ...] = ()
    skipped: tuple[Skip, ...] = ()
    problems: tuple[str, ...] = ()
    unchecked: tuple[Skip, ...] = ()


@dataclass(frozen=True, slots=True)
class Change:
    """One difference between two states.

    Attributes:
        action: ``added``, ``modified``, ``deleted``, ``metadata``.
        resource: Name of the resource.
        category: Category of the path.
        path: Path that people read.
        detail: What else is worth saying: of a database its schema revision.
        old_bytes: Size before, None where absent.
        new_bytes: Size after, None where absent.
        tables: Of a database, the tables that differ, with their rows.
        owner: Of a file in a Python environment, the distribution that was installed, removed
            or exchanged with it; empty for a file that changed by itself.
    """

    action: str
    resource: str
    category: Category
    path: str
    detail: str = ""
    old_bytes: int | None = None
    new_bytes: int | None = None
    tables: tuple[TableChange, ...] = ()
    owner: str = ""


@dataclass(frozen=True, slots=True)
class DistributionChange:
    """One distribution of a Python environment that differs.

    Attributes:
        action: ``added``, ``modified``, ``deleted``.
        environment: Absolute path of the environment.
        name: The distribution's, as an index knows it.
        old_version: Version before, with its origin where it is no index; None where absent.
        new_version: Version after; None where absent.
    """

    action: str
    environment: str
    name: str
    old_version: str | None = None
    new_version: str | None = None


@dataclass(frozen=True, slots=True)
class Difference:
    """What differs between a snapshot and another, or the present.

    Attributes:
        old_id: The earlier snapshot.
        new_id: The later one, None for the present.
        changes: Files and databases.
        distributions: What that means for the Python environments.
    """

    old_id: str
    new_id: str | None
    changes: tuple[Change, ...]
    distributions: tuple[DistributionChange, ...] = ()

    def count(self, action: str) -> int:
        """Return the number of changes of one action."""
        return sum(change.action == action for change in self.changes)


@dataclass(frozen=True, slots=True)
class Damage:
    """Something in the store that is not what it was.

    Attributes:
        what: The blob, pack or table.
        snapshots: Ids of the snapshots that need it.
        paths: Paths whose content it is, at most twenty.
        repaired: Whether it was mended.
    """

    what: str
    snapshots: tuple[str, ...]
    paths: tuple[str, ...]
    repaired: bool = False


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """The outcome of reading the whole store."""

    blobs: int
    bytes: int
    snapshots: int
    damage: tuple[Damage, ...]
    elapsed_s: float

    @property
    def ok(self) -> bool:
        """Whether nothing is damaged, or all of it was mended."""
        return all(damage.repaired for damage in self.damage)


@dataclass(frozen=True, slots=True)
class PruneReport:
    """Which snapshots were removed and what that freed.

    Attributes:
        removed: Those that went.
        for_room: Those of them that went because the store was too large.
        kept: Those that stay, with the reason.
        freed_bytes: What the store takes less.
        excess_bytes: What it takes more than it should, all the same; 0 for nothing.
        dry_run: Whether nothing was removed.
    """

    removed: tuple[Snapshot, ...]
    for_room: tuple[Snapshot, ...]
    kept: tuple[tuple[Snapshot, str], ...]
    freed_bytes: int
    excess_bytes: int
    dry_run: bool


@dataclass(frozen=True, slots=True)
class StoreStatus:
    """Where the store is and how much is in it.

    Attributes:
        path: Its folder.
        bytes: What only it has.
        snapshots: How many were taken; those of what rollbacks displaced are not counted.
        displaced: How many hold what a rollback displaced.
        why_here: Why it is there.
        unfinished: Operations whose owner died.
        at_work: Operations whose owner lives.
    """

    path: str
    bytes: int
    snapshots: int
    displaced: int
    why_here: str
    unfinished: tuple[Operation, ...] = ()
    at_work: tuple[Operation, ...] = ()
