"""Which distribution a changed file of an environment came or went with, by their RECORDs.

Format: RECORD and `conda-meta/*.json`, as in `records`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable

from rollback.resources.python.distributions import normalized
from rollback.resources.python.records import parse_record

_INFO = b".dist-info"
_RECORD = b"/RECORD"


def owners_by_record(
    base: bytes, paths: Iterable[bytes], read: Callable[[bytes], bytes]
) -> dict[bytes, str]:
    """Return path → normalized name of the distribution, for those whose record is in `paths`.

    Args:
        base: Absolute folder of the environment.
        paths: Paths relative to it that differ, on one side of a comparison.
        read: Returns the content of one of them on that side; empty where it cannot be read.
    """
    found: dict[bytes, str] = {}
    for path in paths:
        if path.endswith(_INFO + _RECORD):
            site, _, folder = path.removesuffix(_RECORD).rpartition(b"/")
            own = folder + _RECORD
            name = folder.removesuffix(_INFO).rpartition(b"-")[0]
            listed = [row[0] for row in parse_record(read(path))]
        elif path.startswith(b"conda-meta/") and path.endswith(b".json"):
            site, own, name, listed = b"", path, _conda_name(path), _conda_files(read(path))
        else:
            continue
        owner = normalized(os.fsdecode(name))
        for row in (*listed, own):
            inside = os.path.normpath(os.path.join(base, site, row))
            found.setdefault(os.path.relpath(inside, base), owner)
    return found


def _conda_name(path: bytes) -> bytes:
    """Return the name in ``conda-meta/name-version-build.json``."""
    return path.removeprefix(b"conda-meta/").rsplit(b"-", 2)[0]


def _conda_files(content: bytes) -> list[bytes]:
    try:
        listed = json.loads(content).get("files", [])
    except (ValueError, AttributeError):
        return []
    return [os.fsencode(name) for name in listed if isinstance(name, str)]
