r"""Large contents that change in small places, kept as pages: databases above all.

A paged blob is a recipe: ``GR1\n``, the length, and for each MiB its SHA-256 and its segment. A
segment is the list of the ids of its pages, or, where few of them changed since a segment that
the store has, the id of that one and what differs. So a page that changes costs itself and some
forty bytes.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import struct
from collections.abc import Iterable, Iterator, Sequence
from typing import IO, TYPE_CHECKING

from rollback.errors import StoreCorrupt, damaged
from rollback.store.catalog import BlobKind, Place

if TYPE_CHECKING:
    from rollback.store.blobs import BlobReader
    from rollback.store.writer import BlobWriter

CHUNK = 1 << 20
PAGE = 4096
DELTA_PAGES = 32
"""Of the 256 pages of a chunk: beyond that a full list is written again. So a list adds at most
a sixteenth to the pages, and what a delta's base keeps alive in vain is at most an eighth."""
_RECIPE = struct.Struct("<4sQ")
_RECIPE_MAGIC = b"GR1\n"
_CHANGE = struct.Struct("<H32s")
ID, DELTA_ENTRY = 32, _CHANGE.size
"""Bytes of a page's id in a segment, and of a change in a delta, which begins with an id."""


class PageReader:
    """Reads paged blobs of one store.

    Args:
        reader: Of the store.
    """

    def __init__(self, reader: BlobReader) -> None:
        self._reader = reader

    def recipe(self, blob: bytes) -> tuple[int, list[tuple[bytes, bytes]]]:
        """Return the length of a paged blob and its segments as (content hash, segment id).

        Raises:
            StoreCorrupt: It is missing or damaged.
        """
        content = self._reader.read(blob)
        magic, length = _RECIPE.unpack_from(content)
        if magic != _RECIPE_MAGIC:
            raise damaged(blob, "it is not a recipe")
        return length, [
            (content[at : at + 32], content[at + 32 : at + 64])
            for at in range(_RECIPE.size, len(content), 64)
        ]

    def segment(self, segment: bytes) -> tuple[bytes, list[bytes]]:
        """Return the full list behind a segment (often the segment itself) and its page ids.

        Raises:
            StoreCorrupt: It is missing or damaged.
        """
        content = self._reader.read(segment)
        if self._reader.place(segment).kind is not BlobKind.DELTA:
            return segment, _ids(content)
        base, changes = _split_delta(content)
        pages = _ids(self._reader.read(base))
        for number, page in changes.items():
            pages[number] = page
        return base, pages

    def children(self, kind: BlobKind, blob: bytes) -> list[bytes]:
        """Return what a recipe or a segment refers to, one an occurrence.

        Raises:
            StoreCorrupt: It is missing or damaged.
        """
        if kind is BlobKind.PAGED:
            return [segment for _, segment in self.recipe(blob)[1]]
        content = self._reader.read(blob)
        if kind is BlobKind.SEGMENT:
            return _ids(content)
        base, changes = _split_delta(content)
        return [base, *changes.values()]

    def copy_to(self, blob: bytes, target: IO[bytes]) -> None:
        """Write a paged blob to a stream, each MiB proven before it is written.

        Raises:
            StoreCorrupt: It is missing or damaged.
        """
        length, segments = self.recipe(blob)
        for content_hash, segment in segments:
            content = b"".join(self._pages(segment))
            if hashlib.sha256(content).digest() != content_hash:
                raise damaged(segment, "its pages do not match their hash")
            target.write(content)
            length -= len(content)
        if length:
            raise damaged(blob, "its recipe is not complete")

    def _pages(self, segment: bytes) -> list[bytes]:
        _, pages = self.segment(segment)
        found: dict[bytes, bytes] = {}
        for pack, members in _by_pack(self._places(set(pages))).items():
            fd = self._reader.pack(pack)
            for start, end, run in _runs(members):
                data = os.pread(fd, end - start, start)
                for page, place in run:
                    at = place.offset - start
                    found[page] = data[at : at + place.length]
        try:
            return [found[page] for page in pages]
        except KeyError as error:
            raise damaged(error.args[0], "it is not in the catalog") from None

    def _places(self, blobs: set[bytes]) -> dict[bytes, Place]:
        marks = ",".join("?" * len(blobs))
        rows = self._reader.catalog.db.execute(
            f"SELECT id, kind, pack, place, length FROM blob WHERE id IN ({marks})",  # noqa: S608
            tuple(blobs),
        )
        return {row[0]: Place(BlobKind(row[1]), row[2], row[3], row[4]) for row in rows}


