"""What a store holds besides content, proven: heads of packs, documents, the index, the rescue.

Each of it is written twice or can be made again, so `verify --repair` mends it from the other one.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from rollback.errors import StoreCorrupt
from rollback.index import readable
from rollback.model import Snapshot
from rollback.references import count_references
from rollback.repacking import repack
from rollback.rescue import rescue_is_whole, write_rescue
from rollback.retention import remove_garbage
from rollback.snapshots import document_name, dump, load
from rollback.store.catalog import BlobKind, storable
from rollback.store.codec import EMPTY_TREE
from rollback.store.packs import HEAD, MAGIC
from rollback.store.pages import DELTA_ENTRY, ID
from rollback.store.store import Store

_IN_PACKS = "kind NOT IN (2, 4)"


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that is not as it was written.

    Attributes:
        what: Which, and what is wrong with it.
        mend: Makes it right again, with the lock held; returns whether it is.
        snapshots: Ids of the snapshots that need it.
    """

    what: str
    mend: Callable[[], bool]
    snapshots: tuple[str, ...] = ()


def snapshot_faults(store: Store) -> Iterator[Fault]:
    """Yield what is wrong with the two records of each snapshot: the catalog's, the document."""
    rows = store.catalog.db.execute(
        "SELECT seq, id, kind, label, created_at, document FROM snapshot ORDER BY seq"
    ).fetchall()
    for row in rows:
        recorded, text = _loaded(row[5]), os.fsencode(row[5])
        stem = f"{row[0]:08d}" if recorded is None else document_name(recorded)
        copy, copied = _document(store, stem)
        if recorded is None:
            what = f"the catalog's record of snapshot {row[0]} is not what was written"
            yield Fault(what, _putting_back(store, row[0], copy), (row[1],))
        elif row[:5] != _columns(recorded):
            what = f"the catalog's line of snapshot {recorded.seq} is not what was written"
            yield Fault(what, _putting_back(store, row[0], recorded), (recorded.id,))
        if recorded is not None and copied != text and _is_there(store, recorded):
            state = "is gone" if copied is None else "is not what was written"
            what = f"the document of snapshot {recorded.seq} {state}"
            yield Fault(what, _writing(store, recorded), (recorded.id,))
    yield from _lost(store, {row[0] for row in rows})


def _lost(store: Store, known: set[int]) -> Iterator[Fault]:
    """Yield documents that cannot be read and were all that told of their snapshots."""
    for path in sorted((store.path / "snapshots").glob("*.json")):
        stem = path.stem.removesuffix("-undo")
        if stem.isdecimal() and int(stem) not in known and _loaded(path.read_bytes()) is None:
            what = (
                f"the document {path.name} cannot be read, and nothing else tells of its snapshot"
            )
            yield Fault(what, _laying_aside(path))


def _laying_aside(path: Path) -> Callable[[], bool]:
    def lay_aside() -> bool:
        path.rename(path.with_suffix(".damaged"))
        return False  # the snapshot is lost, which is told once

    return lay_aside


def _loaded(document: bytes | str) -> Snapshot | None:
    try:
        return load(document)
    except (StoreCorrupt, KeyError, TypeError, ValueError):
        return None


def _document(store: Store, stem: str) -> tuple[Snapshot | None, bytes | None]:
    """Return a snapshot's document, read and as it lies there; an undo's has a name of its own."""
    for name in (stem, f"{stem}-undo"):
        with contextlib.suppress(OSError):
            text = (store.path / "snapshots" / f"{name}.json").read_bytes()
            return _loaded(text), text
    return None, None


def _columns(snapshot: Snapshot) -> tuple[int, str, str, str, float]:
    label = storable(snapshot.label)
    return (snapshot.seq, snapshot.id, snapshot.kind, label, snapshot.created_at)


def _is_there(store: Store, snapshot: Snapshot) -> bool:
    """Return whether a snapshot was not pruned since: looking takes no lock."""
    found = store.catalog.db.execute("SELECT 1 FROM snapshot WHERE id = ?", (snapshot.id,))
    return found.fetchone() is not None


