"""What operations that died or failed leave in a store: told from what is needed, and removed."""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Callable, Iterator

from rollback.failpoints import reach
from rollback.lock import process_start
from rollback.removal import remove_path
from rollback.store.catalog import Catalog
from rollback.store.documents import document_stem

_DAY_S = 86_400.0
_TICK_S = 0.02
_UNCLEAN = "unclean since"
_DRILL = re.compile(rb"drill-(\d+)")
_PACK = re.compile(rb"(\d{8})-[^.]+\.pack(\.tmp)?")
_FILE = re.compile(rb"((?:[0-9a-f]{2})+)(\.tmp)?")


class Litter:
    """What nothing in a store refers to.

    Args:
        folder: Of the store.
        catalog: Of the store.
        work: Returns the private folder of an operation.
    """

    def __init__(self, folder: bytes, catalog: Catalog, work: Callable[[int], bytes]) -> None:
        self.folder = folder
        self.catalog = catalog
        self._work = work

    def clean(self, seq: int) -> None:
        """Remove what an operation left: its private folder, and packs nobody knows."""
        reach("recover.clean")
        remove_path(self._work(seq))
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


def _remove_younger(path: bytes, since: float) -> None:
    with contextlib.suppress(FileNotFoundError):
        if os.lstat(path).st_ctime >= since:
            os.unlink(path)
