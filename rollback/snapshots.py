"""Taking a snapshot: roots, then databases, durable, then visible in one commit."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import hashlib
import json
import os
import platform
import shlex
import sys
import time
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from typing import Any

from rollback.capture import NO_ROOM, Captured, capture_tree
from rollback.databases import DatabaseTaker, Found
from rollback.errors import CaptureFailed, NoSpace, StoreCorrupt, told
from rollback.failpoints import reach
from rollback.inventory import EngineSettings, Inventory, database
from rollback.keeping import KeepingResolver
from rollback.model import Category, Operation, ResourceState, Skip, Snapshot
from rollback.reports import SnapshotReport
from rollback.resources.base import Root
from rollback.resources.configuration import capture_variables
from rollback.room import Room
from rollback.store.catalog import storable
from rollback.store.documents import document_stem, read_json
from rollback.store.store import Store
from rollback.store.writer import BlobWriter

_CHECK = "sha256"
Progress = Callable[[str, int, int], None] | None
DATABASE_WAIT_S = 10.0
_SKIPS_SHOWN = 20


class SnapshotTaker:
    """Takes one snapshot inside one transaction.

    Args:
        store: Where it goes; its lock is held.
        settings: Project and command.
        operation: The operation that takes it; the snapshot has its number.
        newest: The newest snapshot, whose unchanged parts are taken over.
        forgetful: Whether to give up where something would fit if old snapshots went.

    Attributes:
        room: What there is room for.
        upkeep: What an earlier try found to be needed besides content.
        careful: Whether an earlier try met a full disk.
        most: So many bytes of content are kept at the most, because an earlier try found no room
            for more. With none, the index stays as it is, too; what changed will be read again.
    """

    def __init__(
        self,
        store: Store,
        settings: EngineSettings,
        operation: Operation,
        newest: Snapshot | None,
        *,
        forgetful: bool = False,
    ) -> None:
        self.forgetful = forgetful
        self.room: Room | None = None
        self.upkeep = 0
        self.careful = False
        self.most = sys.maxsize
        self.store = store
        self.settings = settings
        self.operation = operation
        self.newest = newest
        self.writer = BlobWriter(store.reader, f"{operation.seq:08d}")
        self.states: list[ResourceState] = []
        self.skips: list[Skip] = []
        self.totals: dict[str, list[int]] = {}
        self._databases: list[bytes] = []

    def take(self, inventory: Inventory, *, kind: str, label: str) -> SnapshotReport:
        """Capture everything in the inventory and commit it.

        Raises:
            CaptureFailed: Nothing of it is kept; the reason is named.
            NoSpace: The disk is full; nothing of it is kept.
            Crowded: It would fit, or more of it, were it not for old snapshots.
        """
        started = time.monotonic()
        work = self.store.work(self.operation.seq)
        with failing_as_capture(), self.store.catalog.transaction():
            try:
                self._capture_roots(inventory.roots, work)
                self._capture_databases(inventory, work)
                facts = self._facts(inventory)
                self.skips += inventory.skipped
                snapshot = self._snapshot(kind, label, facts)
                commit_snapshot(self.store, self.writer, snapshot)
            except BaseException:
                self.writer.abandon()
                raise
        reach("snapshot.committed")
        categories = {Category(k): (v[0], v[1]) for k, v in self.totals.items()}
        elapsed_s = time.monotonic() - started
        return SnapshotReport(snapshot, elapsed_s, self.writer.new_bytes, categories)

    def _capture_roots(self, roots: Sequence[Root], work: bytes) -> None:
        room = self.room = Room(
            self.store, self.settings.max_store_bytes, self.writer, forgetful=self.forgetful
        )
        room.upkeep, room.most, room.closed = self.upkeep, self.most, not self.most
        for root in roots:
            resolver = KeepingResolver(root, self.writer, work, room.allow)
            found = capture_tree(root, self.store.reader, resolver, update_index=not room.closed)
            self.states.append(tree_state(found))
            self.skips += gather(found.skipped, found.root)
            for category, (files, size) in found.totals.items():
                self._count(category, files, size)
            self._databases += absolute(found)

    def _capture_databases(self, inventory: Inventory, work: bytes) -> None:
        room = self.room
        if room is None:
            raise AssertionError("roots come first")
        paths = self._databases + outside(inventory)
        found = find_databases(paths, self.settings, self.newest, self.writer.distrusted)
        taker = DatabaseTaker(self.store, self.writer, work, room.spare, careful=self.careful)
        for taken in taker.take_all(found, room.refuse):
            state = taken.state
            self.states.append(state)
            self.skips += taken.skips
            if taken.refused:
                self.skips.append(Skip(state.location, taken.refused, NO_ROOM))
            self._count(state.category.value, state.files, state.bytes)

    def _count(self, category: str, files: int, size: int) -> None:
        total = self.totals.setdefault(category, [0, 0])
        total[0] += files
        total[1] += size

    def _facts(self, inventory: Inventory) -> dict[str, Any]:
        settings = self.settings
        variables = capture_variables(settings.environ, settings.variables, self.store.key())
        return {
            **inventory.facts,
            "variables": variables,
            "host": platform.node(),
            "command": list(settings.command),
        }

    def _snapshot(self, kind: str, label: str, facts: Mapping[str, Any]) -> Snapshot:
        return Snapshot(
            self.operation.seq,
            self.operation.id,
            kind,
            label,
            time.time(),
            os.path.realpath(self.settings.project),
            tuple(self.states),
            tuple(self.skips),
            facts,
        )


@contextlib.contextmanager
def failing_as_capture() -> Iterator[None]:
    """Turn errors of the system into the engine's: nothing of the snapshot was kept.

    Raises:
        NoSpace: The disk is full.
        CaptureFailed: Anything else of the system.
    """
    try:
        yield
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise NoSpace(
                f"the snapshot could not be kept: {error.strerror}",
                hint="free some space, or move the store with --store DIR",
            ) from error
        raise CaptureFailed(
            f"the snapshot could not be taken: {told(error)}",
            hint="mend what the message names, then run the same command again",
        ) from error


def outside(inventory: Inventory) -> list[bytes]:
    """Return the databases of an inventory that lie in no root."""
    return [os.fsencode(path) for path in inventory.databases if path.exists()]


def find_databases(
    paths: Iterable[bytes],
    settings: EngineSettings,
    newest: Snapshot | None,
    distrusted: Container[bytes],
) -> list[Found]:
    """Return databases with what a snapshot has of them, and what it takes to keep them.

    Args:
        paths: Where they are.
        settings: Project and command.
        newest: The newest snapshot.
        distrusted: Damaged blobs: what a snapshot has of such a database is not built upon.
    """
    project = os.path.realpath(os.fsencode(settings.project))
    found = []
    for path in dict.fromkeys(paths):
        resource = database(path, project)
        before = None
        if newest is not None:
            before = state_named(newest, resource.resource, resource.name)
        if before is not None and any(blob in distrusted for blob in blobs_of(before)):
            before = None
        found.append(Found(resource, before, resource.weigh(before)))
    return found


def commit_snapshot(store: Store, writer: BlobWriter, snapshot: Snapshot) -> None:
    """Write a snapshot down, inside the caller's transaction: document, references, row."""
    for state in snapshot.states:
        for blob in blobs_of(state):
            writer.refer(blob)
    writer.finish()
    store.catalog.remember_spoiled()
    document = dump(snapshot)
    store.write_document(document_name(snapshot), document)
    reach("snapshot.commit")
    store.catalog.db.execute(
        "INSERT INTO snapshot VALUES (?, ?, ?, ?, ?, ?)",
        (
            snapshot.seq,
            snapshot.id,
            snapshot.kind,
            storable(snapshot.label),
            snapshot.created_at,
            json.dumps(document),
        ),
    )


