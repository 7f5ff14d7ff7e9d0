"""The real program behind a shim of pyenv, asdf or mise."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

from rollback.resources.python.model import Surroundings


def is_shim(path: str) -> bool:
    """Return whether `path` is a stand-in that picks a version when it is started."""
    return os.path.basename(os.path.dirname(path)) == "shims"


def behind_shim(path: str, around: Surroundings) -> str | None:
    """Return the program that a shim starts here, None where that cannot be told.

    Args:
        path: The shim.
        around: `PYENV_VERSION` and its like; the folder where version files are searched.
    """
    name = os.path.basename(path)
    for wanted in _wanted(around, _root_of(path)):
        if wanted == "system":
            return _without_shims(name, around)
        for folder in _installed(_root_of(path), wanted):
            program = os.path.join(folder, "bin", name)
            if os.path.isfile(program):
                return program
    return None


def _root_of(shim: str) -> str:
    return os.path.dirname(os.path.dirname(os.path.abspath(shim)))


def _wanted(around: Surroundings, root: str) -> Iterator[str]:
    """Yield versions in the order in which pyenv (else asdf, mise) tries them."""
    for variable in ("PYENV_VERSION", "ASDF_PYTHON_VERSION", "MISE_PYTHON_VERSION"):
        if around.environ.get(variable):
            yield from re.split(r"[:\s]+", around.environ[variable].strip())
            return
    folder = around.environ.get("PYENV_DIR") or around.cwd
    while True:
        versions = _in_folder(folder)
        if versions:
            yield from versions
            return
        parent = os.path.dirname(folder)
        if parent == folder:
            break
        folder = parent
    yield from _lines(os.path.join(root, "version"))
    yield from _tools(os.path.join(around.environ.get("HOME", "/"), ".tool-versions"))
    yield "system"


def _in_folder(folder: str) -> list[str]:
    return _lines(os.path.join(folder, ".python-version")) or _tools(
        os.path.join(folder, ".tool-versions")
    )


def _lines(path: str) -> list[str]:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            lines = file.read(4096).splitlines()
    except OSError:
        return []
    words = (line.partition("#")[0].split() for line in lines)
    return [word for line in words for word in line]


def _tools(path: str) -> list[str]:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            lines = file.read(4096).splitlines()
    except OSError:
        return []
    for line in lines:
        words = line.partition("#")[0].split()
        if words[:1] == ["python"]:
            return words[1:]
    return []


def _installed(root: str, wanted: str) -> list[str]:
    """Return folders of a version, the exact one first, then the newest that it abbreviates."""
    bases = [os.path.join(root, "versions"), os.path.join(root, "installs", "python")]
    found: list[str] = []
    for base in bases:
        exact = os.path.join(base, wanted)
        if os.path.isdir(exact):
            found.append(exact)
        try:
            names = [name for name in os.listdir(base) if name.startswith(wanted + ".")]
        except OSError:
            continue
        found += [os.path.join(base, name) for name in sorted(names, key=_order, reverse=True)]
    return found


def _order(name: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", name)]


def _without_shims(name: str, around: Surroundings) -> str | None:
    for folder in around.environ.get("PATH", os.defpath).split(os.pathsep):
        program = os.path.join(around.cwd, folder, name)
        if not is_shim(program) and os.path.isfile(program) and os.access(program, os.X_OK):
            return program
    return None
