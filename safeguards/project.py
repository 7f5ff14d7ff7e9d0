"""Finds the folder that guard works on, also when the current folder is gone."""

from __future__ import annotations

import os
import shlex
import stat
from collections.abc import Mapping
from pathlib import Path

from rollback.holding import holds_past_of
from rollback.replaced import find_replaced
from rollback.store.placement import has_store, is_store
from safeguards.errors import WrongUsage
from safeguards.places import recall

CONFIGURATION = "guard.toml"
_PYPROJECT = "pyproject.toml"


def current_folder(environ: Mapping[str, str]) -> Path:
    """Return the current folder, or where it was if it has been removed.

    Raises:
        WrongUsage: It is gone and ``PWD`` does not say where it was.
    """
    try:
        return Path(os.getcwd())
    except FileNotFoundError:
        here = _removed_folder() or environ.get("PWD", "")
    if not os.path.isabs(here):
        raise WrongUsage(
            "the current folder does not exist any more",
            hint="name the project: guard --project DIR …",
        )
    return Path(os.path.realpath(here))


def find_project(asked: str | None, environ: Mapping[str, str], store: str | None = None) -> Path:
    """Return the absolute path of the project.

    The nearest parent with ``guard.toml``, ``[tool.guard]`` in ``pyproject.toml``, ``.git``,
    or a store that was made for it (so that a removed project is found again); else the
    current folder.

    Args:
        asked: What ``--project`` named, else None.
        environ: For ``PWD``, ``HOME`` and where stores are.
        store: What ``--store`` named, else None.

    Raises:
        WrongUsage: The folder does not exist and has no store, is a link now, may not be looked
            into, or is a whole system or home.
    """
    project = _find(asked, environ, store)
    if project.is_dir() and not os.access(project, os.R_OK | os.X_OK):
        raise WrongUsage(
            f"the project {project} may not be looked into: its mode is "
            f"{stat.S_IMODE(project.stat().st_mode):04o}",
            hint=f"chmod u+rwx {shlex.quote(str(project))}, then run the same command again",
        )
    return _refuse_whole_homes(project, environ, store)


def _find(asked: str | None, environ: Mapping[str, str], store: str | None) -> Path:
    if asked is not None:
        project = Path(os.path.realpath(os.path.expanduser(asked)))
        _refuse_new_link(Path(os.path.abspath(os.path.expanduser(asked))), environ, store)
        if not project.is_dir() and not _is_known(project, environ, store):
            what = "is not a folder" if project.exists() else "does not exist"
            raise WrongUsage(
                f"the project {project} {what}", hint="correct it: guard --project DIR …"
            )
        return project
    here = current_folder(environ)
    for folder in (here, *here.parents):
        if _is_marked(folder) or _has_past(folder, environ, store):
            return folder
    if not here.is_dir() and not _is_known(here, environ, store):
        raise WrongUsage(
            f"the current folder {here} does not exist any more",
            hint="name the project: guard --project DIR …",
        )
    return here


def configuration_file(project: Path) -> Path | None:
    """Return the file that configures guard for a project, or None."""
    if os.path.isfile(project / CONFIGURATION):
        return project / CONFIGURATION
    return project / _PYPROJECT if _has_tool_table(project) else None


def _is_marked(folder: Path) -> bool:
    return (
        os.path.isfile(folder / CONFIGURATION)
        or os.path.exists(folder / ".git")
        or _has_tool_table(folder)
    )


def _has_tool_table(folder: Path) -> bool:
    try:
        text = (folder / _PYPROJECT).read_bytes()
    except OSError:
        return False
    # Cheap first look; what it really says is read, strictly, by the configuration.
    return any(line.strip().startswith(b"[tool.guard") for line in text.splitlines())


def _is_known(project: Path, environ: Mapping[str, str], store: str | None) -> bool:
    """Return whether the project may have a store although its folder is gone."""
    places = _named_stores(project, environ, store)
    return any(is_store(place) for place in places) or has_store(project, environ)


def _has_past(project: Path, environ: Mapping[str, str], store: str | None) -> bool:
    """Return whether guard has taken a snapshot of this very folder."""
    return has_store(project, environ) or any(
        is_store(place) and holds_past_of(place.absolute(), project)
        for place in _named_stores(project, environ, store)
    )


def _named_stores(project: Path, environ: Mapping[str, str], store: str | None) -> list[Path]:
    """Return where the store of a project would be by an option, a variable, or what was noted."""
    variable = environ.get("GUARD_STORE")
    named = (
        Path(os.path.expanduser(store)) if store else None,  # from the current folder
        project / os.path.expanduser(variable) if variable else None,
        recall(project, environ),
    )
    return [place for place in named if place is not None]


def _refuse_new_link(typed: Path, environ: Mapping[str, str], store: str | None) -> None:
    """Refuse a link that stands where a project was: behind it is not what guard knows.

    Raises:
        WrongUsage: It is one.
    """
    place = Path(os.path.realpath(typed.parent)) / typed.name
    if place.is_symlink() and _has_past(place, environ, store):
        found = find_replaced(os.fsencode(place))
        if found is not None:
            words = f"{found.fix}; then: guard --project {shlex.quote(str(place))} rollback --last"
            raise WrongUsage(f"{found.why}; nothing was written", hint=words)


def _refuse_whole_homes(project: Path, environ: Mapping[str, str], store: str | None) -> Path:
    """Refuse to take `/` or a home for a project unless it says that it is one, or was one."""
    home = os.path.realpath(environ.get("HOME") or "/")
    inside = str(project) == "/" or home == str(project) or home.startswith(f"{project}{os.sep}")
    if not inside or configuration_file(project) is not None:
        return project
    if not _has_past(project, environ, store):
        raise WrongUsage(
            f"{project} is not a project: guard would have to keep all that is in it",
            hint="change to the project's folder, or name it: guard --project DIR …",
        )
    return project


def _removed_folder() -> str:
    """Return where the current folder was, as the kernel remembers it (proc(5)); else empty."""
    try:
        return os.readlink("/proc/self/cwd").removesuffix(" (deleted)")
    except OSError:
        return ""
