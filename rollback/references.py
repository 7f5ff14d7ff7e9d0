"""How often each blob of a store is referred to, counted from what the store holds."""

from __future__ import annotations

import contextlib
import struct
from collections import Counter
from collections.abc import Iterable

from rollback.errors import StoreCorrupt
from rollback.model import Snapshot
from rollback.snapshots import blobs_of
from rollback.store.blobs import BlobReader
from rollback.store.catalog import BlobKind

_REFERRING = (BlobKind.TREE, BlobKind.PAGED, BlobKind.SEGMENT, BlobKind.DELTA)


def count_references(reader: BlobReader, snapshots: Iterable[Snapshot]) -> Counter[bytes]:
    """Return how often each blob is referred to: by snapshots, and once by each that names it.

    What no snapshot reaches any more counts too as long as it is there: it takes its references
    back when it goes. What cannot be read refers to nothing, for it will take nothing back.

    Args:
        reader: The store.
        snapshots: All that it has.
    """
    counts: Counter[bytes] = Counter()
    for snapshot in snapshots:
        for state in snapshot.states:
            counts.update(blobs_of(state))
    marks = ",".join(str(kind.value) for kind in _REFERRING)
    rows = reader.catalog.db.execute(
        f"SELECT id FROM blob WHERE kind IN ({marks}) ORDER BY pack, place"  # noqa: S608
    ).fetchall()
    for (blob,) in rows:
        with contextlib.suppress(StoreCorrupt, struct.error):
            counts.update(reader.children(blob))
    return counts
