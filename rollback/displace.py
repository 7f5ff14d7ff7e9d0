"""Keeping what a restore is about to displace: the undo snapshot.

Files are linked into the store before they are replaced, so nothing is copied where the file
system allows; databases go through their own capture. What the store has already is referred to.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import time
from dataclasses import replace

from rollback.capture import Job
from rollback.failpoints import reach
from rollback.folders import cached, join, split
from rollback.index import Folder
from rollback.keeping import KeepingResolver
from rollback.model import Entry, Kind, Operation, Policy, ResourceState, Skip, Snapshot
from rollback.plan import TreePlan
from rollback.reading import Kept, keep_link
from rollback.reports import Selection
from rollback.resources.base import Resource
from rollback.snapshots import capture_resource, commit_snapshot, tree_state
from rollback.store.blobs import BlobWriter
from rollback.store.codec import decode_entry, encode_entry, record_name
from rollback.store.store import Store
from rollback.walk import open_root

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

    def keep_tree(self, plan: TreePlan, selection: Selection) -> None:
        """Keep the present state of one root, as far as the plan displaces it."""
        live = plan.live
        displaced = {path for path in plan.displaced() if path in live.changed}
        kept = self._keep_files(plan, sorted(displaced))
        converter = _Converter(plan, kept, selection, self.writer)
        tree = converter.convert(live.tree, b"")
        captured = replace(live.captured, tree=tree)
        self.states.append(tree_state(captured))

    def keep_databases(self, resources: list[Resource], unchanged: list[ResourceState]) -> None:
        """Keep the present state of databases.

        Args:
            resources: Those that will be put back or removed.
            unchanged: What the target says of those that are as it has them. An undo has to know
                them: they may change before it.
        """
        self.states += unchanged
        work = self.store.work(self.operation.seq)
        for resource in resources:
            state, skips = capture_resource(resource, self.store, self.writer, work, None)
            self.states.append(state)
            self.skips += skips

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

    def _keep_files(self, plan: TreePlan, paths: list[bytes]) -> dict[bytes, Kept]:
        """Link each file into the store; copy what cannot be linked."""
        kept: dict[bytes, Kept] = {}
        if not paths:
            return kept
        root = plan.target.root
        fd = open_root(root.path)
        try:
            with cached(fd) as folders:
                for path in paths:
                    reach("undo.link")
                    with contextlib.suppress(FileNotFoundError):
                        linked = self._link(folders.open(split(path)[0]), path, plan)
                        if linked is not None:
                            kept[path] = linked
            rest = [path for path in paths if path not in kept]
            if rest:
                copier = replace(root, policy=lambda _: Policy.COPY, find_databases=False)
                resolver = KeepingResolver(
                    copier,
                    self.writer,
                    self.store.work(self.operation.seq),
                    lambda *_: self.store.free(),
                )
                jobs = [_job(path, plan.live.changed[path]) for path in rest]
                kept.update(zip(rest, resolver.resolve(fd, jobs), strict=True))
        finally:
            os.close(fd)
        return kept

    def _link(self, parent: int, path: bytes, plan: TreePlan) -> Kept | None:
        if os.fstat(parent).st_dev != os.stat(self.store.folder).st_dev:
            return None
        name = split(path)[1]
        info = os.stat(name, dir_fd=parent, follow_symlinks=False)
        if info.st_nlink > 1 and plan.target.root.policy(path) is not Policy.LINK:
            # Another name of this file stays in use and may be written to: a link would follow.
            return None
        with cached(parent) as here:
            kept = keep_link(here, name, self.store.folder)
        if kept is not None and kept.place is not None:
            self.writer.add_row(kept.ref, kept.place)
            self.writer.touch(kept.ref)
        return kept


class _Converter:
    """Turns the trees of a look at the present into trees that the store can keep."""

    def __init__(
        self, plan: TreePlan, kept: dict[bytes, Kept], selection: Selection, writer: BlobWriter
    ) -> None:
        self.plan = plan
        self.kept = kept
        self.selection = selection
        self.writer = writer
        self.changed: dict[bytes, set[bytes]] = {}
        for path in plan.live.changed:
            folder, name = split(path)
            self.changed.setdefault(folder, set()).add(name)

    def convert(self, tree: bytes, path: bytes) -> bytes:
        live = self.plan.live
        if not live.is_new(tree):
            return tree
        changed = self.changed.get(path, ())
        return self.writer.add_tree(
            [
                self._record(path, record)
                if record[0] == Kind.DIRECTORY or (changed and record_name(record) in changed)
                else record
                for record in live.records(tree)
            ]
        )

    def _record(self, folder: bytes, record: bytes) -> bytes:
        entry = decode_entry(record)
        return encode_entry(self._entry(join(folder, entry.name), entry))

    def _entry(self, path: bytes, entry: Entry) -> Entry:
        if entry.kind is Kind.DIRECTORY:
            return entry._replace(ref=self.convert(entry.ref, path))
        if entry.kind is not Kind.FILE or path not in self.plan.live.changed:
            return entry
        same = self.plan.same.get(path)
        if same is not None:
            return entry._replace(ref=same.ref)
        kept = self.kept.get(path)
        if kept is not None and kept.kind is Kind.FILE and kept.ref:
            return entry._replace(ref=kept.ref)
        return entry._replace(kind=Kind.UNPROTECTED, ref=b"")


def _job(path: bytes, info: os.stat_result) -> Job:
    folder, name = split(path)
    return Job(Folder(folder, [name], {0: info}), 0, path)
