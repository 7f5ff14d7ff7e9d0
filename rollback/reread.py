"""Reading a tree again, whole: every file is hashed, nothing is kept.

This is how a drill proves what it rebuilt, with the work that a rollback's own verification does.
"""

from __future__ import annotations

import os
from collections.abc import Container, Iterator
from concurrent.futures import ThreadPoolExecutor

from rollback.capture import Job, Resolving, capture_tree
from rollback.difference import Comparison, Pair, metadata_differs
from rollback.folders import cached
from rollback.model import Category, Entry, Kind
from rollback.parallel import cores
from rollback.plan import TreeTarget
from rollback.reading import SMALL, Kept, SmallJobs, hash_file
from rollback.resources.base import Root
from rollback.smallfiles import SmallFiles
from rollback.store.blobs import BlobReader
from rollback.store.catalog import BlobKind
from rollback.store.codec import inode_id, join_tree, tree_id

_APART = (Kind.DATABASE, Kind.WATCHED, Kind.UNPROTECTED, Kind.SOCKET)
_DEVICES = (Kind.CHARACTER_DEVICE, Kind.BLOCK_DEVICE)


class HashingResolver:
    """Names each file by its content, or by its inode where the store links it.

    Args:
        root: Absolute path of what is read.
        reader: The store.
    """

    def __init__(self, root: bytes, reader: BlobReader) -> None:
        self.root = root
        self.reader = reader
        self.trees: dict[bytes, list[bytes]] = {}

    def begin(self, root_fd: int, jobs: list[Job]) -> Resolving:
        """Start to hash each file."""
        results: list[Kept | None] = [self._linked(job) for job in jobs]
        rest = [n for n, kept in enumerate(results) if kept is None]
        small = [n for n in rest if jobs[n].info.st_size < SMALL]
        large = [n for n in rest if jobs[n].info.st_size >= SMALL]
        reading = SmallFiles([jobs[n] for n in small], self._tell)

        def finish() -> list[Kept]:
            with ThreadPoolExecutor(max_workers=cores()) as pool:
                hashed = pool.map(lambda n: hash_one(root_fd, jobs[n].path), large)
                for number, kept in zip(large, hashed, strict=True):
                    results[number] = kept
            indexes = iter(small)
            for _, part in reading.results():
                for one in part:
                    results[next(indexes)] = Kept(*one)
            return [kept or Kept(Kind.UNPROTECTED, note="it is gone") for kept in results]

        return Resolving(finish, reading.abandon)

    def add_tree(self, records: list[bytes]) -> bytes:
        """Remember a tree for this reading only."""
        identity = tree_id(join_tree(records))
        self.trees[identity] = records
        return identity

    def records(self, tree: bytes) -> list[bytes]:
        """Return the records of a tree, of this reading or of the store."""
        found = self.trees.get(tree)
        return self.reader.records(tree) if found is None else found

    def _linked(self, job: Job) -> Kept | None:
        if job.info.st_nlink == 1:
            return None
        blob = inode_id(job.info)
        place = self.reader.catalog.place(blob)
        if place is None or place.kind is not BlobKind.INODE:
            return None
        return Kept(Kind.FILE, blob)

    def _tell(self, jobs: list[Job], _apart: bool) -> SmallJobs:  # noqa: FBT001 - by position
        paths, infos = [job.path for job in jobs], [job.info for job in jobs]
        return SmallJobs(self.root, paths, infos, b"", "", find_databases=False, knows=_always)


def hash_one(root_fd: int, path: bytes) -> Kept:
    """Return the content id of one file below an open folder."""
    with cached(root_fd) as folders:
        return hash_file(folders, path)


def differences(
    folder: bytes,
    target: TreeTarget,
    reader: BlobReader,
    without: Container[bytes] = (),
    noted: Container[bytes] = (),
) -> Iterator[str]:
    """Read a rebuilt tree again and yield what is not as its manifest says.

    Args:
        folder: Where it was rebuilt.
        target: The tree that it has to equal.
        reader: The store.
        without: Paths that were not rebuilt.
        noted: Paths of which the rebuild said that not all could be set: owner and attributes.
    """
    resolver = HashingResolver(folder, reader)
    place = os.path.realpath(folder)
    root = Root("rehearsal", f"reading {folder.hex()}", place, Category.CODE, leave_out=frozenset())
    found = capture_tree(root, reader, resolver, update_index=False)
    for pair in Comparison(resolver.records, expand=True).compare(found.tree, target.tree):
        old, new = pair.old, pair.new
        if any(entry is not None and entry.kind in _APART for entry in (old, new)):
            continue
        if old is None and (pair.path in without or _is_named(pair, noted)):
            continue
        if old is not None and new is not None and pair.path in noted:
            old = old._replace(uid=new.uid, gid=new.gid, xattrs=new.xattrs)
        shown = os.fsdecode(os.path.join(target.root.path, pair.path))
        if old is None or new is None:
            yield f"{shown} is missing or too much after the rebuild"
        elif metadata_differs(old, new):
            yield f"{shown} has another owner, mode, time or attribute after the rebuild"
        elif old.kind is not new.kind or not _same(reader, old, new):
            yield f"{shown} has another content after the rebuild"


def _is_named(pair: Pair, noted: Container[bytes]) -> bool:
    """Return whether the rebuild said that a device could not be made."""
    return pair.new is not None and pair.new.kind in _DEVICES and pair.path in noted


def _same(reader: BlobReader, old: Entry, new: Entry) -> bool:
    if old.ref == new.ref or new.kind is Kind.DIRECTORY:
        return True
    # A linked file that had to be copied has the content that the build proved, under another name.
    return reader.place(new.ref).kind is BlobKind.INODE and old.size == new.size


def _always(_blob: bytes) -> bool:
    return True
