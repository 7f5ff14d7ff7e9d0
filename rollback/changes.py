"""What differs, as people read it: files, tables and rows, distributions and versions."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

from rollback.difference import Comparison, Pair, metadata_differs
from rollback.errors import StoreCorrupt
from rollback.inventory import is_tree, resource_from, root_from, target_from
from rollback.lost import is_replaced
from rollback.model import Entry, Kind, ResourceState, Snapshot
from rollback.plan import category_of, show_path
from rollback.present import Present
from rollback.reports import Change, DistributionChange
from rollback.resources.base import Root, StateChange
from rollback.sameness import same_content
from rollback.snapshots import state_named
from rollback.store.codec import EMPTY_TREE
from rollback.store.store import Store
from rollback.store.vault import StoreVault

_READ_BYTES = 200_000_000
"""A larger database that appeared is named with its size alone: its tables would take seconds."""
_NOBODY: Mapping[bytes, str] = MappingProxyType({})


def describe_changes(store: Store, old: Snapshot, new: Snapshot | None) -> list[Change]:
    """Return what differs between two snapshots, or a snapshot and the present.

    Args:
        store: Their store.
        old: The earlier state.
        new: The later one; None for the present.
    """
    changes: list[Change] = []
    for state in old.states:
        if is_tree(state):
            changes += _tree_changes(store, old, state, new)
        elif new is None:
            changes += _live_changes(store, state)
        else:
            changes += _state_changes(store, state, state_named(new, state.resource, state.name))
    if new is not None:
        before = {(state.resource, state.name) for state in old.states}
        for state in new.states:
            if (state.resource, state.name) not in before:
                changes += _added_state(store, state)
    return changes


def describe_distributions(old: Snapshot, new: Snapshot | None) -> list[DistributionChange]:
    """Return which distributions of the Python environments were added, exchanged, removed.

    Args:
        old: The earlier state.
        new: The later one; None for the present.
    """
    before = {s.name: s for s in old.states if s.data.get("facts", {}).get("distributions")}
    after = before if new is None else {s.name: s for s in new.states if s.name in before}
    return [
        change
        for name, state in before.items()
        if name in after
        for change in _distributions(state, None if new is None else after[name])
    ]


def _distributions(old: ResourceState, new: ResourceState | None) -> Iterator[DistributionChange]:
    from rollback.resources.python import changed_distributions, installed  # noqa: PLC0415 - a plug

    facts = old.data["facts"]
    if new is None:
        later = installed(old.data["parameters"]["site_packages"])
    else:
        later = new.data["facts"].get("distributions", {})
    for name, had, has in changed_distributions(facts["distributions"], later):
        action = "added" if had is None else "deleted" if has is None else "modified"
        yield DistributionChange(action, facts["prefix"], name, had, has)


def _tree_changes(
    store: Store, old: Snapshot, state: ResourceState, new: Snapshot | None
) -> Iterator[Change]:
    target = target_from(state, store.reader)
    project = os.fsencode(old.project)
    if new is None:
        live = Present(target.root, store.reader)
        pairs = list(Comparison(live.records, expand=True).compare(target.tree, live.tree))
        owners = _owners(store, target.root, pairs, live)
        for pair in pairs:
            if _is_left_alone(target.root, pair):
                continue
            if _appeared(pair):
                yield _added_database(store, target.root, pair.path, project)
                continue
            same = (
                pair.old is not None
                and pair.new is not None
                and (
                    _is_alike(pair)
                    or same_content(live, pair.path, pair.new, pair.old)
                    or is_replaced(live, target.recorded, pair.path, pair.old)
                )
            )
            yield from _change(target.root, pair, project, same=same, owners=owners)
        return
    other = state_named(new, state.resource, state.name)
    tree = EMPTY_TREE if other is None else bytes.fromhex(other.data["tree"])
    pairs = list(Comparison(store.reader.records, expand=True).compare(target.tree, tree))
    owners = _owners(store, target.root, pairs, None)
    for pair in pairs:
        yield from _change(target.root, pair, project, same=_same_ref(pair), owners=owners)


def _is_left_alone(root: Root, pair: Pair) -> bool:
    """Return whether nobody looked at a path: other work trees of a repository are theirs."""
    return pair.new is None and root.excluded is not None and root.excluded(pair.path)


def _appeared(pair: Pair) -> bool:
    """Return whether a database is there now that the snapshot has no state of."""
    was = pair.old is not None and pair.old.kind is Kind.DATABASE
    return not was and pair.new is not None and pair.new.kind is Kind.DATABASE


def _added_database(store: Store, root: Root, path: bytes, project: bytes) -> Change:
    from rollback.resources.sqlite import SqliteResource  # noqa: PLC0415 - a plug

    name, place = show_path(root, path, project), os.path.join(root.path, path)
    resource = SqliteResource(Path(os.fsdecode(place)), name=name)
    size = os.lstat(place).st_size
    found = None
    if size <= _READ_BYTES:
        with contextlib.suppress(PermissionError):
            found = resource.difference(resource.absent(), _vault(store))
    return _of_state(resource.absent(), found or StateChange("added", new_bytes=size))


def _owners(store: Store, root: Root, pairs: list[Pair], live: Present | None) -> dict[bytes, str]:
    """Return which distribution a file of an environment came or went with."""
    if root.resource != "python":
        return {}
    from rollback.resources.python.shares import owners_by_record  # noqa: PLC0415 - a plug

    def stored(entry: Entry | None) -> bytes:
        content = io.BytesIO()
        try:
            if entry is not None and entry.kind is Kind.FILE:
                store.reader.copy_to(entry.ref, content)
        except StoreCorrupt:
            return b""  # who needs that file will say so
        return content.getvalue()

    def present(path: bytes) -> bytes:
        try:
            with open(os.path.join(root.path, path), "rb") as file:
                return file.read()
        except OSError:
            return b""

    old = {pair.path: pair.old for pair in pairs if pair.old is not None}
    new = {pair.path: pair.new for pair in pairs if pair.new is not None}
    before = owners_by_record(root.path, old, lambda path: stored(old[path]))
    after = owners_by_record(
        root.path, new, present if live is not None else lambda path: stored(new[path])
    )
    return before | after


def _same_ref(pair: Pair) -> bool:
    return _is_alike(pair) or (
        pair.old is not None and pair.new is not None and pair.old.ref == pair.new.ref
    )


def _is_alike(pair: Pair) -> bool:
    """Return whether a file whose content was not kept looks as it did, by size and time."""
    old, new = pair.old, pair.new
    if old is None or new is None or Kind.UNPROTECTED not in (old.kind, new.kind):
        return False
    files = {old.kind, new.kind} <= {Kind.FILE, Kind.UNPROTECTED}
    return files and (old.size, old.mtime_ns) == (new.size, new.mtime_ns)


def _change(
    root: Root, pair: Pair, project: bytes, *, same: bool, owners: Mapping[bytes, str] = _NOBODY
) -> Iterator[Change]:
    """Yield the change that a pair stands for; folders' times alone are none.

    A file in whose place a folder stands now, or the other way round, went, and another came.
    """
    old, new = pair.old, pair.new
    sample = new or old
    if sample is None or _only_folder_time(old, new):
        return
    if old is not None and new is not None and _is_folder(old) != _is_folder(new):
        for half in (Pair(pair.path, old, None), Pair(pair.path, None, new)):
            yield from _change(root, half, project, same=False, owners=owners)
        return
    if Kind.DATABASE in {e.kind for e in (old, new) if e is not None}:
        return  # its own state says what became of it
    if same and old is not None and new is not None and not metadata_differs(old, new):
        return
    if old is None:
        action = "added" if not root.keep_extra(pair.path) else ""
    elif new is None:
        action = "deleted"
    else:
        action = "metadata" if same and old.kind is new.kind else "modified"
    folder = _is_folder(sample) and action != "metadata"
    if not action or (folder and sample.ref != EMPTY_TREE):
        return  # what is in a folder says that it came or went
    yield Change(
        action,
        root.name,
        category_of(root, pair.path),
        show_path(root, pair.path, project) + ("/" if folder else ""),
        "",
        None if old is None or folder else old.size,
        None if new is None or folder else new.size,
        owner=owners.get(pair.path, ""),
    )


def _is_folder(entry: Entry) -> bool:
    return entry.kind is Kind.DIRECTORY


def _only_folder_time(old: Entry | None, new: Entry | None) -> bool:
    return (
        old is not None
        and new is not None
        and old.kind is new.kind is Kind.DIRECTORY
        and (old.mode, old.uid, old.gid, old.xattrs) == (new.mode, new.uid, new.gid, new.xattrs)
    )


def _live_changes(store: Store, state: ResourceState) -> Iterator[Change]:
    try:
        found = resource_from(state).difference(state, _vault(store))
    except PermissionError:
        found = StateChange("modified", "it cannot be read now", new_bytes=_size(state.location))
    if found is not None:
        yield _of_state(state, found)


def _size(path: str) -> int | None:
    """Return the bytes of a file, None where its folder may not be looked into either."""
    with contextlib.suppress(PermissionError):
        return os.lstat(path).st_size
    return None


def _of_state(old: ResourceState, found: StateChange) -> Change:
    absent = old.files == 0
    return Change(
        found.action,
        old.name,
        old.category,
        old.name,
        found.detail,
        None if absent else old.bytes,
        found.new_bytes,
        found.tables,
    )


def _state_changes(store: Store, old: ResourceState, new: ResourceState | None) -> Iterator[Change]:
    from rollback.resources.sqlite import describe_change  # noqa: PLC0415 - a plug

    blobs = old.data.get("blobs")
    if new is None or not blobs or blobs != new.data.get("blobs"):
        found = describe_change(old, new, _vault(store))
        if found is not None:
            yield _of_state(old, found)


def _added_state(store: Store, state: ResourceState) -> Iterator[Change]:
    if not is_tree(state):
        from rollback.resources.sqlite import describe_change  # noqa: PLC0415 - a plug

        found = describe_change(None, state, _vault(store))
        if found is not None:
            yield replace(_of_state(state, found), old_bytes=None)
        return
    root = root_from(state)
    tree = bytes.fromhex(state.data["tree"])
    for pair in Comparison(store.reader.records, expand=True).compare(EMPTY_TREE, tree):
        yield from _change(root, pair, b"", same=False)


def _vault(store: Store) -> StoreVault:
    return StoreVault(store.reader, None, os.path.join(store.folder, b"work"))
