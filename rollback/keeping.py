"""Keeping what changed: small files go into packs, large ones lie as files, others get a link."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from rollback.capture import Job, Resolving, watched
from rollback.folders import FolderCache, cached, split
from rollback.model import Kind, Policy
from rollback.parallel import cores
from rollback.reading import (
    GROWN,
    SMALL,
    Kept,
    SmallJobs,
    hash_file,
    keep_large,
    keep_link,
)
from rollback.resources.base import Root
from rollback.smallfiles import SmallFiles
from rollback.spoiling import is_spoiled
from rollback.sqlitefiles import has_sqlite_magic
from rollback.store.catalog import Catalog, Place
from rollback.store.codec import inode_id
from rollback.store.writer import BlobWriter

Allowance = Callable[[Sequence[Job], Sequence[int]], int]


class KeepingResolver:
    """Keeps the content of changed files in the store, as the root's policy says.

    Args:
        root: The root that is captured.
        writer: Where blobs go.
        work: A private folder on the store's file system.
        allowance: Is told of files that come up, and what copies of them would take; returns how
            many more bytes may be kept.
        expect_known: Whether large files are hashed before they are copied: what was just put
            back is in the store already.
    """

    def __init__(
        self,
        root: Root,
        writer: BlobWriter,
        work: bytes,
        allowance: Allowance,
        *,
        expect_known: bool = False,
    ) -> None:
        self.root = root
        self.expect_known = expect_known
        self.writer = writer
        self.work = work
        self.allowance = allowance
        self._same_device: bool | None = None

    def add_tree(self, records: list[bytes]) -> bytes:
        """Keep a directory of sorted records and count what it refers to."""
        return self.writer.add_tree(records)

    def begin(self, root_fd: int, jobs: list[Job]) -> Resolving:
        """Start to keep files: small ones packed, large ones as files, others by a link."""
        self.writer.spill()
        results: list[Kept | None] = [None] * len(jobs)
        link, copy = self._sort(root_fd, jobs, results)
        room = self.allowance(jobs, [stored_size(jobs[index].info) for index in copy])
        small, large = self._fitting(root_fd, jobs, (copy, room), results)
        tight = [index for index in copy if results[index] is not None]
        reading = self._read_small(small, jobs)

        def finish() -> list[Kept]:
            with cached(root_fd) as folders:
                self._link(folders, jobs, link, results)
            if self.expect_known:
                self._recognise(root_fd, jobs, tight, results)
            self._copy_large(root_fd, jobs, large, results)
            self._take_small(reading, small, results)
            unlinked = [index for index in link if results[index] is None]
            self._copy_unlinked(root_fd, jobs, unlinked, results)
            grown = [index for index in small + unlinked if _has_grown(results[index])]
            self._copy_large(root_fd, jobs, grown, results)
            return [kept or Kept(Kind.UNPROTECTED, note="it is gone") for kept in results]

        return Resolving(finish, reading.abandon)

    def _sort(
        self, root_fd: int, jobs: list[Job], results: list[Kept | None]
    ) -> tuple[list[int], list[int]]:
        """Return which files are to be linked and which copied.

        The watched ones are done, and large databases, which are kept by themselves.
        """
        link: list[int] = []
        copy: list[int] = []
        for index, job in enumerate(jobs):
            policy = self.root.policy(job.path)
            if policy is Policy.WATCH:
                results[index] = watched(job)
            elif policy is Policy.LINK and self._can_link(root_fd):
                link.append(index)
            elif job.info.st_size >= SMALL and (kept := self._database(root_fd, job)):
                results[index] = kept
            else:
                copy.append(index)
        return link, copy

    def _fitting(
        self,
        root_fd: int,
        jobs: list[Job],
        offered: tuple[Sequence[int], int],
        results: list[Kept | None],
    ) -> tuple[list[int], list[int]]:
        """Return the small and the large files that there is room for; the others are named.

        The smallest come first, so that most files are kept. Of databases only what differs is
        kept: there may be room for that.

        Args:
            root_fd: Handle of the root.
            jobs: All files.
            offered: Those that are to be copied, and the bytes that may be kept.
            results: What became of each file.
        """
        copy, room = offered
        small: list[int] = []
        large: list[int] = []
        for index in sorted(copy, key=lambda index: jobs[index].info.st_size):
            info = jobs[index].info
            size = stored_size(info)
            if size > room:
                why = f"there is not enough space or quota to keep its {info.st_size:,} bytes"
                database = self._database(root_fd, jobs[index])
                results[index] = database or Kept(Kind.UNPROTECTED, note=why)
            else:
                room -= size
                (small if info.st_size < SMALL else large).append(index)
        return sorted(small), large

    def _copy_unlinked(
        self, root_fd: int, jobs: list[Job], unlinked: list[int], results: list[Kept | None]
    ) -> None:
        """Copy what could not be linked, as far as there is room by now."""
        offered = unlinked, self.allowance((), ())
        small, large = self._fitting(root_fd, jobs, offered, results)
        self._copy_large(root_fd, jobs, large, results)
        self._take_small(self._read_small(small, jobs), small, results)

    def resolve(self, root_fd: int, jobs: list[Job]) -> list[Kept]:
        """Keep files and return what became of each, in order."""
        begun = self.begin(root_fd, jobs)
        try:
            return begun.finish()
        finally:
            begun.abandon()

    def _can_link(self, root_fd: int) -> bool:
        if self._same_device is None:
            here, there = os.fstat(root_fd).st_dev, os.stat(self.writer.folder).st_dev
            self._same_device = here == there
        return self._same_device

    def _link(
        self, folders: FolderCache, jobs: list[Job], link: list[int], results: list[Kept | None]
    ) -> None:
        for index in link:
            with contextlib.suppress(FileNotFoundError):
                if self._is_spoiled(folders, jobs[index]):
                    continue
                kept = keep_link(folders, jobs[index].path, self.writer.folder)
                if kept is not None and kept.place is not None:
                    self.writer.add_row(kept.ref, kept.place)
                    self.writer.touch(kept.ref)
                results[index] = kept

    def _is_spoiled(self, folders: FolderCache, job: Job) -> bool:
        """Return whether the name that a link of a file would have is that of other content."""
        reader = self.writer.reader
        if self.expect_known or not job.touched:  # before a rollback its plan has looked at all
            return reader.catalog.is_spoiled(inode_id(job.info))
        return is_spoiled(reader, self.root, folders, job)

    def _copy_large(
        self, root_fd: int, jobs: list[Job], large: list[int], results: list[Kept | None]
    ) -> None:
        if self.expect_known:
            large = self._hash_large(root_fd, jobs, large, results)
        if not large:
            return

        def keep(index: int) -> tuple[int, Kept]:
            with cached(root_fd) as folders:
                database = self._database(root_fd, jobs[index])
                return index, database or keep_large(
                    folders, jobs[index].path, self.writer.folder, self.work, _knows_nothing
                )

        with ThreadPoolExecutor(max_workers=cores()) as pool:
            for index, kept in pool.map(keep, large):
                results[index] = kept
                if kept.place is not None:
                    if not self.writer.knows(kept.ref):
                        self.writer.new_bytes += kept.place.stored
                    self.writer.add_row(kept.ref, kept.place)

    def _recognise(
        self, root_fd: int, jobs: list[Job], tight: list[int], results: list[Kept | None]
    ) -> None:
        """Look at files that there is no room for: what the store has already takes none."""
        refused = {index: results[index] for index in tight}
        for index in tight:
            results[index] = None
        for index in self._hash_large(root_fd, jobs, tight, results):
            results[index] = self._database(root_fd, jobs[index]) or refused[index]

    def _database(self, root_fd: int, job: Job) -> Kept | None:
        with cached(root_fd) as folders, contextlib.suppress(OSError):
            folder, name = split(job.path)
            if self.root.find_databases and has_sqlite_magic(folders.open(folder), name):
                return Kept(Kind.DATABASE)
        return None

    def _hash_large(
        self, root_fd: int, jobs: list[Job], large: list[int], results: list[Kept | None]
    ) -> list[int]:
        """Hash large files; return those that the store does not have, or that are databases."""

        def look(index: int) -> Kept | None:
            with cached(root_fd) as folders, contextlib.suppress(OSError):
                folder, name = split(jobs[index].path)
                if not has_sqlite_magic(folders.open(folder), name):
                    return hash_file(folders, jobs[index].path)
            return None

        with ThreadPoolExecutor(max_workers=cores()) as pool:
            for index, kept in zip(large, pool.map(look, large), strict=True):
                if kept is not None and self.writer.knows(kept.ref):
                    results[index] = kept
        return [index for index in large if results[index] is None]

    def _read_small(self, small: list[int], jobs: list[Job]) -> SmallFiles:
        known = _known_in(self.writer)

        def tell(part: list[Job], apart: bool) -> SmallJobs:  # noqa: FBT001 - told by position
            return SmallJobs(
                self.root.path,
                [job.path for job in part],
                [job.info for job in part],
                os.path.join(self.writer.folder, b"packs"),
                f"{self.writer.stem}-{self.writer.next_number()}",
                self.root.find_databases,
                known if apart else self.writer.knows,
            )

        return SmallFiles([jobs[i] for i in small], tell)

    def _take_small(
        self, reading: SmallFiles, small: list[int], results: list[Kept | None]
    ) -> None:
        indexes = iter(small)
        for packs, part in reading.results():
            numbers = [self.writer.add_pack(name, length) for name, length in packs]
            for kept in part:
                results[next(indexes)] = self._place(Kept(*kept), numbers)

    def _place(self, kept: Kept, packs: list[int]) -> Kept:
        if kept.place is None:
            return kept
        kind, _, offset, length = kept.place
        place = Place(kind, packs[kept.pack], offset, length)
        self.writer.new_bytes += length
        self.writer.add_row(kept.ref, place)
        return kept._replace(place=place)


def _has_grown(kept: Kept | None) -> bool:
    """Return whether a file was small when the walk saw it, and no more when it was read."""
    return kept is not None and kept.note == GROWN


def _known_in(writer: BlobWriter) -> Callable[[bytes], bool]:
    """Return a look-up that works in a forked process: a connection of its own, made there."""
    path = writer.reader.catalog.path
    distrusted = frozenset(writer.distrusted)
    catalogs: list[Catalog] = []

    def knows(blob: bytes) -> bool:
        if not catalogs:
            catalogs.append(Catalog(path, writable=False))
        return blob not in distrusted and catalogs[0].place(blob) is not None

    if writer.db.execute("SELECT 1 FROM blob LIMIT 1").fetchone() is None:
        return _knows_nothing
    return knows


def _knows_nothing(_blob: bytes) -> bool:
    return False


def stored_size(info: os.stat_result) -> int:
    """Return how many bytes a copy of a file takes: the holes of a large one take none."""
    return min(info.st_size, info.st_blocks * 512) if info.st_size >= SMALL else info.st_size
