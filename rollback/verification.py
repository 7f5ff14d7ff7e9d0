"""Reading the whole store: what is damaged, which paths that touches, and mending it.

What is content is proven by its hash here and mended in `mending`; what keeps books of it, in
`bookkeeping`. A lost catalog is made again from the packs and the documents, in `rebuilding`.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections.abc import Callable, Iterator
from functools import cache, partial

from rollback.bookkeeping import (
    Fault,
    index_faults,
    key_faults,
    pack_faults,
    reference_faults,
    rescue_faults,
    snapshot_faults,
)
from rollback.difference import contents
from rollback.errors import RollbackError, StoreCorrupt, blob_name, damaged
from rollback.failpoints import reach
from rollback.inventory import is_tree, root_from
from rollback.mending import Bad, Mender
from rollback.model import Entry, Kind, ResourceState, Snapshot
from rollback.reports import Damage, VerifyReport
from rollback.resources.base import Root
from rollback.resources.git.attest import git_intact
from rollback.retention import remove_garbage
from rollback.snapshots import blobs_of, load
from rollback.store.blobs import file_path, open_blob
from rollback.store.catalog import BlobKind, Place
from rollback.store.codec import EMPTY_TREE, inode_id
from rollback.store.pages import CHUNK
from rollback.store.store import Store

Progress = Callable[[str, int, int], None]
_PATHS_SHOWN = 20


def verify_store(store: Store, *, repair: bool, progress: Progress | None = None) -> VerifyReport:
    """Read the whole store; with `repair`, mend what can be mended.

    Returns:
        What was read and what is damaged. A snapshot that stays damaged is remembered, so that
        it does not count as the newest good one.

    Raises:
        CatalogCorrupt: The catalog itself is damaged.
    """
    started = time.monotonic()
    if repair:
        store.lock.acquire_alone()
    try:
        store.catalog.prove()
        damage = list(_settle(snapshot_faults(store), repair=repair))
        snapshots = _snapshots(store)
        bad, blobs, size = _read_all(store, progress)
        _attribute(store, bad, snapshots)
        if repair and bad:
            _mend(store, bad, snapshots)
        damage += [
            Damage(
                f"{blob_name(b.blob)}: {b.why}",
                tuple(b.snapshots),
                tuple(list(b.paths)[:_PATHS_SHOWN]),
                b.repaired,
            )
            for b in bad.values()
        ]
        damage += _settle(pack_faults(store), repair=repair)
        damage += _settle(index_faults(store), repair=repair)
        counted = list(_settle(reference_faults(store, snapshots), repair=repair))
        # What a damaged tree refers to cannot be counted, which is no damage of its own.
        damage += [] if any(_refers(b) for b in bad.values()) else counted
        damage += _settle(rescue_faults(store), repair=repair)
        damage += _settle(key_faults(store), repair=repair)
        if store.lock.held or not damage:
            _remember(store, damage, bad, repair=repair)
        if repair and all(d.repaired for d in damage):
            # What this repair, or one that died, put new packs in the place of.
            store.litter.clean(0)
            remove_garbage(store)
        elapsed_s = time.monotonic() - started
        return VerifyReport(blobs, size, len(snapshots), tuple(damage), elapsed_s)
    finally:
        if repair:
            store.lock.release()


def _refers(bad: Bad) -> bool:
    """Return whether a blob that stays damaged may refer to others."""
    contents = (BlobKind.PACKED, BlobKind.LOOSE, BlobKind.INODE)
    return not bad.repaired and bad.kind not in contents


def _settle(faults: Iterator[Fault], *, repair: bool) -> Iterator[Damage]:
    """Yield what is damaged; with `repair`, after it was mended, where that is possible."""
    for fault in list(faults):
        mended = False
        if repair:
            reach("repair.fault")
            with contextlib.suppress(OSError, RollbackError):
                mended = fault.mend()
        yield Damage(fault.what, fault.snapshots, (), mended)


def _snapshots(store: Store) -> list[Snapshot]:
    """Return the snapshots whose records can be read, newest first."""
    found = []
    for (document,) in store.catalog.db.execute("SELECT document FROM snapshot ORDER BY seq DESC"):
        with contextlib.suppress(StoreCorrupt, KeyError, TypeError, ValueError):
            found.append(load(document))
    return found


def _mend(store: Store, bad: dict[bytes, Bad], snapshots: list[Snapshot]) -> None:
    """Mend what can be; a mended tree names more that may be damaged, and where it lay."""
    while True:
        waiting = [b for b in bad.values() if not b.repaired]
        Mender(store, bad).mend()
        _prove_mended(store, waiting)
        left = {blob: b for blob, b in bad.items() if not b.repaired}
        known = {blob: len(b.paths) for blob, b in bad.items()}
        _attribute(store, left, snapshots)
        bad.update(left)
        if known == {blob: len(b.paths) for blob, b in bad.items()}:
            return


def _prove_mended(store: Store, waiting: list[Bad]) -> None:
    """Read again what was mended, from where the catalog has it: only that counts."""
    for found in waiting:
        if found.repaired:
            try:
                _prove(store, found.blob, store.reader.place(found.blob))
            except (RollbackError, OSError):
                found.repaired = False


def _read_all(store: Store, progress: Progress | None) -> tuple[dict[bytes, Bad], int, int]:
    """Read each blob and hold it against its id; return what is damaged, and counts."""
    rows = store.catalog.db.execute(
        "SELECT id, kind, pack, place, length FROM blob ORDER BY pack, place"
    ).fetchall()
    bad: dict[bytes, Bad] = {}
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
            why = str(error).removeprefix(f"{blob_name(blob)} in the store is damaged: ")
            bad[blob] = Bad(blob, place.kind, why)
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


def _attribute(store: Store, bad: dict[bytes, Bad], snapshots: list[Snapshot]) -> None:
    """Note which snapshots and paths need each damaged blob, and what the catalog lacks."""
    asked: set[bytes] = set()
    for snapshot in snapshots:
        for state in snapshot.states:
            root = cache(partial(root_from, state))  # it knows what an installer wrote down
            is_touched = partial(_only_touched, store, state, root)
            for blob, path in _needs(store, bad, state):
                place = None if blob in bad else store.catalog.place(blob)
                if blob not in bad and place is None:
                    bad[blob] = Bad(blob, BlobKind.TREE, "it is not in the catalog")
                if place is not None and place.kind is BlobKind.INODE and blob not in asked:
                    asked.add(blob)
                    if _git_denies(store, blob, path):
                        bad[blob] = Bad(blob, place.kind, "its content is not what git wrote")
                if blob in bad and is_touched(bad[blob], path):
                    del bad[blob]
                if blob in bad:
                    bad[blob].snapshots[snapshot.id] = None
                    bad[blob].paths[path] = None
                    if state not in bad[blob].states:
                        bad[blob].states.append(state)


def _git_denies(store: Store, blob: bytes, path: str) -> bool:
    """Return whether a linked file is not what its name in a repository says: it is its hash."""
    if "objects/" not in path:
        return False
    try:
        with open(file_path(store.folder, BlobKind.INODE, blob), "rb") as file:
            return git_intact(os.fsencode(path), file) is False
    except OSError:
        return False


def _only_touched(
    store: Store, state: ResourceState, root: Callable[[], Root], bad: Bad, path: str
) -> bool:
    """Return whether a linked file holds what its owner wrote, whatever its time says."""
    if bad.kind is not BlobKind.INODE or not is_tree(state):
        return False
    relative = os.fsencode(os.path.relpath(path, state.location))
    try:
        with open(file_path(store.folder, bad.kind, bad.blob), "rb") as file:
            return root().intact(relative, file) is True
    except OSError:
        return False


def _needs(
    store: Store, bad: dict[bytes, Bad], state: ResourceState
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


def _unreadable(store: Store, bad: dict[bytes, Bad], blob: bytes) -> bool:
    return blob in bad or (blob != EMPTY_TREE and store.catalog.place(blob) is None)


def _parts(store: Store, blob: bytes, bad: dict[bytes, Bad]) -> Iterator[bytes]:
    """Yield the segments and pages of a paged blob."""
    for child in store.reader.children(blob):
        yield child
        if not _unreadable(store, bad, child):
            yield from _parts(store, child, bad)


def _remember(store: Store, damage: list[Damage], bad: dict[bytes, Bad], *, repair: bool) -> None:
    """Write down which snapshots and which blobs stay damaged, those in packs apart."""
    names = {name for d in damage if not d.repaired for name in d.snapshots}
    text = " ".join(sorted(names))
    files = (BlobKind.LOOSE, BlobKind.INODE)
    stays = {blob for blob, b in bad.items() if not b.repaired}
    left = {blob for blob in stays if bad[blob].kind not in files}
    # Only who has tried to mend knows what cannot be.
    unmended = stays if repair else store.catalog.unmended()
    known = store.catalog.value("damaged"), store.catalog.distrusted(), store.catalog.unmended()
    if known != (text, left, unmended):
        with store.catalog.transaction():
            store.catalog.set_value("damaged", text)
            store.catalog.distrust(left)
            store.catalog.note_unmended(unmended)
