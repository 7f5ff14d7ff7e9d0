"""Keeping what a restore is about to displace: the undo snapshot.

Files are linked into the store before they are replaced, so nothing is copied where the file
system allows; databases go through their own capture. What the store has already is referred to.
"""

from __future__ import annotations

import os
import secrets
import time
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import replace

from rollback.custody import Custody
from rollback.databases import DatabaseTaker, Found, with_upkeep, written_beside
from rollback.failpoints import reach
from rollback.folders import join, split
from rollback.inventory import present_facts
from rollback.model import Entry, Kind, Operation, Policy, ResourceState, Skip, Snapshot
from rollback.obstacles import bar_above
from rollback.plan import TreePlan, is_selected
from rollback.reports import Selection
from rollback.resources.base import Resource, Weight
from rollback.snapshots import commit_snapshot, state_named, tree_state
from rollback.store.codec import decode_entry, encode_entry, record_name
from rollback.store.store import Store
from rollback.store.writer import UPKEEP, BlobWriter
from rollback.walk import bare, open_root

_FIX = "move it away, or make it readable"
_MISSING = "the store does not have what is there now, so it stays"

_TOLD = ("target_id", "target_seq", "paths", "categories")
"""What an undo snapshot says of the restore that made it, should the log be lost."""


class Displacer:
    """Builds the undo snapshot of one restore, inside the caller's transaction.

    Args:
        store: Its lock is held.
        operation: The restore.
        target: The snapshot that is put back.
    """

    def __init__(self, store: Store, operation: Operation, target: Snapshot) -> None:
        self.store = store
        self.operation = operation
        self.target = target
        self.writer = BlobWriter(store.reader, f"{operation.seq:08d}-u")
        self.states: list[ResourceState] = []
        self.skips: list[Skip] = []

    def keep_tree(self, plan: TreePlan, selection: Selection, databases: Iterable[bytes]) -> None:
        """Keep the present state of one root, as far as the plan displaces it.

        What cannot be kept leaves the plan: it stays, and is named as not put back.

        Args:
            plan: Of one root; what cannot be kept is barred in it.
            selection: Which part is put back.
            databases: Paths in the root where databases will be put.

        Raises:
            NoSpace: It does not fit; nothing was changed.
        """
        live = plan.live
        displaced = dict(plan.displaced())
        custody = self._take(plan, sorted(displaced), selection)
        missing = {
            path: _MISSING
            for path, entry in displaced.items()
            if path not in custody.kept
            and path not in custody.gone
            and (path in live.changed or not self.writer.knows(entry.ref))
        }
        for path, why in (missing | custody.refused).items():
            plan.lost.pop(path, None)
            plan.bar(path, why, _FIX)
        bar_above(plan, databases)
        tree = _Converter(plan, custody, self.writer).convert(live.tree, b"")
        links = [[p for p in group if p not in custody.gone] for group in live.captured.links]
        root = plan.target.root
        facts = present_facts(state_named(self.target, root.resource, root.name))
        captured = replace(
            live.captured,
            root=replace(root, facts=facts),
            tree=tree,
            links=[g for g in links if len(g) > 1],
        )
        self.states.append(tree_state(captured))

    def keep_databases(
        self, resources: Sequence[Resource], unchanged: list[ResourceState]
    ) -> dict[str, str]:
        """Keep the present state of databases; return those that do not fit, and why.

        Whoever asked has to leave these where they are.

        Args:
            resources: Those that will be put back or removed.
            unchanged: What the target says of those that are as it has them. An undo has to know
                them: they may change before it.
        """
        self.states += unchanged
        work = self.store.work(self.operation.seq)
        found = [Found(one, None, one.weigh(self._wanted(one))) for one in resources]
        self.store.reserve.release(sum(with_upkeep(one.weight.most) for one in found))
        taker = DatabaseTaker(self.store, self.writer, work, self._spare)
        refused: dict[str, str] = {}
        for taken in taker.take_all(found):
            self.states.append(taken.state)
            self.skips += taken.skips
            if taken.refused:
                refused[taken.state.location] = taken.refused
        return refused

    def _wanted(self, resource: Resource) -> ResourceState | None:
        """Return what the target has of a resource: that is in the store already."""
        return state_named(self.target, resource.resource, resource.name)

    def _spare(self, weight: Weight) -> int:
        """Return how many bytes of a database may be kept; a rollback heeds no quota."""
        beside = written_beside(weight, os.stat(self.store.catalog.path).st_size)
        return max(0, self.store.reserve.free() - beside - UPKEEP * self.writer.added)

    def commit(self) -> Snapshot:
        """Commit the undo snapshot; the caller's transaction makes it visible."""
        reach("undo.commit")
        snapshot = Snapshot(
            self.operation.seq,
            secrets.token_hex(8),
            "undo",
            f"before {self.operation.kind} to {self.target.seq}",
            time.time(),
            self.target.project,
            tuple(self.states),
            tuple(self.skips),
            {"restore": {key: self.operation.data.get(key) for key in _TOLD}},
        )
        commit_snapshot(self.store, self.writer, snapshot)
        return snapshot

    def abandon(self) -> None:
        """Forget what was begun."""
        self.writer.abandon()

    def _take(self, plan: TreePlan, displaced: list[bytes], selection: Selection) -> Custody:
        """Take what the plan displaces, and what stays and could be missed by the undo.

        Objects of a repository stay, but their owner removes them when nothing refers to them
        any more. A file that is equal to one which a process may still write to, where a rollback
        moved that, is a file of its own.
        """
        live, root = plan.live, plan.target.root
        work = self.store.work(self.operation.seq)
        custody = Custody(self.store, self.writer, work, root, live.changed)
        going = [path for path in displaced if path in live.changed]
        place = self.store.catalog.place
        staying = [
            path
            for path in sorted(live.changed.keys() - plan.same.keys() - set(displaced))
            if root.policy(path) is Policy.LINK
            and root.keep_extra(path)
            and is_selected(root, path, selection)
        ]
        staying += [
            path
            for path, entry in plan.same.items()
            if path in live.changed and (at := place(entry.ref)) is not None and at.moved
        ]
        if going or staying:
            fd = open_root(root.path)
            try:
                custody.take(fd, going)
                custody.take_along(fd, staying)
            finally:
                os.close(fd)
        return custody


