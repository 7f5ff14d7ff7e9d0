"""Where project tools (uv, poetry, pdm, hatch, pipenv, conda, pixi) keep a project's environment.

Each rule is the tool's documented look-up, read from files; no tool is started. What a tool
would only create later is not there to protect, and yields nothing.
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from rollback.resources.python.model import Clue, Surroundings

_UV_PIP = frozenset({"pip", "venv"})


def launched(words: Sequence[str], around: Surroundings) -> list[Clue] | None:
    """Return the environments that a launcher's command works on.

    Args:
        words: A command; its first word names a program.
        around: Variables and folders of the command.

    Returns:
        None where the program is no launcher; an empty list where the environment that it
        would use does not exist.
    """
    name = os.path.basename(words[0])
    rule = _RULES.get(name)
    if rule is None:
        return None
    folders = [folder for folder in rule(list(words[1:]), around) if _is_environment(folder)]
    return [
        Clue(os.path.normpath(folder), f"{name} uses it", is_prefix=True) for folder in folders[:1]
    ]


def _is_environment(folder: str) -> bool:
    return os.path.isfile(os.path.join(folder, "pyvenv.cfg")) or os.path.isdir(
        os.path.join(folder, "conda-meta")
    )


def _option(words: Sequence[str], *names: str) -> str | None:
    """Return the value of the first of these options before `--`, in either spelling."""
    for index, word in enumerate(words):
        if word == "--":
            break
        if word in names and index + 1 < len(words):
            return words[index + 1]
        for name in names:
            if name.startswith("--") and word.startswith(name + "="):
                return word[len(name) + 1 :]
    return None


def _parents(folder: str) -> Iterator[str]:
    while True:
        yield folder
        parent = os.path.dirname(folder)
        if parent == folder:
            return
        folder = parent


def _uv(words: list[str], around: Surroundings) -> Iterator[str]:
    folder = os.path.join(
        around.cwd, _option(words, "--directory") or "", _option(words, "--project") or ""
    )
    python = _option(words, "--python", "-p")
    if python and "/" in python and words[:1] == ["pip"]:
        yield _prefix_of(os.path.join(folder, python))
    if words[:1] == ["tool"]:
        return
    active = around.environ.get("VIRTUAL_ENV")
    pip = bool(words) and words[0] in _UV_PIP
    if active and (pip or "--active" in words):
        yield os.path.join(around.cwd, active)
    if pip and around.environ.get("CONDA_PREFIX"):
        yield around.environ["CONDA_PREFIX"]
    for parent in _parents(os.path.normpath(folder)):
        if os.path.isfile(os.path.join(parent, "pyproject.toml")):
            chosen = around.environ.get("UV_PROJECT_ENVIRONMENT")
            if chosen and not pip:
                yield os.path.join(parent, chosen)
        yield os.path.join(parent, ".venv")
    if active:
        yield os.path.join(around.cwd, active)


def _prefix_of(python: str) -> str:
    return os.path.dirname(os.path.dirname(python)) if os.path.isfile(python) else python


def _poetry(words: list[str], around: Surroundings) -> Iterator[str]:
    folder = _option(words, "--directory", "-C", "--project", "-P")
    folder = os.path.join(around.cwd, folder) if folder else around.project
    if around.environ.get("VIRTUAL_ENV"):
        yield os.path.join(around.cwd, around.environ["VIRTUAL_ENV"])
    yield os.path.join(folder, ".venv")
    data = _toml(os.path.join(folder, "pyproject.toml"))
    name = _text(data, "project", "name") or _text(data, "tool", "poetry", "name")
    if not name:
        return
    base = around.environ.get("POETRY_VIRTUALENVS_PATH") or os.path.join(
        around.environ.get("POETRY_CACHE_DIR") or os.path.join(_cache(around), "pypoetry"),
        "virtualenvs",
    )
    # poetry/utils/env/env_manager.py: generate_env_name
    clean = re.sub(r'[ $`!*@"\\\r\n\t]', "_", name.lower())[:42]
    stem = f"{clean}-{_digest(os.path.realpath(folder))[:8]}"
    minor = _text(_toml(os.path.join(base, "envs.toml")), stem, "minor")
    if minor:
        yield os.path.join(base, f"{stem}-py{minor}")
    yield from _newest(base, stem + "-py")


def _pdm(words: list[str], around: Surroundings) -> Iterator[str]:
    folder = _option(words, "--project", "-p")
    folder = os.path.join(around.cwd, folder) if folder else around.project
    chosen = around.environ.get("PDM_PYTHON") or _line(os.path.join(folder, ".pdm-python"))
    if chosen:
        yield _prefix_of(os.path.join(folder, chosen))
    if around.environ.get("VIRTUAL_ENV"):
        yield os.path.join(around.cwd, around.environ["VIRTUAL_ENV"])
    yield os.path.join(folder, ".venv")


def _pipenv(_words: list[str], around: Surroundings) -> Iterator[str]:
    if around.environ.get("VIRTUAL_ENV") and not around.environ.get("PIPENV_IGNORE_VIRTUALENVS"):
        yield os.path.join(around.cwd, around.environ["VIRTUAL_ENV"])
    inside = os.path.join(around.project, ".venv")
    yield inside
    named = _line(inside)
    base = around.environ.get("WORKON_HOME") or os.path.join(_data(around), "virtualenvs")
    base = os.path.expanduser(base)
    if named:
        yield os.path.join(around.project if "/" in named else base, named)
    try:
        names = sorted(os.listdir(base))
    except OSError:
        return
    for name in names:  # pipenv writes the project's folder into each environment
        written = _line(os.path.join(base, name, ".project"))
        if written and os.path.realpath(written) == around.project:
            yield os.path.join(base, name)


def _hatch(words: list[str], around: Surroundings) -> Iterator[str]:
    data = _toml(os.path.join(around.project, "pyproject.toml"))
    project = re.sub(r"[-_.]+", "-", _text(data, "project", "name") or "").lower()
    wanted = _option(words, "--env", "-e") or around.environ.get("HATCH_ENV") or "default"
    operands = [word for word in words if not word.startswith("-")]
    if operands[:1] == ["run"] and len(operands) > 1 and ":" in operands[1]:
        wanted = operands[1].partition(":")[0] or wanted
    base = around.environ.get("HATCH_DATA_DIR") or os.path.join(_data(around), "hatch")
    checksum = _digest(around.project)[:8]
    name = project if wanted == "default" else wanted
    yield os.path.join(base, "env", "virtual", project, checksum, name)
    yield os.path.join(base, "env", "virtual", f"{project}-{checksum}", name)
    yield os.path.join(around.project, ".venv")


def _conda(words: list[str], around: Surroundings) -> Iterator[str]:
    prefix = _option(words, "--prefix", "-p")
    if prefix:
        yield os.path.join(around.cwd, os.path.expanduser(prefix))
        return
    name = _option(words, "--name", "-n")
    if name and "/" in name:
        yield os.path.join(around.cwd, name)
    elif name:
        for base in _conda_bases(around):
            yield base if name in {"base", "root"} else os.path.join(base, "envs", name)
        for variable in ("CONDA_ENVS_PATH", "CONDA_ENVS_DIRS"):
            for folder in filter(None, around.environ.get(variable, "").split(os.pathsep)):
                yield os.path.join(folder, name)
        yield os.path.join(_home(around), ".conda", "envs", name)
        for known in _known_to_conda(around):
            if os.path.basename(known) == name:
                yield known
    elif around.environ.get("CONDA_PREFIX"):
        yield around.environ["CONDA_PREFIX"]


def _conda_bases(around: Surroundings) -> Iterator[str]:
    if around.environ.get("CONDA_EXE"):
        yield os.path.dirname(os.path.dirname(around.environ["CONDA_EXE"]))
    if around.environ.get("MAMBA_ROOT_PREFIX"):
        yield around.environ["MAMBA_ROOT_PREFIX"]
    active = around.environ.get("CONDA_PREFIX", "")
    if active:
        parent = os.path.dirname(active)
        yield os.path.dirname(parent) if os.path.basename(parent) == "envs" else active
    for known in _known_to_conda(around):
        if os.path.basename(os.path.dirname(known)) != "envs":
            yield known


def _known_to_conda(around: Surroundings) -> list[str]:
    try:
        with open(os.path.join(_home(around), ".conda", "environments.txt")) as file:
            return [line.strip() for line in file if line.strip()]
    except (OSError, UnicodeError):
        return []


def _pixi(words: list[str], around: Surroundings) -> Iterator[str]:
    name = _option(words, "--environment", "-e") or "default"
    manifest = _option(words, "--manifest-path")
    start = os.path.dirname(os.path.join(around.cwd, manifest)) if manifest else around.cwd
    for folder in _parents(start):
        yield os.path.join(folder, ".pixi", "envs", name)


def _home(around: Surroundings) -> str:
    return around.environ.get("HOME") or os.path.expanduser("~")


def _cache(around: Surroundings) -> str:
    return around.environ.get("XDG_CACHE_HOME") or os.path.join(_home(around), ".cache")


def _data(around: Surroundings) -> str:
    return around.environ.get("XDG_DATA_HOME") or os.path.join(_home(around), ".local", "share")


def _digest(text: str) -> str:
    digest = hashlib.sha256(os.fsencode(text)).digest()
    return base64.urlsafe_b64encode(digest).decode()


def _newest(base: str, prefix: str) -> list[str]:
    try:
        with os.scandir(base) as entries:
            found = [
                (entry.stat().st_mtime, entry.path)
                for entry in entries
                if entry.name.startswith(prefix)
            ]
    except OSError:
        return []
    return [path for _, path in sorted(found, reverse=True)]


def _line(path: str) -> str:
    if not os.path.isfile(path):
        return ""
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return file.readline(4096).strip()
    except OSError:
        return ""


def _toml(path: str) -> dict[str, Any]:
    import tomllib  # noqa: PLC0415 - most commands need none

    try:
        with open(path, "rb") as file:
            return tomllib.load(file)
    except (OSError, ValueError):
        return {}


def _text(data: Any, *keys: str) -> str:
    for key in keys:
        data = data.get(key) if isinstance(data, dict) else None
    return data if isinstance(data, str) else ""


_RULES: dict[str, Callable[[list[str], Surroundings], Iterator[str]]] = {
    "uv": _uv,
    "poetry": _poetry,
    "pdm": _pdm,
    "pipenv": _pipenv,
    "hatch": _hatch,
    "conda": _conda,
    "mamba": _conda,
    "micromamba": _conda,
    "pixi": _pixi,
}
