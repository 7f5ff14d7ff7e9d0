"""One store, opened: its catalog, its blobs, its lock, its private folders."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
import re
import secrets
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from rollback.durable import sync_folder
from rollback.errors import CatalogCorrupt, NoSpace, NothingToDo, StoreCorrupt
from rollback.failpoints import reach
from rollback.lock import StoreLock, is_alive, owner, process_start
from rollback.model import Operation
from rollback.removal import remove_path
from rollback.store import placement
from rollback.store.blobs import BlobReader, file_path
from rollback.store.catalog import BlobKind, Catalog
from rollback.store.owned import Owned, aside_files

RESERVE = 32 << 20
"""Bytes that are set aside, at most, so that a rollback has room on a full disk."""
_RESERVE_SHARE = 20
"""One part in so many of what is free is set aside where there is little."""
_TIGHT = 8 << 20
_LITTLE = 1 << 20
_T = TypeVar("_T")
_RESTORES = ("rollback", "undo", "redo")
_DAY_S = 86_400.0
_TICK_S = 0.02
_UNCLEAN = "unclean since"
_DRILL = re.compile(rb"drill-(\d+)")
_PACK = re.compile(rb"(\d{8})-[^.]+\.pack(\.tmp)?")
_FILE = re.compile(rb"((?:[0-9a-f]{2})+)(\.tmp)?")


class Store:
    """A project's store.

    Args:
        path: Absolute path of its folder.
        create: Whether to make it where it is absent.

    Attributes:
        max_bytes: Its quota, which its opener may set.

    Raises:
        NothingToDo: It does not exist and shall not be made.
        StoreCorrupt: Its marker is gone.
        StoreUnusable: It cannot be used here.
        CatalogCorrupt: Its catalog cannot be read.
    """

    def __init__(self, path: Path, *, create: bool) -> None:
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
        self.catalog = Catalog(path / "catalog.db", writable=True)
        self.reader = BlobReader(self.folder, self.catalog)
        self.max_bytes = sys.maxsize
        self._works: dict[int, bytes] = {}
        self.lock = StoreLock(os.path.join(self.folder, b"lock"))

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
            self.release_reserve()
        reach("operation.begin")
        intent = {**data, "owner": owner()}
        operation = self.with_room(lambda: self.catalog.add_operation(kind, intent))
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

    def clean(self, seq: int) -> None:
        """Remove what an operation left: its private folder, and packs nobody knows."""
        reach("recover.clean")
        remove_path(self.work(seq))
        for path, owner_seq in self._unknown_packs():
            if owner_seq == seq:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(path)

    def _unknown_packs(self) -> Iterator[tuple[bytes, int]]:
        """Yield the packs that are none of the catalog's, and the operation that began each."""
        packs = os.path.join(self.folder, b"packs")
        known = {row[0] for row in self.catalog.db.execute("SELECT name FROM pack")}
        for name in os.listdir(packs):
            match = _PACK.fullmatch(name)
            if match and (match[2] or name.removesuffix(b".pack").decode() not in known):
                yield os.path.join(packs, name), int(match[1])

    def _unknown_files(self) -> Iterator[bytes]:
        """Yield the files of single blobs that are none of the catalog's; no name but of ours."""
        for folder in (b"loose", b"links"):
            for fan in os.listdir(os.path.join(self.folder, folder)):
                inside = os.path.join(self.folder, folder, fan)
                for name in os.listdir(inside):
                    match = _FILE.fullmatch(name)
                    if match and (
                        match[2] or self.catalog.place(bytes.fromhex(match[1].decode())) is None
                    ):
                        yield os.path.join(inside, name)

    def note_unclean(self, since: float) -> None:
        """Note, in the caller's transaction, that what no row names has to be dropped.

        Args:
            since: Unix time in seconds at which the operation that died or failed began.
        """
        before = self.unclean_since()
        # The kernel stamps a file with the time of its last tick, which may be before that.
        since -= _TICK_S
        self.catalog.set_value(_UNCLEAN, repr(since if before is None else min(before, since)))

    def unclean_since(self) -> float | None:
        """Return since when there may be content that no row names; None where there is none."""
        text = self.catalog.value(_UNCLEAN)
        return float(text) if text else None

    def drop_unknown(self) -> None:
        """Remove content and documents that no row names, where an operation died or failed.

        What is older than that operation stays, whatever the catalog says: it may be the catalog
        that is lost. The note of it goes last: whoever is killed here is followed by another.
        """
        since = self.unclean_since()
        if since is None:
            return
        known = {
            document_stem(seq, kind).encode() + b".json"
            for seq, kind in self.catalog.db.execute("SELECT seq, kind FROM snapshot")
        }
        documents = os.path.join(self.folder, b"snapshots")
        for name in os.listdir(documents):
            if name not in known:
                _remove_younger(os.path.join(documents, name), since)
        for path, _ in self._unknown_packs():
            _remove_younger(path, since)
        for path in self._unknown_files():
            _remove_younger(path, since)
        reach("recover.cleaned")
        with self.catalog.transaction():
            self.catalog.set_value(_UNCLEAN, "")

    def strays(self) -> list[bytes]:
        """Return what dead processes left in the store; without the lock some may be in use."""
        rows = self.catalog.db.execute("SELECT seq FROM operation WHERE ended_at IS NULL")
        open_ones = {b"%08d" % seq for (seq,) in rows}
        found = []
        for name in os.listdir(os.path.join(self.folder, b"work")):
            drill = _DRILL.match(name)
            alive = drill is not None and process_start(int(drill[1])) != 0
            path = os.path.join(self.folder, b"work", name)
            # A comparison works without the lock, in a folder of its own, for minutes at most.
            if name.startswith(b"sqlite-"):
                with contextlib.suppress(FileNotFoundError):
                    alive = time.time() - os.lstat(path).st_mtime < _DAY_S
            if name[:8] not in open_ones and not alive:
                found.append(path)
        for folder in (b"", b"packs", b"snapshots"):
            inside = os.path.join(self.folder, folder)
            names = (name for name in os.listdir(inside) if name.endswith(b".tmp"))
            found += [os.path.join(inside, name) for name in names]
        return found

    def sweep(self) -> None:
        """Remove what dead processes left; the lock is held."""
        for path in self.strays():
            remove_path(path)
        self.drop_unknown()

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

    def free(self) -> int:
        """Return the bytes that an unprivileged process may still write."""
        fs = os.statvfs(self.folder)
        return fs.f_bavail * fs.f_frsize

    def used(self) -> int:
        """Return the bytes of content that only the store has, what rollbacks took included."""
        packed = self.catalog.db.execute("SELECT coalesce(sum(length), 0) FROM pack").fetchone()[0]
        files = self.catalog.db.execute(
            "SELECT coalesce(sum(length), 0) FROM blob WHERE kind = 2"
        ).fetchone()[0]
        return int(packed) + int(files) + self.owned().bytes

    def owned(self) -> Owned:
        """Return what rollbacks took or put aside, as far as nobody else has it."""
        taken = self.catalog.db.execute("SELECT id FROM blob WHERE kind = 4 AND place > 0")
        links = (file_path(self.folder, BlobKind.INODE, row[0]) for row in taken)
        return Owned(itertools.chain(links, aside_files(self.folder)))

    def reserve(self) -> int:
        """Return how many bytes are to be set aside here: less where little is free."""
        return min(RESERVE, self.free() // _RESERVE_SHARE)

    def set_reserve(self) -> None:
        """Set bytes aside for a rollback on a full disk."""
        path = self.path / "reserve"
        size = self.reserve()
        if not path.exists() and size:
            with contextlib.suppress(OSError):
                fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
                try:
                    os.posix_fallocate(fd, 0, size)
                finally:
                    os.close(fd)

    def release_reserve(self, needed: int = 0) -> None:
        """Free the reserve where hardly more than `needed` bytes are left without it."""
        if self.free() < needed + _TIGHT:
            reach("reserve.release")
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.path / "reserve")

    def with_room(self, write: Callable[[], _T]) -> _T:
        """Return what a small write returns; on a full disk the reserve makes room for it.

        Raises:
            NoSpace: There is no reserve to release any more.
        """
        while True:
            try:
                return write()
            except NoSpace:
                if not self._shrink_reserve():
                    raise

    def _shrink_reserve(self) -> bool:
        """Give a little of the reserve back: the rest stays for the rollback that may follow."""
        path = self.path / "reserve"
        try:
            size = path.stat().st_size
            if size <= _LITTLE:
                path.unlink()
            else:
                os.truncate(path, size - _LITTLE)
        except FileNotFoundError:
            return False
        return True

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
                if info.st_nlink > 1 and info.st_size + 2 * RESERVE > self.free():
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


