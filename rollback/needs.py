"""How much a restore stages, disk by disk: the store need not lie on that of the project."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from dataclasses import dataclass

from rollback.atomic import top_of
from rollback.model import Entry
from rollback.plan import TreePlan
from rollback.staging import is_one_file_system
from rollback.store.blobs import file_path
from rollback.store.catalog import BlobKind, Place
from rollback.store.store import Store


@dataclass(slots=True)
class Disk:
    """One disk on which something is staged.

    Attributes:
        folder: One of its folders.
        copied: Bytes that are copied in any case.
        shared: Bytes that are copied only where there is room for it.
    """

    folder: bytes
    copied: int = 0
    shared: int = 0


class Needs:
    """Adds up what a restore writes before it changes anything, and to databases.

    Args:
        store: Where the content is.
        undo: Whether what a rollback displaced is put back.

    Attributes:
        disks: By the number of the device.
    """

    def __init__(self, store: Store, *, undo: bool) -> None:
        self.store = store
        self.undo = undo
        self.disks: dict[int, Disk] = {}
        self._own = self._disk(store.folder)

    @property
    def of_store(self) -> int:
        """Bytes that are staged on the store's disk, should all be copied."""
        return self._own.copied + self._own.shared

    @property
    def is_tight(self) -> bool:
        """Whether the store's disk has no room for copies of what can be put in place itself."""
        return self.of_store > self.free(self._own)

    def free(self, disk: Disk) -> int:
        """Return the bytes of a disk that an unprivileged process may still write."""
        if disk is self._own:
            return self.store.reserve.free()
        fs = os.statvfs(disk.folder)
        return fs.f_bavail * fs.f_frsize

    def add_tree(self, plan: TreePlan, folders: Mapping[bytes, bytes]) -> None:
        """Add what one root needs.

        Args:
            plan: Of the root.
            folders: Top of each file system in the root, relative to it → a folder on it.
        """
        reader = self.store.reader
        tops = {
            top: (self._disk(folder), is_one_file_system(folder, self.store.folder))
            for top, folder in folders.items()
        }
        needed = reader.looking_ahead(plan.contents_needed(), lambda item: item[1].ref)
        for path, entry in needed:
            disk, here = tops[top_of(path, tops) if len(tops) > 1 else b""]
            place = reader.place(entry.ref)
            if here and (place.kind is BlobKind.LOOSE or place.moved):
                disk.shared += entry.size
            elif not here or self.undo or place.kind is not BlobKind.INODE:
                disk.copied += self._copied(entry, place)

    def _copied(self, entry: Entry, place: Place) -> int:
        """Return what a copy takes: holes take nothing."""
        if place.kind is BlobKind.LOOSE:
            with contextlib.suppress(OSError):
                blob = file_path(self.store.folder, place.kind, entry.ref)
                return min(entry.size, os.stat(blob).st_blocks * 512)
        return entry.size

    def add_database(self, path: bytes, needed: tuple[int, int]) -> None:
        """Add what one database needs: bytes beside it, and in scratch."""
        beside, scratch = needed
        self._disk(os.path.dirname(path)).copied += beside
        self._own.copied += scratch

    def _disk(self, folder: bytes) -> Disk:
        while not os.path.isdir(folder):
            folder = os.path.dirname(folder)
        return self.disks.setdefault(os.stat(folder).st_dev, Disk(folder))
