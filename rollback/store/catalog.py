"""The catalog: operations, snapshots, where each blob lies, and the index of the live state.

One SQLite database in rollback-journal mode: reading it needs no write, so the log can still be
read on a full disk. Everything that a snapshot adds becomes visible in one commit, after all
bytes that it refers to are durable.
"""

from __future__ import annotations

import contextlib
import enum
import json
import os
import secrets
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote_from_bytes

from rollback.errors import CatalogCorrupt, NoSpace, NothingToDo, StoreBusy
from rollback.failpoints import reach
from rollback.model import Operation

SCHEMA = """
CREATE TABLE IF NOT EXISTS operation (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, kind TEXT NOT NULL,
    state TEXT NOT NULL, started_at REAL NOT NULL, ended_at REAL, data TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS snapshot (
    seq INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, kind TEXT NOT NULL, label TEXT NOT NULL,
    created_at REAL NOT NULL, document BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS blob (
    id BLOB PRIMARY KEY, kind INTEGER NOT NULL, pack INTEGER NOT NULL, place INTEGER NOT NULL,
    length INTEGER NOT NULL, refs INTEGER NOT NULL) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS unreferenced ON blob (id) WHERE refs = 0;
DROP INDEX IF EXISTS loose;
CREATE INDEX IF NOT EXISTS large ON blob (kind, length, place) WHERE kind = 2;
CREATE INDEX IF NOT EXISTS taken ON blob (id) WHERE kind = 4 AND place > 0;
CREATE TABLE IF NOT EXISTS pack (
    id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL UNIQUE, length INTEGER NOT NULL,
    dead INTEGER NOT NULL DEFAULT 0);
CREATE TABLE IF NOT EXISTS live (
    root TEXT NOT NULL, folder BLOB NOT NULL, tree BLOB NOT NULL, signatures BLOB NOT NULL,
    ctimes BLOB NOT NULL, children BLOB NOT NULL, notes TEXT NOT NULL,
    PRIMARY KEY (root, folder)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS digest (id BLOB PRIMARY KEY, sha256 BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS garbage (path TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
"""
VERSION = 4
"""Of the schema, as SQLite's ``user_version`` has it; the first one had no index of large blobs,
the second none of what rollbacks took, the third none that knows of holes."""
LOST = bytes(32)
"""Stands for the digest of a linked file whose content went by a write that its time hides."""
_PLACES = 100_000
_ID = 32
_LOOK_AHEAD = """
WITH RECURSIVE at(n) AS (SELECT 1 UNION ALL SELECT n + 32 FROM at WHERE n + 32 <= length(:ids))
SELECT id, kind, pack, place, length FROM at CROSS JOIN blob ON id = substr(:ids, n, 32)
"""
_OPERATION = "seq, id, kind, state, started_at, ended_at, data"
_DISTRUSTED = "distrusted"
_UNMENDED = "unmended"
_HINT = "guard verify --repair"


class BlobKind(enum.IntEnum):
    """How a blob lies in the store; the numbers are part of the format."""

    PACKED = 1
    LOOSE = 2
    PAGED = 3
    """A recipe (kept packed under the same id) of segments of 4 KiB pages."""
    INODE = 4
    """A file linked or moved into the store, named by inode, size and mtime."""
    TREE = 5
    """A directory record, packed."""
    SEGMENT = 6
    """A list of page ids, packed."""
    DELTA = 7
    """The page ids that differ from those of a segment, packed."""


_KINDS = {kind.value: kind for kind in BlobKind}


MOVED = 1
"""Offset of an INODE that a rollback moved here: only who had it open can still write to it."""
TAKEN = 2
"""Offset of an INODE that a rollback took, and that may have other names in use."""


class Place(NamedTuple):
    """Where the bytes of a blob are.

    Attributes:
        kind: How they lie there.
        pack: Which one, 0 where none.
        offset: In the pack; of a LOOSE blob its bytes of holes; of an INODE what became of it.
        length: Of the content, in bytes.
    """

    kind: BlobKind
    pack: int
    offset: int
    length: int

    @property
    def stored(self) -> int:
        """How many bytes it takes: the holes of a large file take none."""
        return self.length - self.offset if self.kind is BlobKind.LOOSE else self.length

    @property
    def moved(self) -> bool:
        """Whether it is a file that a rollback moved into the store."""
        return self.kind is BlobKind.INODE and self.offset == MOVED


