"""Linked files that were written in place and then given their old time again.

The name of a linked file in the store is its inode, size and time, so a write shows, unless who
wrote put the time back. The ctime cannot be put back; but each new link of the file changes it as
well. So where the ctime is not what the index has, the hash that git wrote down decides, or the
one that an earlier reading of the store found.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import sqlite3
from collections.abc import Mapping

from rollback.build import TreeBuilder
from rollback.capture import Job
from rollback.folders import FolderCache, split
from rollback.index import refresh_links
from rollback.resources.base import Root
from rollback.store.blobs import BlobReader
from rollback.store.catalog import BlobKind
from rollback.store.codec import inode_id

_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def is_spoiled(reader: BlobReader, root: Root, folders: FolderCache, job: Job) -> bool:
    """Return whether a live file has other content than the store linked it for; note it if so.

    Args:
        reader: The store.
        root: Where the file is.
        folders: Handles below it.
        job: The file; the index knows it with another ctime.
    """
    blob, catalog = inode_id(job.info), reader.catalog
    place = catalog.place(blob)
    if place is None or place.kind is not BlobKind.INODE or place.offset:
        return False  # what a rollback took is whatever it was
    if catalog.is_spoiled(blob):
        return True
    try:
        folder, name = split(job.path)
        with os.fdopen(os.open(name, _READ, dir_fd=folders.open(folder)), "rb") as content:
            # What git names by its hash was never anything else. What a RECORD lists may have been
            # patched, with an old time, before it was linked: only an earlier reading counts.
            intact = root.intact(job.path, content) if root.resource != "python" else None
            if intact is None and (known := catalog.digest(blob)) is not None:
                content.seek(0)
                intact = hashlib.file_digest(content, "sha256").digest() == known
    except OSError:
        return False
    if intact is False:
        catalog.spoil(blob)
    return intact is False


class OwnLinks:
    """Links of live files that a rehearsal made: they go at once, and the index is told.

    Removed later, each would change the ctime of a live file while the user's command runs.
    """

    def __init__(self) -> None:
        self._links: list[bytes] = []
        self._folders: dict[tuple[str, bytes], set[bytes]] = {}

    def __bool__(self) -> bool:
        return bool(self._links)

    def note(
        self, root: Root, builder: TreeBuilder, paths: Mapping[bytes, bytes] | None = None
    ) -> None:
        """Take over the links that were built.

        Args:
            root: Where their files are.
            builder: Has made them.
            paths: Path in the root of a path of the build, where they differ.
        """
        self._links += [os.path.join(builder.target, path) for path in builder.linked]
        real = builder.linked if paths is None else [paths[path] for path in builder.linked]
        folders = self._folders.setdefault((root.name, root.path), set())
        folders.update(split(path)[0] for path in real)

    def remove(self) -> None:
        """Remove the links."""
        for path in self._links:
            with contextlib.suppress(OSError):
                os.unlink(path)

    def take_over(self, db: sqlite3.Connection) -> None:
        """Let the index know the ctimes that the files have now, in the caller's transaction."""
        for (root, path), folders in self._folders.items():
            refresh_links(db, root, path, folders)
