"""Links of a project that lead out of it: what is behind them is not the project's to put back."""

from __future__ import annotations

import os
from collections.abc import Container, Iterator, Sequence
from itertools import islice
from pathlib import Path

from rollback.inventory import compile_patterns
from rollback.model import Skip
from rollback.resources.base import DEFAULT_LEAVE_OUT

_MOST = 2_000
"""So many names of a folder are looked at: a data set of links is told by its first ones."""
_SHOWN = 3
_ENVIRONMENT = ("pyvenv.cfg", "conda-meta")


def links_out(
    project: Path, left_out: Sequence[str], protected: Sequence[Path], files: Container[Path]
) -> list[Skip]:
    """Return what has to be said of links to places outside of a project.

    They are looked for in the project's folder and in those that lie in it. What this user may
    not write to needs no way back, and a Python environment is found as one.

    Args:
        project: Its absolute path, without links.
        left_out: Patterns that the configuration leaves out, or only watches.
        protected: Folders outside that are protected.
        files: Databases outside that are protected.
    """
    excluded = compile_patterns(left_out)
    found: list[tuple[str, Path]] = []
    for shown in _links(project):
        if excluded is not None and excluded(os.fsencode(shown)):
            continue
        real = Path(os.path.realpath(project / shown))
        inside = any(folder in (real, *real.parents) for folder in (project, *protected))
        if not (inside or real in files or not os.access(real, os.W_OK) or _is_environment(real)):
            found.append((shown, real))
    return _told(found)


def _links(project: Path) -> Iterator[str]:
    """Yield the links in a folder and in its subfolders, relative to it."""
    folders = [""]
    for folder in folders:
        try:
            with os.scandir(project / folder) as entries:
                names = sorted(islice(entries, _MOST), key=lambda entry: entry.name)
        except OSError:
            continue
        for entry in names:
            if os.fsencode(entry.name) in DEFAULT_LEAVE_OUT or entry.name == ".git":
                continue
            if entry.is_symlink():
                yield os.path.join(folder, entry.name)
            elif not folder and entry.is_dir() and not _is_environment(Path(entry.path)):
                folders.append(entry.name)


def _is_environment(folder: Path) -> bool:
    return any(os.path.exists(folder / name) for name in _ENVIRONMENT)


def _told(found: list[tuple[str, Path]]) -> list[Skip]:
    """Return a skip for each of a few links, and one for the rest."""
    skips = []
    for shown, real in found[:_SHOWN]:
        fix = (
            f'add it to guard.toml: [protect] also = ["{real}"]'
            if real.is_dir()
            else "copy it into the project"
        )
        why = "it lies outside the project, where a link leads to, and is not put back"
        skips.append(Skip(f"{real} ({shown})", why, fix))
    if rest := found[_SHOWN:]:
        first = rest[0][0]
        what = f"what {len(rest)} more links lead to ({first})"
        skips.append(
            Skip(what, "it lies outside the project", "name its folder in guard.toml: also")
        )
    return skips
