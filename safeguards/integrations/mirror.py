"""The project as it is staged, in a temporary folder: what declared checks of a commit read.

Files that git tracks come from the index; files that it does not track (reference data that is
ignored, outputs of DVC) are linked, for they are no part of the commit.
"""

from __future__ import annotations

import fnmatch
import glob
import os
import posixpath
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from checks.globs import expand, is_pattern
from safeguards.integrations.staged import Entry, Index

_PATHS = ("path", "schema", "reference", "training", "serving", "file", "sha256")


def patterns(table: Mapping[str, Any]) -> list[str]:
    """Return the paths and globs that one table of a check names."""
    found: list[str] = []
    for key in _PATHS:
        value = table.get(key)
        texts = [t for t in (value if isinstance(value, list) else [value]) if isinstance(t, str)]
        found += [_without_class(t) if key == "schema" else t for t in texts if t]
    batch = table.get("batch")
    if isinstance(batch, Mapping) and isinstance(batch.get("data"), str):
        found.append(batch["data"])
    return [posixpath.normpath(text) for text in found]


def concerns(pattern: str, path: str) -> bool:
    """Return whether a pattern names a file, or a folder that it lies in."""
    if path == pattern or path.startswith(pattern + "/") or pattern == ".":
        return True
    return fnmatch.fnmatchcase(path, pattern) or (
        "**/" in pattern and fnmatch.fnmatchcase(path, pattern.replace("**/", ""))
    )


class Mirror:
    """A folder that holds the staged state of a project's checked files.

    Args:
        folder: An empty folder, the user's alone.
        project: The real project.
        index: Its repository's index.
    """

    def __init__(self, folder: Path, project: Path, index: Index) -> None:
        self.folder = folder
        self._project = project
        self._index = index
        prefix = os.path.relpath(os.path.realpath(project), index.top)
        self._prefix = "" if prefix == "." else prefix + "/"

    def inside(self, entry: Entry) -> str | None:
        """Return an entry's path from the project; None where it lies outside."""
        inside = entry.path.startswith(self._prefix)
        return entry.path.removeprefix(self._prefix) if inside else None

    def add(self, wanted: Iterable[str]) -> None:
        """Put in place everything that patterns name."""
        chosen = list(wanted)
        tracked = {
            path: entry
            for entry in self._index.all().values()
            if (path := self.inside(entry)) is not None
        }
        for path, entry in tracked.items():
            if any(concerns(pattern, path) for pattern in chosen):
                self._write(path, entry)
        for pattern in chosen:
            for path in self._untracked(pattern, tracked):
                self._link(path)

    def _write(self, path: str, entry: Entry) -> None:
        target = self._target(path)
        if target is None or target.exists():
            return
        if entry.regular:
            target.parent.mkdir(parents=True, exist_ok=True)
            with open(target, "wb") as file:
                self._index.copy(entry, file)
        elif entry.mode == "120000":
            # A staged link leads to what is staged there, never out of the mirror.
            aim = posixpath.normpath(
                posixpath.join(posixpath.dirname(path), os.fsdecode(self._index.read(entry, 4096)))
            )
            aimed = self._index.all().get(self._prefix + aim)
            if aimed is not None and aimed.regular:
                self._write(path, Entry(entry.path, aimed.oid, aimed.mode))

    def _untracked(self, pattern: str, tracked: Collection[str]) -> Iterator[str]:
        if os.path.isabs(pattern) or pattern.startswith(".."):
            return
        start = os.path.join(glob.escape(str(self._project)), pattern)
        matches = expand(start) if is_pattern(pattern) else [os.path.join(self._project, pattern)]
        for match in matches:
            for path in _files(match):
                name = os.path.relpath(path, self._project)
                if name not in tracked:
                    yield name

    def _link(self, path: str) -> None:
        target = self._target(path)
        if target is not None and not os.path.lexists(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(os.path.join(self._project, path))

    def _target(self, path: str) -> Path | None:
        parts = path.split("/")
        if not path or os.path.isabs(path) or os.pardir in parts:
            return None
        return self.folder.joinpath(*parts)


def _files(path: str) -> Iterator[str]:
    if not os.path.isdir(path):
        if os.path.lexists(path):
            yield path
        return
    for folder, folders, names in os.walk(path):
        folders[:] = [name for name in folders if name not in {".git", ".venv", "__pycache__"}]
        yield from (os.path.join(folder, name) for name in names)


def _without_class(schema: str) -> str:
    file, colon, _name = schema.rpartition(":")
    return file if colon and file.endswith(".py") else schema
