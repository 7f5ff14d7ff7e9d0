"""Forgetting old snapshots: what goes is said first, and only what nothing else needs goes.

References are counted in the catalog, so deleting a snapshot costs what it alone refers to.
Rows go in one commit; the files they named are written down in the same commit and removed
after it, again at the next prune if this one is killed.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from rollback.errors import CaptureFailed, NoSpace, StoreCorrupt, speaking
from rollback.failpoints import reach
from rollback.history import History, displaced_by
from rollback.lock import is_alive
from rollback.model import Snapshot
from rollback.removal import remove_path
from rollback.repacking import repack
from rollback.reports import PruneReport
from rollback.snapshots import blobs_of, document_name, load
from rollback.store.blobs import file_path
from rollback.store.catalog import BlobKind
from rollback.store.owned import ASIDE, aside_files, aside_path, asides
from rollback.store.packs import HEAD
from rollback.store.store import Store
from rollback.trash import sweep

KEEP_LAST = 20
KEEP_DAYS = 30.0
_DAY_S = 86_400.0


@dataclass(frozen=True, slots=True)
class Rules:
    """Which snapshots stay: any rule that holds keeps one; the size is held last.

    Attributes:
        keep_last: The newest so many; with `keep_days` None too, the defaults are used.
        keep_days: Those of the last so many days.
        max_bytes: Oldest go until the store is no larger.
    """

    keep_last: int | None = None
    keep_days: float | None = None
    max_bytes: int | None = None


def prune(store: Store, rules: Rules, *, dry_run: bool) -> PruneReport:
    """Delete what the rules do not keep; with `dry_run`, only say what that would be.

    Looking takes no lock: it works while another operation is at work.

    Raises:
        StoreBusy: Another operation holds the store.
    """
    depth = store.lock.depth
    if not dry_run:
        store.lock.acquire()
    try:
        snapshots = [load(row[0]) for row in _documents(store)]
        protected = _protected(store, snapshots)
        keep, go = _sort(snapshots, protected, rules)
        before = store.used()
        crowded: list[Snapshot] = []
        with contextlib.suppress(_DryRun), store.catalog.transaction():
            sweeper = _Sweeper(store)
            for snapshot in go:
                reach("prune.mark")
                sweeper.delete(snapshot)
            while rules.max_bytes is not None and sweeper.remaining(before) > rules.max_bytes:
                oldest = next((s for s, why in reversed(keep) if s.id not in protected), None)
                if oldest is None:
                    break
                keep = [(s, why) for s, why in keep if s is not oldest]
                crowded.append(oldest)
                sweeper.delete(oldest)
            sweeper.finish()
            if dry_run:
                raise _DryRun
        if not dry_run:
            reach("prune.marked")
            store.litter.clean(0)
            sweep(store.folder)
            remove_garbage(store)
            try:
                with speaking(CaptureFailed, "packs could not be written anew"):
                    repack(store)
            except NoSpace:
                store.litter.clean(0)  # what is dead in them stays until there is room
            remove_garbage(store)
        limit = before if rules.max_bytes is None else rules.max_bytes
        excess = max(0, sweeper.remaining(before) - limit)
        gone, room = (*go, *crowded), tuple(crowded)
        return PruneReport(gone, room, tuple(keep), sweeper.freed, excess, dry_run)
    finally:
        store.lock.release_to(depth)


class _DryRun(Exception):
    """Takes the transaction of a dry run back."""


def _documents(store: Store) -> list[tuple[bytes]]:
    return store.catalog.db.execute("SELECT document FROM snapshot ORDER BY seq DESC").fetchall()


def _protected(store: Store, snapshots: list[Snapshot]) -> dict[str, str]:
    """Return the ids that no rule may delete, with the reason; each project has its own."""
    protected: dict[str, str] = {}
    damaged = store.catalog.value("damaged").split()
    back = _ways_back(store)
    for mine in _by_project(snapshots):
        good = next((s for s in mine if s.kind != "undo" and s.id not in damaged), None)
        if good is not None:
            protected[good.id] = "the newest good snapshot"
        newest = [s.id for s in mine if s.kind == "undo"][:1]
        for undo in (*newest, *History(store, mine[0].project).next_undo()):
            for snapshot in back.get(undo, [undo]):
                protected[snapshot] = "what the newest rollback displaced"
    for operation in store.catalog.operations("WHERE state IN ('running', 'applying')"):
        alive = is_alive(operation.data.get("owner", {}))
        why = "a running operation needs it" if alive else "an unfinished operation needs it"
        for key in ("snapshot_id", "target_id", "undo_id"):
            if operation.data.get(key):
                protected[str(operation.data[key])] = why
    return protected


def _ways_back(store: Store) -> dict[str, list[str]]:
    """Return what takes a restore back: by the id of what the restore itself displaced."""
    made = dict(store.catalog.db.execute("SELECT seq, id FROM snapshot WHERE kind = 'undo'"))
    return {
        made[operation.seq]: displaced_by(operation)
        for operation in store.catalog.operations("WHERE state = 'done'")
        if operation.seq in made and operation.data.get("undo_id")
    }


def _by_project(snapshots: list[Snapshot]) -> list[list[Snapshot]]:
    """Return the snapshots of each project, in their order: a store may serve several."""
    found: dict[str, list[Snapshot]] = {}
    for snapshot in snapshots:
        found.setdefault(snapshot.project, []).append(snapshot)
    return list(found.values())


def _sort(
    snapshots: list[Snapshot], protected: dict[str, str], rules: Rules
) -> tuple[list[tuple[Snapshot, str]], list[Snapshot]]:
    """Return what is kept, with the reason, and what goes; by number and age."""
    last, days = rules.keep_last, rules.keep_days
    if last is None and days is None:
        last, days = KEEP_LAST, KEEP_DAYS
    keep: list[tuple[Snapshot, str]] = []
    go: list[Snapshot] = []
    normal: Counter[str] = Counter()
    for snapshot in snapshots:
        normal[snapshot.project] += snapshot.kind != "undo"
        age_s = time.time() - snapshot.created_at
        if snapshot.id in protected:
            keep.append((snapshot, protected[snapshot.id]))
        elif last is not None and normal[snapshot.project] <= last:
            keep.append((snapshot, f"one of the last {last}"))
        elif days is not None and age_s < days * _DAY_S:
            keep.append((snapshot, f"younger than {days:g} day{'s' * (days != 1)}"))
        else:
            go.append(snapshot)
    return keep, go


class _Sweeper:
    """Takes references back and deletes what is left without any."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.db = store.catalog.db
        self.freed = 0
        self._dead: dict[int, int] = {}
        self._asides: set[int] = set()
        self._owned = store.owned()

    def delete(self, snapshot: Snapshot) -> None:
        for state in snapshot.states:
            self._release(blobs_of(state))
        self.db.execute("DELETE FROM snapshot WHERE id = ?", (snapshot.id,))
        self._garbage(f"snapshots/{document_name(snapshot)}.json")
        if snapshot.kind == "undo":
            self._forget_aside(snapshot.seq)

    def remaining(self, before: int) -> int:
        return before - self.freed

    def _forget_aside(self, seq: int) -> None:
        """Remove what a restore put aside: it goes with the undo that it belongs to."""
        self._asides.add(seq)
        self.freed += sum(map(self._owned.drop, aside_files(self.store.folder, seq)))
        self._garbage(os.fsdecode(aside_path(b"", seq)))

    def finish(self) -> None:
        # Of an operation that nobody knows nobody can say whether its undo is gone.
        undone = self.db.execute(
            "SELECT seq FROM operation WHERE ended_at IS NOT NULL"
            " AND seq NOT IN (SELECT seq FROM snapshot WHERE kind = 'undo')"
        ).fetchall()
        for seq in {row[0] for row in undone}.intersection(asides(self.store.folder)):
            if seq not in self._asides:
                self._forget_aside(seq)
        rows = self.db.execute("SELECT id FROM blob WHERE refs = 0").fetchall()
        for (blob,) in rows:
            self._drop(blob)
        if rows or self._dead:
            self.db.execute(
                "DELETE FROM live WHERE NOT EXISTS (SELECT 1 FROM blob WHERE blob.id = live.tree)"
            )
        for pack, dead in self._dead.items():
            self.db.execute("UPDATE pack SET dead = dead + ? WHERE id = ?", (dead, pack))
        self._drop_dead_packs()

    def _release(self, blobs: Iterable[bytes]) -> None:
        waiting = list(blobs)
        while waiting:
            blob = waiting.pop()
            row = self.db.execute(
                "UPDATE blob SET refs = refs - 1 WHERE id = ? RETURNING refs", (blob,)
            ).fetchone()
            if row is not None and row[0] <= 0:
                waiting += self._drop(blob, follow=False)

    def _drop(self, blob: bytes, *, follow: bool = True) -> list[bytes]:
        """Delete a blob's row and return (or release) what it referred to."""
        place = self.store.catalog.place(blob)
        if place is None:
            return []
        children: list[bytes] = []
        with contextlib.suppress(StoreCorrupt, OSError):
            children = self.store.reader.children(blob)
        self.db.execute("DELETE FROM blob WHERE id = ?", (blob,))
        # An inode is given out again: its next file may have the same size and time.
        self.db.execute("DELETE FROM digest WHERE id = ?", (blob,))
        if place.kind in {BlobKind.LOOSE, BlobKind.INODE}:
            path = file_path(b"", place.kind, blob).decode()
            self._garbage(path)
            if place.kind is BlobKind.LOOSE:
                self.freed += place.stored
            elif place.offset:
                self.freed += self._owned.drop(os.path.join(self.store.folder, path.encode()))
        else:
            self._dead[place.pack] = self._dead.get(place.pack, 0) + place.length + HEAD.size
            self.freed += place.length
        if follow:
            self._release(children)
            return []
        return children

    def _drop_dead_packs(self) -> None:
        packs = self.db.execute("SELECT id, name FROM pack WHERE dead > 0").fetchall()
        if not packs:
            return
        # One look at all blobs: a look for each pack would read them as often as there are packs.
        rows = self.db.execute("SELECT DISTINCT pack FROM blob WHERE kind NOT IN (2, 4)")
        used = {row[0] for row in rows}
        for number, name in packs:
            if number not in used:
                self.db.execute("DELETE FROM pack WHERE id = ?", (number,))
                self._garbage(f"packs/{name}.pack")

    def _garbage(self, path: str) -> None:
        self.db.execute("INSERT OR IGNORE INTO garbage VALUES (?)", (path,))