class Catalog:
    """The database of one store.

    Args:
        path: The database file; created 0600 where absent.
        writable: Without it nothing is created or changed.

    Raises:
        CatalogCorrupt: The file is not a catalog that can be read.
    """

    def __init__(self, path: Path, *, writable: bool) -> None:
        self.path = path
        self._spoiled: set[bytes] | None = None
        self._places: dict[bytes, Place | None] | None = None
        if writable and not path.exists():
            # Another process may be first; either way it is never open to others, not even once.
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
        mode = "rw" if writable else "ro"
        uri = f"file:{quote_from_bytes(os.fsencode(path))}?mode={mode}"
        try:
            self.db = sqlite3.connect(uri, uri=True, isolation_level=None, timeout=10)
        except sqlite3.Error as error:
            raise CatalogCorrupt(f"the catalog {path} does not open: {error}", hint=_HINT) from None
        try:
            with translated(path):
                if writable:
                    self.db.execute("PRAGMA journal_mode = TRUNCATE")
                    self.db.execute("PRAGMA synchronous = EXTRA")
                    self.db.execute("PRAGMA temp_store = MEMORY")
                    # Worker processes read the catalog while a transaction is open here: it must
                    # not reach the file before its commit.
                    self.db.execute("PRAGMA cache_spill = OFF")
                    if not self.db.execute("PRAGMA user_version").fetchone()[0]:
                        self.db.executescript(
                            f"BEGIN IMMEDIATE; {SCHEMA} PRAGMA user_version = {VERSION}; COMMIT;"
                        )
                self.db.execute("SELECT count(*) FROM operation").fetchone()
        except BaseException:
            self.db.close()
            raise

    def close(self) -> None:
        """Close the database."""
        self.db.close()

    def upgrade(self) -> None:
        """Give a catalog that an earlier version made what it lacks; its rows stay as they are.

        It works without, only slower: where that is not possible now, it is done another time.
        """
        if self.db.execute("PRAGMA user_version").fetchone()[0] >= VERSION:
            return
        with contextlib.suppress(NoSpace, StoreBusy, OSError), self.transaction() as db:
            for statement in SCHEMA.split(";"):
                db.execute(statement)
            db.execute(f"PRAGMA user_version = {VERSION}")

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Run a block as one transaction: all of it is durable at the end, or none."""
        with translated(self.path):
            self.db.execute("BEGIN IMMEDIATE")
            try:
                yield self.db
                reach("catalog.commit")
                self.db.execute("COMMIT")
            except BaseException:
                with contextlib.suppress(sqlite3.Error):
                    self.db.execute("ROLLBACK")
                raise

    def prove(self) -> None:
        """Read the whole database and hold it against its own rules.

        Raises:
            CatalogCorrupt: It is damaged.
        """
        with translated(self.path):
            said = self.db.execute("PRAGMA integrity_check(1)").fetchone()[0]
        if said != "ok":
            raise CatalogCorrupt(f"the catalog {self.path} is damaged: {said}", hint=_HINT)
        kinds = ",".join(str(kind.value) for kind in BlobKind)
        odd = f"SELECT count(*) FROM blob WHERE kind NOT IN ({kinds})"  # noqa: S608
        if self.db.execute(odd).fetchone()[0]:
            raise CatalogCorrupt(f"the catalog {self.path} has blobs of no kind", hint=_HINT)
        self.operations()

    def add_operation(self, kind: str, data: Mapping[str, Any]) -> Operation:
        """Write the intent of an operation, durably, and return it."""
        identity, now = secrets.token_hex(8), time.time()
        with self.transaction() as db:
            seq = db.execute(
                "INSERT INTO operation (id, kind, state, started_at, data) VALUES (?,?,?,?,?)",
                (identity, kind, "running", now, json.dumps(data)),
            ).lastrowid
        return Operation(int(seq or 0), identity, kind, "running", now, None, dict(data))

    def change_operation(
        self, seq: int, data: Mapping[str, Any], *, state: str | None = None, ended: bool = False
    ) -> Operation:
        """Merge `data` into an operation's line and set its state, durably."""
        with self.transaction():
            return self.change_operation_within(seq, data, state=state, ended=ended)

    def change_operation_within(
        self, seq: int, data: Mapping[str, Any], *, state: str | None = None, ended: bool = False
    ) -> Operation:
        """Do what `change_operation` does inside a transaction of the caller."""
        now = self.operation(seq)
        merged = {**now.data, **data}
        self.db.execute(
            "UPDATE operation SET data = ?, state = ?, ended_at = ? WHERE seq = ?",
            (
                json.dumps(merged),
                state or now.state,
                time.time() if ended else now.ended_at,
                seq,
            ),
        )
        return self.operation(seq)

    def operation(self, seq: int) -> Operation:
        """Return one operation.

        Raises:
            NothingToDo: There is none with that number.
        """
        for found in self.operations("WHERE seq = ?", (seq,)):
            return found
        raise NothingToDo(f"there is no operation {seq}", hint="guard log lists what there is")

    def operations(self, where: str = "", values: Iterable[Any] = ()) -> list[Operation]:
        """Return operations, newest first.

        Args:
            where: SQL of this package's own making, such as ``WHERE kind = ?``.
            values: What fills its question marks.
        """
        with translated(self.path):
            rows = self.db.execute(
                f"SELECT {_OPERATION} FROM operation {where} ORDER BY seq DESC",  # noqa: S608
                tuple(values),
            ).fetchall()
            return [
                Operation(seq, identity, kind, state, started, ended, _line(seq, data))
                for seq, identity, kind, state, started, ended, data in rows
            ]

    def place(self, blob: bytes) -> Place | None:
        """Return where a blob lies, or None where the store does not have it."""
        known = self._places
        if known is None:
            return self._look_up(blob)
        if blob not in known:
            if len(known) >= _PLACES:
                known.clear()
            known[blob] = self._look_up(blob)
        return known[blob]

    @contextlib.contextmanager
    def remembering(self) -> Iterator[None]:
        """Look each place up once in a block that asks for it again and again, and only reads."""
        self._places = {}
        try:
            yield
        finally:
            self._places = None

    def places(self, blobs: Iterable[bytes]) -> Mapping[bytes, Place | None]:
        """Return where blobs lie: many at once take a third of the time.

        In `remembering`, what `place` is asked for next is known then.
        """
        found: dict[bytes, Place | None] = {} if self._places is None else self._places
        wanted = sorted({blob for blob in blobs if len(blob) == _ID and blob not in found})
        if len(found) + len(wanted) > _PLACES:
            found.clear()
        found.update(dict.fromkeys(wanted))
        for row in self.db.execute(_LOOK_AHEAD, {"ids": b"".join(wanted)}) if wanted else ():
            found[row[0]] = Place(_KINDS[row[1]], *row[2:])
        return found

    def _look_up(self, blob: bytes) -> Place | None:
        row = self.db.execute(
            "SELECT kind, pack, place, length FROM blob WHERE id = ?", (blob,)
        ).fetchone()
        return None if row is None else Place(_KINDS[row[0]], *row[1:])

    def move(self, blob: bytes, place: Place) -> None:
        """Name another place of a blob, inside the caller's transaction.

        One that the catalog had lost has no references yet.
        """
        self.db.execute(
            "INSERT INTO blob (id, kind, pack, place, length, refs) VALUES (?, ?, ?, ?, ?, 0)"
            " ON CONFLICT DO UPDATE SET kind = excluded.kind, pack = excluded.pack,"
            " place = excluded.place, length = excluded.length",
            (blob, *place),
        )

    def distrusted(self) -> set[bytes]:
        """Return the damaged blobs that nothing could mend."""
        return {bytes.fromhex(name) for name in self.value(_DISTRUSTED).split()}

    def distrust(self, blobs: Iterable[bytes]) -> None:
        """Remember the damaged blobs that nothing could mend, instead of those of before."""
        text = " ".join(sorted(blob.hex() for blob in blobs))
        if text != self.value(_DISTRUSTED):
            self.set_value(_DISTRUSTED, text)

    def unmended(self) -> set[bytes]:
        """Return all that the last repair left damaged: files of their own, too."""
        return {bytes.fromhex(name) for name in self.value(_UNMENDED).split()}

    def note_unmended(self, blobs: Iterable[bytes]) -> None:
        """Remember what a repair leaves damaged, instead of what one before did."""
        self.set_value(_UNMENDED, " ".join(sorted(blob.hex() for blob in blobs)))

    def digest(self, blob: bytes) -> bytes | None:
        """Return the SHA-256 of a file kept by its inode, None where it was never read."""
        row = self.db.execute("SELECT sha256 FROM digest WHERE id = ?", (blob,)).fetchone()
        return None if row is None or row[0] == LOST else bytes(row[0])

    def is_spoiled(self, blob: bytes) -> bool:
        """Return whether a file kept by its inode was found to have other content by now."""
        return blob in self._all_spoiled()

    def _all_spoiled(self) -> set[bytes]:
        if self._spoiled is None:
            rows = self.db.execute("SELECT id FROM digest WHERE sha256 = ?", (LOST,))
            self._spoiled = {row[0] for row in rows}
        return self._spoiled

    def spoil(self, blob: bytes) -> None:
        """Note, for as long as this catalog is open, that a file kept by its inode is spoiled."""
        self._all_spoiled().add(blob)

    def remember_spoiled(self) -> None:
        """Write down for good what was noted, inside the caller's transaction."""
        self.db.executemany(
            "INSERT OR REPLACE INTO digest SELECT id, ? FROM blob WHERE id = ?",
            ((LOST, blob) for blob in self._all_spoiled()),
        )

    def learn_digest(self, blob: bytes, sha256: bytes) -> None:
        """Remember the SHA-256 of a file kept by its inode, inside the caller's transaction."""
        self.db.execute("INSERT OR IGNORE INTO digest VALUES (?, ?)", (blob, sha256))

    def value(self, key: str, default: str = "") -> str:
        """Return a small value of the store."""
        name = storable(key)
        row = self.db.execute("SELECT value FROM meta WHERE key = ?", (name,)).fetchone()
        return default if row is None else str(row[0])

    def set_value(self, key: str, value: str) -> None:
        """Set a small value of the store; inside a transaction of the caller or on its own."""
        self.db.execute(
            "INSERT OR REPLACE INTO meta VALUES (?, ?)", (storable(key), storable(value))
        )


