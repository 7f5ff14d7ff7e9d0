"""Taking a snapshot where it does not fit beside the old ones: the oldest of them go first."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

from rollback.capture import Job, Resolving, capture_tree
from rollback.databases import DatabaseTaker
from rollback.errors import NoSpace
from rollback.inventory import EngineSettings, Inventory
from rollback.keeping import KeepingResolver, stored_size
from rollback.model import Kind, Operation, Snapshot
from rollback.reading import Kept
from rollback.reports import SnapshotReport
from rollback.resources.base import Root
from rollback.retention import Rules, prune
from rollback.room import Crowded, Room
from rollback.snapshots import SnapshotTaker, absolute, find_databases, outside
from rollback.store.codec import EMPTY_TREE
from rollback.store.store import Store
from rollback.store.writer import BlobWriter

_WORTH_A_TRY = 64 << 10
"""Bytes of content; for less, a snapshot is not tried once more."""


class Wanted(NamedTuple):
    """What to take: everything in an inventory, as what, under which label."""

    inventory: Inventory
    kind: str
    label: str


def take_snapshot(
    store: Store,
    settings: EngineSettings,
    operation: Operation,
    newest: Callable[[], Snapshot | None],
    wanted: Wanted,
) -> SnapshotReport:
    """Take a snapshot; where old ones are in its way, remove as many as it takes, oldest first.

    Args:
        store: Where it goes; its lock is held.
        settings: Project and command.
        operation: The operation that takes it.
        newest: Returns the newest snapshot.
        wanted: What to take.

    Raises:
        CaptureFailed: Nothing of it is kept; old snapshots may be gone.
        NoSpace: The same, for want of space.
    """
    before = newest()
    taker = SnapshotTaker(store, settings, operation, before, forgetful=before is not None)
    try:
        return taker.take(wanted.inventory, kind=wanted.kind, label=wanted.label)
    except Crowded:
        _forget(store, operation)
        removed = _make_room(store, settings, operation, before, wanted.inventory)
    except NoSpace:
        # Content of the first roots took what the catalog needs for the others; now that is known.
        if taker.room is None or not taker.room.upkeep:
            raise
        _forget(store, operation)
        removed = ()
    most = sys.maxsize
    while True:
        upkeep = 0 if taker.room is None else taker.room.upkeep
        taker = SnapshotTaker(store, settings, operation, newest())
        taker.upkeep, taker.careful, taker.most = upkeep, not removed, most
        try:
            report = taker.take(wanted.inventory, kind=wanted.kind, label=wanted.label)
        except NoSpace:
            if not most:
                raise
            _forget(store, operation)
            most = _less(most, taker.room)
        else:
            return replace(report, removed=removed)


def _less(most: int, room: Room | None) -> int:
    """Return how much content to keep at the most where there was no room for more.

    Half of it, then a quarter: how much there is, no system tells whose quota it is. In the end
    nothing, and all is named; at once, where the disk says itself that there is nothing.
    """
    half = 0 if room is None else min(most, room.asked, room.offered) // 2
    return half if half >= _WORTH_A_TRY else 0


def _forget(store: Store, operation: Operation) -> None:
    """Remove what the first try wrote."""
    with store.catalog.transaction():
        store.litter.note_unclean(operation.started_at)
    store.litter.clean(operation.seq)
    os.makedirs(store.work(operation.seq), mode=0o700, exist_ok=True)
    store.litter.drop_unknown()


def _make_room(
    store: Store,
    settings: EngineSettings,
    operation: Operation,
    newest: Snapshot | None,
    inventory: Inventory,
) -> tuple[Snapshot, ...]:
    """Remove old snapshots for what fits when they are gone; return what was removed.

    What does not fit in any case is not what anything is removed for.
    """
    room = Room(store, settings.max_store_bytes, BlobWriter(store.reader, f"{operation.seq:08d}-w"))
    sizes: list[int] = []
    databases: list[bytes] = []
    for root in inventory.roots:
        weigher = _Weigher(root, room)
        databases += absolute(capture_tree(root, store.reader, weigher, update_index=False))
        sizes += weigher.sizes
    left = room.allow((), ())
    most = left + prune(store, Rules(keep_last=sys.maxsize, max_bytes=0), dry_run=True).freed_bytes
    taker = DatabaseTaker(store, room.writer, store.work(operation.seq), room.spare)
    for found in find_databases(
        [*databases, *outside(inventory)], settings, newest, room.writer.distrusted
    ):
        sizes.append(taker.need(found, most))
    needed = 0
    for size in sorted(sizes):
        if needed + size > most:
            break
        needed += size
    goal = store.used() - (needed - left)
    removed: list[Snapshot] = []
    rules = Rules(keep_last=sys.maxsize, max_bytes=max(0, goal))
    with contextlib.suppress(NoSpace):  # to remove takes a little room, too
        while store.used() > goal:  # what is dead in a pack that stays is not free yet
            report = prune(store, rules, dry_run=False)
            if not report.removed:
                break
            removed += report.removed
    return tuple(removed)


class _Weigher(KeepingResolver):
    """Keeps nothing, and notes what copies of the files would take."""

    def __init__(self, root: Root, room: Room) -> None:
        super().__init__(root, room.writer, b"", room.allow)
        self.sizes: list[int] = []

    def begin(self, root_fd: int, jobs: list[Job]) -> Resolving:
        """Note files; nothing is read but the beginning of large ones: databases are told."""
        results: list[Kept | None] = [None] * len(jobs)
        copied = self._sort(root_fd, jobs, results)[1]
        self.allowance(jobs, ())
        self.sizes += [stored_size(jobs[index].info) for index in copied]
        return Resolving(lambda: [kept or Kept(Kind.UNPROTECTED) for kept in results])

    def add_tree(self, records: list[bytes]) -> bytes:  # noqa: ARG002 - as of a resolver
        """Keep nothing."""
        return EMPTY_TREE
