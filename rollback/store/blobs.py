"""Content in the store: finding it and proving it."""

from __future__ import annotations

import hashlib
import itertools
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from io import BufferedReader
from typing import IO, TypeVar

from rollback.errors import StoreCorrupt, damaged
from rollback.model import Entry
from rollback.store.catalog import BlobKind, Catalog, Place
from rollback.store.codec import (
    EMPTY_TREE,
    decode_entry,
    inode_id,
    record_references,
    split_tree,
)
from rollback.store.pages import CHUNK, PageReader

_Item = TypeVar("_Item")
_FDS = 32
_AHEAD = 5_000
_REMEMBERED = 30_000
"""So many records of directories are remembered: about 4 MB."""


class BlobReader:
    """Reads blobs of one store; every byte is proven before it is handed on.

    Args:
        folder: The store.
        catalog: Its catalog.
    """

    def __init__(self, folder: bytes, catalog: Catalog) -> None:
        self.folder = folder
        self.catalog = catalog
        self._fds: dict[int, int] = {}
        self._trees: dict[bytes, list[bytes]] = {}
        self._remembered = 0

    def close(self) -> None:
        """Close the packs that are open."""
        for fd in self._fds.values():
            os.close(fd)
        self._fds.clear()

    def reopened(self) -> BlobReader:
        """Return a reader of its own of what is committed, for a forked process."""
        return BlobReader(self.folder, Catalog(self.catalog.path, writable=False))

    def place(self, blob: bytes) -> Place:
        """Return where a blob lies.

        Raises:
            StoreCorrupt: The store does not have it.
        """
        place = self.catalog.place(blob)
        if place is None:
            raise damaged(blob, "it is not in the catalog")
        return place

    def looking_ahead(
        self, items: Iterable[_Item], blob_of: Callable[[_Item], bytes]
    ) -> Iterator[_Item]:
        """Yield items whose blobs will be asked for; see `Catalog.places`.

        Args:
            items: As many as there may be.
            blob_of: Returns what an item refers to.
        """
        source = iter(items)
        while part := list(itertools.islice(source, _AHEAD)):
            self.catalog.places(map(blob_of, part))
            yield from part

    def path(self, place: Place, blob: bytes) -> bytes:
        """Return the file of a loose blob or of one that is kept by its inode."""
        return file_path(self.folder, place.kind, blob)

    def read(self, blob: bytes) -> bytes:
        """Return a packed blob whole.

        Raises:
            StoreCorrupt: It is missing or does not match its id.
        """
        content = self.read_at(self.place(blob), blob)
        if hashlib.sha256(content).digest() != blob:
            raise damaged(blob, "its content does not match its hash")
        return content

    def read_at(self, place: Place, blob: bytes) -> bytes:
        """Return the bytes at a place, unproven.

        Raises:
            StoreCorrupt: The pack or file is missing or too short.
        """
        try:
            if place.kind in {BlobKind.LOOSE, BlobKind.INODE}:
                with open(file_path(self.folder, place.kind, blob), "rb") as file:
                    content = file.read()
            else:
                content = os.pread(self.pack(place.pack), place.length, place.offset)
        except OSError as error:
            raise damaged(blob, str(error.strerror)) from error
        if len(content) != place.length:
            raise damaged(blob, "its file is too short")
        return content

    def tree(self, blob: bytes) -> list[Entry]:
        """Return the entries of a directory record; the empty one need not be kept.

        Raises:
            StoreCorrupt: It is missing or damaged.
        """
        return [decode_entry(record) for record in self.records(blob)]

    def records(self, blob: bytes) -> list[bytes]:
        """Return the records of a directory as they lie in the store; see `tree`.

        Those read last are remembered: a walk, a comparison and a second walk ask for the same.

        Raises:
            StoreCorrupt: It is missing or damaged.
        """
        found = self._trees.get(blob)
        if found is None:
            found = [] if blob == EMPTY_TREE else split_tree(self.read(blob))
            self._trees[blob] = found
            self._remembered += len(found)
            while self._remembered > _REMEMBERED:
                self._remembered -= len(self._trees.pop(next(iter(self._trees))))
        return found

    def copy_to(self, blob: bytes, target: IO[bytes]) -> None:
        """Write a blob of any kind to a stream, each part proven before it is written.

        A loose blob is proven whole at its end: the caller throws the target away on an error.

        Raises:
            StoreCorrupt: It is missing or damaged.
        """
        place = self.place(blob)
        if place.kind is BlobKind.PAGED:
            PageReader(self).copy_to(blob, target)
        elif place.kind is BlobKind.LOOSE:
            digest = hashlib.sha256()
            with open_blob(self.folder, place.kind, blob) as file:
                while chunk := file.read(CHUNK):
                    digest.update(chunk)
                    target.write(chunk)
            if digest.digest() != blob:
                raise damaged(blob, "its content does not match its hash")
        elif place.kind is BlobKind.INODE:
            with open_blob(self.folder, place.kind, blob) as file:
                while chunk := file.read(CHUNK):
                    target.write(chunk)
        else:
            target.write(self.read(blob))

    def children(self, blob: bytes) -> list[bytes]:
        """Return the blobs that a tree, a recipe or a segment refers to, one an occurrence.

        Raises:
            StoreCorrupt: It is missing or damaged.
        """
        kind = self.place(blob).kind
        if kind is BlobKind.TREE:
            return list(record_references(self.records(blob)))
        if kind in {BlobKind.PAGED, BlobKind.SEGMENT, BlobKind.DELTA}:
            return PageReader(self).children(kind, blob)
        return []

    def pack(self, pack: int) -> int:
        """Return the handle of a pack, by its number in the catalog; it stays the reader's."""
        fd = self._fds.get(pack)
        if fd is None:
            row = self.catalog.db.execute("SELECT name FROM pack WHERE id = ?", (pack,)).fetchone()
            if row is None:
                raise StoreCorrupt(
                    f"pack {pack} is not in the catalog", hint="guard verify --repair"
                )
            path = os.path.join(self.folder, b"packs", row[0].encode() + b".pack")
            if len(self._fds) >= _FDS:
                os.close(self._fds.pop(next(iter(self._fds))))
            fd = self._fds[pack] = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        return fd


