"""A vault for tests of resources: a folder of files named by what is in them."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import IO

from rollback.errors import StoreCorrupt

_CHUNK = 1 << 20


class FolderVault:
    """Keeps content as files, verifies it on the way out, and counts what was put in.

    Args:
        folder: Made where absent.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.puts = 0
        self.previous: list[str | None] = []
        (folder / "scratch").mkdir(mode=0o700, parents=True, exist_ok=True)

    @property
    def scratch(self) -> str:
        """A private folder."""
        return str(self.folder / "scratch")

    def put(self, content: bytes) -> str:
        """Keep a small content."""
        self.puts += 1
        blob = hashlib.sha256(content).hexdigest()
        (self.folder / blob).write_bytes(content)
        return blob

    def put_file(self, source: IO[bytes]) -> str:
        """Keep a stream."""
        self.puts += 1
        digest = hashlib.sha256()
        partial = self.folder / f"partial-{os.getpid()}"
        with partial.open("wb") as target:
            while chunk := source.read(_CHUNK):
                digest.update(chunk)
                target.write(chunk)
        partial.rename(self.folder / digest.hexdigest())
        return digest.hexdigest()

    def put_pages(self, source: IO[bytes], previous: str | None = None) -> str:
        """Keep a stream; `previous` is only written down."""
        self.previous.append(previous)
        return self.put_file(source)

    def get(self, blob: str) -> bytes:
        """Return a content."""
        try:
            content = (self.folder / blob).read_bytes()
        except FileNotFoundError:
            raise StoreCorrupt(f"{blob} is missing", hint="guard verify") from None
        if hashlib.sha256(content).hexdigest() != blob:
            raise StoreCorrupt(f"{blob} is damaged", hint="guard verify")
        return content

    def copy_to(self, blob: str, target: IO[bytes]) -> None:
        """Write a content to a stream, in pieces; damage shows at the end of it."""
        digest = hashlib.sha256()
        try:
            source = (self.folder / blob).open("rb")
        except FileNotFoundError:
            raise StoreCorrupt(f"{blob} is missing", hint="guard verify") from None
        with source:
            while chunk := source.read(_CHUNK):
                digest.update(chunk)
                target.write(chunk)
        if digest.hexdigest() != blob:
            raise StoreCorrupt(f"{blob} is damaged", hint="guard verify")
