"""Mending damaged content: from identical bytes on disk, from the present, or bit by bit.

What is mended is written anew, durable, before the catalog names its new place.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field
from io import BufferedReader

from rollback.capture import capture_tree
from rollback.copying import keep_file
from rollback.durable import sync_folder
from rollback.errors import RollbackError
from rollback.failpoints import reach
from rollback.inventory import is_tree, root_from
from rollback.keeping import KeepingResolver
from rollback.model import ResourceState
from rollback.patching import Patches
from rollback.reading import link_into
from rollback.removal import remove_path
from rollback.store.blobs import BlobReader, file_path
from rollback.store.catalog import BlobKind, Place
from rollback.store.codec import inode_id, join_tree, tree_id
from rollback.store.packs import heads
from rollback.store.pages import PAGE, lists_of
from rollback.store.store import Store
from rollback.store.writer import BlobWriter
from rollback.walk import open_root

_FILES = (BlobKind.LOOSE, BlobKind.INODE)
_FLIPPED_BYTES = 8 << 10
"""A blob of that size has 65,536 bits, and takes a second or two to be tried with each of them."""
_FLIPPED_BLOBS = 32
"""With more of them damaged, it was no single bit."""


@dataclass(slots=True)
class Bad:
    """A damaged blob and who needs it.

    Attributes:
        blob: Its id.
        kind: What the catalog says of it.
        why: What is wrong with it.
        snapshots: Ids of those that need it.
        paths: Whose content it is.
        states: States of roots in which it is, newest first.
        repaired: Whether it was mended.
    """

    blob: bytes
    kind: BlobKind
    why: str
    snapshots: dict[str, None] = field(default_factory=dict)
    paths: dict[str, None] = field(default_factory=dict)
    states: list[ResourceState] = field(default_factory=list)
    repaired: bool = False


class Mender:
    """Finds the bytes of damaged blobs and writes them again.

    Args:
        store: Its lock is held.
        bad: What is damaged, by id.
    """

    def __init__(self, store: Store, bad: dict[bytes, Bad]) -> None:
        self.store = store
        self.bad = bad
        self.patches = Patches(store)

    def mend(self) -> None:
        """Mend what can be; what is mended is durable before the catalog names it."""
        self._find_places()
        waiting = [bad for bad in self.bad.values() if not bad.repaired]
        try:
            self._mend_pages([bad for bad in waiting if bad.kind is BlobKind.PACKED])
            for bad in (bad for bad in waiting if not self.patches.has(bad.blob)):
                with contextlib.suppress(OSError):
                    self._mend_from_present(bad)
            self._commit()
            for bad in waiting if len(waiting) <= _FLIPPED_BLOBS else ():
                if not bad.repaired and bad.kind not in _FILES:
                    with contextlib.suppress(OSError, RollbackError):
                        self._mend_packed(bad, self._flipped(bad))
            self._commit()
        except BaseException:
            self.patches.abandon()
            raise
        self._mend_trees()

    def _commit(self) -> None:
        with contextlib.suppress(OSError):  # what cannot be written stays damaged, and is named
            self.patches.commit()

    def _mend_from_present(self, bad: Bad) -> None:
        if bad.repaired:
            return
        if bad.kind is BlobKind.PACKED:
            self._mend_packed(bad, self._candidates(bad))
        elif bad.kind in {BlobKind.PAGED, BlobKind.SEGMENT}:
            self._mend_packed(bad, self._lists(bad))
        elif bad.kind is BlobKind.LOOSE:
            self._mend_loose(bad)
        elif bad.kind is BlobKind.INODE:
            self._mend_linked(bad)

    def _mend_pages(self, waiting: list[Bad]) -> None:
        """Look for pages of databases: each of these is read once, however many it has."""
        wanted = {bad.blob: bad for bad in waiting}
        for path in dict.fromkeys(path for bad in waiting for path in bad.paths):
            with contextlib.suppress(OSError), _open_plain(path) as file:
                while page := file.read(PAGE):
                    bad = wanted.get(hashlib.sha256(page).digest())
                    if bad is not None:
                        del wanted[bad.blob]
                        self._patch(bad, page)

    def _patch(self, bad: Bad, content: bytes) -> None:
        def committed() -> None:
            bad.repaired = True

        self.patches.add(bad.kind, bad.blob, content, committed)

    def _find_places(self) -> None:
        """Find what the catalog names a wrong place of: heads in the packs name the right one."""
        wanted = {b.blob: b for b in self.bad.values() if not b.repaired and b.kind not in _FILES}
        if not wanted:
            return
        for number, name in self.store.catalog.db.execute("SELECT id, name FROM pack").fetchall():
            path = os.path.join(self.store.folder, b"packs", name.encode() + b".pack")
            with contextlib.suppress(OSError), _open_plain(os.fsdecode(path)) as pack:
                for kind, blob, offset, length in heads(pack.fileno()):
                    content = os.pread(pack.fileno(), length, offset) if blob in wanted else b""
                    if blob in wanted and hashlib.sha256(content).digest() == blob:
                        place = Place(BlobKind(kind), number, offset, length)
                        with self.store.catalog.transaction():
                            self.store.catalog.move(blob, place)
                        wanted.pop(blob).repaired = True

    def _mend_packed(self, bad: Bad, candidates: Iterator[bytes]) -> None:
        for content in candidates:
            if hashlib.sha256(content).digest() == bad.blob:
                self._patch(bad, content)
                return

    def _candidates(self, bad: Bad) -> Iterator[bytes]:
        """Yield contents that may be the damaged one: whole files; for pages see `_mend_pages`."""
        place = self.store.reader.place(bad.blob)
        for path in bad.paths:
            with contextlib.suppress(OSError), _open_plain(path) as file:
                if os.fstat(file.fileno()).st_size == place.length:
                    yield file.read()

    def _lists(self, bad: Bad) -> Iterator[bytes]:
        """Yield what the databases that need a list are made of now."""
        for path in bad.paths:
            with contextlib.suppress(OSError), _open_plain(path) as file:
                yield from lists_of(file)

    def _flipped(self, bad: Bad) -> Iterator[bytes]:
        """Yield what a small blob is with each of its bits turned round."""
        place = self.store.reader.place(bad.blob)
        if place.length > _FLIPPED_BYTES:
            return
        content = bytearray(self.store.reader.read_at(place, bad.blob))
        for at in range(len(content)):
            for bit in range(8):
                content[at] ^= 1 << bit
                yield bytes(content)
                content[at] ^= 1 << bit

    def _mend_loose(self, bad: Bad) -> None:
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

    def _mend_linked(self, bad: Bad) -> None:
        """Link a file into the store again that lies in the project still: the very same one."""
        final = file_path(self.store.folder, BlobKind.INODE, bad.blob)
        if os.path.lexists(final):
            return  # written in place: so is the other name of it
        for path in map(os.fsencode, bad.paths):
            with contextlib.suppress(OSError), _open_plain(os.fsdecode(path)) as file:
                if inode_id(os.fstat(file.fileno())) != bad.blob or not self._is_as_kept(bad, file):
                    continue
                reach("repair.blob")
                folder = open_root(os.path.dirname(path))
                try:
                    name = os.path.basename(path)
                    linked = link_into(self.store.folder, bad.blob, name, folder)
                finally:
                    os.close(folder)
                if linked and os.path.samestat(os.lstat(final), os.fstat(file.fileno())):
                    sync_folder(os.path.dirname(final))
                    bad.repaired = True
                    return

    def _is_as_kept(self, bad: Bad, file: BufferedReader) -> bool:
        """Return whether no earlier verification and no owner knows other content of it."""
        query = "SELECT sha256 FROM digest WHERE id = ?"
        known = self.store.catalog.db.execute(query, (bad.blob,)).fetchone()
        if known is not None and known[0] != hashlib.file_digest(file, "sha256").digest():
            return False
        for state in filter(is_tree, bad.states):
            below = os.path.join(state.location, "")
            for path in (path for path in bad.paths if path.startswith(below)):
                file.seek(0)
                if root_from(state).intact(os.fsencode(path[len(below) :]), file) is False:
                    return False
        return True

    def _mend_trees(self) -> None:
        """Read the present of each root that has a damaged tree: where it is as it was, it mends.

        The index forgets such trees before, mended or not: what it knows is taken over unread.
        """
        trees = [b for b in self.bad.values() if b.kind is BlobKind.TREE and not b.repaired]
        if not trees:
            return
        with self.store.catalog.transaction() as db:
            db.executemany("DELETE FROM live WHERE tree = ?", [(bad.blob,) for bad in trees])
        roots = {state.location: state for bad in reversed(trees) for state in bad.states[::-1]}
        for state in filter(is_tree, roots.values()):
            with contextlib.suppress(OSError, RollbackError):
                self._read_anew(state, {bad.blob for bad in trees if not bad.repaired})

    def _room(self, _jobs: object, _sizes: object) -> int:
        return self.store.reserve.free()

    def _read_anew(self, state: ResourceState, wanted: set[bytes]) -> None:
        stem = f"{0:08d}-m{secrets.token_hex(4)}"
        work = os.path.join(self.store.folder, b"work", b"mend-" + secrets.token_hex(8).encode())
        os.makedirs(work, mode=0o700)
        try:
            with self.store.catalog.transaction():
                writer = _Anew(self.store.reader, stem, wanted)
                try:
                    resolver = KeepingResolver(root_from(state), writer, work, self._room)
                    capture_tree(resolver.root, self.store.reader, resolver, update_index=True)
                    reach("repair.blob")
                    writer.finish()
                    for blob, place in writer.found.items():
                        self.store.catalog.move(blob, place)
                except BaseException:
                    writer.abandon()
                    raise
            for blob in writer.found:
                self.bad[blob].repaired = True
        finally:
            remove_path(work)


class _Anew(BlobWriter):
    """Writes damaged trees again where the present has them.

    Args:
        reader: The store.
        stem: Beginning of the names of new packs.
        wanted: Ids of the damaged trees.
    """

    def __init__(self, reader: BlobReader, stem: str, wanted: set[bytes]) -> None:
        super().__init__(reader, stem)
        self.wanted = wanted
        self.found: dict[bytes, Place] = {}

    def knows(self, blob: bytes) -> bool:
        """Return whether the store has a blob, whole."""
        return blob in self.found or (blob not in self.wanted and super().knows(blob))

    def add_tree(self, records: list[bytes]) -> bytes:
        """Add a directory; what a damaged one refers to is counted already."""
        content = join_tree(records)
        identity = tree_id(content)
        if identity not in self.wanted:
            return super().add_tree(records)
        if self.add_packed(BlobKind.TREE, identity, content):
            self.found[identity] = self._rows.pop(identity)
        return identity


def _copy_if(path: str, partial: bytes, blob: bytes) -> bool:
    """Copy a live file, holes kept, durably; return whether it has the content that is wanted."""
    try:
        source = _open_plain(path)
    except OSError:
        return False
    fd = os.open(partial, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with source, os.fdopen(fd, "wb") as target:
        digest, _ = keep_file(source.fileno(), target.fileno())
        os.fsync(target.fileno())
    return digest == blob


def _open_plain(path: str) -> BufferedReader:
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    return os.fdopen(os.open(path, flags), "rb")
