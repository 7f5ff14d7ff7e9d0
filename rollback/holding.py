"""Whose past a store holds, told without opening it for anything else."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from rollback.errors import CatalogCorrupt, RollbackError, StoreCorrupt
from rollback.index import listed
from rollback.inventory import is_tree
from rollback.listing import sign
from rollback.snapshots import load
from rollback.store.catalog import Catalog, translated

_MOST_FOLDERS = 1_000
"""So many are looked through for a file that is there still."""


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


def resembles(store: Path, project: str, folder: Path) -> bool:
    """Whether a folder has a file that the index of a project has: one that was moved has all.

    Inode, size, time, mode and owner agree, under the same name; no copy and no clone has that.

    Args:
        store: Holds snapshots of the project.
        project: Absolute path where it was.
        folder: Absolute path where it may be now.
    """
    with contextlib.suppress(RollbackError, OSError):
        catalog = Catalog(store / "catalog.db", writable=False)
        try:
            return any(
                _is_same(os.path.join(os.fsencode(folder), below, name), part)
                for name_of_root in _roots_at(catalog, project)
                for below, part, name in listed(catalog.db, name_of_root, _MOST_FOLDERS)
            )
        finally:
            catalog.close()
    return False


def _roots_at(catalog: Catalog, project: str) -> Iterator[str]:
    """Yield the names of the roots that are the folder of a project, by its newest snapshot."""
    with translated(catalog.path):
        rows = catalog.db.execute("SELECT document FROM snapshot ORDER BY seq DESC").fetchall()
    for (document,) in rows:
        with contextlib.suppress(StoreCorrupt, KeyError, TypeError, ValueError):
            found = load(document)
            if found.project == project:
                yield from (s.name for s in found.states if s.location == project and is_tree(s))
                return


def _is_same(path: bytes, part: bytes) -> bool:
    with contextlib.suppress(OSError):
        info = os.lstat(path)
        return stat.S_ISREG(info.st_mode) and sign(os.path.basename(path), info) == part
    return False


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
