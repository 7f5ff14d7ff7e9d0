"""What a snapshot could not keep for want of room: that was announced, so it is not lost."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

from rollback.capture import NO_ROOM
from rollback.engine import Engine
from rollback.inventory import is_tree, target_from
from rollback.model import Kind, ResourceState, Skip

_TOGETHER = re.compile(r"\d+ files in (.+), .+ among them", re.DOTALL)


def unkept_files(engine: Engine) -> list[bytes]:
    """Return the files of the newest snapshot, relative to the project, that have no content.

    Raises:
        AssertionError: One of them was not named.
    """
    snapshot = engine.find_snapshot("last")
    project = os.path.realpath(os.fsencode(engine.settings.project))
    paths = [path for state in snapshot.states for path in _empty(engine, state)]
    named = [skip for skip in snapshot.skipped if skip.fix == NO_ROOM]
    for path in paths:
        if not any(names(skip, os.fsdecode(path)) for skip in named):
            raise AssertionError(f"{path!r} was not kept, and not named in {named}")
    return [os.path.relpath(path, project) for path in paths]


def names(skip: Skip, path: str) -> bool:
    """Return whether a skip speaks of a file, alone or together with others."""
    found = _TOGETHER.fullmatch(skip.what)
    return skip.what == path or (found is not None and path.startswith(found[1] + "/"))


def _empty(engine: Engine, state: ResourceState) -> Iterator[bytes]:
    """Yield the files of a state whose content the store does not have."""
    if not is_tree(state):
        return
    place = os.fsencode(state.location)
    pending = [(place, target_from(state, engine.store.reader).tree)]
    while pending:
        folder, tree = pending.pop()
        for entry in engine.store.reader.tree(tree):
            path = os.path.join(folder, entry.name)
            if entry.kind is Kind.DIRECTORY:
                pending.append((path, entry.ref))
            elif entry.kind is Kind.UNPROTECTED:
                yield path