def document_name(snapshot: Snapshot) -> str:
    """Return the name of a snapshot's document."""
    return document_stem(snapshot.seq, snapshot.kind)


def blobs_of(state: ResourceState) -> list[bytes]:
    """Return what a state refers to: its tree, or the blobs that its resource used."""
    names = list(state.data.get("blobs", []))
    if "tree" in state.data:
        names.append(state.data["tree"])
    return [bytes.fromhex(name) for name in names]


def tree_state(found: Captured) -> ResourceState:
    """Return the state of a captured file tree."""
    root, meta = found.root, found.meta
    xattrs = [[k.hex(), v.hex()] for k, v in meta.xattrs]
    return ResourceState(
        root.resource,
        root.name,
        root.category,
        os.fsdecode(root.path),
        sum(files for files, _ in found.totals.values()),
        sum(size for _, size in found.totals.values()),
        {
            "parameters": dict(root.parameters),
            "present": found.present,
            "tree": found.tree.hex(),
            "meta": [meta.mode, meta.uid, meta.gid, meta.mtime_ns, xattrs],
            "links": [[os.fsdecode(path) for path in group] for group in found.links],
            "totals": found.totals,
            "facts": dict(root.facts),
        },
    )


def gather(skips: Sequence[Skip], root: Root) -> list[Skip]:
    """Return skips with long runs of one reason put together."""
    by_reason: dict[tuple[str, str], list[Skip]] = {}
    for skip in skips:
        mend = skip.fix.replace(shlex.quote(skip.what), "")
        by_reason.setdefault((skip.why, mend), []).append(skip)
    result: list[Skip] = []
    whole = os.fsdecode(root.path)
    for (why, _), group in by_reason.items():
        if len(group) <= _SKIPS_SHOWN:
            result += group
        else:
            first = group[0]
            what = f"{len(group)} files in {whole}, {first.what} among them"
            fix = first.fix.replace(shlex.quote(first.what), shlex.quote(whole))
            result.append(Skip(what, why, fix))
    return result


def state_named(snapshot: Snapshot, resource: str, name: str) -> ResourceState | None:
    """Return a snapshot's state of one resource, or None."""
    for state in snapshot.states:
        if state.resource == resource and state.name == name:
            return state
    return None


def dump(snapshot: Snapshot) -> dict[str, Any]:
    """Return a snapshot as JSON, with a digest of itself: it names paths that will be written."""
    value: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(snapshot)))
    return {**value, _CHECK: _digest(value)}


def _digest(value: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def load(document: bytes | str) -> Snapshot:
    """Return the snapshot that `dump` wrote.

    Raises:
        StoreCorrupt: It cannot be read, or is not what was written.
    """
    value = read_json(document)
    if not isinstance(value, dict) or value.pop(_CHECK, None) != _digest(value):
        raise StoreCorrupt(
            "the record of a snapshot is not what was written", hint="guard verify --repair"
        )
    value["states"] = tuple(
        ResourceState(**{**state, "category": Category(state["category"])})
        for state in value["states"]
    )
    value["skipped"] = tuple(Skip(**skip) for skip in value["skipped"])
    return Snapshot(**value)


def absolute(found: Captured) -> list[bytes]:
    """Return where the databases of a captured root are."""
    return [os.path.join(found.root.path, path) for path in found.databases]