class _Converter:
    """Turns the trees of a look at the present into trees that the store can keep."""

    def __init__(self, plan: TreePlan, custody: Custody, writer: BlobWriter) -> None:
        self.plan = plan
        self.custody = custody
        self.writer = writer
        self._concerned = _by_folder([*plan.live.changed, *custody.gone])

    def convert(self, tree: bytes, path: bytes) -> bytes:
        """Keep a tree as it will be when what could not be taken is left out; return its id."""
        live = self.plan.live
        if not live.is_new(tree):
            return tree
        records = list(live.records(tree))
        for at, record in enumerate(records):
            if record[0] == Kind.DIRECTORY:
                records[at] = self._record(path, record)
        gone = []
        for name in self._concerned.get(path, ()):
            at = bisect_left(records, name, key=record_name)
            if at == len(records) or record_name(records[at]) != name:
                continue
            if join(path, name) in self.custody.gone:
                gone.append(at)
            elif records[at][0] != Kind.DIRECTORY:
                records[at] = self._record(path, records[at])
        for at in sorted(gone, reverse=True):
            del records[at]
        return self.writer.add_tree(records)

    def _record(self, folder: bytes, record: bytes) -> bytes:
        entry = decode_entry(record)
        return encode_entry(self._entry(join(folder, entry.name), entry))

    def _entry(self, path: bytes, entry: Entry) -> Entry:
        if entry.kind is Kind.DIRECTORY:
            mode = self.plan.live.opened.get(path, entry.mode)
            return entry._replace(ref=self.convert(entry.ref, path), mode=mode)
        if entry.kind is not Kind.FILE or path not in self.plan.live.changed:
            return entry
        same = self.plan.same.get(path)
        kept = self.custody.kept.get(path)
        if same is not None and kept is None:
            return entry._replace(ref=same.ref)
        if kept is None:
            return entry._replace(kind=Kind.UNPROTECTED, ref=b"")
        if kept.info is None:
            return entry._replace(ref=kept.ref)
        return bare(entry.name, Kind.FILE, kept.info, ref=kept.ref, xattrs=kept.xattrs)


def _by_folder(paths: Iterable[bytes]) -> dict[bytes, list[bytes]]:
    """Return the names in each folder."""
    found: dict[bytes, list[bytes]] = {}
    for folder, name in map(split, paths):
        found.setdefault(folder, []).append(name)
    return found
