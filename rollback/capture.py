"""Capturing a file tree: walk, resolve what changed, build the trees, update the index.

The same machinery serves a snapshot (content is kept), a look at the present (content is only
named), and the state that a rollback displaces (content is linked before it is replaced); the
`Resolver` says which.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from rollback.categories import categorize
from rollback.folders import allow_many_files, join
from rollback.index import Folder, index_row
from rollback.model import Entry, Kind, Policy, Skip
from rollback.reading import GONE, Kept
from rollback.replaced import find_replaced
from rollback.resources.base import Root
from rollback.store.blobs import BlobReader
from rollback.store.catalog import BlobKind, Catalog, storable
from rollback.store.codec import EMPTY_TREE, decode_entry, encode_entry, record_name
from rollback.unseen import Unseen, find_unseen
from rollback.walk import (
    Walked,
    Walker,
    bare,
    open_root,
)

NO_ROOM = "free some space, raise max_store, or move the store with --store DIR"
"""The mend for what there was not enough space or quota for."""
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

    @property
    def touched(self) -> bool:
        """Whether the index knows the file by a link, and but for its ctime as it is."""
        return self.index in self.folder.touched


def _nothing() -> None:
    """Do nothing: what was resolved at once cannot be abandoned."""


@dataclass(frozen=True, slots=True)
class Resolving:
    """Files that are being resolved, perhaps by other processes.

    Attributes:
        finish: Returns what became of each file, in order; waits for it.
        abandon: Ends what still runs; may be called at any time, more than once.
    """

    finish: Callable[[], list[Kept]]
    abandon: Callable[[], None] = _nothing


class Resolver(Protocol):
    """Decides what becomes of files that changed, and where trees go."""

    def begin(self, root_fd: int, jobs: list[Job]) -> Resolving:
        """Start to resolve files; the walk goes on meanwhile."""

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
        root: What to capture; an absent folder is captured as absent, and so is one that is
            reached through a link: what that leads to is not the root's.
        reader: The store, which has the index of the live state; its catalog is inside a
            transaction where that is updated.
        resolver: What becomes of changed files.
        update_index: Whether the index shall describe what was found from now on.
    """
    allow_many_files()
    if os.path.realpath(root.path) != root.path:
        return _absent(root)
    try:
        fd = open_root(root.path)
    except (FileNotFoundError, NotADirectoryError):
        return _absent(root)
    builder = _Builder(root, reader.catalog, resolver, update_index=update_index)
    walker = Walker(root, reader, builder.flush)
    builder.horizon_ns = walker.horizon_ns
    try:
        builder.root_fd = fd
        walked = walker.walk(fd)
        builder.finish()
        tree = walked.tree if isinstance(walked, Folder) else walked
        meta = bare(b"root", Kind.DIRECTORY, os.fstat(fd))
    finally:
        builder.abandon()
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
    return Captured(root, False, EMPTY_TREE, meta, {}, [], [], _replaced(root), 0, 0)


def _replaced(root: Root) -> tuple[Skip, ...]:
    """Name what stands where the folder of a root was: nothing of it is kept."""
    found = find_replaced(root.path) if root.resource == "files" else None
    if found is None:
        return ()
    return (Skip(os.fsdecode(root.path), found.why_of(root.path), found.fix),)


_Batch = tuple[list[Folder], list[Job], list[Kept]]
"""Folders, their files that were resolved, and what became of these."""


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
        self.unseen: Unseen | None = None
        self.totals: dict[str, list[int]] = {}
        self.databases: list[bytes] = []
        self.skips: list[Skip] = []
        self.read = 0
        self._batch: tuple[list[Folder], list[Job], Resolving] | None = None

    def flush(self, folders: list[Folder]) -> None:
        """Take over folders, in an order in which they can be built; that happens later.

        What was found in those before is only awaited: workers may read the next meanwhile.
        """
        before = self._awaited()
        jobs = [
            Job(folder, index, join(folder.path, folder.names[index]))
            for folder in folders
            for index, entry in folder.fresh.items()
            if entry is None
        ]
        if jobs and self.unseen is None and self.update_index:
            self.unseen = find_unseen(self.root_fd)
        self.read += len(jobs)
        self._batch = folders, jobs, self.resolver.begin(self.root_fd, jobs)
        self._build_all(before)

    def finish(self) -> None:
        """Build what was taken over: from now on each folder has its tree."""
        self._build_all(self._awaited())

    def abandon(self) -> None:
        """End what still runs for this capture."""
        if self._batch is not None:
            self._batch[2].abandon()

    def _awaited(self) -> _Batch:
        """Wait for the files of the folders that were taken over before."""
        if self._batch is None:
            return [], [], []
        folders, jobs, resolving = self._batch
        kept = resolving.finish()
        self._batch = None
        return folders, jobs, kept

    def _build_all(self, batch: _Batch) -> None:
        folders, jobs, results = batch
        for job, kept in zip(jobs, results, strict=True):
            self._fill(job, kept)
        rows = []
        for folder in folders:
            self._build(folder)
            if self.update_index:
                rows.append(index_row(self.root.name, folder, self.horizon_ns))
        self.db.executemany("INSERT OR REPLACE INTO live VALUES (?,?,?,?,?,?,?)", rows)
        for folder in folders:
            folder.shed()

    def forget(self, gone: list[bytes]) -> None:
        """Remove folders that are no more, and all below them, from the index."""
        for path in gone:
            self.db.execute(
                "DELETE FROM live WHERE root = ? AND (folder = ? OR (folder > ? AND folder < ?))",
                (storable(self.root.name), path, path + b"/", path + b"0"),
            )

    def _fill(self, job: Job, kept: Kept) -> None:
        folder, index = job.folder, job.index
        if kept.note:
            folder.notes.unkept.append([os.fsdecode(folder.names[index]), kept.note])
        if kept.note == GONE:
            return  # the state that is kept has no such name
        info = kept.info or folder.infos[index]
        entry = bare(folder.names[index], kept.kind, info, ref=kept.ref, xattrs=kept.xattrs)
        linked = kept.place is not None and kept.place.kind is BlobKind.INODE
        folder.settle(index, info, entry, linked=linked)
        if self.unseen is not None and info in self.unseen and self._is_rewritten(job, entry):
            folder.unseen.add(index)

    def _is_rewritten(self, job: Job, entry: Entry) -> bool:
        """Return whether somebody may write a file in place; a database tells of that itself."""
        return entry.kind is Kind.FILE and self.root.policy(job.path) is not Policy.LINK

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
    if "being written" in why or why == GONE:
        return Skip(shown, why, "snapshot again when nothing writes to it")
    if "space" in why or "quota" in why:
        return Skip(shown, why, NO_ROOM)
    if "watch" in why:
        return Skip(shown, why, "take it out of [protect] watch to have it kept")
    return Skip(shown, why, "give yourself read permission, or exclude it in guard.toml")


def watched(job: Job) -> Kept:
    """Return the record of a file whose changes are only noticed."""
    info = job.info
    mark = b"%d:%d:%d" % (info.st_size, info.st_mtime_ns, info.st_ino)
    return Kept(Kind.WATCHED, mark, note="it is watched: a change is reported, not undone")
