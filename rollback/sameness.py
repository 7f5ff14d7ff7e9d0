"""Whether a live file has the content that a snapshot names: by id, by hash, never by chance.

What the store has by a hard link is named by inode, size and time. Two such names may stand for
one content, so only the contents themselves say whether there is anything to put back.
"""

from __future__ import annotations

import os

from rollback.lost import is_lost
from rollback.model import Entry, Kind
from rollback.present import Present, hash_file
from rollback.store.blobs import file_path
from rollback.store.catalog import BlobKind


def same_content(live: Present, path: bytes, here: Entry, wanted: Entry) -> bool:
    """Return whether a live file has the content that an entry of a snapshot names.

    Read only where sizes agree and the index does not know.

    Args:
        live: The root as it is.
        path: Relative to the root.
        here: What is there now.
        wanted: What the snapshot has.
    """
    if here.kind is not wanted.kind or here.size != wanted.size:
        return False
    if here.ref == wanted.ref:
        return True
    if here.kind is not Kind.FILE:
        return False
    expected = _expected(live, path, wanted)
    return expected is not None and _digest(live, path, here) == expected


def is_known_by_time(live: Present, path: bytes, here: Entry) -> bool:
    """Return whether the store has a live file by a link whose name its time is part of.

    To set the time in place would spoil that link, unless its owner's hash proves it.
    """
    place = live.reader.catalog.place(here.ref)
    linked = place is not None and place.kind is BlobKind.INODE
    return linked and not live.is_intact(path)


def _expected(live: Present, path: bytes, wanted: Entry) -> bytes | None:
    """Return the SHA-256 of what an entry names; None where the store cannot tell any more."""
    reader = live.reader
    place = reader.catalog.place(wanted.ref)
    if place is None or place.kind is not BlobKind.INODE:
        return wanted.ref
    if is_lost(reader, live.root, path, wanted):
        return None
    known = None if place.moved else reader.catalog.digest(wanted.ref)
    return known or hash_file(*os.path.split(file_path(reader.folder, place.kind, wanted.ref)))


def _digest(live: Present, path: bytes, here: Entry) -> bytes | None:
    """Return the SHA-256 of a live file, read where the index does not have it."""
    if path not in live.changed:
        place = live.reader.catalog.place(here.ref)
        if place is None or place.kind is not BlobKind.INODE:
            return here.ref
        known = live.reader.catalog.digest(here.ref)
        if known is not None:
            return known
    return live.hash_of(path)
