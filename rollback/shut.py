"""Folders that their owner may not look into: opened for a restore, and shut again.

A folder without the rights to list or to search it hides what is in it from a plan and from the
reading that proves a restore. Its owner may give them, and only its mode changes.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator, Mapping

from rollback.difference import contents
from rollback.folders import cached, split
from rollback.model import Entry, Kind
from rollback.plan import TreePlan
from rollback.walk import open_root
from rollback.work import Work, folders_around

_RIGHTS = stat.S_IRWXU
_LOOK = stat.S_IRUSR | stat.S_IXUSR
_PATH = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

Modes = dict[str, int]
"""Absolute path of a folder → its mode."""


def find_shut(work: Work) -> Modes:
    """Return the folders that a plan had to leave alone, and that are the user's to open."""
    found: Modes = {}
    for plan in work.trees:
        for path in plan.barred:
            whole = plan.whole(path)
            with contextlib.suppress(OSError):
                info = os.lstat(whole)
                mode = stat.S_IMODE(info.st_mode)
                mine = stat.S_ISDIR(info.st_mode) and info.st_uid == os.geteuid() != 0
                if mine and mode & _RIGHTS != _RIGHTS:
                    found[os.fsdecode(whole)] = mode
    return found


def open_folders(modes: Modes, roots: list[bytes]) -> None:
    """Give the owner all rights to some folders."""
    set_modes({path: mode | _RIGHTS for path, mode in modes.items()}, roots)


def set_modes(modes: Mapping[str, int], roots: list[bytes]) -> None:
    """Set the modes of folders below some roots, innermost first; what is gone is left out."""
    for path in sorted(modes, reverse=True):
        whole = os.fsencode(path)
        around = [root for root in roots if whole.startswith(root + b"/")]
        if around:
            root = max(around, key=len)
            with contextlib.suppress(OSError):
                _set_mode(root, whole[len(root) + 1 :], modes[path])


def _set_mode(root: bytes, path: bytes, mode: int) -> None:
    """Set the mode of a folder that may not be opened; no link is followed."""
    folder, name = split(path)
    top = open_root(root)
    try:
        with cached(top) as folders:
            fd = os.open(name, _PATH, dir_fd=folders.open(folder))
            try:
                os.chmod(b"/proc/self/fd/%d" % fd, mode)
            finally:
                os.close(fd)
    finally:
        os.close(top)


@contextlib.contextmanager
def looked_into(work: Work) -> Iterator[list[str]]:
    """Open the folders that shall be shut for a block that reads them; gives their paths."""
    shut: Modes = {}
    if os.geteuid() != 0:
        for plan in work.trees:
            around = folders_around(plan, work.databases)
            around.pop(b"", None)
            for path, entry in (*around.items(), *_folders_of(plan)):
                if entry.mode & _LOOK != _LOOK:
                    shut[os.fsdecode(plan.whole(path))] = entry.mode
    roots = [plan.target.root.path for plan in work.trees]
    for folder in sorted(shut):
        open_folders({folder: shut[folder]}, roots)
    try:
        yield list(shut)
    finally:
        set_modes(shut, roots)


def _folders_of(plan: TreePlan) -> Iterator[tuple[bytes, Entry]]:
    """Yield every folder whose mode a plan sets, but for the root itself."""
    yield from ((path, entry) for path, entry in plan.touched.items() if path)
    yield from plan.makes
    for path, entry in plan.folders:
        yield path, entry
        inside = contents(plan.live.load, entry.ref, path)
        yield from ((below, item) for below, item in inside if item.kind is Kind.DIRECTORY)
