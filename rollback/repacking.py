"""Writing packs anew: what is alive moves out of packs that are mostly dead, or damaged."""

from __future__ import annotations

import os
import secrets
from collections.abc import Collection, Mapping

from rollback.durable import sync_folder
from rollback.errors import StoreCorrupt
from rollback.failpoints import reach
from rollback.store.packs import PACK_LIMIT, PackWriter
from rollback.store.store import Store

_SMALL_PACK = 4 << 20
_MANY_PACKS = 64


def repack(store: Store, damaged: Collection[int] = ()) -> None:
    """Move the live blobs of packs that are mostly dead, and join many small packs.

    Args:
        store: Its lock is held.
        damaged: Numbers of packs whose blobs are moved, too: their heads are damaged.
    """
    db = store.catalog.db
    packs = db.execute("SELECT id, name, length, dead FROM pack ORDER BY id").fetchall()
    small = [row for row in packs if row[2] < _SMALL_PACK]
    chosen = {row[0]: row[1] for row in packs if row[3] * 2 > row[2] or row[0] in damaged}
    if len(small) > _MANY_PACKS:
        chosen.update({row[0]: row[1] for row in small})
    if not damaged:
        alive = {row[0]: row[2] - row[3] for row in packs}
        chosen = {number: chosen[number] for number in _fitting(store, chosen, alive)}
    if not chosen:
        return
    marks = ",".join("?" * len(chosen))
    rows = db.execute(
        f"SELECT id, kind FROM blob WHERE kind NOT IN (2, 4) AND pack IN ({marks})"  # noqa: S608
        " ORDER BY pack, place",
        tuple(chosen),
    ).fetchall()
    with store.catalog.transaction():
        mover = _Mover(store)
        try:
            for blob, kind in rows:
                reach("prune.repack")
                mover.move(blob, kind)
            mover.finish()
        except BaseException:
            mover.abandon()
            raise
        for number, name in chosen.items():
            if number not in mover.unmoved:
                db.execute("DELETE FROM pack WHERE id = ?", (number,))
                db.execute("INSERT OR IGNORE INTO garbage VALUES (?)", (f"packs/{name}.pack",))
    reach("prune.repacked")
    store.reader.close()


def _fitting(store: Store, chosen: Collection[int], alive: Mapping[int, int]) -> list[int]:
    """Return those packs for whose live content there is room, those with least of it first."""
    room = store.reserve.free() // 2
    fitting = []
    for number in sorted(chosen, key=alive.__getitem__):
        room -= alive[number]
        if room < 0:
            break
        fitting.append(number)
    return fitting


class _Mover:
    """Copies live blobs, proven, into new packs."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.db = store.catalog.db
        self.unmoved: set[int] = set()
        self._pack: PackWriter | None = None
        self._id = 0
        self._count = 0
        # A number would be given again after the catalog was made again from the packs.
        self._stem = f"{0:08d}-r{secrets.token_hex(4)}"

    def move(self, blob: bytes, kind: int) -> None:
        try:
            content = self.store.reader.read(blob)
        except StoreCorrupt:
            # Damage is for `verify` to name; the pack stays as it is until then.
            self.unmoved.add(self.store.reader.place(blob).pack)
            return
        if self._pack is None or self._pack.length > PACK_LIMIT:
            self._end()
            self._count += 1
            name = f"{self._stem}-{self._count}"
            self._pack = PackWriter(os.path.join(self.store.folder, b"packs"), name)
            cursor = self.db.execute("INSERT INTO pack (name, length) VALUES (?, 0)", (name,))
            self._id = int(cursor.lastrowid or 0)
        offset = self._pack.append(kind, blob, content)
        self.db.execute(
            "UPDATE blob SET pack = ?, place = ? WHERE id = ?", (self._id, offset, blob)
        )

    def finish(self) -> None:
        self._end()
        sync_folder(os.path.join(self.store.folder, b"packs"))

    def abandon(self) -> None:
        if self._pack is not None:
            self._pack.abandon()

    def _end(self) -> None:
        if self._pack is not None:
            self._pack.close()
            self.db.execute(
                "UPDATE pack SET length = ? WHERE id = ?", (self._pack.length, self._id)
            )
            self._pack = None
