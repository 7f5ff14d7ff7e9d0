"""Whether anybody changed something between a restore that stopped half way and its end.

A restore that is resumed displaces a mixture: of the state before it and of the one it puts back.
What is in neither of them is somebody's work, and has to be reachable by an undo.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator

from rollback.difference import Comparison, Pair, find_entry
from rollback.inventory import is_tree, root_from
from rollback.model import Entry, Kind, ResourceState, Snapshot
from rollback.plan import is_selected
from rollback.reports import Selection
from rollback.snapshots import state_named
from rollback.store.codec import EMPTY_TREE
from rollback.store.store import Store

_UNLOOKED = (Kind.DIRECTORY, Kind.DATABASE, Kind.SOCKET)
"""Kinds of which an entry says no more than that they are there."""


def edited_meanwhile(
    store: Store, states: tuple[Snapshot, Snapshot, Snapshot], selection: Selection
) -> bool:
    """Return whether a state has anything that comes neither from the one nor the other.

    Args:
        store: Where they are.
        states: What was there first, what was there when it was resumed, what was put back.
        selection: Which part was put back.
    """
    from rollback.resources.sqlite import is_on_the_way  # noqa: PLC0415 - a plug

    first, resumed, wanted = states
    for state in resumed.states:
        before = state_named(first, state.resource, state.name)
        target = state_named(wanted, state.resource, state.name)
        if is_tree(state):
            if any(_edits(store, (before, state, target), selection)):
                return True
        elif not is_on_the_way(state, before, target):
            return True
    return False


def _edits(
    store: Store,
    states: tuple[ResourceState | None, ResourceState, ResourceState | None],
    selection: Selection,
) -> Iterator[Pair]:
    """Yield what differs from the state before, and is not what was to be put back either."""
    before, now, target = map(_tree, states)
    root = root_from(states[1])
    reader = store.reader
    for pair in Comparison(reader.records, expand=True).compare(before, now):
        if root.keep_extra(pair.path) or not is_selected(root, pair.path, selection):
            continue
        wanted = find_entry(reader.tree, target, pair.path)
        if not _same(pair.new, wanted) and not _same(pair.new, pair.old) and not _gap(pair, wanted):
            yield pair


def _tree(state: ResourceState | None) -> bytes:
    return EMPTY_TREE if state is None else bytes.fromhex(state.data["tree"])


def _same(one: Entry | None, other: Entry | None) -> bool:
    """Return whether two entries stand for one content, as far as they tell."""
    if one is None or other is None:
        return one is other
    told = (one.size, one.mtime_ns) == (other.size, other.mtime_ns)
    if Kind.UNPROTECTED in (one.kind, other.kind):
        return told
    if one.kind is not other.kind:
        return False
    if one.kind is Kind.DIRECTORY:
        return _same_folder(one, other)
    if one.mode != other.mode:
        return False
    return one.kind in _UNLOOKED or one.ref == other.ref or (one.kind is Kind.FILE and told)


def _same_folder(one: Entry, other: Entry) -> bool:
    """Return whether two modes of a folder are one, but for what a restore needs to write to it.

    A folder is made private, and opened for its owner, before something is put into it.
    """
    private = stat.S_IRWXU in (one.mode, other.mode)
    return private or one.mode | stat.S_IRWXU == other.mode | stat.S_IRWXU


def _gap(pair: Pair, wanted: Entry | None) -> bool:
    """Return whether nothing is there because one kind was about to make way for another.

    A file takes the place of a file in one step; anything else is removed before.
    """
    old = pair.old
    if pair.new is not None or old is None or wanted is None:
        return False
    return old.kind is not wanted.kind
