"""One store, opened: its catalog, its blobs, its lock, its private folders."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
import re
import secrets
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from rollback.copying import copy_durably
from rollback.durable import write_durably
from rollback.errors import CatalogCorrupt, NothingToDo, StoreCorrupt
from rollback.failpoints import reach
from rollback.lock import StoreLock, is_alive, owner
from rollback.model import Operation
from rollback.removal import remove_path
from rollback.store import placement
from rollback.store.blobs import BlobReader, file_path
from rollback.store.catalog import BlobKind, Catalog, translated
from rollback.store.litter import Litter
from rollback.store.owned import Owned, aside_files
from rollback.store.reserve import Reserve

_RESTORES = ("rollback", "undo", "redo")
_NUMBER = re.compile(r"\d{8}")


class Store:
    """A project's store.

    Args:
        path: Absolute path of its folder.
        create: Whether to make it where it is absent.

    Attributes:
        max_bytes: Its quota, which its opener may set.
        lock: Who holds it may change the store.
        litter: What died or failed operations left.
        reserve: Bytes that are set aside for a rollback on a full disk.

    Raises:
        NothingToDo: It does not exist and shall not be made.
        StoreCorrupt: Its marker is gone.
        StoreUnusable: It cannot be used here.
        CatalogCorrupt: Its catalog cannot be read.
    """

    def __init__(self, path: Path, *, create: bool) -> None:
        placement.refuse_unreachable(path)
        if placement.has_lost_marker(path):
            raise StoreCorrupt(
                f"the marker of the store is gone: {path / 'STORE'}", hint="guard verify --repair"
            )
        if not create and not (path / "STORE").exists():
            state = "is not a guard store" if path.exists() else "does not exist"
            raise NothingToDo(
                f"there is no snapshot yet: {path} {state}",
                hint="guard run -- COMMAND takes the first one",
            )
        placement.prepare(path)
        self.path = path
        self.folder = os.fsencode(path)
        _refuse_lost_catalog(path)
        # Listed before the catalog is asked: a number is committed before it names a document.
        newest = _newest_number(path)
        self.catalog = Catalog(path / "catalog.db", writable=True)
        _refuse_older_catalog(self.catalog, newest)
        self.reader = BlobReader(self.folder, self.catalog)
        self.max_bytes = sys.maxsize
        self._works: dict[int, bytes] = {}
        self.lock = StoreLock(os.path.join(self.folder, b"lock"))
        self.litter = Litter(self.folder, self.catalog, self.work)
        self.reserve = Reserve(path)

    def close(self) -> None:
        """Close everything; the lock is given back."""
        self.reader.close()
        self.catalog.close()
        self.lock.release_to(0)

    def begin(self, kind: str, data: Mapping[str, Any]) -> Operation:
        """Take the lock and write an operation's intent, durably.

        Raises:
            StoreBusy: Another operation holds the lock.
        """
        self.lock.acquire()
        if kind in _RESTORES:
            self.reserve.release()
        reach("operation.begin")
        intent = {**data, "owner": owner()}
        operation = self.reserve.with_room(lambda: self.catalog.add_operation(kind, intent))
        os.makedirs(self.work(operation.seq), mode=0o700, exist_ok=True)
        reach("operation.begun")
        return operation

    def work(self, seq: int) -> bytes:
        """Return the private folder of an operation.

        ext4 chooses the place on the disk by the name, and is slow to make files for a while
        where many were removed: so no two operations have the same.
        """
        if seq not in self._works:
            inside, number = os.path.join(self.folder, b"work"), b"%08d" % seq
            found = [name for name in os.listdir(inside) if name.startswith(number)]
            name = found[0] if found else number + b"-" + secrets.token_hex(4).encode()
            self._works[seq] = os.path.join(inside, name)
        return self._works[seq]

    @contextlib.contextmanager
    def scratch(self, operation: Operation, name: str) -> Iterator[bytes]:
        """Give a new private folder for a block and remove it afterwards."""
        path = os.path.join(self.work(operation.seq), name.encode())
        remove_path(path)
        os.makedirs(path, mode=0o700)
        try:
            yield path
        finally:
            remove_path(path)

    def write_document(self, name: str, document: Mapping[str, Any]) -> None:
        """Write a snapshot's document beside the catalog, durable, for repair and rescue."""
        reach("snapshot.document")
        folder = os.path.join(self.folder, b"snapshots")
        final = os.path.join(folder, name.encode() + b".json")
        write_durably(final, json.dumps(document).encode(), "snapshot.rename")

    def key(self) -> bytes:
        """Return the store's secret key, made at its first use, in a transaction of the caller."""
        path = self.path / "key"
        with contextlib.suppress(FileNotFoundError):
            return path.read_bytes()
        key = secrets.token_bytes(32)
        self.catalog.set_value("key", hashlib.sha256(key).hexdigest())
        self.put_key(key)
        return path.read_bytes()

    def put_key(self, key: bytes) -> None:
        """Write the store's key."""
        write_durably(os.fsencode(self.path / "key"), key, "snapshot.rename")

    def used(self) -> int:
        """Return the bytes of content that only the store has, what rollbacks took included."""
        packed = self.catalog.db.execute("SELECT coalesce(sum(length), 0) FROM pack").fetchone()[0]
        files = self.catalog.db.execute(
            "SELECT coalesce(sum(length - place), 0) FROM blob WHERE kind = 2"
        ).fetchone()[0]
        return int(packed) + int(files) + self.owned().bytes

    def owned(self) -> Owned:
        """Return what rollbacks took or put aside, as far as nobody else has it."""
        taken = self.catalog.db.execute("SELECT id FROM blob WHERE kind = 4 AND place > 0")
        links = (file_path(self.folder, BlobKind.INODE, row[0]) for row in taken)
        return Owned(itertools.chain(links, aside_files(self.folder)))

    def note_shared(self, blobs: Iterable[bytes]) -> None:
        """Remember large blobs that a rollback put in place themselves, for want of space."""
        names = {*self.catalog.value("shared").split(), *(blob.hex() for blob in blobs)}
        if names:
            self.catalog.set_value("shared", " ".join(sorted(names)))

    def part_shared(self) -> None:
        """Give such blobs a file of their own again, where there is space by now."""
        names = self.catalog.value("shared").split()
        if not names:
            return
        left: list[str] = []
        for name in names:
            path = file_path(self.folder, BlobKind.LOOSE, bytes.fromhex(name))
            try:
                info = os.lstat(path)
                takes = min(info.st_size, info.st_blocks * 512)
                if info.st_nlink > 1 and not self.reserve.fits(takes):
                    left.append(name)
                elif info.st_nlink > 1:
                    copy_durably(path)
            except FileNotFoundError:
                continue
        with self.catalog.transaction():
            self.catalog.set_value("shared", " ".join(left))

    def unfinished(self) -> list[Operation]:
        """Return operations that say they are running, or were, and whose owner is gone."""
        return [operation for operation in self._open() if not _is_owned(operation)]

    def at_work(self) -> list[Operation]:
        """Return operations that are running, by an owner that is."""
        return [operation for operation in self._open() if _is_owned(operation)]

    def _open(self) -> list[Operation]:
        return self.catalog.operations("WHERE state IN ('running', 'applying')")


