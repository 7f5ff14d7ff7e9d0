"""Whose past a store holds, told without opening it for anything else."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from rollback.errors import CatalogCorrupt, RollbackError, StoreCorrupt
from rollback.snapshots import load
from rollback.store.catalog import Catalog, translated


def projects_of(store: Path, *, documents: bool = False) -> Iterator[str]:
    """Yield the projects of a store's snapshots, that of the newest first, each once.

    Args:
        store: Its folder.
        documents: Whether the documents beside the catalog are asked where that cannot be read.

    Raises:
        CatalogCorrupt: The catalog cannot be read, and the documents shall not be asked.
    """
    found: set[str] = set()
    for document in _documents(store, documents=documents):
        with contextlib.suppress(StoreCorrupt, KeyError, TypeError, ValueError):
            project = load(document).project
            if project not in found:
                found.add(project)
                yield project


def holds_past_of(store: Path, project: str | os.PathLike[str]) -> bool:
    """Return whether a store has a snapshot of a project (absolute path, links resolved)."""
    with contextlib.suppress(RollbackError, OSError):
        return os.fspath(project) in projects_of(store, documents=True)
    return True


def _documents(store: Path, *, documents: bool) -> Iterator[bytes | str]:
    try:
        catalog = Catalog(store / "catalog.db", writable=False)
        try:
            with translated(catalog.path):
                rows = catalog.db.execute("SELECT document FROM snapshot ORDER BY seq DESC")
                yield from (row[0] for row in rows)
        finally:
            catalog.close()
    except CatalogCorrupt:
        if not documents:
            raise
        for name in sorted((store / "snapshots").glob("*.json"), reverse=True):
            yield name.read_bytes()
