"""What differs, as people read it: files, tables and rows, distributions and versions."""

from __future__ import annotations

import os
from collections.abc import Iterator

from rollback.difference import Comparison, Pair, metadata_differs
from rollback.inventory import is_tree, resource_from, root_from, target_from
from rollback.lost import is_replaced
from rollback.model import Entry, Kind, ResourceState, Snapshot
from rollback.plan import category_of, show_path
from rollback.present import Present
from rollback.reports import Change
from rollback.resources.base import Root
from rollback.snapshots import state_named
from rollback.store.codec import EMPTY_TREE
from rollback.store.store import Store
from rollback.store.vault import StoreVault


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
            changes += _state_changes(state, state_named(new, state.resource, state.name))
    if new is not None:
        before = {(state.resource, state.name) for state in old.states}
        for state in new.states:
            if (state.resource, state.name) not in before:
                changes += _added_state(store, state)
    return changes


def _tree_changes(
    store: Store, old: Snapshot, state: ResourceState, new: Snapshot | None
) -> Iterator[Change]:
    target = target_from(state, store.reader)
    project = os.fsencode(old.project)
    if new is None:
        live = Present(target.root, store.reader)
        for pair in Comparison(live.records, expand=True).compare(target.tree, live.tree):
            same = (
                pair.old is not None
                and pair.new is not None
                and (
                    live.same_content(pair.path, pair.new, pair.old)
                    or is_replaced(live, target.recorded, pair.path, pair.old)
                )
            )
            yield from _change(target.root, pair, project, same=same)
        return
    other = state_named(new, state.resource, state.name)
    tree = EMPTY_TREE if other is None else bytes.fromhex(other.data["tree"])
    for pair in Comparison(store.reader.records, expand=True).compare(target.tree, tree):
        yield from _change(target.root, pair, project, same=_same_ref(pair))


def _same_ref(pair: Pair) -> bool:
    return pair.old is not None and pair.new is not None and pair.old.ref == pair.new.ref


def _change(root: Root, pair: Pair, project: bytes, *, same: bool) -> Iterator[Change]:
    """Yield the change that a pair stands for; folders' times alone are none."""
    old, new = pair.old, pair.new
    sample = new or old
    if sample is None or _only_folder_time(old, new):
        return
    if Kind.DATABASE in {e.kind for e in (old, new) if e is not None} and old and new:
        return
    if same and old is not None and new is not None and not metadata_differs(old, new):
        return
    if old is None:
        action = "added" if not root.keep_extra(pair.path) else ""
    elif new is None:
        action = "deleted"
    else:
        action = "metadata" if same and old.kind is new.kind else "modified"
    if not action or (sample.kind is Kind.DIRECTORY and action != "metadata"):
        return
    yield Change(
        action,
        root.name,
        category_of(root, pair.path),
        show_path(root, pair.path, project),
        "",
        None if old is None else old.size,
        None if new is None else new.size,
    )


def _only_folder_time(old: Entry | None, new: Entry | None) -> bool:
    return (
        old is not None
        and new is not None
        and old.kind is new.kind is Kind.DIRECTORY
        and (old.mode, old.uid, old.gid, old.xattrs) == (new.mode, new.uid, new.gid, new.xattrs)
    )


def _live_changes(store: Store, state: ResourceState) -> Iterator[Change]:
    resource = resource_from(state)
    vault = StoreVault(store.reader, None, os.path.join(store.folder, b"work"))
    for step in resource.plan(state, vault):
        action = "deleted" if not os.path.lexists(state.location) else "modified"
        yield Change(action, state.name, state.category, state.name, step.detail)


def _state_changes(old: ResourceState, new: ResourceState | None) -> Iterator[Change]:
    if new is None:
        yield Change("deleted", old.name, old.category, old.name, "", old.bytes, None)
    elif old.data.get("blobs") != new.data.get("blobs"):
        from rollback.resources.sqlite import describe_change  # noqa: PLC0415 - a plug

        detail = describe_change(old, new)
        yield Change("modified", old.name, old.category, old.name, detail, old.bytes, new.bytes)


def _added_state(store: Store, state: ResourceState) -> Iterator[Change]:
    if not is_tree(state):
        yield Change("added", state.name, state.category, state.name, "", None, state.bytes)
        return
    root = root_from(state)
    tree = bytes.fromhex(state.data["tree"])
    for pair in Comparison(store.reader.records, expand=True).compare(EMPTY_TREE, tree):
        yield from _change(root, pair, b"", same=False)
