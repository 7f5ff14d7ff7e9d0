"""Reading the whole store: what is damaged, which paths that touches, and mending it.

A content can be mended where the same bytes still lie on disk: in the live file that it was
read from, or in another. A lost catalog is made again from the packs and the documents.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import IO

from rollback.difference import contents
from rollback.durable import sync_folder
from rollback.errors import RollbackError, damaged
from rollback.failpoints import reach
from rollback.inventory import is_tree, root_from
from rollback.model import Entry, Kind, ResourceState, Snapshot
from rollback.reports import Damage, VerifyReport
from rollback.snapshots import blobs_of, load
from rollback.store.blobs import file_path, open_blob
from rollback.store.catalog import BlobKind, Place
from rollback.store.codec import EMPTY_TREE, inode_id
from rollback.store.packs import PackWriter
from rollback.store.pages import CHUNK, PAGE
from rollback.store.store import Store

Progress = Callable[[str, int, int], None]
_PATHS_SHOWN = 20


@dataclass(slots=True)
class _Bad:
    """A damaged blob and who needs it."""

    blob: bytes
    kind: BlobKind
    why: str
    snapshots: dict[str, None] = field(default_factory=dict)
    paths: dict[str, None] = field(default_factory=dict)
    repaired: bool = False


def verify_store(store: Store, *, repair: bool, progress: Progress | None = None) -> VerifyReport:
    """Read every blob and every snapshot; with `repair`, mend from identical live content.

    Returns:
        What was read and what is damaged. A snapshot that stays damaged is remembered, so that
        it does not count as the newest good one.
    """
    started = time.monotonic()
    if repair:
        store.lock.acquire()
    try:
        if repair:
            store.clean(0)  # what a repair that died had mended without saying so
        store.catalog.prove()
        bad, blobs, size = _read_all(store, progress)
        snapshots = [load(r[0]) for r in store.catalog.db.execute("SELECT document FROM snapshot")]
        _attribute(store, bad, snapshots)
        if repair and bad:
            _Mender(store, bad, snapshots).mend()
        if store.lock.held or not bad:
            _remember(store, bad)
        damage = [
            Damage(
                f"blob {b.blob.hex()[:16]}: {b.why}",
                tuple(b.snapshots),
                tuple(list(b.paths)[:_PATHS_SHOWN]),
                b.repaired,
            )
            for b in bad.values()
        ]
        elapsed_s = time.monotonic() - started
        return VerifyReport(blobs, size, len(snapshots), tuple(damage), elapsed_s)
    finally:
        if repair:
            store.lock.release()


def _read_all(store: Store, progress: Progress | None) -> tuple[dict[bytes, _Bad], int, int]:
    """Read each blob and hold it against its id; return what is damaged, and counts."""
    rows = store.catalog.db.execute(
        "SELECT id, kind, pack, place, length FROM blob ORDER BY pack, place"
    ).fetchall()
    bad: dict[bytes, _Bad] = {}
    size = 0
    learned: list[tuple[bytes, bytes]] = []
    for number, (blob, kind, pack, offset, length) in enumerate(rows):
        if progress is not None and number % 256 == 0:
            progress("verify", number, len(rows))
        place = Place(BlobKind(kind), pack, offset, length)
        try:
            digest = _prove(store, blob, place)
            if digest is not None:
                learned.append((blob, digest))
        except (RollbackError, OSError) as error:
            bad[blob] = _Bad(blob, place.kind, str(error))
        size += length
    if learned and store.lock.held:
        with store.catalog.transaction() as db:
            db.executemany("INSERT OR IGNORE INTO digest VALUES (?, ?)", learned)
    return bad, len(rows), size


def _prove(store: Store, blob: bytes, place: Place) -> bytes | None:
    """Raise where a blob is damaged; return the SHA-256 of one that is kept by its inode."""
    if place.kind not in {BlobKind.LOOSE, BlobKind.INODE}:
        content = store.reader.read_at(place, blob)
        if hashlib.sha256(content).digest() != blob:
            raise damaged(blob, "its content does not match its hash")
        return None
    digest = hashlib.sha256()
    with open_blob(store.folder, place.kind, blob, lambda _: place.moved) as file:
        if place.kind is BlobKind.INODE and inode_id(os.fstat(file.fileno())) != blob:
            return None  # a process went on writing to it: what it wrote is its content
        while chunk := file.read(4 * CHUNK):
            digest.update(chunk)
    if place.kind is BlobKind.LOOSE:
        if digest.digest() != blob:
            raise damaged(blob, "its content does not match its hash")
        return None
    known = store.catalog.db.execute("SELECT sha256 FROM digest WHERE id = ?", (blob,)).fetchone()
    if known is not None and known[0] != digest.digest():
        raise damaged(blob, "its content is not what it was at an earlier verification")
    return digest.digest() if known is None else None


def _attribute(store: Store, bad: dict[bytes, _Bad], snapshots: list[Snapshot]) -> None:
    """Note which snapshots and paths need each damaged blob, and what the catalog lacks."""
    for snapshot in snapshots:
        for state in snapshot.states:
            for blob, path in _needs(store, bad, state):
                if blob not in bad and store.catalog.place(blob) is None:
                    bad[blob] = _Bad(blob, BlobKind.TREE, "it is not in the catalog")
                if blob in bad and _only_touched(store, bad[blob], state, path):
                    del bad[blob]
                if blob in bad:
                    bad[blob].snapshots[snapshot.id] = None
                    bad[blob].paths[path] = None


def _only_touched(store: Store, bad: _Bad, state: ResourceState, path: str) -> bool:
    """Return whether a linked file holds what its owner wrote, whatever its time says."""
    if bad.kind is not BlobKind.INODE or not is_tree(state):
        return False
    relative = os.fsencode(os.path.relpath(path, state.location))
    try:
        with open(file_path(store.folder, bad.kind, bad.blob), "rb") as file:
            return root_from(state).intact(relative, file) is True
    except OSError:
        return False


def _needs(
    store: Store, bad: dict[bytes, _Bad], state: ResourceState
) -> Iterator[tuple[bytes, str]]:
    """Yield each blob that a state needs, with the path whose content it is."""

    def load_tree(tree: bytes) -> list[Entry]:
        return [] if _unreadable(store, bad, tree) else store.reader.tree(tree)

    for blob in blobs_of(state):
        yield blob, state.location
        if is_tree(state):
            for path, entry in contents(load_tree, blob):
                if entry.kind in (Kind.FILE, Kind.DIRECTORY):
                    yield entry.ref, os.path.join(state.location, os.fsdecode(path))
        elif not _unreadable(store, bad, blob):
            for part in _parts(store, blob, bad):
                yield part, state.location


def _unreadable(store: Store, bad: dict[bytes, _Bad], blob: bytes) -> bool:
    return blob in bad or (blob != EMPTY_TREE and store.catalog.place(blob) is None)


def _parts(store: Store, blob: bytes, bad: dict[bytes, _Bad]) -> Iterator[bytes]:
    """Yield the segments and pages of a paged blob."""
    for child in store.reader.children(blob):
        yield child
        if not _unreadable(store, bad, child):
            yield from _parts(store, child, bad)


def _remember(store: Store, bad: dict[bytes, _Bad]) -> None:
    names = {name for b in bad.values() if not b.repaired for name in b.snapshots}
    text = " ".join(sorted(names))
    if store.catalog.value("damaged") != text:
        with store.catalog.transaction():
            store.catalog.set_value("damaged", text)


class _Mender:
    """Finds the bytes of damaged blobs on disk and writes them again."""

    def __init__(self, store: Store, bad: dict[bytes, _Bad], snapshots: list[Snapshot]) -> None:
        self.store = store
        self.bad = bad
        self.snapshots = snapshots

    def mend(self) -> None:
        """Mend what can be; each mended blob is durable and committed before the next."""
        for bad in self.bad.values():
            with contextlib.suppress(OSError):
                if bad.kind is BlobKind.PACKED:
                    self._mend_packed(bad)
                elif bad.kind is BlobKind.LOOSE:
                    self._mend_loose(bad)

    def _mend_packed(self, bad: _Bad) -> None:
        for content in self._candidates(bad):
            if hashlib.sha256(content).digest() == bad.blob:
                reach("repair.blob")
                name = f"{0:08d}-m{secrets.token_hex(4)}"
                packs = os.path.join(self.store.folder, b"packs")
                pack = PackWriter(packs, name)
                offset = pack.append(bad.kind, bad.blob, content)
                pack.close()
                sync_folder(packs)
                with self.store.catalog.transaction() as db:
                    cursor = db.execute(
                        "INSERT INTO pack (name, length) VALUES (?, ?)", (name, pack.length)
                    )
                    db.execute(
                        "UPDATE blob SET pack = ?, place = ?, length = ? WHERE id = ?",
                        (cursor.lastrowid, offset, len(content), bad.blob),
                    )
                bad.repaired = True
                return

    def _candidates(self, bad: _Bad) -> Iterator[bytes]:
        """Yield contents that may be the damaged one: whole files, and pages of databases."""
        place = self.store.reader.place(bad.blob)
        for path in bad.paths:
            with contextlib.suppress(OSError), _open_plain(path) as file:
                size = os.fstat(file.fileno()).st_size
                if size == place.length:
                    yield file.read()
                elif place.length == PAGE:
                    while page := file.read(PAGE):
                        yield page

    def _mend_loose(self, bad: _Bad) -> None:
        work = os.path.join(self.store.folder, b"work")
        for path in bad.paths:
            partial = os.path.join(work, b"mend-" + secrets.token_hex(8).encode())
            try:
                if _copy_if(path, partial, bad.blob):
                    reach("repair.blob")
                    final = file_path(self.store.folder, BlobKind.LOOSE, bad.blob)
                    with contextlib.suppress(FileExistsError):
                        os.mkdir(os.path.dirname(final), 0o700)
                    os.rename(partial, final)
                    sync_folder(os.path.dirname(final))
                    bad.repaired = True
                    return
            finally:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(partial)


def _copy_if(path: str, partial: bytes, blob: bytes) -> bool:
    """Copy a live file, durably; return whether it has the content that is wanted."""
    digest = hashlib.sha256()
    try:
        source = _open_plain(path)
    except OSError:
        return False
    fd = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with source, os.fdopen(fd, "wb") as target:
        while chunk := source.read(4 * CHUNK):
            digest.update(chunk)
            target.write(chunk)
        target.flush()
        os.fsync(target.fileno())
    return digest.digest() == blob


def _open_plain(path: str) -> IO[bytes]:
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    return os.fdopen(os.open(path, flags), "rb")