def _is_owned(operation: Operation) -> bool:
    """Return whether the process that began an operation is still there."""
    return is_alive(operation.data.get("owner", {}))


def _newest_number(path: Path) -> int:
    """Return the highest number that a snapshot's document has, 0 for none."""
    found = (_NUMBER.match(name) for name in os.listdir(path / "snapshots"))
    return max((int(match[0]) for match in found if match), default=0)


def _refuse_older_catalog(catalog: Catalog, newest: int) -> None:
    """Refuse a catalog that was put in the place of a newer one: it would give numbers again.

    Raises:
        CatalogCorrupt: A document has a number that it never gave; it can be made again.
    """
    try:
        with translated(catalog.path):
            query = "SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'operation'"
            given = catalog.db.execute(query).fetchone()[0]
    except BaseException:
        catalog.close()
        raise
    if given < newest:
        catalog.close()
        raise CatalogCorrupt(
            f"the catalog {catalog.path} is older than the snapshots beside it:"
            f" it ends at {given}, they go to {newest}",
            hint="guard verify --repair",
        )


def _refuse_lost_catalog(path: Path) -> None:
    """Refuse to begin a new catalog where snapshots tell of an old one.

    Raises:
        CatalogCorrupt: It is gone or empty; it can be made again.
    """
    catalog = path / "catalog.db"
    if catalog.exists() and catalog.stat().st_size:
        return
    if any(name.endswith(".json") for name in os.listdir(path / "snapshots")):
        state = "empty" if catalog.exists() else "gone"
        raise CatalogCorrupt(
            f"the catalog {catalog} is {state}, but there are snapshots",
            hint="guard verify --repair",
        )