def remove_garbage(store: Store) -> None:
    """Remove the files that deleted rows had named; what is in use again stays."""
    db = store.catalog.db
    paths = [row[0] for row in db.execute("SELECT path FROM garbage").fetchall()]
    if not paths:
        return
    for path in paths:
        reach("prune.unlink")
        if not _in_use(store, path):
            whole = os.path.join(store.folder, path.encode())
            if path.startswith(os.fsdecode(ASIDE)):
                remove_path(whole)
                continue
            with contextlib.suppress(FileNotFoundError):
                os.unlink(whole)
    with store.catalog.transaction():
        db.executemany("DELETE FROM garbage WHERE path = ?", ((path,) for path in paths))


def _in_use(store: Store, path: str) -> bool:
    folder, _, name = path.rpartition("/")
    if folder.startswith(("loose", "links")):
        return store.catalog.place(bytes.fromhex(name)) is not None
    if folder == os.fsdecode(ASIDE):
        wanted = "SELECT 1 FROM snapshot WHERE kind = 'undo' AND seq = ?"
        return store.catalog.db.execute(wanted, (int(name),)).fetchone() is not None
    if folder == "packs":
        stem = name.removesuffix(".pack")
        row = store.catalog.db.execute("SELECT 1 FROM pack WHERE name = ?", (stem,)).fetchone()
        return row is not None
    return False
