"""What a snapshot that somebody else took does not have of what a command may change."""

from __future__ import annotations

import os
from collections.abc import Iterator

from rollback.inventory import Inventory, is_tree, root_from
from rollback.model import Snapshot
from rollback.resources.base import Root


def not_taken(snapshot: Snapshot, inventory: Inventory) -> list[str]:
    """Return what would be captured now and is not in a snapshot: folders and databases.

    What lies in a folder that the snapshot has is in it, or goes with a rollback of that.

    Args:
        snapshot: Of the same project.
        inventory: What would be captured now.
    """
    taken = {os.path.realpath(os.fsencode(state.location)) for state in snapshot.states}
    trees = [root_from(state) for state in snapshot.states if is_tree(state)]
    wanted = [*(root.path for root in inventory.roots)]
    wanted += [os.path.realpath(os.fsencode(path)) for path in inventory.databases]
    return [
        os.fsdecode(path)
        for path in wanted
        if os.path.lexists(path)
        and path not in taken
        and not any(_has(tree, path) for tree in trees)
    ]


def _has(tree: Root, path: bytes) -> bool:
    """Return whether a path lies in a tree, and no name on the way is left out of it."""
    folder = os.path.join(tree.path, b"")
    if not path.startswith(folder):
        return False
    return not any(
        os.path.basename(part) in tree.leave_out
        or part in tree.nested
        or (tree.excluded is not None and tree.excluded(part))
        for part in _upwards(path[len(folder) :])
    )


def _upwards(path: bytes) -> Iterator[bytes]:
    while path:
        yield path
        path = os.path.dirname(path)
