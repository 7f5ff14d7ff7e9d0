"""The file trees of an environment that a snapshot captures, and which files may be linked."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from rollback.model import Category, Policy
from rollback.resources.base import Root
from rollback.resources.python.distributions import installed
from rollback.resources.python.model import Environment
from rollback.resources.python.records import RecordIndex

_LEFT_OUT = frozenset({b"__pycache__"})
_CONDA_SHARED = frozenset({b"pkgs", b"envs", b"conda-bld", b"locks"})
"""What conda's base prefix holds besides its own environment."""


def environment_roots(environment: Environment) -> list[Root]:
    """Return the roots that capture an environment.

    A virtual environment or conda prefix is one tree. Of an interpreter that is installed for
    everybody only the folders are taken that its pip writes to, and its own scripts.

    Args:
        environment: From `find_environments`.
    """
    label = f"python {os.path.basename(environment.prefix)}"
    if environment.kind == "system":
        paths = list(environment.site_packages)
        if paths and os.access(environment.scripts, os.W_OK):
            paths.append(environment.scripts)
    else:
        paths = [environment.prefix]
    roots = [environment_root_from(_parameters(path, environment, label)) for path in paths]
    return [replace(root, facts=_facts(environment)) for root in roots[:1]] + roots[1:]


def environment_root_from(parameters: Mapping[str, Any]) -> Root:
    """Return the root again that `environment_roots` made, from its `parameters`."""
    path = os.fsencode(parameters["path"])
    sites = tuple(os.fsencode(site) for site in parameters["site_packages"])
    kind = parameters["kind"]
    conda = os.path.join(path, b"conda-meta") if kind == "conda" else None
    index = RecordIndex(path, sites, conda)
    excluded: Callable[[bytes], bool] | None = None
    if kind == "conda":
        excluded = _shared_by_conda
    elif path == os.fsencode(parameters["scripts"]):
        excluded = _OtherPrograms(path, os.fsencode(parameters["prefix"]), index)
    return Root(
        resource="python",
        name=parameters["name"],
        path=path,
        category=Category.DEPENDENCIES,
        policy=_EnvironmentPolicy(index),
        leave_out=_LEFT_OUT,
        excluded=excluded,
        intact=index.intact,
        parameters=parameters,
    )


def _parameters(path: str, environment: Environment, label: str) -> dict[str, Any]:
    return {
        "name": f"{label} ({path})",
        "path": path,
        "prefix": environment.prefix,
        "kind": environment.kind,
        "site_packages": list(environment.site_packages),
        "scripts": environment.scripts,
        "interpreter": environment.interpreter,
        "version": environment.version,
        "used": environment.used,
    }


def environment_from(parameters: Mapping[str, Any]) -> Environment | None:
    """Return the environment that a root's `parameters` speak of; None where they are too old."""
    if "interpreter" not in parameters:
        return None
    sites = tuple(parameters["site_packages"])
    return Environment(
        prefix=parameters["prefix"],
        kind=parameters["kind"],
        interpreter=parameters["interpreter"],
        version=parameters["version"],
        site_packages=sites,
        scripts=parameters["scripts"],
        why="",
        used=parameters["used"],
        inside_project=False,
    )


def _facts(environment: Environment) -> dict[str, Any]:
    return {
        "prefix": environment.prefix,
        "kind": environment.kind,
        "interpreter": environment.interpreter,
        "version": environment.version,
        "why": environment.why,
        "used": environment.used,
        "lock_files": list(environment.lock_files),
        "editable": list(environment.editable),
        "distributions": installed(environment.site_packages),
    }


@dataclass(frozen=True, slots=True)
class _EnvironmentPolicy:
    """Links what an installer listed and never rewrites; copies what tools edit in place.

    And what a person edited already: a link would be its only copy, which no installer has.
    """

    index: RecordIndex

    def __call__(self, path: bytes) -> Policy:
        if path.endswith((b".pth", b".egg-link", b"pyvenv.cfg")) or b".dist-info/" in path:
            return Policy.COPY
        if path.rpartition(b"/")[2].startswith(b"__editable__"):
            return Policy.COPY
        if path.startswith(b"bin/") and self.index.conda is None:
            return Policy.COPY
        linked = path in self.index and not self.index.edited_since(path)
        return Policy.LINK if linked else Policy.COPY


def _shared_by_conda(path: bytes) -> bool:
    return path.partition(b"/")[0] in _CONDA_SHARED


@dataclass(frozen=True, slots=True)
class _OtherPrograms:
    """Says which files of a shared `bin` folder are none of this interpreter's distributions."""

    folder: bytes
    prefix: bytes
    index: RecordIndex

    def __call__(self, path: bytes) -> bool:
        return not (self._own_script(path) or path in self.index)

    def _own_script(self, path: bytes) -> bool:
        try:
            handle = os.open(
                os.path.join(self.folder, path), os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW
            )
        except OSError:
            return False
        try:
            first = os.read(handle, 256).partition(b"\n")[0]
        except OSError:
            return False
        finally:
            os.close(handle)
        return first.startswith(b"#!") and b"python" in first and self.prefix + b"/" in first
