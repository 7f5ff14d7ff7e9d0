"""Making a lost catalog again: packs name their blobs, documents describe their snapshots."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterable
from pathlib import Path

from rollback.durable import sync_folder
from rollback.errors import StoreCorrupt
from rollback.failpoints import reach
from rollback.lock import StoreLock
from rollback.model import Snapshot
from rollback.snapshots import blobs_of, dump, load
from rollback.store.blobs import BlobReader
from rollback.store.catalog import BlobKind, Catalog
from rollback.store.packs import records


def rebuild_catalog(folder: Path) -> list[str]:
    """Replace a damaged catalog by one made from the store's own files.

    The damaged one is kept beside it. The log of operations is lost but for the runs and
    rollbacks that the snapshots themselves tell of.

    Args:
        folder: The store.

    Returns:
        What was done, as sentences.

    Raises:
        StoreBusy: Another operation holds the store.
        StoreCorrupt: No snapshot can be read.
    """
    lock = StoreLock(os.path.join(os.fsencode(folder), b"lock"))
    lock.acquire()
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
        aside = folder / f"catalog.damaged-{time.time_ns()}"
        with contextlib.suppress(FileNotFoundError):
            os.rename(folder / "catalog.db", aside)
        for journal in ("catalog.db-journal", "catalog.db-wal", "catalog.db-shm"):
            (folder / journal).unlink(missing_ok=True)
        os.rename(fresh, folder / "catalog.db")
        sync_folder(os.fsencode(folder))
        return [*said, f"the damaged catalog is kept as {aside.name}"]
    finally:
        lock.release()


class _Rebuild:
    """Fills an empty catalog."""

    def __init__(self, folder: bytes, catalog: Catalog) -> None:
        self.folder = folder
        self.catalog = catalog
        self.db = catalog.db
        self.said: list[str] = []

    def run(self) -> list[str]:
        with self.catalog.transaction():
            self._packs()
            self._files(b"loose", BlobKind.LOOSE)
            self._files(b"links", BlobKind.INODE)
            snapshots = self._documents()
        with self.catalog.transaction():
            self._count(snapshots)
        self.said.insert(0, f"{len(snapshots)} snapshots were found again")
        return self.said

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
                rows = self._records(fd, stem, int(cursor.lastrowid or 0))
                self.db.executemany("INSERT OR IGNORE INTO blob VALUES (?, ?, ?, ?, ?, 0)", rows)
            finally:
                os.close(fd)

    def _records(self, fd: int, stem: str, pack: int) -> Iterable[tuple[bytes, int, int, int, int]]:
        kinds = {kind.value for kind in BlobKind}
        try:
            for kind, blob, offset, length in records(fd):
                if kind in kinds:
                    yield blob, kind, pack, offset, length
        except StoreCorrupt as error:
            self.said.append(f"pack {stem} is damaged: {error}; what precedes the damage is kept")

    def _files(self, name: bytes, kind: BlobKind) -> None:
        base = os.path.join(self.folder, name)
        for fan in sorted(os.listdir(base)):
            for file in sorted(os.listdir(os.path.join(base, fan))):
                with contextlib.suppress(ValueError, OSError):
                    size = os.lstat(os.path.join(base, fan, file)).st_size
                    blob = bytes.fromhex(file.decode())
                    self.db.execute(
                        "INSERT OR IGNORE INTO blob VALUES (?, ?, 0, 0, ?, 0)", (blob, kind, size)
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
        kind = {"run": "run", "undo": "rollback"}.get(snapshot.kind, "snapshot")
        data: dict[str, object] = {"snapshot_id": snapshot.id, "rebuilt": True}
        if snapshot.kind == "undo":
            data = {"undo_id": snapshot.id, "target_id": "", "rebuilt": True}
        elif snapshot.facts.get("command"):
            data["command"] = snapshot.facts["command"]
        at = snapshot.created_at
        self.db.execute(
            "INSERT OR IGNORE INTO operation VALUES (?, ?, ?, 'done', ?, ?, ?)",
            (snapshot.seq, snapshot.id, kind, at, at, json.dumps(data)),
        )

    def _count(self, snapshots: list[Snapshot]) -> None:
        """Count references by walking everything that the snapshots reach."""
        reader = BlobReader(self.folder, self.catalog)
        refs: dict[bytes, int] = {}
        seen: set[bytes] = set()
        waiting = [b for s in snapshots for state in s.states for b in blobs_of(state)]
        while waiting:
            blob = waiting.pop()
            refs[blob] = refs.get(blob, 0) + 1
            if blob in seen:
                continue
            seen.add(blob)
            with contextlib.suppress(StoreCorrupt):
                waiting += reader.children(blob)
        reader.close()
        self.db.executemany(
            "UPDATE blob SET refs = ? WHERE id = ?", ((n, blob) for blob, n in refs.items())
        )