def file_path(folder: bytes, kind: BlobKind, blob: bytes) -> bytes:
    """Return the path of a blob that is a file of its own."""
    name = blob.hex().encode()
    return os.path.join(folder, b"loose" if kind is BlobKind.LOOSE else b"links", name[:2], name)


def open_blob(
    folder: bytes,
    kind: BlobKind,
    blob: bytes,
    intact: Callable[[BufferedReader], bool | None] | None = None,
) -> BufferedReader:
    """Open a blob that is a file of its own; one kept by inode is held against its signature.

    Args:
        folder: The store.
        kind: LOOSE or INODE.
        blob: Its id.
        intact: Asked where the signature does not agree: a touched time alone is no damage.

    Raises:
        StoreCorrupt: It is missing, or not the file that was kept.
    """
    try:
        fd = _open_own(file_path(folder, kind, blob))
    except OSError as error:
        raise damaged(blob, str(error.strerror)) from error
    file = os.fdopen(fd, "rb")
    if kind is BlobKind.INODE and inode_id(os.fstat(fd)) != blob:
        if intact is None or not intact(file):
            file.close()
            raise damaged(blob, "the linked file was written in place")
        file.seek(0)
    return file


def _open_own(path: bytes) -> int:
    """Open a file of ours for reading, also one that was displaced with a mode that forbids it."""
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        return os.open(path, flags)
    except PermissionError:
        mode = stat.S_IMODE(os.lstat(path).st_mode)
        os.chmod(path, mode | stat.S_IRUSR)
        try:
            return os.open(path, flags)
        finally:
            os.chmod(path, mode)
