"""Making a lost catalog again: packs name their blobs, documents describe their snapshots."""

from __future__ import annotations

import contextlib
import json
import os
import re
import sqlite3
import time
from pathlib import Path

from rollback.copying import hole_bytes
from rollback.durable import sync_folder
from rollback.errors import StoreBusy, StoreCorrupt
from rollback.failpoints import reach
from rollback.lock import StoreLock
from rollback.model import Snapshot
from rollback.references import count_references
from rollback.snapshots import blobs_of, dump, load
from rollback.store.blobs import BlobReader
from rollback.store.catalog import TAKEN, BlobKind, Catalog
from rollback.store.packs import Record, salvage

_KINDS = frozenset(kind.value for kind in BlobKind)
_BEGINNINGS = {b"GT1\n": BlobKind.TREE, b"GR1\n": BlobKind.PAGED}
_LOG = "SELECT seq, id, kind, state, started_at, ended_at, data FROM operation ORDER BY seq "
_MOVED = f"SELECT place, id FROM blob WHERE kind = {BlobKind.INODE.value} AND place != 0"  # noqa: S608
"""How files came to lie in `links/`: no other record tells."""
_STATES = ("running", "applying", "done", "failed", "interrupted")
_RESTORES = ("rollback", "undo", "redo")
_NUMBERED = (b"packs", b"snapshots", b"work")
_NUMBER = re.compile(rb"\d{8}")


def rebuild_catalog(folder: Path) -> list[str]:
    """Replace a damaged catalog by one made from the store's own files.

    The damaged one is kept beside it. Of the log of operations, what can still be read of it is
    taken over, and the runs and rollbacks that the snapshots themselves tell of.

    Args:
        folder: The store.

    Returns:
        What was done, as sentences.

    Raises:
        StoreBusy: Another operation holds the store.
    """
    lock = StoreLock(os.path.join(os.fsencode(folder), b"lock"))
    lock.acquire_alone()
    try:
        fresh = folder / "catalog.new"
        for name in ("catalog.new", "catalog.new-journal"):
            (folder / name).unlink(missing_ok=True)
        catalog = Catalog(fresh, writable=True)
        try:
            said = _Rebuild(os.fsencode(folder), catalog).run()
        finally:
            catalog.close()
        reach("repair.catalog")
        said += _keep_aside(folder)
        os.rename(fresh, folder / "catalog.db")
        sync_folder(os.fsencode(folder))
        return said
    finally:
        lock.release()


def _keep_aside(folder: Path) -> list[str]:
    """Give the damaged catalog a second name, under which it stays when the first is taken."""
    catalog = folder / "catalog.db"
    said: list[str] = []
    with contextlib.suppress(FileNotFoundError):
        if catalog.stat().st_size:
            aside = folder / f"catalog.damaged-{time.time_ns()}"
            os.link(catalog, aside)
            said.append(f"the damaged catalog is kept as {aside}")
    for journal in ("catalog.db-journal", "catalog.db-wal", "catalog.db-shm"):
        (folder / journal).unlink(missing_ok=True)
    return said


