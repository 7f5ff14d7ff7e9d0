"""Capturing a file tree: walk, resolve what changed, build the trees, update the index.

The same machinery serves a snapshot (content is kept), a look at the present (content is only
named), and the state that a rollback displaces (content is linked before it is replaced); the
`Resolver` says which.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Protocol

from rollback.categories import categorize
from rollback.folders import FolderCache, allow_many_files, cached, join, split
from rollback.index import Folder, index_row
from rollback.model import Entry, Kind, Policy, Skip
from rollback.parallel import cores, fork_map, share_out
from rollback.reading import (
    SMALL,
    Kept,
    SmallJobs,
    hash_file,
    keep_large,
    keep_link,
    keep_small,
)
from rollback.resources.base import Root
from rollback.store.blobs import BlobReader, BlobWriter
from rollback.store.catalog import BlobKind, Catalog, Place, storable
from rollback.store.codec import EMPTY_TREE, decode_entry, encode_entry, record_name
from rollback.walk import (
    Walked,
    Walker,
    bare,
    has_sqlite_magic,
    open_root,
)

FORK_FILES = 1_500
FORK_BYTES = 48 << 20
_FILE_COST = 60_000
"""What opening a file costs, expressed in bytes of hashing."""
_UNCOUNTED = (Kind.DIRECTORY, Kind.DATABASE, Kind.UNPROTECTED)

Progress = Callable[[str, int, int], None]


@dataclass(slots=True)
class Job:
    """A regular file that has to be resolved: its folder, its index there, its path."""

    folder: Folder
    index: int
    path: bytes

    @property
    def info(self) -> os.stat_result:
        """The stat result of the walk."""
        return self.folder.infos[self.index]


class Resolver(Protocol):
    """Decides what becomes of files that changed, and where trees go."""

    def resolve(self, root_fd: int, jobs: list[Job]) -> list[Kept]:
        """Return what became of each file, in order."""

    def add_tree(self, records: list[bytes]) -> bytes:
        """Keep a directory of sorted records and return its id."""


@dataclass(frozen=True, slots=True)
class Captured:
    """A file tree as of one moment.

    Attributes:
        root: What was captured.
        present: False where the root's folder does not exist.
        tree: Id of its tree.
        meta: The entry of the root folder itself.
        totals: Category → number and bytes of files.
        databases: Relative paths of SQLite files.
        links: Groups of relative paths that are one file.
        skipped: What is not protected, by name.
        scanned: Entries looked at.
        read: Files that were read, linked or named anew.
    """

    root: Root
    present: bool
    tree: bytes
    meta: Entry
    totals: dict[str, list[int]]
    databases: list[bytes]
    links: list[list[bytes]]
    skipped: tuple[Skip, ...]
    scanned: int
    read: int


def capture_tree(
    root: Root,
    reader: BlobReader,
    resolver: Resolver,
    *,
    update_index: bool,
) -> Captured:
    """Capture one root.

    Args:
        root: What to capture; an absent folder is captured as absent.
        reader: The store, which has the index of the live state; its catalog is inside a
            transaction where that is updated.
        resolver: What becomes of changed files.
        update_index: Whether the index shall describe what was found from now on.
    """
    allow_many_files()
    try:
        fd = open_root(root.path)
    except (FileNotFoundError, NotADirectoryError):
        return _absent(root)
    builder = _Builder(root, reader.catalog, resolver, update_index=update_index)
    walker = Walker(root, reader, builder.flush)
    builder.horizon_ns = walker.horizon_ns
    try:
        builder.root_fd = fd
        tree = walker.walk(fd)
        meta = bare(b"root", Kind.DIRECTORY, os.fstat(fd))
    finally:
        os.close(fd)
    found = walker.found
    if update_index:
        builder.forget(found.gone)
    return _captured(root, tree, meta, builder, found)


def _captured(root: Root, tree: bytes, meta: Entry, builder: _Builder, found: Walked) -> Captured:
    for category, (files, size) in builder.totals.items():
        total = found.totals.setdefault(category, [0, 0])
        total[0] += files
        total[1] += size
    skips = found.skips + builder.skips
    skips += [_unkept(root, path, why) for path, why in found.unkept]
    return Captured(
        root, True, tree, meta, found.totals, sorted(found.databases + builder.databases),
        found.hard_links(), tuple(skips), found.scanned, builder.read,
    )  # fmt: skip


def _absent(root: Root) -> Captured:
    meta = Entry(b"root", Kind.DIRECTORY, 0o755, os.geteuid(), os.getegid(), 0)
    return Captured(root, False, EMPTY_TREE, meta, {}, [], [], (), 0, 0)


class _Builder:
    """Resolves and builds the folders that the walker hands over."""

    def __init__(
        self, root: Root, catalog: Catalog, resolver: Resolver, *, update_index: bool
    ) -> None:
        self.root = root
        self.db = catalog.db
        self.resolver = resolver
        self.update_index = update_index
        self.category = None if root.resource == "files" else root.category
        self.root_fd = -1
        self.horizon_ns = 0
        self.totals: dict[str, list[int]] = {}
        self.databases: list[bytes] = []
        self.skips: list[Skip] = []
        self.read = 0

    def flush(self, folders: list[Folder]) -> None:
        jobs = [
            Job(folder, index, join(folder.path, folder.names[index]))
            for folder in folders
            for index, entry in folder.fresh.items()
            if entry is None
        ]
        self.read += len(jobs)
        for job, kept in zip(jobs, self.resolver.resolve(self.root_fd, jobs), strict=True):
            self._fill(job, kept)
        rows = []
        for folder in folders:
            self._build(folder)
            if self.update_index:
                rows.append(index_row(self.root.name, folder, self.horizon_ns))
        self.db.executemany("INSERT OR REPLACE INTO live VALUES (?,?,?,?,?,?,?)", rows)

    def forget(self, gone: list[bytes]) -> None:
        """Remove folders that are no more, and all below them, from the index."""
        for path in gone:
            self.db.execute(
                "DELETE FROM live WHERE root = ? AND (folder = ? OR (folder > ? AND folder < ?))",
                (storable(self.root.name), path, path + b"/", path + b"0"),
            )

    def _fill(self, job: Job, kept: Kept) -> None:
        folder, index = job.folder, job.index
        info = kept.info or folder.infos[index]
        entry = bare(folder.names[index], kept.kind, info, ref=kept.ref, xattrs=kept.xattrs)
        linked = kept.place is not None and kept.place.kind is BlobKind.INODE
        folder.settle(index, info, entry, linked=linked)
        if kept.note:
            folder.notes.unkept.append([os.fsdecode(folder.names[index]), kept.note])

    def _build(self, folder: Folder) -> None:
        records = folder.records
        for index, child in folder.children.items():
            entry = bare(
                folder.names[index],
                Kind.DIRECTORY,
                folder.infos[index],
                ref=child if isinstance(child, bytes) else child.tree,
                xattrs=folder.xattrs.get(index, ()),
            )
            records[index] = encode_entry(entry)
        for index, fresh in folder.fresh.items():
            if fresh is not None:
                records[index] = encode_entry(fresh)
                self._count(folder, fresh, 1)
        for record in folder.gone:
            self._count(folder, decode_entry(record), -1)
        built = [record for record in records if record is not None]
        folder.notes.databases += [
            os.fsdecode(record_name(record)) for record in built if record[0] == Kind.DATABASE
        ]
        folder.tree = self.resolver.add_tree(built)
        for name in folder.notes.databases:
            self.databases.append(join(folder.path, os.fsencode(name)))
        for name, why in folder.notes.unkept:
            self.skips.append(_unkept(self.root, join(folder.path, os.fsencode(name)), why))
        for name, (files, size) in folder.notes.totals.items():
            total = self.totals.setdefault(name, [0, 0])
            total[0] += files
            total[1] += size

    def _count(self, folder: Folder, entry: Entry, sign: int) -> None:
        """Count a file that is new in a folder, or gone from it."""
        if entry.kind not in _UNCOUNTED:
            category = self.category or categorize(join(folder.path, entry.name))
            folder.notes.count(category, sign * entry.size, sign)


def _unkept(root: Root, path: bytes, why: str) -> Skip:
    shown = os.fsdecode(os.path.join(root.path, path))
    if "being written" in why:
        return Skip(shown, why, "snapshot again when nothing writes to it")
    if "space" in why or "quota" in why:
        return Skip(shown, why, "free some space, or move the store with --store DIR")
    if "watch" in why:
        return Skip(shown, why, "take it out of [protect] watch to have it kept")
    return Skip(shown, why, "give yourself read permission, or exclude it in guard.toml")


class KeepingResolver:
    """Keeps the content of changed files in the store, as the root's policy says.

    Args:
        root: The root that is captured.
        writer: Where blobs go.
        work: A private folder on the store's file system.
        allowance: Returns how many more bytes may be kept.
        expect_known: Whether large files are hashed before they are copied: what was just put
            back is in the store already.
    """

    def __init__(
        self,
        root: Root,
        writer: BlobWriter,
        work: bytes,
        allowance: Callable[[], int],
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

    def resolve(self, root_fd: int, jobs: list[Job]) -> list[Kept]:
        """Keep each file: small ones packed, large ones as files, others by a link."""
        results: list[Kept | None] = [None] * len(jobs)
        small: list[int] = []
        large: list[int] = []
        link: list[int] = []
        room = self.allowance() if jobs else 0
        for index, job in sorted(enumerate(jobs), key=lambda item: item[1].info.st_size):
            policy = self.root.policy(job.path)
            size = job.info.st_size
            if policy is Policy.WATCH:
                results[index] = watched(job)
            elif policy is Policy.LINK and self._can_link(root_fd):
                link.append(index)
            elif _stored_size(job.info) > room:
                results[index] = Kept(
                    Kind.UNPROTECTED,
                    note=f"there is not enough space or quota to keep its {size:,} bytes",
                )
            else:
                room -= _stored_size(job.info)
                (small if size < SMALL else large).append(index)
        small.sort()

        def others() -> None:
            with cached(root_fd) as folders:
                self._link(folders, jobs, link, results)
            self._copy_large(root_fd, jobs, large, results)

        self._copy_small(small, jobs, results, others)
        unlinked = [index for index in link if results[index] is None]
        self._copy_small(unlinked, jobs, results, lambda: None)
        return [kept or Kept(Kind.UNPROTECTED, note="it is gone") for kept in results]

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
                kept = keep_link(folders, jobs[index].path, self.writer.folder)
                if kept is not None and kept.place is not None:
                    self.writer.add_row(kept.ref, kept.place)
                    self.writer.touch(kept.ref)
                results[index] = kept

    def _copy_large(
        self, root_fd: int, jobs: list[Job], large: list[int], results: list[Kept | None]
    ) -> None:
        if self.expect_known:
            large = self._hash_large(root_fd, jobs, large, results)
        if not large:
            return

        def keep(index: int) -> tuple[int, Kept]:
            with cached(root_fd) as folders:
                folder, name = split(jobs[index].path)
                with contextlib.suppress(OSError):
                    if self.root.find_databases and has_sqlite_magic(folders.open(folder), name):
                        return index, Kept(Kind.DATABASE)
                return index, keep_large(
                    folders, jobs[index].path, self.writer.folder, self.work, _knows_nothing
                )

        with ThreadPoolExecutor(max_workers=cores()) as pool:
            for index, kept in pool.map(keep, large):
                results[index] = kept
                if kept.place is not None:
                    if not self.writer.knows(kept.ref):
                        self.writer.new_bytes += kept.place.length
                    self.writer.add_row(kept.ref, kept.place)

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

    def _copy_small(
        self,
        small: list[int],
        jobs: list[Job],
        results: list[Kept | None],
        meanwhile: Callable[[], None],
    ) -> None:
        sizes = [jobs[i].info.st_size for i in small]
        many = len(small) > FORK_FILES or sum(sizes) > FORK_BYTES
        runs = share_out(sizes, cores() if many else 1, _FILE_COST) if small else []
        parts = [self._small_jobs([jobs[small[i]].path for i in run]) for run in runs]
        if many and len(parts) > 1:
            known = _known_in(self.writer)
            for part in parts:
                part.knows = known
            answers = fork_map(_keep_numbered, parts, meanwhile)
        else:
            answers = [_keep_numbered(n, part) for n, part in enumerate(parts)]
            meanwhile()
        for run, (packs, kept) in zip(runs, answers, strict=True):
            numbers = [self.writer.add_pack(name, length) for name, length in packs]
            for position, one in zip(run, kept, strict=True):
                results[small[position]] = self._place(one, numbers)

    def _small_jobs(self, paths: list[bytes]) -> SmallJobs:
        return SmallJobs(
            self.root.path,
            paths,
            os.path.join(self.writer.folder, b"packs"),
            f"{self.writer.stem}-{self.writer.next_number()}",
            self.root.find_databases,
            self.writer.knows,
        )

    def _place(self, kept: Kept, packs: list[int]) -> Kept:
        if kept.place is not None:
            place = Place(kept.place.kind, packs[kept.pack], kept.place.offset, kept.place.length)
            if not self.writer.knows(kept.ref):
                self.writer.new_bytes += place.length
            self.writer.add_row(kept.ref, place)
        return kept


def _keep_numbered(number: int, jobs: SmallJobs) -> tuple[list[tuple[str, int]], list[Kept]]:
    return keep_small(replace(jobs, stem=f"{jobs.stem}-{number}"))


def _known_in(writer: BlobWriter) -> Callable[[bytes], bool]:
    """Return a look-up that works in a forked process: a connection of its own, made there."""
    path = writer.reader.catalog.path
    catalogs: list[Catalog] = []

    def knows(blob: bytes) -> bool:
        if not catalogs:
            catalogs.append(Catalog(path, writable=False))
        return catalogs[0].place(blob) is not None

    if writer.db.execute("SELECT 1 FROM blob LIMIT 1").fetchone() is None:
        return _knows_nothing
    return knows


def _knows_nothing(_blob: bytes) -> bool:
    return False


def _stored_size(info: os.stat_result) -> int:
    return min(info.st_size, info.st_blocks * 512) if info.st_size >= SMALL else info.st_size


def watched(job: Job) -> Kept:
    """Return the record of a file whose changes are only noticed."""
    info = job.info
    mark = b"%d:%d:%d" % (info.st_size, info.st_mtime_ns, info.st_ino)
    return Kept(Kind.WATCHED, mark, note="it is watched: a change is reported, not undone")
