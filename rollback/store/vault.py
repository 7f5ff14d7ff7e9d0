"""The vault that the engine hands to resources: content in, verified content out."""

from __future__ import annotations

import hashlib
import os
from typing import IO

from rollback.errors import RollbackError
from rollback.store.blobs import BlobReader
from rollback.store.catalog import BlobKind
from rollback.store.pages import PageWriter
from rollback.store.writer import BlobWriter


class StoreVault:
    """Implements `rollback.resources.base.Vault` over one store.

    Args:
        reader: For content that is there.
        writer: For new content; None where nothing may be added.
        scratch: A private folder, emptied by whoever made it.
    """

    def __init__(self, reader: BlobReader, writer: BlobWriter | None, scratch: bytes) -> None:
        self._reader = reader
        self._writer = writer
        self._scratch = scratch
        self.used: list[str] = []

    @property
    def scratch(self) -> str:
        """The private folder."""
        return os.fsdecode(self._scratch)

    def put(self, content: bytes) -> str:
        """Keep a small content whole and return its id."""
        blob = hashlib.sha256(content).digest()
        self._need().add_packed(BlobKind.PACKED, blob, content)
        return self._use(blob)

    def put_file(self, source: IO[bytes]) -> str:
        """Keep a stream and return its id; its parts are shared with what is there already."""
        return self.put_pages(source)

    def put_pages(self, source: IO[bytes], previous: str | None = None) -> str:
        """Keep a stream as pages and return its id."""
        known = bytes.fromhex(previous) if previous else None
        return self._use(PageWriter(self._need()).add(source, known))

    def get(self, blob: str) -> bytes:
        """Return a small content, verified."""
        return self._reader.read(bytes.fromhex(blob))

    def copy_to(self, blob: str, target: IO[bytes]) -> None:
        """Write a content to a stream, verified."""
        self._reader.copy_to(bytes.fromhex(blob), target)

    def _use(self, blob: bytes) -> str:
        name = blob.hex()
        self.used.append(name)
        return name

    def _need(self) -> BlobWriter:
        if self._writer is None:
            raise RollbackError("nothing may be added here", hint="this is a defect in guard")
        return self._writer
