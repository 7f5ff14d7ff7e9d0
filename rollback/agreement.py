"""Proving that a restore did what it said: the state is read again and compared."""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import os
from collections.abc import Callable, Iterator, Sequence

from rollback.capture import Captured, capture_tree
from rollback.difference import Comparison, Pair, find_entry, metadata_differs
from rollback.errors import NoSpace, RestoreIncomplete
from rollback.failpoints import reach
from rollback.folders import split
from rollback.keeping import KeepingResolver
from rollback.lost import later_entry
from rollback.model import Entry, Kind, Operation, Skip
from rollback.plan import TreePlan, is_selected
from rollback.present import hash_file
from rollback.resources.base import Root
from rollback.room import Room
from rollback.store.blobs import file_path, open_blob
from rollback.store.catalog import BlobKind
from rollback.store.store import Store
from rollback.store.vault import StoreVault
from rollback.store.writer import BlobWriter
from rollback.work import Work

_APART = (Kind.DATABASE, Kind.SOCKET)
"""What other resources verify, and what has no content."""


class _TakenBack(Exception):
    """Takes a transaction back in which nothing was to be kept."""


class Verifier:
    """Reads everything again after a restore.

    Args:
        store: Its lock is held.
        operation: The restore.
        work: What it was to do.
        notes: What it could not do, and said so; that may differ.
        vault: Where databases find their content.

    Attributes:
        wrong: What differs, as sentences.
    """

    def __init__(
        self,
        store: Store,
        operation: Operation,
        work: Work,
        notes: Sequence[Skip],
        vault: Callable[[], StoreVault],
    ) -> None:
        self.store = store
        self.operation = operation
        self.work = work
        self.noted = {note.what for note in notes}
        self.vault = vault
        self.wrong: list[str] = []

    def run(self) -> None:
        """Read the state again, compare, and let the index describe it from now on.

        On a full disk the index stays as it is, and more will be read the next time.

        Raises:
            RestoreIncomplete: Something differs; the first of it is named.
        """
        wrong = self.wrong
        try:
            self._read(update_index=True)
        except (NoSpace, OSError) as error:
            if isinstance(error, OSError) and error.errno not in {errno.ENOSPC, errno.EDQUOT}:
                raise
            wrong.clear()
            self._drop_unnamed()
            self._read(update_index=False)
            self._drop_unnamed()
        for item in self.work.databases:
            if item.state is not None:
                item.resource.verify(item.state, self.vault())
        if wrong:
            more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
            raise RestoreIncomplete(
                f"after the rollback {wrong[0]}{more}",
                hint="end what still writes to the project, then run the same rollback again",
            )

    def _read(self, *, update_index: bool) -> None:
        """Read all roots again and note what differs; without the index nothing of it is kept."""
        with contextlib.suppress(_TakenBack), self.store.catalog.transaction():
            writer = BlobWriter(self.store.reader, f"{self.operation.seq:08d}-v")
            try:
                self._read_trees(writer, update_index=update_index)
                self._keep(writer, update_index=update_index)
            except BaseException:
                writer.abandon()
                raise

    def _drop_unnamed(self) -> None:
        """Remove what a reading kept and no row names: its transaction was taken back."""

        def note() -> None:
            with self.store.catalog.transaction():
                self.store.litter.note_unclean(self.operation.started_at)

        self.store.reserve.with_room(note)
        self.store.litter.drop_unknown()

    def _keep(self, writer: BlobWriter, *, update_index: bool) -> None:
        if not update_index:
            raise _TakenBack
        reach("restore.index")
        writer.finish()
        self._learn()

    def _read_trees(self, writer: BlobWriter, *, update_index: bool) -> None:
        work = self.store.work(self.operation.seq)
        room = Room(self.store, self.store.max_bytes, writer)
        room.closed = not update_index
        for plan in self.work.trees:
            root = plan.target.root
            resolver = KeepingResolver(root, writer, work, room.allow, expect_known=True)
            found = capture_tree(root, self.store.reader, resolver, update_index=update_index)
            writer.settle()
            self.wrong += self._differences(plan, found)

    def _learn(self) -> None:
        """Remember what the content was that the store lost: the next plan will know it again."""
        load = self.store.reader.tree
        for plan in self.work.trees:
            for path, digest in plan.known.items():
                entry = find_entry(load, plan.target.tree, path)
                if entry is not None and entry.ref:
                    self.store.catalog.learn_digest(entry.ref, digest)

    def _differences(self, plan: TreePlan, found: Captured) -> Iterator[str]:
        target, root, tree = plan.target, plan.target.root, found.tree
        whole = target.present and not (self.work.selection.paths or self.work.selection.categories)
        whole = whole and not plan.is_barred(b"")
        if whole and metadata_differs(found.meta, target.meta) and not self._noted(root, b""):
            yield f"{os.fsdecode(root.path)} has another owner, mode, time or attribute"
        for pair in Comparison(self.store.reader.records, expand=True).compare(tree, target.tree):
            if not is_selected(root, pair.path, self.work.selection):
                continue
            if root.excluded is not None and root.excluded(pair.path):
                continue
            if self._acceptable(plan, pair):
                continue
            shown = os.fsdecode(os.path.join(root.path, pair.path))
            if pair.new is None:
                yield f"{shown} is there, but not in the snapshot"
            elif pair.old is None:
                yield f"{shown} is missing"
            else:
                yield f"{shown} differs from the snapshot"

    def _acceptable(self, plan: TreePlan, pair: Pair) -> bool:
        path, old, new = pair.path, pair.old, pair.new
        # What is lost or stays is named as not put back; no other path may differ.
        if path in plan.lost or plan.is_barred(path) or _is_named(plan, path):
            return True
        if any(e is not None and e.kind in _APART for e in (old, new)):
            return True
        if new is None:
            kept = plan.target.present and plan.target.root.keep_extra(path)
            return kept or (old is not None and old.kind is Kind.DIRECTORY)
        return old is not None and self._equal(plan, path, old, new)

    def _equal(self, plan: TreePlan, path: bytes, old: Entry, new: Entry) -> bool:
        """Return whether what both sides have is one, as far as it was to be put back."""
        if path in plan.later:
            return self._is_later(plan, path, old)
        if Kind.UNPROTECTED in (old.kind, new.kind):
            return _unread(plan, path, old, new)
        if old.kind is not new.kind:
            return False
        partial = bool(self.work.selection.paths or self.work.selection.categories)
        if new.kind is Kind.DIRECTORY and partial:
            return True
        if metadata_differs(old, new) and not self._noted(plan.target.root, path):
            return False
        return new.kind is not Kind.FILE or self._same(plan, path, (old.ref, new.ref))

    def _is_later(self, plan: TreePlan, path: bytes, old: Entry) -> bool:
        """Return whether a file is what it became after a rollback had moved it.

        Whoever wrote to it may do so still; where they do, its time is all that can be held.
        """
        then = plan.later[path]
        if old.kind is not Kind.FILE or metadata_differs(old, then):
            return False
        now = later_entry(self.store.reader, then)
        if now != then:
            return True
        return self._digest(plan.target.root, path, old.ref) == hash_file(
            *os.path.split(file_path(self.store.folder, BlobKind.INODE, then.ref))
        )

    def _noted(self, root: Root, path: bytes) -> bool:
        return os.fsdecode(os.path.join(root.path, path)) in self.noted

    def _same(self, plan: TreePlan, path: bytes, refs: tuple[bytes, bytes]) -> bool:
        one, other = refs
        if one == other:
            return True
        root = plan.target.root
        wanted = plan.known.get(path) or self._digest(root, path, other)
        return self._digest(root, path, one) == wanted

    def _digest(self, root: Root, path: bytes, blob: bytes) -> bytes:
        place = self.store.reader.place(blob)
        if place.kind is not BlobKind.INODE:
            return blob
        intact = functools.partial(root.intact, path)
        with open_blob(self.store.folder, place.kind, blob, intact) as file:
            return hashlib.file_digest(file, "sha256").digest()


def _is_named(plan: TreePlan, path: bytes) -> bool:
    """Return whether a path, or what it lies below, was named as not put back."""
    while path:
        if path in plan.named:
            return True
        path = split(path)[0]
    return False


def _unread(plan: TreePlan, path: bytes, old: Entry, new: Entry) -> bool:
    """Return whether two files are one as far as can be told without reading both.

    Either the snapshot does not hold the content and the plan found it alike, or what was just
    put back may not be read by this user.
    """
    if new.kind is Kind.UNPROTECTED:
        return path in plan.alike or old.kind is new.kind
    return new.kind is Kind.FILE and old.size == new.size and not metadata_differs(old, new)