def document_stem(seq: int, kind: str) -> str:
    """Return the name of a snapshot's document; one operation may have one of each kind."""
    return f"{seq:08d}" + ("-undo" if kind == "undo" else "")


def _remove_younger(path: bytes, since: float) -> None:
    with contextlib.suppress(FileNotFoundError):
        if os.lstat(path).st_ctime >= since:
            os.unlink(path)


def write_durably(path: bytes, content: bytes, failpoint: str) -> None:
    """Write a file so that after a crash it is there whole or not at all."""
    partial = path + b".tmp"
    fd = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        view = memoryview(content)
        while view:
            view = view[os.write(fd, view) :]
        os.fsync(fd)
    finally:
        os.close(fd)
    reach(failpoint)
    os.rename(partial, path)
    sync_folder(os.path.dirname(path))


def copy_durably(path: bytes) -> None:
    """Replace a file by a copy of itself with an inode of its own, private and durable."""
    partial = path + b".tmp"
    with open(path, "rb") as source:
        fd = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "wb") as target:
            shutil.copyfileobj(source, target, 4 << 20)
            target.flush()
            os.fsync(target.fileno())
    os.rename(partial, path)
    sync_folder(os.path.dirname(path))


def read_json(content: bytes | str) -> Any:
    """Return a JSON value of the store.

    Raises:
        StoreCorrupt: It is not JSON.
    """
    try:
        return json.loads(content)
    except ValueError as error:
        raise StoreCorrupt(
            f"a record in the store cannot be read: {error}", hint="guard verify --repair"
        ) from error
