"""What is known of a Python environment before anything of it is started."""

from __future__ import annotations

from dataclasses import dataclass

from rollback.model import Skip


@dataclass(frozen=True, slots=True)
class Environment:
    """One Python environment: where it lies and why it matters here.

    Attributes:
        prefix: Absolute folder, symlinks resolved; `sys.prefix` of its interpreter.
        kind: ``venv``, ``conda`` or ``system``.
        interpreter: Path that starts it, as the command would; symlinks not resolved.
        version: ``3.11.7`` where it is written down, else ``3.11``, else empty.
        site_packages: Folders with installed distributions, absolute, those that exist.
        scripts: Folder with its console scripts.
        why: How it was found: ``the command names it``, ``VIRTUAL_ENV`` …
        used: Whether the command will use it; False for one that merely lies in the project,
            whose interpreter is never started.
        inside_project: Whether an `rm -rf` of the project takes it along.
        lock_files: Lock files of the project, absolute.
        editable: Folders outside project and prefix that it imports from.
        skips: What of it cannot be captured.
    """

    prefix: str
    kind: str
    interpreter: str
    version: str
    site_packages: tuple[str, ...]
    scripts: str
    why: str
    used: bool
    inside_project: bool
    lock_files: tuple[str, ...] = ()
    editable: tuple[str, ...] = ()
    skips: tuple[Skip, ...] = ()


@dataclass(frozen=True, slots=True)
class Clue:
    """An interpreter or an environment's folder that something points to.

    Attributes:
        path: Absolute path of an interpreter, or of a prefix where `is_prefix`.
        why: Who points to it.
        is_prefix: Whether `path` is the environment's folder.
    """

    path: str
    why: str
    is_prefix: bool = False


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a command's meaning depends on.

    Attributes:
        environ: Environment variables of the child, not of guard.
        cwd: Folder in which the command starts, absolute.
        project: The project, absolute, symlinks resolved.
    """

    environ: dict[str, str]
    cwd: str
    project: str
