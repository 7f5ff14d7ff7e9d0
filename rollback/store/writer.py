"""Content that is added to the store: packed, counted, made durable before it is named."""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from collections.abc import Iterator

from rollback.durable import sync_all
from rollback.errors import NoSpace
from rollback.failpoints import reach
from rollback.store.blobs import BlobReader, file_path
from rollback.store.catalog import BlobKind, Place
from rollback.store.codec import (
    join_tree,
    record_references,
    tree_id,
)
from rollback.store.packs import PACK_LIMIT, PackWriter

UPKEEP = 256
"""Bytes that a packed blob takes besides its content: its head, its row, its id in a list."""
JOURNAL = 8192
"""Bytes of the catalog that a changed row makes SQLite set aside, at most."""
_ROWS = 20_000
_REFER = """
WITH RECURSIVE at(n) AS (SELECT 1 UNION ALL SELECT n + 32 FROM at WHERE n + 32 <= length(:ids))
UPDATE blob SET refs = refs + :count WHERE id IN (SELECT substr(:ids, n, 32) FROM at)
"""
"""Counts references to the ids that follow one another in a text: a statement each took twice as
long."""


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
