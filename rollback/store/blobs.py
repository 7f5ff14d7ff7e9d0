"""Content in the store: finding it, proving it, adding it."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import stat
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from io import BufferedReader
from typing import IO, TypeVar

from rollback.durable import sync_all
from rollback.errors import NoSpace, StoreCorrupt, damaged
from rollback.failpoints import reach
from rollback.model import Entry
from rollback.store.catalog import BlobKind, Catalog, Place
from rollback.store.codec import (
    EMPTY_TREE,
    decode_entry,
    inode_id,
    join_tree,
    record_references,
    split_tree,
    tree_id,
)
from rollback.store.packs import PACK_LIMIT, PackWriter
from rollback.store.pages import CHUNK, PageReader

UPKEEP = 256
"""Bytes that a packed blob takes besides its content: its head, its row, its id in a list."""
JOURNAL = 8192
"""Bytes of the catalog that a changed row makes SQLite set aside, at most."""
_Item = TypeVar("_Item")
_FDS = 32
_AHEAD = 5_000
_REMEMBERED = 30_000
"""So many records of directories are remembered: about 4 MB."""
_ROWS = 20_000
_REFER = """
WITH RECURSIVE at(n) AS (SELECT 1 UNION ALL SELECT n + 32 FROM at WHERE n + 32 <= length(:ids))
UPDATE blob SET refs = refs + :count WHERE id IN (SELECT substr(:ids, n, 32) FROM at)
"""
"""Counts references to the ids that follow one another in a text: a statement each took twice as
long."""


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


class BlobWriter:
    """Adds blobs inside one transaction of the catalog.

    Args:
        reader: For what the store already has.
        stem: Beginning of the names of new packs; unique to the operation.

    Attributes:
        new_bytes: Content that was added.
        added: Packed blobs that were added here, not by workers.
        distrusted: Damaged blobs that nothing could mend: who brings their content again writes
            it again.
    """

    def __init__(self, reader: BlobReader, stem: str) -> None:
        self.reader = reader
        self.folder = reader.folder
        self.db = reader.catalog.db
        self.stem = stem
        self.new_bytes = 0
        self.added = 0
        self._limit: int | None = None
        self._taken = 0
        self._pack: PackWriter | None = None
        self._packs = 0
        self._rows: dict[bytes, Place] = {}
        self._refs: Counter[bytes] = Counter()
        self._pack_id = 0
        self._numbers = 0
        self._touched: set[bytes] = set()
        self._linked: set[bytes] = set()
        self.distrusted = reader.catalog.distrusted()

    def next_number(self) -> int:
        """Return a number that makes the name of one more pack unique."""
        self._numbers += 1
        return self._numbers

    def touch(self, blob: bytes) -> None:
        """Remember that a link to `blob` was made: neither bytes nor name need be durable yet."""
        self._touched.add(blob.hex()[:2].encode())
        self._linked.add(file_path(self.folder, BlobKind.INODE, blob))

    def knows(self, blob: bytes) -> bool:
        """Return whether the store has a blob, or is about to."""
        if blob in self._rows:
            return True
        found = self.db.execute("SELECT 1 FROM blob WHERE id = ?", (blob,)).fetchone()
        return found is not None and blob not in self.distrusted

    def refer(self, blob: bytes) -> None:
        """Count one more reference to a blob."""
        self._refs[blob] = self._refs.get(blob, 0) + 1

    def add_packed(self, kind: BlobKind, blob: bytes, content: bytes) -> bool:
        """Add a small blob; return False where the store has it already."""
        if self.knows(blob):
            return False
        place = self._append(kind, blob, content)
        self._rows[blob] = place
        self.new_bytes += len(content)
        self.added += 1
        if kind is not BlobKind.TREE:
            self.spill()
        return True

    def _append(self, kind: BlobKind, blob: bytes, content: bytes) -> Place:
        self._taken += len(content) + UPKEEP
        if self._limit is not None and self._taken > self._limit:
            return Place(kind, 0, 0, len(content))  # it is counted, and nothing of it will stay
        if self._pack is None or self._pack.length > PACK_LIMIT:
            self._end_pack()
            self._packs += 1
            name = f"{self.stem}-m{self._packs}"
            self._pack = PackWriter(os.path.join(self.folder, b"packs"), name)
            self._pack_id = self.add_pack(name, 0)
        offset = self._pack.append(kind, blob, content)
        return Place(kind, self._pack_id, offset, len(content))

    @contextlib.contextmanager
    def within(self, limit: int) -> Iterator[None]:
        """Add packed blobs in a block, or, where they take more than a limit, none of them.

        After any error of the block, too, this writer and the store are as they were before it.

        Args:
            limit: Bytes, those that a blob takes besides its content included. What is beyond is
                counted, and not written.

        Raises:
            NoSpace: They take more; the bytes that are missing are exact.
        """
        self.settle()
        before = self.new_bytes, self.added, self._packs, set(self.distrusted)
        self.db.execute("SAVEPOINT within")
        self._limit, self._taken = limit, 0
        try:
            yield
            self._hold_to(limit)
        except BaseException:
            self.new_bytes, self.added, packs, self.distrusted = before
            self._take_back(packs)
            raise
        finally:
            self._limit = None
        self.db.execute("RELEASE within")

    def _hold_to(self, limit: int) -> None:
        missing = self._taken - limit
        if missing > 0:
            raise NoSpace(
                f"{missing:,} bytes are missing", hint="free some space", missing_bytes=missing
            )

    def _take_back(self, packs: int) -> None:
        """Remove what was added since a savepoint, and all packs but so many."""
        self.abandon(packs)
        self._rows.clear()
        self._refs.clear()
        if self.db.in_transaction:  # else SQLite has taken all of it back by itself
            self.db.execute("ROLLBACK TO within")
            self.db.execute("RELEASE within")

    def spill(self) -> None:
        """Bound the memory that rows take; they cost least once they have been counted."""
        if len(self._rows) > _ROWS:
            self._write_rows()

    def add_row(self, blob: bytes, place: Place) -> None:
        """Record a blob whose bytes were written by somebody else (a worker, a link).

        Where the store has it already, that place stays the one that counts.
        """
        self._rows.setdefault(blob, place)

    def add_pack(self, name: str, length: int) -> int:
        """Record a pack and return its number."""
        cursor = self.db.execute("INSERT INTO pack (name, length) VALUES (?, ?)", (name, length))
        return int(cursor.lastrowid or 0)

    def add_tree(self, records: list[bytes]) -> bytes:
        """Add a directory of records sorted by name, count what it refers to, return its id."""
        content = join_tree(records)
        identity = tree_id(content)
        if self.add_packed(BlobKind.TREE, identity, content):
            self._refs.update(record_references(records))
        return identity

    def settle(self) -> None:
        """Make what was added so far readable: the present pack is ended."""
        self._end_pack()
        self._write_rows()

    def finish(self) -> None:
        """Make all new bytes durable and hand all rows to the transaction."""
        self._end_pack()
        self._write_rows()
        reach("folders.sync")
        fans = {os.path.join(self.folder, b"links", fan) for fan in self._touched}
        sync_all(self.folder, self._linked, fans | set(content_folders(self.folder)))

    def abandon(self, packs: int = 0) -> None:
        """Forget what was added; the caller rolls the transaction back.

        Args:
            packs: So many packs stay: those that were ended before.
        """
        # The numbers of its packs will be given again: none may stay open under one of them.
        self.reader.close()
        if self._pack is not None:
            self._pack.abandon()
            self._pack = None
        for number in range(packs + 1, self._packs + 1):
            name = f"{self.stem}-m{number}.pack".encode()
            with contextlib.suppress(FileNotFoundError):
                os.unlink(os.path.join(self.folder, b"packs", name))

    def _end_pack(self) -> None:
        if self._pack is not None:
            self._pack.close()
            self.db.execute(
                "UPDATE pack SET length = ? WHERE name = ?", (self._pack.length, self._pack.name)
            )
            self._pack = None

    def _write_rows(self) -> None:
        """Hand the rows to SQLite in the order of its tree, new ones with their count."""
        refs = self._refs
        self.db.executemany(
            "INSERT INTO blob (id, kind, pack, place, length, refs) VALUES (?, ?, ?, ?, ?, ?)"
            " ON CONFLICT DO UPDATE SET refs = refs + excluded.refs,"
            # What is linked from two sides is neither the project's alone nor the store's.
            " place = CASE WHEN kind = 4 AND place != excluded.place THEN 2 ELSE place END",
            ((blob, *row, refs.pop(blob, 0)) for blob, row in sorted(self._rows.items())),
        )
        self._trust_again()
        self._rows.clear()
        counts: dict[int, list[bytes]] = {}
        for blob, count in refs.items():
            counts.setdefault(count, []).append(blob)
        for count, blobs in counts.items():
            self.db.execute(_REFER, {"ids": b"".join(sorted(blobs)), "count": count})
        refs.clear()

    def _trust_again(self) -> None:
        """Let the catalog name where damaged blobs lie that were just written again."""
        again = self.distrusted & self._rows.keys()
        for blob in again:
            self.reader.catalog.move(blob, self._rows[blob])
        if again:
            self.distrusted -= again
            self.reader.catalog.distrust(self.distrusted)


def content_folders(folder: bytes) -> list[bytes]:
    """Return the folders of a store that hold content: packs, large blobs, links."""
    return [os.path.join(folder, name) for name in (b"packs", b"loose", b"links")]
