"""The file trees of a repository that a snapshot captures, and what of them is left alone."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from rollback.model import Category, Policy, Skip
from rollback.resources.base import Root
from rollback.resources.git.attest import git_intact
from rollback.resources.git.layout import AnyPath, GitLayout, read_small
from rollback.resources.git.loose import bring_out
from rollback.resources.git.policy import git_keep_extra, git_policy, git_temporary
from rollback.resources.git.refs import read_head

_SHARED = frozenset(
    {b"objects", b"refs", b"packed-refs", b"config", b"hooks", b"info", b"modules", b"worktrees"}
    | {b"description", b"shallow", b"branches", b"remotes", b"lfs", b"svn", b"rr-cache"}
    | {b"common", b"gc.pid", b"gc.log", b"reftable", b"packed-refs.lock", b"logs", b"annex"}
)
"""Names in the common folder that every work tree uses; the others are the main work tree's."""


def git_roots(layout: GitLayout, project: AnyPath) -> list[Root]:
    """Return the roots that capture a repository: its git folder, and the common one if apart.

    Args:
        layout: From `find_git`.
        project: The project's folder.
    """
    place = _Place(layout, os.path.realpath(os.fsencode(project)))
    if not layout.linked:
        return [_root("git", layout.gitdir, place, frozenset())]
    relative = os.path.relpath(layout.gitdir, layout.commondir)
    nested = frozenset[bytes]() if relative.startswith(b"..") else frozenset({relative})
    return [
        _root("git work tree", layout.gitdir, place, frozenset()),
        _root("git", layout.commondir, place, nested),
    ]


def git_root_from(parameters: Mapping[str, Any], *, leave_foreign: bool = False) -> Root:
    """Return the root that puts a captured one back, from its `parameters`.

    Args:
        parameters: Of a root that `git_roots` made.
        leave_foreign: Whether the state of work trees outside the project (their HEAD, index,
            checked-out branch) is left alone where it still exists: others work there
            meanwhile. It is captured, and comes back where it has gone. This looks at the
            present, once, and says so by `excluded`: whoever restores has to apply it to what
            the snapshot has, too.
    """
    layout = GitLayout(
        os.fsencode(parameters["gitdir"]), os.fsencode(parameters["commondir"]), None
    )
    place = _Place(layout, os.fsencode(parameters["project"]))
    path = os.fsencode(parameters["path"])
    nested = frozenset(map(os.fsencode, parameters["nested"]))
    root = _root(parameters["name"], path, place, nested)
    if path != layout.commondir or not leave_foreign:
        return root
    foreign = frozenset(_foreign(place))
    return replace(
        root,
        excluded=_Left(foreign, _main_is_foreign(place)),
        prepare=functools.partial(bring_out, layout.commondir, foreign),
    )


def git_skips(layout: GitLayout, project: AnyPath) -> list[Skip]:
    """Return what of the repository lies where no snapshot reaches: borrowed objects."""
    inside = os.path.realpath(os.fsencode(project))
    skips = []
    for folder in alternates(layout.commondir):
        if not (_below(folder, inside) or _below(folder, layout.commondir)):
            shown = os.fsdecode(folder)
            skips.append(
                Skip(
                    what=f"git objects borrowed from {shown}",
                    why="they belong to another repository (objects/info/alternates)",
                    fix="copy them into this one: git repack -a -d "
                    "&& rm -f .git/objects/info/alternates",
                )
            )
    return skips


def alternates(commondir: bytes) -> list[bytes]:
    """Return the object folders that a repository borrows from, absolute, in its order."""
    objects = os.path.join(commondir, b"objects")
    content = read_small(os.path.join(objects, b"info", b"alternates")) or b""
    lines = [line.strip() for line in content.split(b"\n")]
    return [
        os.path.realpath(os.path.join(objects, line))
        for line in lines
        if line and not line.startswith(b"#")
    ]


@dataclass(frozen=True, slots=True)
class _Place:
    layout: GitLayout
    project: bytes


@dataclass(frozen=True, slots=True)
class _Left:
    """Says what of a git folder is neither captured nor touched.

    Attributes:
        foreign: Paths of work trees outside the project.
        main: Whether the folder's own HEAD, index and so on are of such a work tree.
    """

    foreign: frozenset[bytes] = frozenset()
    main: bool = False

    def __call__(self, path: bytes) -> bool:
        if git_temporary(b".git/" + path):
            return True
        if self.main and (path == b"logs/HEAD" or path.partition(b"/")[0] not in _SHARED):
            return True
        return any(path == name or path.startswith(name + b"/") for name in self.foreign)


def _foreign(place: _Place) -> Iterator[bytes]:
    """Yield what exists of work trees outside the project, relative to the common folder."""
    common = place.layout.commondir
    if _main_is_foreign(place):
        yield from _branch(common)
    try:
        names = os.listdir(os.path.join(common, b"worktrees"))
    except OSError:
        return
    for name in names:
        folder = os.path.join(common, b"worktrees", name)
        pointer = (read_small(os.path.join(folder, b"gitdir")) or b"").strip()
        worktree = os.path.realpath(os.path.dirname(os.path.join(folder, pointer)))
        if pointer and folder != place.layout.gitdir and not _below(worktree, place.project):
            yield b"worktrees/" + name
            yield from _branch(folder)


def _main_is_foreign(place: _Place) -> bool:
    common = place.layout.commondir
    return (
        place.layout.linked
        and not _below(os.path.dirname(common), place.project)
        and os.path.lexists(os.path.join(common, b"HEAD"))
    )


def _branch(gitdir: bytes) -> Iterator[bytes]:
    head = read_head(gitdir)
    if head is not None and head.startswith(b"refs/heads/"):
        yield head
        yield b"logs/" + head


def _below(path: bytes, folder: bytes) -> bool:
    return path == folder or path.startswith(folder.rstrip(b"/") + b"/")


def _policy(path: bytes) -> Policy:
    return git_policy(b".git/" + path)


def _keep_extra(path: bytes) -> bool:
    return git_keep_extra(b".git/" + path)


def _root(name: str, path: bytes, place: _Place, nested: frozenset[bytes]) -> Root:
    return Root(
        resource="git",
        name=name,
        path=path,
        category=Category.CODE,
        policy=_policy,
        leave_out=frozenset(),
        excluded=_Left(),
        nested=nested,
        keep_extra=_keep_extra,
        intact=git_intact,
        parameters={
            "name": name,
            "path": os.fsdecode(path),
            "nested": sorted(os.fsdecode(entry) for entry in nested),
            "gitdir": os.fsdecode(place.layout.gitdir),
            "commondir": os.fsdecode(place.layout.commondir),
            "project": os.fsdecode(place.project),
        },
    )
