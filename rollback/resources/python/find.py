"""The environments that a run may spoil: the one the command uses, and those in the project."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote, urlsplit

from rollback.model import Skip
from rollback.resources.python.command import clues, path_python
from rollback.resources.python.distributions import installed
from rollback.resources.python.model import Clue, Environment, Surroundings
from rollback.resources.python.plausible import may_touch_shared_python, speaks_of_python
from rollback.resources.python.prefix import below, environment_of, virtual_prefix

_LOCKS = re.compile(
    r"(?:(?:uv|poetry|pdm)\.lock|Pipfile\.lock|pylock(?:\.[^.]+)?\.toml|conda-lock\.ya?ml"
    r"|environment\.ya?ml|pixi\.lock|.*requirements.*\.(?:txt|lock|in)|constraints.*\.txt)\Z"
)
_ENTRIES = 2000
"""A project's top-level folders beyond this many are not searched for environments."""

_LOCAL = "the project's .venv"
_PTH_BYTES = 1 << 16


def find_environments(
    command: Sequence[str],
    environ: Mapping[str, str],
    project: Path,
    *,
    cwd: Path | None = None,
) -> list[Environment]:
    """Return the environments that a command can change, the one it uses first.

    guard's own interpreter plays no part: only the command, the child's variables and the
    project's files are looked at, and nothing is started.

    Args:
        command: The command and its arguments; may be empty.
        environ: Environment variables of the child.
        project: The project's folder.
        cwd: Where the command starts; where None, the present folder, or the project's where
            that has been removed.

    Returns:
        One for each prefix, without repeats; empty where no Python is in reach.
    """
    start = _present_folder(project) if cwd is None else os.path.abspath(cwd)
    around = Surroundings(dict(environ), start, os.path.realpath(project))
    found: dict[str, Environment] = {}
    for clue in _used(command, around):
        known = bool(command) or clue.why != _LOCAL
        environment = environment_of(clue, around, used=known)
        if environment is not None:
            found.setdefault(environment.prefix, environment)
    for clue in _inside(around):
        environment = environment_of(clue, around, used=False)
        if environment is not None:
            found.setdefault(environment.prefix, environment)
    locks = lock_files(around.project)
    return [_completed(environment, locks, around) for environment in found.values()]


def lock_files(project: str) -> tuple[str, ...]:
    """Return the lock and requirement files at the top of a project and in `requirements/`."""
    found = []
    for folder, pattern in (
        (project, _LOCKS),
        (os.path.join(project, "requirements"), re.compile(r".*\.(?:txt|lock|in)\Z")),
    ):
        try:
            names = sorted(os.listdir(folder))
        except OSError:
            continue
        found += [os.path.join(folder, name) for name in names if pattern.match(name)]
    return tuple(path for path in found if os.path.isfile(path))


def missing_environment(command: Sequence[str]) -> Skip:
    """Return what to say where `find_environments` found none."""
    name = command[0] if command else "the command"
    why = f"it is not known which Python {name} uses"
    if not any(speaks_of_python(word) for word in command):
        unnamed = f"{name} names no Python, " if command else ""
        why = (
            f"{unnamed}the project has no environment and no Python files; "
            "an interpreter that other projects share is left alone"
        )
    return Skip(
        what="Python environment",
        why=why,
        fix="activate the environment first, or name its interpreter: .venv/bin/python …",
    )


def _present_folder(project: Path) -> str:
    try:
        return os.getcwd()
    except FileNotFoundError:
        return os.path.abspath(project)


def _used(command: Sequence[str], around: Surroundings) -> Iterator[Clue]:
    named = clues(command, around)
    if named:
        yield from named
        return
    active = around.environ.get("VIRTUAL_ENV")
    conda = around.environ.get("CONDA_PREFIX")
    local = os.path.join(around.project, ".venv")
    if active and os.path.isdir(active):
        yield Clue(os.path.join(around.cwd, active), "VIRTUAL_ENV", is_prefix=True)
    elif os.path.isfile(os.path.join(local, "pyvenv.cfg")):
        yield Clue(local, _LOCAL, is_prefix=True)
    elif conda and os.path.isdir(conda):
        yield Clue(conda, "CONDA_PREFIX", is_prefix=True)
    else:
        found = path_python(around)
        if found is not None and (_is_own(found) or may_touch_shared_python(command, around)):
            yield found


def _is_own(clue: Clue) -> bool:
    """Return whether an interpreter is that of an environment, not one for everybody."""
    prefix = os.path.dirname(os.path.dirname(os.path.realpath(clue.path)))
    conda = os.path.isdir(os.path.join(prefix, "conda-meta"))
    return conda or virtual_prefix(clue.path) is not None


def _inside(around: Surroundings) -> Iterator[Clue]:
    """Yield environments at the top of the project; a removal would take them along."""
    try:
        with os.scandir(around.project) as entries:
            for count, entry in enumerate(entries):
                if count >= _ENTRIES:
                    return
                if entry.is_dir() and _is_environment(entry.path):
                    yield Clue(entry.path, "it lies in the project", is_prefix=True)
    except OSError:
        return


def _is_environment(folder: str) -> bool:
    """Return whether a folder is a virtual environment or, with an interpreter, a conda prefix."""
    if os.path.isfile(os.path.join(folder, "pyvenv.cfg")):
        return True
    history = os.path.isfile(os.path.join(folder, "conda-meta", "history"))
    return history and os.path.lexists(os.path.join(folder, "bin", "python"))


def _completed(
    environment: Environment, locks: tuple[str, ...], around: Surroundings
) -> Environment:
    outside = tuple(sorted(_editable(environment, around)))
    skips = tuple(
        Skip(
            what=f"editable install from {folder}",
            why="the folder lies outside the project",
            fix=f'add it to guard.toml: [protect] also = ["{folder}"]',
        )
        for folder in outside
    )
    return replace(environment, lock_files=locks, editable=outside, skips=environment.skips + skips)


def _editable(environment: Environment, around: Surroundings) -> Iterator[str]:
    """Yield folders outside project and prefix that the environment imports from."""
    for folder in {*_from_paths(environment), *_from_origins(environment)}:
        real = os.path.realpath(folder)
        if (
            os.path.isdir(real)
            and not below(real, around.project)
            and not below(real, environment.prefix)
        ):
            yield real


def _from_paths(environment: Environment) -> Iterator[str]:
    """Yield what `*.pth` files add to the path; their `import` lines are not run."""
    for site in environment.site_packages:
        try:
            names = [name for name in os.listdir(site) if name.endswith((".pth", ".egg-link"))]
        except OSError:
            continue
        for name in names:
            try:
                with open(os.path.join(site, name), errors="surrogateescape") as file:
                    lines = file.read(_PTH_BYTES).splitlines()
            except OSError:
                continue
            for line in lines:
                if line.strip() and not line.startswith(("#", "import ", "import\t")):
                    yield os.path.join(site, line.strip())


def _from_origins(environment: Environment) -> Iterator[str]:
    for distribution in installed(environment.site_packages).values():
        origin = distribution.get("origin", "")
        if origin.startswith("editable "):
            parts = urlsplit(origin.removeprefix("editable "))
            if parts.scheme == "file":
                yield unquote(parts.path)
