"""Remembers where a project's store is, and finds it again.

A run can destroy or change `guard.toml`; the rollback then still has to find the store.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from rollback.holding import holds_past_of
from rollback.store.placement import choose, is_store, usual_places

if TYPE_CHECKING:
    from safeguards.config import Config


ASKED = ("--store", "GUARD_STORE")
"""What names a store for this very call: no other is looked for then."""


def remember(config: Config, environ: Mapping[str, str]) -> None:
    """Note where the store is, where only the project's own file says so; failing is no error.

    What was noted goes where it is in a usual place again.
    """
    if config.origins.get("store") in ASKED:
        return
    place = None if config.store is None else str(config.store)
    file = _file(environ)
    known = _read(file)
    if known.get(str(config.project)) == place:
        return
    known = {project: place for project, place in known.items() if os.path.isdir(place)}
    known.pop(str(config.project), None)
    if place is not None:
        known[str(config.project)] = place
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
    """Return where the store of a project was last, where it is there still."""
    place = _read(_file(environ)).get(str(project))
    return Path(place) if place is not None and is_store(Path(place)) else None


def find(config: Config, environ: Mapping[str, str]) -> Path | None:
    """Return where the past of a project is, where that is not where the store should be.

    A run can write another place into `guard.toml`, or bring a `.guard` along.
    """
    if config.origins.get("store") in ASKED:
        return None
    chosen = choose(config.project, config.store, environ).path
    if holds_past_of(chosen, config.project):
        return None
    others = (recall(config.project, environ), *usual_places(config.project, environ))
    for other in others:
        if other is not None and other != chosen and holds_past_of(other, config.project):
            return other
    return None


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