def _writing(store: Store, snapshot: Snapshot) -> Callable[[], bool]:
    def write() -> bool:
        store.write_document(document_name(snapshot), dump(snapshot))
        return True

    return write


def _putting_back(store: Store, seq: int, snapshot: Snapshot | None) -> Callable[[], bool]:
    def put_back() -> bool:
        if snapshot is None:
            return False
        with store.catalog.transaction() as db:
            db.execute("DELETE FROM snapshot WHERE seq = ?", (seq,))
            db.execute(
                "INSERT OR REPLACE INTO snapshot VALUES (?, ?, ?, ?, ?, ?)",
                (*_columns(snapshot), json.dumps(dump(snapshot))),
            )
        return True

    return put_back


def pack_faults(store: Store) -> Iterator[Fault]:
    """Yield each pack whose heads are not what the catalog says: without it they are all there is.

    What is mended of it is moved into new packs; damaged content has to be mended before.
    """
    packs = store.catalog.db.execute("SELECT id, name, length FROM pack ORDER BY id").fetchall()
    for number, name, length in packs:
        rows = store.catalog.db.execute(
            f"SELECT place, kind, length, id FROM blob WHERE pack = ? AND {_IN_PACKS}",  # noqa: S608
            (number,),
        )
        known = {place: (kind, size, blob) for place, kind, size, blob in rows}
        why = _wrong_heads(store, name, length, known)
        if why:
            yield Fault(f"pack {name}: {why}", _repacking(store, number))


def _wrong_heads(
    store: Store, name: str, length: int, known: dict[int, tuple[int, int, bytes]]
) -> str:
    """Return what is wrong with the heads of a pack; empty for nothing."""
    try:
        path = store.path / "packs" / f"{name}.pack"
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        return f"it cannot be read: {error.strerror}"
    try:
        if os.fstat(fd).st_size != length:
            return "it has another length than the catalog says"
        if os.pread(fd, len(MAGIC), 0) != MAGIC:
            return "it does not begin like one"
        at = len(MAGIC)
        while at < length:
            size = _right_head(fd, at, length, known)
            if size is None:
                return f"the head at {at} is not what was written"
            at += HEAD.size + size
        return "it lacks blobs that the catalog has in it" if known else ""
    finally:
        os.close(fd)


def _right_head(fd: int, at: int, end: int, known: dict[int, tuple[int, int, bytes]]) -> int | None:
    """Return the length of a blob whose head is right, None where it is not."""
    head = os.pread(fd, HEAD.size, at)
    if len(head) < HEAD.size:
        return None
    kind, size, blob = HEAD.unpack(head)
    expected = known.pop(at + HEAD.size, None)
    if expected is not None:
        return int(size) if expected == (kind, size, blob) else None
    # Nothing refers to this one any more: all that counts is that it leads to the next.
    return int(size) if at + HEAD.size + size <= end else None


def _repacking(store: Store, number: int) -> Callable[[], bool]:
    def move() -> bool:
        with contextlib.suppress(FileNotFoundError):
            _settle_kinds(store, number)
        repack(store, (number,))
        remove_garbage(store)
        left = store.catalog.db.execute("SELECT 1 FROM pack WHERE id = ?", (number,))
        return left.fetchone() is None

    return move


def _settle_kinds(store: Store, number: int) -> None:
    """Let each row have the kind that its content tells, where its head has another."""
    db = store.catalog.db
    rows = db.execute(
        f"SELECT id, kind, place, length FROM blob WHERE pack = ? AND {_IN_PACKS}",  # noqa: S608
        (number,),
    ).fetchall()
    found: list[tuple[int, bytes]] = []
    for blob, kind, place, length in rows:
        fd = store.reader.pack(number)
        head = os.pread(fd, HEAD.size, place - HEAD.size)
        if len(head) < HEAD.size:
            continue  # the pack ends before: what it had there is damaged, and named
        told, size, name = HEAD.unpack(head)
        if (size, name) == (length, blob) and told != kind:
            found.append((_kind_of(os.pread(fd, length, place), kind, told), blob))
    with store.catalog.transaction():
        db.executemany("UPDATE blob SET kind = ? WHERE id = ?", found)


