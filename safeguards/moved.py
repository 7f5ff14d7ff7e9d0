"""A folder without a past: whether it is a project that was moved, and whose past there is."""

from __future__ import annotations

import contextlib
import os
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path

from rollback.errors import NothingToDo, RollbackError
from rollback.holding import projects_of, resembles
from rollback.replaced import way_back
from rollback.store.placement import choose, is_store, usual_places
from safeguards.config import Config
from safeguards.places import ASKED

_MOST_STORES = 200
_SHOWN = 3


def explain(error: NothingToDo, config: Config, environ: Mapping[str, str]) -> NothingToDo:
    """Return what to say where a project has no store: where its past is, if it was moved.

    Args:
        error: That there is none.
        config: Of the project.
        environ: For where stores are.
    """
    if config.origins.get("store") in ASKED:
        return error
    here, known = config.project, list(_gone(config.project, environ))
    for store, old in known:
        if resembles(store, old, here):
            was = f"there is no snapshot of {here}: it was {old} when they were taken"
            return NothingToDo(was, hint=f"{way_back(here, old)}, then the same command")
    near = [old for _, old in known if _is_near(here, Path(old))]
    if not near:
        return error
    words = [f"guard --project {shlex.quote(old)} log" for old in near[:_SHOWN]]
    also = f"of what is gone there are some: {', '.join(words)}"
    return NothingToDo(str(error), hint=f"{error.hint}; {also}")


def moved_from(config: Config, environ: Mapping[str, str]) -> str:
    """Return what to say before a project gets a store of its own that was moved; else empty."""
    if config.origins.get("store") in ASKED:
        return ""
    here = config.project
    if is_store(choose(here, config.store, environ).path):
        return ""
    for store, old in _gone(here, environ):
        if resembles(store, old, here):
            return (
                f"{here} was {old}: its snapshots stay there;"
                f" to go on with them: {way_back(here, old)}"
            )
    return ""


def _gone(here: Path, environ: Mapping[str, str]) -> Iterator[tuple[Path, str]]:
    """Yield stores with projects that are no folders now, the newest first."""
    own, _ = usual_places(here, environ)
    with contextlib.suppress(OSError):
        stores = sorted(own.parent.iterdir(), key=_changed, reverse=True)[:_MOST_STORES]
        for store in stores:
            if store == own or not is_store(store):
                continue
            with contextlib.suppress(RollbackError, OSError):
                for old in projects_of(store):
                    if not os.path.isdir(old) or os.path.realpath(old) != old:
                        yield store, old


def _is_near(here: Path, old: Path) -> bool:
    """Whether one may be meant where the other is asked for: of one name, or in one folder."""
    return here.name == old.name or here.parent == old.parent


def _changed(store: Path) -> float:
    try:
        return (store / "catalog.db").stat().st_mtime
    except OSError:
        return 0.0
