"""Folders of roots that are something else now: a link, a file, or gone with what held them.

The folder of a root inside another one is an entry of that one where it is no folder: what took
its place is displaced like any other entry, and comes back with an undo.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from rollback.difference import find_entry
from rollback.model import Entry, Kind
from rollback.plan import TreePlan
from rollback.replaced import find_replaced

_UNKNOWN = (Kind.WATCHED, Kind.UNPROTECTED)


def settle_roots(trees: Sequence[TreePlan], *, exact: bool) -> None:
    """Let the plans of roots that lie in one another fit together; reads only.

    Args:
        trees: All of one restore.
        exact: Whether the times of the folders around a root belong to what is put back.
    """
    for plan in sorted(trees, key=lambda plan: plan.target.root.path):
        if plan.empty:
            continue
        path = plan.target.root.path
        around = [other for other in trees if path.startswith(other.target.root.path + b"/")]
        if not around:
            _refuse_other(plan)
            continue
        outer = max(around, key=lambda other: len(other.target.root.path))
        inside = path[len(outer.target.root.path) + 1 :]
        comes = plan.target.present and not plan.live.captured.present
        if comes:
            _give_way(plan, outer, inside)
        elif plan.vanish:
            _bring_back(outer, inside)
        if exact and (comes or plan.vanish):
            outer.touch([inside])


def _refuse_other(plan: TreePlan) -> None:
    """Name a root that lies in no other and is no folder, or is reached through a link."""
    path = plan.target.root.path
    found = find_replaced(path)
    if found is not None:
        plan.bar(b"", found.why_of(path), found.fix)


def _give_way(plan: TreePlan, outer: TreePlan, inside: bytes) -> None:
    """Displace what stands where the folder of a root shall be, or a folder that it lies in."""
    for path in _prefixes(inside):
        whole = os.path.join(outer.target.root.path, path)
        if outer.is_barred(path):
            plan.bar(b"", "something stands in the way of its folder", "move it away")
            return
        if not os.path.lexists(whole) or (os.path.isdir(whole) and not os.path.islink(whole)):
            continue
        here = find_entry(outer.live.load, outer.live.tree, path)
        if here is None or here.kind in _UNKNOWN:
            shown = os.fsdecode(whole)
            plan.bar(b"", f"{shown} stands in its way, and is not kept", "move it away")
        elif path not in {removed for removed, _ in outer.removes}:
            outer.removes.append((path, here))
        return


def _bring_back(outer: TreePlan, path: bytes) -> None:
    """Put back what stood where the folder of a root is now, whatever the selection."""
    entry = find_entry(outer.live.load, outer.target.tree, path)
    if entry is None or entry.kind in (Kind.DIRECTORY, Kind.DATABASE, Kind.SOCKET, *_UNKNOWN):
        return
    into: list[tuple[bytes, Entry]]
    into = outer.places if entry.kind is Kind.FILE else outer.specials
    if (path, entry) not in into:
        into.append((path, entry))


def _prefixes(path: bytes) -> list[bytes]:
    """Return the folders that a path lies in, outermost first, then the path."""
    names = path.split(b"/")
    return [b"/".join(names[: n + 1]) for n in range(len(names))]