class PageWriter:
    """Adds contents as pages, inside the transaction of a writer.

    Args:
        writer: Of the store.
    """

    def __init__(self, writer: BlobWriter) -> None:
        self._writer = writer
        self._reader = PageReader(writer.reader)

    def add(self, source: IO[bytes], previous: bytes | None) -> bytes:
        """Add a stream and return its id.

        Args:
            source: Read once, to its end.
            previous: A paged blob that it is likely to resemble.
        """
        known: list[tuple[bytes, bytes]] = []
        if previous is not None:
            with contextlib.suppress(StoreCorrupt):
                known = self._reader.recipe(previous)[1]
        parts: list[bytes] = []
        segments: list[bytes] = []
        length = 0
        while chunk := _read_full(source, CHUNK):
            length += len(chunk)
            content_hash = hashlib.sha256(chunk).digest()
            before = known[len(segments)] if len(segments) < len(known) else (b"", None)
            if before[0] == content_hash and before[1]:
                segment = before[1]
            else:
                segment = self._add_segment(chunk, before[1])
            segments.append(segment)
            parts += (content_hash, segment)
        recipe = _RECIPE.pack(_RECIPE_MAGIC, length) + b"".join(parts)
        return self._add(BlobKind.PAGED, recipe, segments)

    def _add(self, kind: BlobKind, content: bytes, refs: Iterable[bytes]) -> bytes:
        blob = hashlib.sha256(content).digest()
        if self._writer.add_packed(kind, blob, content):
            for ref in refs:
                self._writer.refer(ref)
        return blob

    def _add_segment(self, chunk: bytes, previous: bytes | None) -> bytes:
        """Add the pages of one chunk and the list of them, or what differs from `previous`."""
        sha256 = hashlib.sha256
        pages = [chunk[at : at + PAGE] for at in range(0, len(chunk), PAGE)]
        ids = [sha256(page).digest() for page in pages]
        full = b"".join(ids)
        known = sha256(full).digest()
        if self._writer.knows(known):
            return known
        base, changed = self._changed(ids, previous)
        self._add_pages({ids[number]: pages[number] for number in changed})
        if base and len(changed) <= DELTA_PAGES:
            delta = base + b"".join(_CHANGE.pack(number, ids[number]) for number in changed)
            return self._add(BlobKind.DELTA, delta, [base, *(ids[n] for n in changed)])
        return self._add(BlobKind.SEGMENT, full, ids)

    def _changed(self, ids: list[bytes], previous: bytes | None) -> tuple[bytes, Sequence[int]]:
        """Return the full list behind a segment, and where these pages differ from it."""
        if previous is not None:
            with contextlib.suppress(StoreCorrupt):
                base, _ = self._reader.segment(previous)
                _, then = self._reader.segment(base)
                if len(then) == len(ids):
                    return base, [n for n, page in enumerate(ids) if page != then[n]]
        return b"", range(len(ids))

    def _add_pages(self, pages: dict[bytes, bytes]) -> None:
        """Add those of these pages (id → content) that the store does not have."""
        marks = ",".join("?" * len(pages))
        rows = self._writer.db.execute(
            f"SELECT id FROM blob WHERE id IN ({marks})",  # noqa: S608
            tuple(pages),
        )
        have = {row[0] for row in rows} - self._writer.distrusted
        for blob, page in pages.items():
            if blob not in have:
                self._writer.add_packed(BlobKind.PACKED, blob, page)


def lists_of(source: IO[bytes]) -> Iterator[bytes]:
    """Yield what `PageWriter` writes of a stream besides its pages, where it has no previous one.

    Args:
        source: Read once, to its end.

    Yields:
        The list of each MiB, then the recipe.
    """
    length, parts = 0, b""
    while chunk := _read_full(source, CHUNK):
        length += len(chunk)
        pages = (chunk[at : at + PAGE] for at in range(0, len(chunk), PAGE))
        listed = b"".join(hashlib.sha256(page).digest() for page in pages)
        parts += hashlib.sha256(chunk).digest() + hashlib.sha256(listed).digest()
        yield listed
    yield _RECIPE.pack(_RECIPE_MAGIC, length) + parts


def _ids(content: bytes) -> list[bytes]:
    return [content[at : at + 32] for at in range(0, len(content), 32)]


def _split_delta(content: bytes) -> tuple[bytes, dict[int, bytes]]:
    return content[:32], dict(_CHANGE.iter_unpack(content[32:]))


def _read_full(source: IO[bytes], size: int) -> bytes:
    chunk = source.read(size)
    while chunk and len(chunk) < size:
        more = source.read(size - len(chunk))
        if not more:
            break
        chunk += more
    return chunk


def _by_pack(places: dict[bytes, Place]) -> dict[int, list[tuple[bytes, Place]]]:
    found: dict[int, list[tuple[bytes, Place]]] = {}
    for blob, place in places.items():
        found.setdefault(place.pack, []).append((blob, place))
    return found


def _runs(
    found: list[tuple[bytes, Place]],
) -> Iterable[tuple[int, int, list[tuple[bytes, Place]]]]:
    """Yield stretches of a pack that are worth one read: start, end, members."""
    found.sort(key=lambda item: item[1].offset)
    members: list[tuple[bytes, Place]] = []
    start = end = 0
    for item in found:
        place = item[1]
        if members and place.offset - end > PAGE:
            yield start, end, members
            members = []
        if not members:
            start = place.offset
        members.append(item)
        end = place.offset + place.length
    if members:
        yield start, end, members
