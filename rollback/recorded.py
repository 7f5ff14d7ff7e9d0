"""What the installers of an environment wrote down, as a snapshot holds it.

The RECORDs of a snapshot are copies in the store, so they still say what a linked file held when
its content was lost, whatever has been installed since.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from io import BufferedReader

from rollback.difference import find_entry
from rollback.errors import StoreCorrupt
from rollback.model import Entry, Kind
from rollback.resources.base import Root
from rollback.resources.python.records import (
    SLACK_NS,
    Owner,
    digest_of,
    owners,
    parse_record,
)
from rollback.store.blobs import BlobReader

_SUFFIX = b".dist-info"


class RecordedFiles:
    """The RECORDs inside one tree of an environment; read when they are first asked for.

    Args:
        root: The environment's root.
        tree: Id of its tree in the snapshot.
        reader: The store.
    """

    def __init__(self, root: Root, tree: bytes, reader: BlobReader) -> None:
        self.root = root
        self.tree = tree
        self.reader = reader
        self._owners: dict[bytes, tuple[Owner, int]] | None = None

    def owner(self, path: bytes) -> Owner | None:
        """Return what is written down of a file (path relative to the root), None for nothing."""
        found = self._known().get(path)
        return None if found is None else found[0]

    def pristine(self, path: bytes, entry: Entry) -> Owner | None:
        """Return what is written down of a file that was as its installer left it.

        An edit shows in the size, or in a time that is later than the RECORD's own.
        """
        owner, written_ns = self._known().get(path, (None, 0))
        if owner is None or owner.size not in (None, entry.size):
            return None
        return owner if entry.mtime_ns <= written_ns + SLACK_NS else None

    def intact(self, path: bytes, file: BufferedReader) -> bool | None:
        """Return whether a file holds what its installer wrote; see `Root.intact`."""
        owner = self.owner(path)
        if owner is not None:
            return digest_of(file) == owner.sha256
        # A shared folder of scripts: what is written down of it lies in another root.
        return None if list(self._sites()) else self.root.intact(path, file)

    def text(self, distribution: bytes, name: bytes) -> bytes:
        """Return a small file of a distribution's folder; empty where it is not there."""
        for site in self._sites():
            try:
                entry = find_entry(self.reader.tree, self.tree, _join(site, distribution, name))
                if entry is not None and entry.kind is Kind.FILE:
                    return self._content(entry)
            except StoreCorrupt:
                continue
        return b""

    def _known(self) -> dict[bytes, tuple[Owner, int]]:
        if self._owners is None:
            self._owners = dict(self._read())
        return self._owners

    def _read(self) -> Iterator[tuple[bytes, tuple[Owner, int]]]:
        load = self.reader.tree
        for site in self._sites():
            folder = find_entry(load, self.tree, site) if site else None
            tree = self.tree if not site else b"" if folder is None else folder.ref
            absolute = os.path.join(self.root.path, site) if site else self.root.path
            for found in load(tree) if tree else []:
                if found.kind is not Kind.DIRECTORY or not found.name.endswith(_SUFFIX):
                    continue
                record = next((e for e in load(found.ref) if e.name == b"RECORD"), None)
                if record is None or record.kind is not Kind.FILE:
                    continue
                try:
                    rows = parse_record(self._content(record))
                except StoreCorrupt:
                    continue  # whoever needs the RECORD itself will say so
                for path, owner in owners(self.root.path, absolute, found.name, rows):
                    yield path, (owner, record.mtime_ns)

    def _sites(self) -> Iterator[bytes]:
        """Yield the site-packages folders in the root, relative to it."""
        for site in self.root.parameters.get("site_packages", ()):
            relative = os.path.relpath(os.fsencode(site), self.root.path)
            if not relative.startswith(b".."):
                yield b"" if relative == b"." else relative

    def _content(self, entry: Entry) -> bytes:
        target = io.BytesIO()
        self.reader.copy_to(entry.ref, target)
        return target.getvalue()


def _join(*parts: bytes) -> bytes:
    return b"/".join(part for part in parts if part)
