"""What a project has that can be captured: roots, databases, and what is not available."""

from __future__ import annotations

import fnmatch
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rollback.model import Category, Entry, Kind, Policy, ResourceState, Skip
from rollback.plan import TreeTarget
from rollback.recorded import RecordedFiles
from rollback.resources.base import DEFAULT_LEAVE_OUT, Resource, Root
from rollback.resources.git.attest import git_intact
from rollback.resources.git.policy import git_keep_extra, git_policy
from rollback.store.blobs import BlobReader


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """What the engine has to know of a project and of the command that is about to run.

    Attributes:
        project: Absolute path of the project.
        store: Where the store shall be; None chooses.
        max_store_bytes: Quota of the store.
        exclude: Patterns that are left out.
        watch: Patterns that are only fingerprinted.
        also: Folders outside the project.
        databases: SQLite files outside the project.
        command: The command's words; may be empty.
        environ: Environment variables of the command.
        variables: Names of variables whose values may be kept.
    """

    project: Path
    store: Path | None = None
    max_store_bytes: int = 20_000_000_000
    exclude: tuple[str, ...] = ()
    watch: tuple[str, ...] = ()
    also: tuple[Path, ...] = ()
    databases: tuple[Path, ...] = ()
    command: tuple[str, ...] = ()
    environ: Mapping[str, str] = field(default_factory=dict)
    variables: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Inventory:
    """The roots and databases of a project, and what is not available.

    Attributes:
        roots: File trees, the project first.
        databases: SQLite files outside all roots that look for them.
        skipped: Safeguards that are not available here.
        facts: What is shown: git head, Python version.
    """

    roots: tuple[Root, ...]
    databases: tuple[Path, ...]
    skipped: tuple[Skip, ...]
    facts: Mapping[str, Any]


def take_inventory(settings: EngineSettings, store: Path) -> Inventory:
    """Find what can be captured; starts no process and imports nothing heavy.

    Args:
        settings: Project and command.
        store: Where the store is: it is never part of a snapshot.
    """
    project = os.path.realpath(os.fsencode(settings.project))
    git, skips, facts = _find_git(project)
    environments, more, python = _find_python(settings)
    facts.update(python)
    roots = [*git, *environments]
    own = os.path.realpath(os.fsencode(store))
    nested = frozenset(
        os.path.relpath(path, project)
        for path in [own, *(root.path for root in roots)]
        if path.startswith(project + b"/")
    )
    main = project_root(project, settings.exclude, settings.watch, nested)
    others = [
        other_root(path, nested_in(path, [own, *(r.path for r in roots)]))
        for path in _outside(settings.also, project)
    ]
    found = (main, *others, *roots)
    covered = [project, *(root.path for root in others)]
    databases = tuple(
        path
        for path in settings.databases
        if not any(_below(os.path.realpath(os.fsencode(path)), folder) for folder in covered)
    )
    return Inventory(_unique(found), databases, (*skips, *more), facts)


def _find_git(project: bytes) -> tuple[list[Root], list[Skip], dict[str, Any]]:
    from rollback.resources.git.describe import describe_git  # noqa: PLC0415 - a plug
    from rollback.resources.git.layout import find_git  # noqa: PLC0415
    from rollback.resources.git.roots import git_roots, git_skips  # noqa: PLC0415

    layout = find_git(project)
    if layout is None:
        fix = "git init && git add -A && git commit"
        return [], [Skip("git", "the project is not in a git repository", fix)], {}
    return (
        git_roots(layout, project),
        git_skips(layout, project),
        {"git": describe_git(layout)},
    )


def _find_python(settings: EngineSettings) -> tuple[list[Root], list[Skip], dict[str, Any]]:
    from rollback.resources.python import (  # noqa: PLC0415 - a plug
        environment_roots,
        find_environments,
        missing_environment,
    )

    environments = find_environments(settings.command, settings.environ, settings.project)
    roots = [root for environment in environments for root in environment_roots(environment)]
    skips = [skip for environment in environments for skip in environment.skips]
    if not environments:
        skips.append(missing_environment(settings.command))
    facts = {
        "python": [
            {"prefix": e.prefix, "kind": e.kind, "version": e.version, "why": e.why}
            for e in environments
        ]
    }
    return roots, skips, facts


def project_root(
    path: bytes, exclude: Sequence[str], watch: Sequence[str], nested: frozenset[bytes]
) -> Root:
    """Return the root of the project itself.

    Args:
        path: Absolute path, links resolved.
        exclude: Patterns that are left out.
        watch: Patterns that are only fingerprinted.
        nested: Relative paths that other roots capture.
    """
    watched = compile_patterns(watch)

    def policy(relative: bytes) -> Policy:
        if watched is not None and watched(relative):
            return Policy.WATCH
        return git_policy(relative)

    return Root(
        "files",
        "project",
        path,
        Category.CODE,
        policy=policy,
        leave_out=DEFAULT_LEAVE_OUT,
        excluded=compile_patterns(exclude),
        nested=nested,
        keep_extra=git_keep_extra,
        intact=git_intact,
        find_databases=True,
        parameters={
            "path": os.fsdecode(path),
            "exclude": list(exclude),
            "watch": list(watch),
            "nested": sorted(os.fsdecode(name) for name in nested),
        },
    )


