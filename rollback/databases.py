"""Taking databases into the store as far as there is room: one that does not fit is left whole."""

from __future__ import annotations

import dataclasses
import errno
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rollback.errors import CaptureFailed, NoSpace, RollbackError
from rollback.model import ResourceState, Skip
from rollback.resources.base import Resource, Weight
from rollback.store.pages import PAGE
from rollback.store.store import Store
from rollback.store.vault import StoreVault
from rollback.store.writer import JOURNAL, UPKEEP, BlobWriter

_FULL = {errno.ENOSPC, errno.EDQUOT}


@dataclass(frozen=True, slots=True)
class Found:
    """A live database, what the newest snapshot has of it, and what it takes to keep it."""

    resource: Resource
    before: ResourceState | None
    weight: Weight


@dataclass(frozen=True, slots=True)
class Taken:
    """What became of a database.

    Attributes:
        state: Of what was kept; where nothing was, what it looks like.
        skips: What has to be said.
        refused: Why it was not kept, empty where it was.
    """

    state: ResourceState
    skips: tuple[Skip, ...] = ()
    refused: str = ""


class DatabaseTaker:
    """Takes databases inside one transaction.

    Args:
        store: Where they go.
        writer: Adds their content.
        work: A private folder on the store's file system.
        spare: Is told what is to be kept, and returns how many bytes there are for it.
        careful: Whether what is written is taken back on a full disk, also where all of it should
            fit: an earlier try has met one.
    """

    def __init__(
        self,
        store: Store,
        writer: BlobWriter,
        work: bytes,
        spare: Callable[[Weight], int],
        *,
        careful: bool = False,
    ) -> None:
        self.store = store
        self.writer = writer
        self.work = work
        self.spare = spare
        self.careful = careful

    def take_all(
        self, found: Sequence[Found], crowded: Callable[[int], None] = lambda _: None
    ) -> list[Taken]:
        """Take databases, the smallest first, so that most are kept; return them in order.

        Args:
            found: What there is.
            crowded: Is told how many bytes are missing for one, before it is left out.

        Raises:
            CaptureFailed: One cannot be kept for another reason than space.
        """
        order = sorted(range(len(found)), key=lambda at: found[at].weight.most)
        taken = {at: self._take(found[at], crowded) for at in order}
        return [taken[at] for at in range(len(found))]

    def _take(self, found: Found, crowded: Callable[[int], None]) -> Taken:
        try:
            return Taken(*self._fit(found))
        except NoSpace as error:
            crowded(error.missing_bytes)
            missing = error.missing_bytes
        size = found.weight.most
        why = f"there is not enough space or quota to keep its {size:,} bytes"
        more = f": at least {missing:,} bytes are missing" if missing else ""
        return Taken(found.resource.leave(), (), why + more)

    def _fit(self, found: Found) -> tuple[ResourceState, tuple[Skip, ...]]:
        weight = found.weight
        spare = self.spare(weight)
        if weight.least and with_upkeep(weight.least) > spare:
            raise _missing(with_upkeep(weight.least) - spare)
        if not self.careful and 2 * with_upkeep(weight.most) <= spare:
            return self._capture(found)
        try:
            with self.writer.within(spare):
                return self._capture(found)
        except OSError as error:
            if error.errno not in _FULL:
                raise
            raise _missing(0) from error

    def _capture(self, found: Found) -> tuple[ResourceState, tuple[Skip, ...]]:
        return capture_resource(found.resource, self.store, self.writer, self.work, found.before)

    def need(self, found: Found, most: int) -> int:
        """Return how many bytes it takes to keep a database; it is read for that, where need be.

        Args:
            found: The database.
            most: What cannot be had in any case needs not be counted.
        """
        weight = found.weight
        least = with_upkeep(weight.least) + weight.scratch
        if least > most or weight.scratch > self.spare(Weight()):
            return with_upkeep(weight.most) + weight.scratch
        try:
            with self.store.catalog.transaction(), self.writer.within(0):
                self._capture(found)
        except NoSpace as error:
            return error.missing_bytes + weight.scratch
        return 0


def with_upkeep(content: int) -> int:
    """Return what a content takes that is kept in pages."""
    return content + -(-content // PAGE) * UPKEEP


def written_beside(weight: Weight, catalog: int) -> int:
    """Return the bytes that are on the disk besides what is kept, for as long as that takes.

    Args:
        weight: Of a database.
        catalog: Bytes of the catalog: what is changed in it is set aside until the commit.
    """
    pages = -(-weight.most // PAGE)
    return weight.scratch + min(catalog, JOURNAL * pages)


def _missing(number: int) -> NoSpace:
    return NoSpace("it does not fit", hint="free some space", missing_bytes=number)


def capture_resource(
    resource: Resource,
    store: Store,
    writer: BlobWriter,
    work: bytes,
    before: ResourceState | None,
) -> tuple[ResourceState, tuple[Skip, ...]]:
    """Capture one live resource; the blobs that it used are noted in its state.

    Args:
        resource: What to capture.
        store: Where it goes.
        writer: Adds its content.
        work: A private folder on the store's file system.
        before: What the newest snapshot has of it.
    """
    scratch = os.path.join(work, b"vault")
    os.makedirs(scratch, mode=0o700, exist_ok=True)
    vault = StoreVault(store.reader, writer, scratch)
    try:
        state, skips = resource.capture(vault, before)
    except RollbackError as error:
        raise CaptureFailed(f"{resource.name}: {error}", hint=error.hint) from error
    if state is before:
        return state, skips
    return dataclasses.replace(state, data={**state.data, "blobs": vault.used}), skips
