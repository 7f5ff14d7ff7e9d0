"""Content that the store had by a hard link and that was written in place, and what is left of it.

A linked file shares its inode with the live one. Its signature is its name in the store, so a
write through the link is always noticed; the content from before it is gone from both. Where an
installer wrote that content's hash down, it can be recognised and fetched again.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from rollback.model import Entry, Kind, Skip
from rollback.present import Present, hash_file
from rollback.recorded import RecordedFiles
from rollback.resources.base import Root
from rollback.resources.python.distributions import Distribution, origin_of
from rollback.resources.python.records import Owner
from rollback.store.blobs import BlobReader, file_path
from rollback.store.catalog import BlobKind
from rollback.store.codec import inode_id

WHY = "it was written in place through its link: the store shares the file, and lost its content"


@dataclass(frozen=True, slots=True)
class Lost:
    """A file whose content the snapshot names and the store does not have any more.

    Attributes:
        entry: What it shall be.
        owner: What its installer wrote down of it, None where that says nothing of this content.
        why: What became of the content.
    """

    entry: Entry
    owner: Owner | None
    why: str = WHY


def is_lost(reader: BlobReader, root: Root, path: bytes, entry: Entry) -> bool:
    """Return whether the store's link of a file leads to other content than it was kept for.

    Args:
        reader: The store.
        root: Where the file belongs; its `intact` is asked where only a time may have changed.
        path: Relative to the root.
        entry: The file in the snapshot.
    """
    if entry.kind is not Kind.FILE:
        return False
    place = reader.catalog.place(entry.ref)
    if place is None or place.kind is not BlobKind.INODE or place.moved:
        return False
    if reader.catalog.is_spoiled(entry.ref):
        return True
    source = file_path(reader.folder, place.kind, entry.ref)
    try:
        if inode_id(os.lstat(source)) == entry.ref:
            return False
        with open(source, "rb") as file:
            return root.intact(path, file) is not True
    except OSError:
        return False  # the store is damaged: staging says where


def later_entry(reader: BlobReader, entry: Entry) -> Entry | None:
    """Return what became of a file that a rollback moved into the store, and that was written to.

    Only a process that had it open can have done that; what it wrote is the file's content.
    None where nobody did, and for everything else.

    Args:
        reader: The store.
        entry: The file as it was moved.
    """
    if entry.kind is not Kind.FILE:
        return None
    place = reader.catalog.place(entry.ref)
    if place is None or not place.moved:
        return None
    try:
        info = os.lstat(file_path(reader.folder, place.kind, entry.ref))
    except OSError:
        return None  # the store is damaged: staging says where
    if inode_id(info) == entry.ref:
        return None
    return entry._replace(size=info.st_size, mtime_ns=info.st_mtime_ns)


def say_later(shown: str) -> Skip:
    """Return what to say of a file that was written to after it had been moved."""
    why = "a process went on writing to it after the rollback: it is back as that left it"
    return Skip(shown, why, "end that process: what it still writes does not reach this file")


def expected_digest(reader: BlobReader, entry: Entry, owner: Owner | None) -> bytes | None:
    """Return the SHA-256 that a lost content had: as it was once read, else as it was recorded."""
    known = reader.catalog.digest(entry.ref)
    if known is not None:
        return known
    return None if owner is None else owner.sha256


def stands_in(live: Present, path: bytes, digest: bytes | None) -> bool:
    """Return whether the live file at a path has the content that the store lost."""
    return digest is not None and hash_file(live.root.path, path) == digest


def is_replaced(live: Present, recorded: RecordedFiles | None, path: bytes, wanted: Entry) -> bool:
    """Return whether a live file is what a snapshot has, though the store lost the content."""
    if not is_lost(live.reader, live.root, path, wanted):
        return False
    owner = None if recorded is None else recorded.pristine(path, wanted)
    return stands_in(live, path, expected_digest(live.reader, wanted, owner))


def distribution_of(recorded: RecordedFiles, owner: Owner) -> tuple[str, Distribution]:
    """Return name and version, with its origin, of the distribution that owns a file."""
    stem = os.fsdecode(owner.distribution.removesuffix(b".dist-info"))
    name, _, version = stem.rpartition("-")
    distribution = Distribution(version=version)
    origin = origin_of(recorded.text(owner.distribution, b"direct_url.json"))
    if origin:
        distribution["origin"] = origin
    return name, distribution


def say_lost(shown: str, lost: Lost, fix: str) -> Skip:
    """Return what to say of a file that cannot be put back."""
    return Skip(shown, lost.why, fix)