def _line(seq: int, data: str) -> dict[str, Any]:
    try:
        line: dict[str, Any] = json.loads(data)
    except ValueError as error:
        raise CatalogCorrupt(
            f"line {seq} of the log cannot be read: {error}", hint=_HINT
        ) from error
    return line


def storable(text: str) -> str:
    """Return a text that SQLite can keep: bytes of a path that are no UTF-8 are spelt out."""
    return text.encode("utf-8", "backslashreplace").decode()


@contextlib.contextmanager
def translated(path: Path) -> Iterator[None]:
    """Turn SQLite's errors into the engine's, with what to do next.

    Raises:
        NoSpace: The disk is full.
        StoreBusy: Another process holds the catalog.
        CatalogCorrupt: It is damaged.
    """
    try:
        yield
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code == sqlite3.SQLITE_FULL:
            raise NoSpace(
                f"the disk is full: the catalog {path} cannot grow",
                hint="free some space, then run the same command again",
            ) from error
        if code in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}:
            raise StoreBusy(
                f"the catalog {path} is in use by another process",
                hint="wait for it to end; guard status shows what is at work",
            ) from error
        if code in {sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN}:
            raise OSError(5, f"{error}", os.fspath(path)) from error
        raise CatalogCorrupt(f"the catalog {path} is damaged: {error}", hint=_HINT) from error
