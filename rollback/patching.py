"""What a repair found of damaged content again, written in packs of its own."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable

from rollback.durable import sync_folder
from rollback.failpoints import reach
from rollback.store.catalog import BlobKind, Place
from rollback.store.packs import PACK_LIMIT, PackWriter
from rollback.store.store import Store


class Patches:
    """Collects blobs; they count once their pack is durable and the catalog names them there.

    Args:
        store: Its lock is held.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self._pack: PackWriter | None = None
        self._found: dict[bytes, tuple[BlobKind, int, int, Callable[[], None]]] = {}

    def has(self, blob: bytes) -> bool:
        """Return whether a blob was added and waits for its commit."""
        return blob in self._found

    def add(
        self, kind: BlobKind, blob: bytes, content: bytes, committed: Callable[[], None]
    ) -> None:
        """Add the content of a blob.

        Args:
            kind: As the catalog has it.
            blob: Its id.
            content: Proven.
            committed: Called once it counts.

        Raises:
            OSError: It cannot be written; what waits with it is forgotten.
        """
        reach("repair.blob")
        try:
            if self._pack is None:
                packs = os.path.join(self.store.folder, b"packs")
                self._pack = PackWriter(packs, f"{0:08d}-m{secrets.token_hex(4)}")
            offset = self._pack.append(kind, blob, content)
        except OSError:
            self.abandon()
            raise
        self._found[blob] = (kind, offset, len(content), committed)
        if self._pack.length > PACK_LIMIT:
            self.commit()

    def commit(self) -> None:
        """Make what waits durable, then let the catalog name it there.

        Raises:
            OSError: It cannot be written, and is forgotten.
        """
        pack = self._pack
        if pack is None:
            return
        try:
            pack.close()
            sync_folder(os.path.join(self.store.folder, b"packs"))
        except OSError:
            self.abandon()
            raise
        with self.store.catalog.transaction() as db:
            row = (pack.name, pack.length)
            number = db.execute("INSERT INTO pack (name, length) VALUES (?, ?)", row).lastrowid
            for blob, (kind, offset, length, _) in self._found.items():
                self.store.catalog.move(blob, Place(kind, int(number or 0), offset, length))
        found, self._found, self._pack = self._found, {}, None
        for *_, committed in found.values():
            committed()

    def abandon(self) -> None:
        """Forget what waits."""
        pack, self._pack = self._pack, None
        self._found = {}
        if pack is not None:
            pack.abandon()
