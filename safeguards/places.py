"""Remembers where a project's store is when its configuration moved it.

A run can destroy `guard.toml`; the rollback then still has to find the store.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from safeguards.config import Config


def remember(config: Config, environ: Mapping[str, str]) -> None:
    """Note where the store is, where only the project's own file says so; failing is no error."""
    origin = config.origins.get("store", "")
    if config.store is None or not origin.endswith(".toml"):
        return
    file = _file(environ)
    known = _read(file)
    if known.get(str(config.project)) == str(config.store):
        return
    known = {project: place for project, place in known.items() if os.path.isdir(place)}
    known[str(config.project)] = str(config.store)
    with contextlib.suppress(OSError):
        os.makedirs(file.parent, 0o700, exist_ok=True)
        fresh = file.with_name(f"{file.name}.{os.getpid()}")
        fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(fd, "w", encoding="utf-8", errors="surrogateescape") as stream:
            json.dump(known, stream)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(fresh, file)


def recall(project: Path, environ: Mapping[str, str]) -> Path | None:
    """Return where the store of a project was last, where its configuration had moved it."""
    place = _read(_file(environ)).get(str(project))
    return Path(place) if place is not None and (Path(place) / "STORE").exists() else None


def _file(environ: Mapping[str, str]) -> Path:
    state = environ.get("XDG_STATE_HOME") or os.path.join(
        environ.get("HOME") or os.path.expanduser("~"), ".local", "state"
    )
    return Path(state) / "guard" / "places.json"


def _read(file: Path) -> dict[str, str]:
    with contextlib.suppress(OSError, ValueError):
        known = json.loads(file.read_bytes())
        if isinstance(known, dict):
            return {str(key): str(value) for key, value in known.items()}
    return {}