class _Rebuild:
    """Fills an empty catalog."""

    def __init__(self, folder: bytes, catalog: Catalog) -> None:
        self.folder = folder
        self.catalog = catalog
        self.db = catalog.db
        self.said: list[str] = []
        self._moved: list[tuple[int, bytes]] = []
        self._doubtful: list[tuple[bytes, int, int, int, int]] = []

    def run(self) -> list[str]:
        with self.catalog.transaction():
            self._salvage()
            self._packs()
            self._take_doubtful()
            self._files(b"loose", BlobKind.LOOSE)
            self._files(b"links", BlobKind.INODE)
            self.db.executemany("UPDATE blob SET place = ? WHERE id = ?", self._moved)
            snapshots = self._documents()
            self._begin_after()
        with self.catalog.transaction():
            self._count(snapshots)
            self._drop_doubtful()
        found = f"{len(snapshots)} snapshot{'' if len(snapshots) == 1 else 's'}"
        self.said.insert(0, f"the catalog was made again: it has {found}")
        return self.said

    def _salvage(self) -> None:
        """Take over what can still be read of the damaged catalog's log, from both its ends."""
        path = os.fsdecode(os.path.join(self.folder, b"catalog.db"))
        with contextlib.suppress(StoreCorrupt, OSError, StoreBusy):
            old = Catalog(Path(path), writable=False)
            try:
                for order in ("ASC", "DESC"):
                    with contextlib.suppress(sqlite3.Error, ValueError, TypeError):
                        for row in old.db.execute(_LOG + order):
                            self._take_over(row)
                with contextlib.suppress(sqlite3.Error):
                    self._moved += old.db.execute(_MOVED).fetchall()
                with contextlib.suppress(sqlite3.Error):
                    for name in ("shared", "key"):
                        self.catalog.set_value(name, old.value(name))
            finally:
                old.close()

    def _take_over(self, row: tuple[int, str, str, str, float, float | None, str]) -> None:
        """Take over one line of the log, where it is one."""
        with contextlib.suppress(ValueError, TypeError, sqlite3.IntegrityError):
            if isinstance(json.loads(row[6]), dict) and row[3] in _STATES:
                self.db.execute("INSERT OR IGNORE INTO operation VALUES (?,?,?,?,?,?,?)", row)

    def _begin_after(self) -> None:
        """Let the numbers go on after all that were given: files in the store are named by them."""
        names = [
            name for folder in _NUMBERED for name in os.listdir(os.path.join(self.folder, folder))
        ]
        last = max((int(m[0]) for name in names if (m := _NUMBER.match(name))), default=0)
        if self.db.execute("SELECT coalesce(max(seq), 0) FROM operation").fetchone()[0] < last:
            self.db.execute("DELETE FROM sqlite_sequence WHERE name = 'operation'")
            self.db.execute("INSERT INTO sqlite_sequence VALUES ('operation', ?)", (last,))

    def _packs(self) -> None:
        packs = os.path.join(self.folder, b"packs")
        for name in sorted(os.listdir(packs)):
            if not name.endswith(b".pack"):
                continue
            fd = os.open(os.path.join(packs, name), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                stem = name.removesuffix(b".pack").decode()
                cursor = self.db.execute(
                    "INSERT INTO pack (name, length) VALUES (?, ?)", (stem, os.fstat(fd).st_size)
                )
                self._records(fd, int(cursor.lastrowid or 0))
            finally:
                os.close(fd)

    def _records(self, fd: int, pack: int) -> None:
        """Take the blobs of a pack up: by what is proven, else by what their heads say."""
        insert = "INSERT OR IGNORE INTO blob VALUES (?, ?, ?, ?, ?, 0)"
        for record in salvage(fd, _KINDS):
            place = (_kind(fd, record), pack, record.offset, record.length)
            self.db.execute(insert, (record.digest, *place))
            if not record.sound:
                self._doubtful.append((record.blob, *place))

    def _take_doubtful(self) -> None:
        """Take up what its head names otherwise than its content: damaged, if it is needed."""
        self.db.executemany("INSERT OR IGNORE INTO blob VALUES (?, ?, ?, ?, ?, 0)", self._doubtful)

    def _drop_doubtful(self) -> None:
        """Forget of it what nothing refers to: then it was the head that was damaged."""
        names = ((row[0],) for row in self._doubtful)
        self.db.executemany("DELETE FROM blob WHERE refs = 0 AND id = ?", names)

    def _files(self, name: bytes, kind: BlobKind) -> None:
        base = os.path.join(self.folder, name)
        for fan in sorted(os.listdir(base)):
            for file in sorted(os.listdir(os.path.join(base, fan))):
                with contextlib.suppress(ValueError, OSError):
                    path = os.path.join(base, fan, file)
                    size = os.lstat(path).st_size
                    blob = bytes.fromhex(file.decode())
                    place = TAKEN if kind is BlobKind.INODE else _holes(path)
                    self.db.execute(
                        "INSERT OR IGNORE INTO blob VALUES (?, ?, 0, ?, ?, 0)",
                        (blob, kind, place, size),
                    )

    def _documents(self) -> list[Snapshot]:
        base = os.path.join(self.folder, b"snapshots")
        found: list[Snapshot] = []
        for name in sorted(os.listdir(base)):
            if not name.endswith(b".json"):
                continue
            try:
                with open(os.path.join(base, name), "rb") as file:
                    snapshot = load(file.read())
            except (StoreCorrupt, KeyError, TypeError, ValueError) as error:
                self.said.append(f"snapshot {os.fsdecode(name)} cannot be read: {error}")
                continue
            if all(self.catalog.place(b) for s in snapshot.states for b in blobs_of(s)):
                self._insert(snapshot)
                found.append(snapshot)
            else:
                self.said.append(f"snapshot {snapshot.seq} was never finished and is left out")
        return found

    def _insert(self, snapshot: Snapshot) -> None:
        self.db.execute(
            "INSERT OR IGNORE INTO snapshot VALUES (?, ?, ?, ?, ?, ?)",
            (
                snapshot.seq, snapshot.id, snapshot.kind, snapshot.label, snapshot.created_at,
                json.dumps(dump(snapshot)),
            ),
        )  # fmt: skip
        at = snapshot.created_at
        kind, data = _told_by(snapshot)
        self.db.execute(
            "INSERT OR IGNORE INTO operation VALUES (?, ?, ?, 'done', ?, ?, ?)",
            (snapshot.seq, snapshot.id, kind, at, at, json.dumps(data)),
        )

    def _count(self, snapshots: list[Snapshot]) -> None:
        """Count references by reading everything that refers to something."""
        reader = BlobReader(self.folder, self.catalog)
        counts = count_references(reader, snapshots)
        reader.close()
        self.db.executemany(
            "UPDATE blob SET refs = ? WHERE id = ?", ((n, blob) for blob, n in counts.items())
        )


def _kind(fd: int, record: Record) -> int:
    """Return the kind of a blob; where its head has none that there is, as its content begins."""
    if record.kind in _KINDS:
        return record.kind
    return _BEGINNINGS.get(os.pread(fd, 4, record.offset), BlobKind.PACKED).value


def _holes(path: bytes) -> int:
    """Return how many bytes of a large blob are holes."""
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        return hole_bytes(fd)
    finally:
        os.close(fd)


def _told_by(snapshot: Snapshot) -> tuple[str, dict[str, object]]:
    """Return what a snapshot tells of the operation that took it: its kind, its line's data."""
    common: dict[str, object] = {"rebuilt": True, "project": snapshot.project}
    if snapshot.kind != "undo":
        if snapshot.facts.get("command"):
            common["command"] = snapshot.facts["command"]
        kind = "run" if snapshot.kind == "run" else "snapshot"
        return kind, {**common, "snapshot_id": snapshot.id}
    known = {"target_id": "", **snapshot.facts.get("restore", {})}
    words = snapshot.label.split()  # "before undo to 3"
    kind = words[1] if words[1:] and words[1] in _RESTORES else "rollback"
    return kind, {**common, **known, "undo_id": snapshot.id, "verified": True}