def other_root(path: bytes, nested: frozenset[bytes]) -> Root:
    """Return the root of a folder outside the project."""
    root = project_root(path, (), (), nested)
    return replace(root, name=f"also {os.fsdecode(path)}")


def root_from(state: ResourceState) -> Root:
    """Return the root that a snapshot's state describes."""
    parameters = state.data["parameters"]
    if state.resource == "git":
        from rollback.resources.git.roots import git_root_from  # noqa: PLC0415 - a plug

        return replace(git_root_from(parameters, leave_foreign=True), intact=git_intact)
    if state.resource == "python":
        from rollback.resources.python.roots import environment_root_from  # noqa: PLC0415

        return environment_root_from(parameters)
    nested = frozenset(os.fsencode(name) for name in parameters["nested"])
    path = os.fsencode(parameters["path"])
    root = project_root(path, parameters["exclude"], parameters["watch"], nested)
    return replace(root, name=state.name)


def present_facts(state: ResourceState | None) -> dict[str, Any]:
    """Return what is shown of a state's root, as it is now: an environment's distributions."""
    facts = {} if state is None else dict(state.data.get("facts", {}))
    if state is not None and "distributions" in facts:
        from rollback.resources.python import installed  # noqa: PLC0415 - a plug

        facts["distributions"] = installed(state.data["parameters"]["site_packages"])
    return facts


def target_from(state: ResourceState, reader: BlobReader) -> TreeTarget:
    """Return the target that a snapshot's state of a file tree describes.

    Args:
        state: Of a snapshot.
        reader: The store that has it.
    """
    data = state.data
    mode, uid, gid, mtime_ns, xattrs = data["meta"]
    attributes = tuple((bytes.fromhex(k), bytes.fromhex(v)) for k, v in xattrs)
    meta = Entry(b"root", Kind.DIRECTORY, mode, uid, gid, mtime_ns, 0, b"", attributes)
    links = [[os.fsencode(path) for path in group] for group in data["links"]]
    root, tree = root_from(state), bytes.fromhex(data["tree"])
    recorded = None
    if state.resource == "python":
        recorded = RecordedFiles(root, tree, reader)
        root = replace(root, intact=recorded.intact)
    return TreeTarget(root, data["present"], tree, meta, links, recorded)


def is_tree(state: ResourceState) -> bool:
    """Return whether a state is that of a file tree."""
    return "tree" in state.data


def is_absent(state: ResourceState) -> bool:
    """Return whether a state says of a database that there was none."""
    return state.data.get("mode") == "absent"


def database(path: bytes, project: bytes) -> Resource:
    """Return the resource of a SQLite file."""
    from rollback.resources.sqlite import SqliteResource  # noqa: PLC0415 - a plug

    shown = os.path.relpath(path, project) if _below(path, project) else path
    return SqliteResource(Path(os.fsdecode(path)), name=os.fsdecode(shown))


def resource_from(state: ResourceState) -> Resource:
    """Return the resource that a snapshot's state describes."""
    from rollback.resources.sqlite import SqliteResource  # noqa: PLC0415 - a plug

    return SqliteResource.from_state(state)


def compile_patterns(patterns: Sequence[str]) -> Callable[[bytes], bool] | None:
    """Return a test for paths relative to a root, or None where there is no pattern.

    A pattern with a slash inside is anchored at the root; without one it matches a name at any
    depth. A folder that matches takes all that is in it along.
    """
    if not patterns:
        return None
    parts = []
    for pattern in patterns:
        body = pattern.strip("/").removeprefix("./")
        anchored = "/" in pattern.strip("/") or pattern.startswith("/")
        expression = fnmatch.translate(body).removesuffix(r"\Z").replace(".*", "[^/]*")
        parts.append(("" if anchored else "(?:.*/)?") + expression + "(?:/.*)?")
    matcher = re.compile("(?s:" + "|".join(parts) + ")").fullmatch

    def matches(path: bytes) -> bool:
        return matcher(os.fsdecode(path)) is not None

    return matches


def nested_in(folder: bytes, paths: Sequence[bytes]) -> frozenset[bytes]:
    """Return those of `paths` that lie in `folder`, relative to it."""
    return frozenset(os.path.relpath(p, folder) for p in paths if p.startswith(folder + b"/"))


def _outside(also: Sequence[Path], project: bytes) -> list[bytes]:
    paths = [os.path.realpath(os.fsencode(path.expanduser())) for path in also]
    return [path for path in dict.fromkeys(paths) if not _below(path, project)]


def _below(path: bytes, folder: bytes) -> bool:
    return path == folder or path.startswith(folder.rstrip(b"/") + b"/")


def _unique(roots: Sequence[Root]) -> tuple[Root, ...]:
    found: dict[bytes, Root] = {}
    for root in roots:
        found.setdefault(root.path, root)
    return tuple(found.values())
