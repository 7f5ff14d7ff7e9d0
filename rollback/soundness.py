"""Whether what was put back works: repositories are read, environments proven, in bounded time.

An exact restore brings damage back that was there before; so what is found here is named and
does not make the restore fail.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from rollback.errors import RollbackError
from rollback.model import Skip
from rollback.resources.base import Root

GIT_S = 10.0
"""Longest that the objects of one repository are walked."""


@dataclass(frozen=True, slots=True)
class Soundness:
    """What was found.

    Attributes:
        problems: What does not work, one line each.
        skips: What could not be found out.
    """

    problems: tuple[str, ...] = ()
    skips: tuple[Skip, ...] = ()

    def __add__(self, other: Soundness) -> Soundness:
        return Soundness(self.problems + other.problems, self.skips + other.skips)


def check_roots(roots: Iterable[Root], environ: Mapping[str, str] | None) -> Soundness:
    """Check the live repositories and environments behind roots, each once.

    Args:
        roots: Those that a restore touched.
        environ: Variables of the user's command; guard's own where None.
    """
    found = Soundness()
    seen: set[str] = set()
    for root in roots:
        key = str(root.parameters.get("commondir") or root.parameters.get("prefix") or "")
        if key and key not in seen:
            seen.add(key)
            found += check_root(root, environ)
    return found


def check_root(
    root: Root, environ: Mapping[str, str] | None, place: bytes | None = None
) -> Soundness:
    """Check one repository or environment; any other root has nothing to say.

    Args:
        root: The root.
        environ: Variables of the user's command; guard's own where None.
        place: A rebuilt copy of the root; the live one where None.
    """
    try:
        if root.resource == "git":
            return _check_git(root, environ, place)
        if root.resource == "python":
            return _check_environment(root, environ, place)
    except (RollbackError, OSError) as error:
        return Soundness(skips=(Skip(f"check of {root.name}", str(error), "guard status"),))
    return Soundness()


def can_be_checked_apart(root: Root) -> bool:
    """Return whether a rebuilt copy of a root stands for itself, without the live one."""
    if root.resource == "python":
        return True
    if root.resource != "git":
        return False
    from rollback.resources.git import alternates  # noqa: PLC0415 - a plug

    whole = root.parameters["gitdir"] == root.parameters["commondir"]
    return whole and not alternates(os.fsencode(root.parameters["commondir"]))


def _check_git(root: Root, environ: Mapping[str, str] | None, place: bytes | None) -> Soundness:
    from rollback.resources.git.layout import GitLayout  # noqa: PLC0415 - a plug
    from rollback.resources.git.verify import verify_git  # noqa: PLC0415

    gitdir = os.fsencode(root.parameters["gitdir"])
    commondir = os.fsencode(root.parameters["commondir"])
    project = os.fsencode(root.parameters["project"])
    # Known so that no `git` of the work tree's own is started.
    top = os.path.dirname(gitdir) if os.path.basename(gitdir) == b".git" else project
    layout = GitLayout(gitdir, commondir, top)
    if place is not None:
        layout = GitLayout(place, place, top)
    verdict = verify_git(layout, environ, timeout_s=GIT_S)
    return Soundness(tuple(f"{root.name}: {p}" for p in verdict.problems), verdict.skips)


def _check_environment(
    root: Root, environ: Mapping[str, str] | None, place: bytes | None
) -> Soundness:
    from rollback.resources.python.roots import environment_from  # noqa: PLC0415 - a plug
    from rollback.resources.python.verify import verify_environment  # noqa: PLC0415

    environment = environment_from(root.parameters)
    if environment is None:
        return Soundness()
    if place is not None:
        base, copy = os.fsdecode(root.path), os.fsdecode(place)

        def moved(path: str) -> str:
            inside = path == base or path.startswith(base + "/")
            return copy + path[len(base) :] if inside else path

        # Of an interpreter for everybody, packages and scripts are kept, not the interpreter.
        shared = environment.kind == "system"
        environment = replace(
            environment,
            prefix=moved(environment.prefix),
            interpreter=environment.interpreter if shared else moved(environment.interpreter),
            site_packages=tuple(map(moved, environment.site_packages)),
        )
    verdict = verify_environment(environment, environ)
    return Soundness(tuple(f"{root.name}: {problem}" for problem in verdict.problems))
