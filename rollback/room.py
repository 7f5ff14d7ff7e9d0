"""How much a snapshot and a rehearsal may write: what stays free is fixed at their beginning."""

from __future__ import annotations

import contextlib
import itertools
import os
import sys
from collections.abc import Iterable, Iterator, Sequence

from rollback.capture import Job
from rollback.databases import written_beside
from rollback.model import Entry
from rollback.resources.base import Weight
from rollback.store.blobs import file_path
from rollback.store.catalog import BlobKind
from rollback.store.store import Store
from rollback.store.writer import JOURNAL, UPKEEP, BlobWriter
from rollback.writing import Linking

PAGE = 4096
"""What a file takes on most disks, however short it is."""
_LEFT_FREE = 4
"""One part in so many of what is free stays free during a rehearsal: the disk is others' too."""

_ROW = 160
"""Bytes that a file takes besides its content: head in a pack and row."""
_NAME = 150
"""Bytes that a name takes in a folder's record and in the index, besides the name, twice."""
_FOLDER = 512
"""Bytes that a record of a folder and its row in the index take besides, and twice its path."""
_LONG = 900
"""Bytes of a row of the index that has pages of its own, the last of which is seldom full."""


class Crowded(Exception):
    """A snapshot would fit, were it not for old ones."""


class Room:
    """The bytes that one snapshot may take, by the quota and by what the disk has.

    Of the disk a margin stays free: for the catalog, for the rollback that may follow, for others.
    It is fixed once. Were it a share of what is left each time, each batch of files would take
    most of what the batch before it had left, and the catalog would find nothing.

    Args:
        store: Where the snapshot goes.
        max_store_bytes: Its quota.
        writer: Counts the content that was kept.
        forgetful: Whether old snapshots may go before anything is left out.

    Attributes:
        upkeep: Bytes that are counted besides content; what an earlier try found is counted from
            the beginning.
        closed: Whether there is none for any content.
        most: So many bytes of content are kept at the most: an earlier try failed with more,
            although the disk said that it had them (quotas of users are told by nobody).
        asked: Bytes of content that came up.
        offered: The most that there was said to be room for.
    """

    def __init__(
        self, store: Store, max_store_bytes: int, writer: BlobWriter, *, forgetful: bool = False
    ) -> None:
        self.upkeep = 0
        self.closed = False
        self.most = sys.maxsize
        self.asked = self.offered = 0
        self.store = store
        self.writer = writer
        self._used = store.used()
        self._forgetful = forgetful
        self._quota = max_store_bytes - self._used
        self._margin = 2 * store.reserve.size()
        self._catalog = os.stat(store.catalog.path).st_size
        self._files = 0
        self._counted = 0

    def allow(self, jobs: Sequence[Job], sizes: Sequence[int]) -> int:
        """Return how many bytes of content may still be kept.

        Args:
            jobs: Files that come up now. What will be written of them besides their content is
                counted from now on, whether that is kept or not.
            sizes: What copies of them would take, in bytes.

        Raises:
            Crowded: One of them would fit, were there no old snapshots.
        """
        self._files += len(jobs)
        self.asked += sum(sizes)
        self._counted += _ROW * len(jobs)
        folders = {id(job.folder): job.folder for job in jobs}
        for folder in folders.values():
            names = sum(_NAME + 2 * len(name) for name in folder.names)
            self._counted += _FOLDER + 2 * len(folder.path) + names + PAGE * (names > _LONG)
        self.upkeep = max(self.upkeep, self._counted)
        if self.closed:
            return 0
        journal = min(self._catalog, JOURNAL * self._files)
        disk = self.store.reserve.free() - self._margin - self.upkeep - journal
        quota = min(self._quota - self.upkeep, self.most) - self.writer.new_bytes
        left = max(0, min(quota, disk))
        self.offered = max(self.offered, left)
        if self._forgetful and any(left < end <= left + self._used for end in _ends(sizes)):
            raise Crowded
        return left

    def spare(self, weight: Weight) -> int:
        """Return how many bytes may still be kept of a database, what its pages need included."""
        if self.closed:
            return 0
        self.asked += weight.most
        upkeep = self.upkeep + UPKEEP * self.writer.added
        disk = self.store.reserve.free() - self._margin - upkeep
        disk -= written_beside(weight, self._catalog)
        quota = min(self._quota - upkeep, self.most) - self.writer.new_bytes
        left = max(0, min(quota, disk))
        self.offered = max(self.offered, left)
        return left

    def refuse(self, missing: int) -> None:
        """Hear that a database does not fit.

        Args:
            missing: Bytes, at least; 0 where that is not known.

        Raises:
            Crowded: It may fit without old snapshots.
        """
        if self._forgetful and 0 < missing <= self._used:
            raise Crowded


def _ends(sizes: Sequence[int]) -> Iterator[int]:
    """Return how many bytes there are when each of some files was kept, the smallest first."""
    return itertools.accumulate(sorted(sizes))


class ScratchRoom:
    """The bytes that a rehearsal may take: of what is free at its beginning, a part stays free.

    Args:
        store: On whose file system the scratch folder is.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self._floor = store.reserve.free() // _LEFT_FREE

    def left(self) -> int:
        """Return how many bytes may still be written."""
        return max(0, self.store.reserve.free() - self._floor)

    def takes(self, path: bytes, entry: Entry, linking: Linking) -> int:
        """Return how many bytes of the disk a rebuilt file takes.

        Raises:
            StoreCorrupt: The store does not have its content.
        """
        place = self.store.reader.place(entry.ref)
        if place.kind is BlobKind.INODE and linking.may(path):
            return 0
        size = entry.size
        if place.kind is BlobKind.LOOSE:
            with contextlib.suppress(OSError):
                blob = file_path(self.store.folder, place.kind, entry.ref)
                size = min(size, os.stat(blob).st_blocks * 512)
        return -(-size // PAGE) * PAGE

    def fitting(
        self, chosen: Iterable[tuple[bytes, Entry]], linking: Linking
    ) -> dict[bytes, Entry]:
        """Return those of some files that there is room for."""
        room = self.left()
        fitting: dict[bytes, Entry] = {}
        for path, entry in chosen:
            size = self.takes(path, entry, linking)
            if size <= room:
                fitting[path] = entry
                room -= size
        return fitting
