"""Saying what a damaged store still gives back: which paths are lost, and which are whole."""

from __future__ import annotations

import hashlib
import os
import shlex
from collections.abc import Iterable, Iterator

from rollback.difference import contents
from rollback.errors import RollbackError, StoreCorrupt
from rollback.model import Entry, Kind, Snapshot
from rollback.plan import TreePlan, show_path
from rollback.store.blobs import BlobReader, open_blob
from rollback.store.catalog import BlobKind

_NAMED = 3
_OFFERED = 8


def explain(
    error: StoreCorrupt, plans: Iterable[TreePlan], reader: BlobReader, snapshot: Snapshot
) -> StoreCorrupt:
    """Return the error that names the project's paths, and how to put the rest back.

    Args:
        error: What stopped the preparation of a rollback; nothing was changed.
        plans: What the rollback needs.
        reader: The store.
        snapshot: What was to be put back.
    """
    project = os.fsencode(snapshot.project)
    lost: list[str] = []
    whole: dict[str, None] = {}
    for plan in plans:
        for top, path, entry in _needed(plan):
            if _is_whole(plan, path, entry, reader):
                whole.setdefault(show_path(plan.target.root, top, project))
            else:
                lost.append(show_path(plan.target.root, path, project))
                whole.pop(show_path(plan.target.root, top, project), None)
    if not lost:
        return error
    named = ", ".join(lost[:_NAMED]) + (
        f" and {len(lost) - _NAMED} more" if len(lost) > _NAMED else ""
    )
    hint = "guard verify --repair, then the same again: what it cannot mend is left out"
    intact = [name for name in whole if not any(path.startswith(f"{name}/") for path in lost)]
    if intact:
        offered = " ".join(shlex.quote(name) for name in intact[:_OFFERED])
        more = f" … ({len(intact)} in all)" if len(intact) > _OFFERED else ""
        hint += f"; to put back what is whole: guard rollback --to {snapshot.seq} {offered}{more}"
    return StoreCorrupt(f"the stored content of {named} is damaged; nothing was changed", hint=hint)


def damaged_paths(plan: TreePlan, reader: BlobReader) -> dict[bytes, bytes]:
    """Return the paths whose content a plan needs and the store does not give back, with its id."""
    return {
        path: entry.ref
        for _, path, entry in _needed(plan)
        if not _is_whole(plan, path, entry, reader)
    }


def _needed(plan: TreePlan) -> Iterator[tuple[bytes, bytes, Entry]]:
    """Yield each file whose content is needed, with the step that it belongs to."""
    for path, entry in plan.places:
        yield path, path, entry
    for top, folder in plan.folders:
        for path, entry in contents(plan.live.load, folder.ref, top):
            if entry.kind is Kind.FILE:
                yield top, path, entry


def _is_whole(plan: TreePlan, path: bytes, entry: Entry, reader: BlobReader) -> bool:
    try:
        place = reader.place(entry.ref)
        if place.kind is BlobKind.LOOSE:
            with open_blob(reader.folder, place.kind, entry.ref) as file:
                return hashlib.file_digest(file, "sha256").digest() == entry.ref
        if place.kind is BlobKind.INODE:
            root = plan.target.root
            open_blob(
                reader.folder, place.kind, entry.ref, lambda file: root.intact(path, file)
            ).close()
            return True
        reader.read(entry.ref)
    except (RollbackError, OSError):
        return False
    return True
