"""Looking at the present state without keeping anything: files that changed are only named."""

from __future__ import annotations

import hashlib
import os
from io import BufferedReader

from rollback.capture import Captured, Job, Resolving, capture_tree, watched
from rollback.folders import FolderCache, cached, split
from rollback.model import Entry, Kind, Policy
from rollback.reading import Kept
from rollback.resources.base import Root
from rollback.spoiling import is_spoiled
from rollback.sqlitefiles import has_sqlite_magic
from rollback.store.blobs import BlobReader
from rollback.store.codec import decode_entry, inode_id, join_tree, tree_id
from rollback.walk import read_xattrs

_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class NamingResolver:
    """Names changed files by their inode, and keeps new trees in memory only.

    Attributes:
        trees: Trees that the store does not have.
        named: Paths of files whose content the store may not have.
    """

    def __init__(self, root: Root, reader: BlobReader) -> None:
        self.root = root
        self.reader = reader
        self.trees: dict[bytes, list[bytes]] = {}
        self.named: dict[bytes, os.stat_result] = {}

    def begin(self, root_fd: int, jobs: list[Job]) -> Resolving:
        """Name each file; SQLite files are recognised, watched files noted."""
        kept: list[Kept] = []
        with cached(root_fd) as folders:
            for job in jobs:
                policy = self.root.policy(job.path)
                if policy is Policy.WATCH:
                    kept.append(watched(job))
                    continue
                folder, name = split(job.path)
                try:
                    parent = folders.open(folder)
                    if self.root.find_databases and has_sqlite_magic(parent, name):
                        kept.append(Kept(Kind.DATABASE))
                        continue
                    xattrs = read_xattrs(os.path.join(b"/proc/self/fd/%d" % parent, name))
                except OSError:
                    xattrs = ()
                self.named[job.path] = job.info
                ref = inode_id(job.info)
                if policy is Policy.LINK and self._is_spoiled(folders, job, ref):
                    ref = hashlib.sha256(b"spoiled\0" + ref).digest()
                kept.append(Kept(Kind.FILE, ref, xattrs=xattrs))
        return Resolving(lambda: kept)

    def _is_spoiled(self, folders: FolderCache, job: Job, ref: bytes) -> bool:
        if job.touched:
            return is_spoiled(self.reader, self.root, folders, job)
        return self.reader.catalog.is_spoiled(ref)

    def add_tree(self, records: list[bytes]) -> bytes:
        """Remember a tree for this look only."""
        identity = tree_id(join_tree(records))
        self.trees[identity] = records
        return identity


class Present:
    """The present state of one root, as trees that can be compared with a snapshot's.

    Args:
        root: What is looked at.
        reader: The store.

    Attributes:
        opened: Folders that were shut and were opened for this look → the mode that they had.
    """

    def __init__(self, root: Root, reader: BlobReader) -> None:
        self.root = root
        self.reader = reader
        self.opened: dict[bytes, int] = {}
        self._resolver = NamingResolver(root, reader)
        self.captured: Captured = capture_tree(root, reader, self._resolver, update_index=False)
        self._hashes: dict[bytes, bytes | None] = {}

    @property
    def tree(self) -> bytes:
        """Id of the present tree; `load` knows it."""
        return self.captured.tree

    @property
    def changed(self) -> dict[bytes, os.stat_result]:
        """Files whose content the store may not have: path → stat result."""
        return self._resolver.named

    def load(self, tree: bytes) -> list[Entry]:
        """Return the entries of a tree, of this look or of the store."""
        return [decode_entry(record) for record in self.records(tree)]

    def records(self, tree: bytes) -> list[bytes]:
        """Return the records of a tree, of this look or of the store."""
        found = self._resolver.trees.get(tree)
        return self.reader.records(tree) if found is None else found

    def is_new(self, tree: bytes) -> bool:
        """Return whether a tree is of this look and may not be in the store."""
        return tree in self._resolver.trees

    def hash_of(self, path: bytes) -> bytes | None:
        """Return the SHA-256 of a live file, None where it cannot be read."""
        if path not in self._hashes:
            self._hashes[path] = hash_file(self.root.path, path)
        return self._hashes[path]

    def is_intact(self, path: bytes) -> bool:
        """Return whether a live file holds what its owner wrote, by the owner's own hash."""
        try:
            with open_below(self.root.path, path) as file:
                return self.root.intact(path, file) is True
        except OSError:
            return False


def hash_file(root: bytes, path: bytes) -> bytes | None:
    """Return the SHA-256 of a file below a root, None where it cannot be read."""
    try:
        with open_below(root, path) as file:
            return hashlib.file_digest(file, "sha256").digest()
    except OSError:
        return None


def open_below(root: bytes, path: bytes) -> BufferedReader:
    """Open a file below a root for reading; no link is followed.

    Raises:
        OSError: It cannot be read.
    """
    folder, name = split(path)
    fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with cached(fd) as folders:
            return os.fdopen(os.open(name, _READ, dir_fd=folders.open(folder)), "rb")
    finally:
        os.close(fd)
