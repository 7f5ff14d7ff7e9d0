"""From an interpreter's path to its environment, without starting it.

CPython's own rules (Modules/getpath.py): a `pyvenv.cfg` beside the executable or one folder up,
before symlinks are resolved, makes a virtual environment; else the folders above the resolved
executable are searched for the standard library.
"""

from __future__ import annotations

import os
import re

from rollback.model import Skip
from rollback.resources.python.model import Clue, Environment, Surroundings

_LIBRARY = re.compile(r"(?:python|pypy)(\d+\.\d+)t?\Z")
_SMALL_BYTES = 1 << 16


def environment_of(clue: Clue, around: Surroundings, *, used: bool) -> Environment | None:
    """Return the environment that a clue leads to, None where there is none.

    Args:
        clue: Interpreter or prefix.
        around: Variables and folders of the command.
        used: Whether the command will use it.
    """
    if clue.is_prefix:
        prefix: str | None = clue.path
        interpreter = os.path.join(clue.path, "bin", "python")
    else:
        interpreter = clue.path
        prefix = virtual_prefix(interpreter) or _installed_prefix(interpreter)
    if prefix is None or not os.path.isdir(prefix):
        return None
    real = os.path.realpath(prefix)
    if os.path.isfile(os.path.join(real, "pyvenv.cfg")):
        return _build(clue, around, (real, "venv", interpreter), used=used)
    kind = "conda" if os.path.isdir(os.path.join(real, "conda-meta")) else "system"
    if kind == "system" and not _libraries(real):
        return None
    return _build(clue, around, (real, kind, interpreter), used=used)


def virtual_prefix(interpreter: str) -> str | None:
    """Return the virtual environment that an executable lies in, None where in none."""
    folder = os.path.dirname(os.path.abspath(interpreter))
    for candidate in (folder, os.path.dirname(folder)):
        if os.path.isfile(os.path.join(candidate, "pyvenv.cfg")):
            return candidate
    return None


def below(path: str, folder: str) -> bool:
    """Return whether `path` is `folder` or lies in it; both absolute and resolved."""
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def read_settings(path: str) -> dict[str, str]:
    """Return the keys of a `pyvenv.cfg`, lower case; empty where it cannot be read."""
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            lines = file.read(_SMALL_BYTES).splitlines()
    except OSError:
        return {}
    pairs = (line.partition("=") for line in lines if "=" in line)
    return {key.strip().lower(): value.strip() for key, _, value in pairs}


def _installed_prefix(interpreter: str) -> str | None:
    """Return the nearest folder above an executable with a standard library; never ``/``."""
    if not os.path.isfile(interpreter):
        return None
    folder = os.path.dirname(os.path.realpath(interpreter))
    while folder != os.path.dirname(folder):
        if _libraries(folder):
            return folder
        folder = os.path.dirname(folder)
    return None


def _libraries(prefix: str) -> list[str]:
    """Return the standard libraries below a prefix that was installed, newest last."""
    base = os.path.join(prefix, "lib")
    try:
        names = [name for name in os.listdir(base) if _LIBRARY.match(name)]
    except OSError:
        return []
    found = [name for name in names if os.path.isfile(os.path.join(base, name, "os.py"))]
    return [os.path.join(base, name) for name in sorted(found, key=_minor)]


def _minor(name: str) -> tuple[int, ...]:
    match = _LIBRARY.search(name)
    return tuple(map(int, match[1].split("."))) if match else ()


def _build(
    clue: Clue, around: Surroundings, found: tuple[str, str, str], *, used: bool
) -> Environment:
    prefix, kind, interpreter = found
    skips: list[Skip] = []
    if kind == "venv":
        sites, scripts = _venv_sites(prefix), os.path.join(prefix, "bin")
        version = _venv_version(prefix, sites)
    elif kind == "conda":
        library = _library_for(prefix, interpreter)
        sites = _existing([os.path.join(library, "site-packages")])
        scripts = os.path.join(prefix, "bin")
        version = _conda_version(prefix) or _minor_text(library)
    else:
        library = _library_for(prefix, interpreter)
        sites, scripts, skips = _system_sites(prefix, library, around)
        version = _minor_text(library)
    return Environment(
        prefix=prefix,
        kind=kind,
        interpreter=interpreter,
        version=version,
        site_packages=tuple(sites),
        scripts=scripts,
        why=clue.why,
        used=used,
        inside_project=below(prefix, around.project),
        skips=tuple(skips),
    )


def _existing(folders: list[str]) -> list[str]:
    return [folder for folder in folders if os.path.isdir(folder)]


def _venv_sites(prefix: str) -> list[str]:
    """Return purelib and, where it is not the same folder by a link, platlib."""
    found: dict[str, None] = {}
    for lib in ("lib", "lib64"):
        base = os.path.join(prefix, lib)
        try:
            names = sorted(name for name in os.listdir(base) if _LIBRARY.match(name))
        except OSError:
            continue
        for name in names:
            folder = os.path.realpath(os.path.join(base, name, "site-packages"))
            if os.path.isdir(folder):
                found[folder] = None
    return list(found)


def _venv_version(prefix: str, sites: list[str]) -> str:
    settings = read_settings(os.path.join(prefix, "pyvenv.cfg"))
    written = settings.get("version") or settings.get("version_info") or ""
    match = re.match(r"\d+\.\d+(?:\.\d+)?", written)
    if match:
        return match[0]
    return _minor_text(os.path.dirname(sites[0])) if sites else ""


def _minor_text(library: str) -> str:
    match = _LIBRARY.search(library)
    return match[1] if match else ""


def _library_for(prefix: str, interpreter: str) -> str:
    """Return the standard library of one interpreter where a prefix has several."""
    libraries = _libraries(prefix)
    name = os.path.basename(os.path.realpath(interpreter))
    for library in libraries:
        if os.path.basename(library) == name:
            return library
    return libraries[-1] if libraries else os.path.join(prefix, "lib", "python")


def _conda_version(prefix: str) -> str:
    try:
        names = os.listdir(os.path.join(prefix, "conda-meta"))
    except OSError:
        return ""
    for name in names:
        match = re.match(r"python-(\d+\.\d+\.\d+)-", name)
        if match:
            return match[1]
    return ""


def _system_sites(
    prefix: str, library: str, around: Surroundings
) -> tuple[list[str], str, list[Skip]]:
    """Return what pip may write to outside of any environment: purelib, user site, scripts."""
    name = os.path.basename(library)
    managed = os.path.isfile(os.path.join(library, "EXTERNALLY-MANAGED"))
    purelib, scripts = os.path.join(library, "site-packages"), os.path.join(prefix, "bin")
    if prefix == "/usr":  # Debian: apt owns dist-packages below /usr, pip writes to /usr/local
        local = os.path.join("/usr/local/lib", name, "dist-packages")
        if os.path.isdir(local):
            purelib, scripts = local, "/usr/local/bin"
    base = around.environ.get("PYTHONUSERBASE") or os.path.join(
        around.environ.get("HOME") or os.path.expanduser("~"), ".local"
    )
    sites, skips = [], []
    if os.access(purelib, os.W_OK):
        sites.append(os.path.realpath(purelib))
    elif os.path.isdir(purelib):
        reason = "the operating system manages it" if managed else "you may not write there"
        skips.append(
            Skip(
                what=f"packages in {purelib}",
                why=f"{reason}, so a command of yours cannot change it either",
                fix="give the project an environment of its own: python -m venv .venv",
            )
        )
    user = os.path.realpath(os.path.join(base, "lib", name, "site-packages"))
    return sites + _existing([user]), scripts, skips
