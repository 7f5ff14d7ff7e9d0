"""Rebuilding in scratch: a whole tree, or some files of it, written and read again."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Container, Iterator, Mapping
from dataclasses import dataclass, field

from rollback.build import Choose, TreeBuilder
from rollback.durable import sync_file_system
from rollback.model import Entry
from rollback.parallel import Workers
from rollback.plan import TreeTarget
from rollback.removal import remove_path
from rollback.reread import differences, hash_one
from rollback.spoiling import OwnLinks
from rollback.store.blobs import BlobReader
from rollback.store.catalog import BlobKind
from rollback.walk import open_root
from rollback.writing import Linking

_WORTH_A_PROCESS = 32 << 20


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """What was rebuilt.

    Attributes:
        files: How many.
        linked: So many of them by a link.
        size: Bytes that were written.
        elapsed_s: How long it took.
        wrong: What reads differently.
        notes: Paths in the root of which not all could be set, and what.
    """

    files: int
    linked: int
    size: int
    elapsed_s: float
    wrong: list[str]
    notes: list[tuple[bytes, str]] = field(default_factory=list)


class Rebuilder:
    """Rebuilds trees of one snapshot in scratch.

    Args:
        reader: The store.
        undo: Whether the snapshot is what a rollback displaced.

    Attributes:
        links: Those of live files that it made.
    """

    def __init__(self, reader: BlobReader, *, undo: bool) -> None:
        self.reader = reader
        self.undo = undo
        self.links = OwnLinks()

    def linking(self, target: TreeTarget, path_of: Callable[[bytes], bytes] | None) -> Linking:
        """Return what is known of the linked files of a tree; see `Linking.of`."""
        return Linking.of(target.root, undo=self.undo, path_of=path_of)

    def whole(
        self,
        target: TreeTarget,
        place: bytes,
        lost: Container[bytes],
        choose: Choose,
        *,
        prove: bool = False,
    ) -> Rebuilt:
        """Rebuild a whole tree, but for what is lost, and read it again.

        The disk writes while it is read; a rollback does one after the other, so that is what is
        added up.

        Args:
            target: The tree.
            place: An empty folder.
            lost: Paths without content.
            choose: Says of each file whether it is rebuilt: all but those.
            prove: Whether each blob is proven before it is written, so that damage is named.

        Raises:
            StoreCorrupt: Content is missing, or with `prove` damaged.
        """
        begun = time.monotonic()
        linking = self.linking(target, None)
        with (
            self.reader.catalog.remembering(),
            TreeBuilder(self.reader, place, linking, prove=prove) as builder,
        ):
            builder.add_tree(target.tree, b"", choose)
            self.links.note(target.root, builder)
            builder.write()
            builder.link_groups([[p for p in group if p not in lost] for group in target.links])
            builder.finish()
        built = builder.built
        sync = Workers(_sync, [place] if built.size else [], apart=built.size > _WORTH_A_PROCESS)
        try:
            noted = {path for path, _ in built.notes}
            found = differences(place, target, self.reader, lost, noted)
            wrong = list(found)
            elapsed_s = time.monotonic() - begun + sum(sync.results())
        finally:
            sync.abandon()
        linked = len(builder.linked)
        return Rebuilt(built.files, linked, built.size, elapsed_s, wrong, built.notes)

    def some(self, target: TreeTarget, place: bytes, wanted: Mapping[bytes, Entry]) -> Rebuilt:
        """Rebuild single files under flat names, each blob proven, and read them again.

        Raises:
            StoreCorrupt: Content is missing or damaged.
        """
        begun = time.monotonic()
        names = {b"%d" % n: path for n, path in enumerate(wanted)}
        linking = self.linking(target, lambda name: names[name])
        with TreeBuilder(self.reader, place, linking) as builder:
            for name, path in names.items():
                builder.add_file(name, wanted[path])
            self.links.note(target.root, builder, names)
            builder.finish()
        wrong = list(self._read_again(place, names, wanted))
        built = builder.built
        elapsed_s = time.monotonic() - begun
        notes = [(names[name], why) for name, why in built.notes]
        return Rebuilt(built.files, len(builder.linked), built.size, elapsed_s, wrong, notes)

    def _read_again(
        self, place: bytes, names: dict[bytes, bytes], wanted: Mapping[bytes, Entry]
    ) -> Iterator[str]:
        """Read single rebuilt files again; yield those that have another content."""
        fd = open_root(place)
        try:
            for name, path in names.items():
                ref = wanted[path].ref
                if self.reader.place(ref).kind is BlobKind.INODE:
                    continue
                if hash_one(fd, name).ref != ref:
                    yield f"{os.fsdecode(path)} has another content after the rebuild"
        finally:
            os.close(fd)


def emptied(place: bytes) -> bytes:
    """Return a scratch folder with nothing in it any more."""
    remove_path(place)
    os.makedirs(place, mode=0o700)
    return place


def _sync(_number: int, place: bytes) -> float:
    """Make a file system durable and return how long that took."""
    begun = time.monotonic()
    sync_file_system(place)
    return time.monotonic() - begun