def _kind_of(content: bytes, row: int, head: int) -> int:
    """Return the kind that a blob's content tells; the row's, where it tells nothing."""
    begins = {b"GT1\n": BlobKind.TREE, b"GR1\n": BlobKind.PAGED}.get(content[:4])
    if begins is not None:
        return begins.value
    forms = {
        BlobKind.PACKED: True,
        BlobKind.SEGMENT: len(content) % ID == 0,
        BlobKind.DELTA: (len(content) - ID) % DELTA_ENTRY == 0,
    }
    fitting = {kind.value for kind, fits in forms.items() if fits}
    return next((kind for kind in (row, head) if kind in fitting), row)


def key_faults(store: Store) -> Iterator[Fault]:
    """Yield the key of the store where it is not the one that was made."""
    told = store.catalog.value("key")
    with contextlib.suppress(OSError):
        key = (store.path / "key").read_bytes()
        if told and hashlib.sha256(key).hexdigest() != told:
            yield Fault("the key is not what was made", _turning_back(store, bytearray(key), told))


def _turning_back(store: Store, key: bytearray, told: str) -> Callable[[], bool]:
    """Try each bit; where that was not all, a new key is made when one is needed."""

    def turn_back() -> bool:
        for at in range(len(key) * 8):
            key[at // 8] ^= 1 << at % 8
            if hashlib.sha256(key).hexdigest() == told:
                store.put_key(bytes(key))
                return True
            key[at // 8] ^= 1 << at % 8
        (store.path / "key").unlink()
        return True

    return turn_back


def rescue_faults(store: Store) -> Iterator[Fault]:
    """Yield the rescue program where it is not what was written."""

    def write() -> bool:
        write_rescue(store)
        return rescue_is_whole(store)

    if not rescue_is_whole(store):
        yield Fault("rescue.pyz is not what was written", write)


def index_faults(store: Store) -> Iterator[Fault]:
    """Yield what the index of the live state cannot mean: a snapshot would take it over unread."""
    db = store.catalog.db
    rows = db.execute(
        "SELECT root, folder, tree, signatures, ctimes, children, notes,"
        " EXISTS (SELECT 1 FROM blob WHERE blob.id = live.tree) FROM live"
    )
    wrong = [
        row[:2]
        for row in rows
        if not ((row[7] or row[2] == EMPTY_TREE) and readable((row[2], *row[3:7])))
    ]

    def forget() -> bool:
        with store.catalog.transaction():
            db.executemany("DELETE FROM live WHERE root = ? AND folder = ?", wrong)
        return True

    if wrong:
        yield Fault(f"the index of {len(wrong)} folders is not what was written", forget)


def reference_faults(store: Store, snapshots: list[Snapshot]) -> Iterator[Fault]:
    """Yield that references are counted wrong: too few, and a prune deletes what is needed."""
    db = store.catalog.db
    before = _version(db)
    told = dict(db.execute("SELECT id, refs FROM blob"))
    counts = count_references(store.reader, snapshots)
    wrong = [(counts[blob], blob) for blob, refs in told.items() if refs != counts[blob]]

    def set_right() -> bool:
        with store.catalog.transaction():
            db.executemany("UPDATE blob SET refs = ? WHERE id = ?", wrong)
        return True

    # Looking takes no lock: what another process committed meanwhile is no damage.
    if wrong and before == _version(db):
        yield Fault(f"the references of {len(wrong)} blobs are counted wrong", set_right)


def _version(db: sqlite3.Connection) -> int:
    return int(db.execute("PRAGMA data_version").fetchone()[0])
