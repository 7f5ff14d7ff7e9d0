"""What stands in the way of a restore: found before anything is changed, and named.

A plan is held against the folders as they are: who may write to them, what is mounted there, what
is left in a folder whose place is needed. Where nothing can be done, the path leaves the plan and
is named; everything else is put back.
"""

from __future__ import annotations

import array
import contextlib
import errno
import fcntl
import os
import shlex
import stat
from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass

from rollback.atomic import DISPOSABLE, top_of
from rollback.difference import Load, find_entry, metadata_differs
from rollback.errors import RollbackError
from rollback.folders import FolderCache, cached, join, split
from rollback.model import Entry, Kind
from rollback.plan import TreePlan
from rollback.staging import folders_mounted_below, is_one_file_system, mounts_below
from rollback.walk import open_root

SYSTEM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.ENOMEM})
"""Errors that are none of a path: once there is room again, the same step succeeds."""
_GET_FLAGS = 0x80086601  # FS_IOC_GETFLAGS
_LOCKED = 0x10 | 0x20  # FS_IMMUTABLE_FL, FS_APPEND_FL
_READ_ONLY = "its file system is mounted read-only"
_WRITABLE = "mount the file system for writing"
_LOOK = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Obstacle:
    """What stood in the way of a step, and will the next time.

    Attributes:
        root: Absolute path of the root.
        path: Relative to it.
        why: What it is.
        fix: How to mend it.
    """

    root: bytes
    path: bytes
    why: str
    fix: str


def describe(error: OSError | RollbackError) -> tuple[str, str]:
    """Return why a step cannot be made, and the mend."""
    if isinstance(error, RollbackError):
        return str(error), error.hint
    why = f"it could not be put back: {error.strerror}"
    fixes = {
        errno.EACCES: "make it yours: chown, as root",
        errno.EPERM: "make it yours: chown, as root (lsattr shows whether it is locked)",
        errno.EROFS: _WRITABLE,
        errno.EBUSY: "unmount what is mounted there",
    }
    fix = fixes.get(error.errno or 0, "move away what stands there")
    return why, fix


def find_obstacles(
    plan: TreePlan, databases: Iterable[bytes], store: bytes, known: Iterable[Obstacle] = ()
) -> None:
    """Take out of a plan what cannot be done, and name it; reads only.

    Args:
        plan: Of one root; barred paths leave it.
        databases: Paths in the root where databases will be put, or from which they go.
        store: Absolute path of the store.
        known: What stood in the way of an earlier try.
    """
    root = plan.target.root.path
    for obstacle in known:
        if obstacle.root == root and concerns(plan, obstacle.path):
            plan.bar(obstacle.path, obstacle.why, obstacle.fix)
    databases = frozenset(databases)
    if (databases or not plan.empty) and plan.live.captured.present:
        _Search(plan, databases, store).run()
    if plan.barred:
        leave_out(plan)


def concerns(plan: TreePlan, path: bytes) -> bool:
    """Return whether a plan does anything at a path or below."""
    return any(_is_below(step, path) for step in paths_of(plan))


def paths_of(plan: TreePlan) -> Iterator[bytes]:
    """Yield every path that a plan makes, replaces, removes or changes."""
    groups = plan.removes, plan.folders, plan.makes, plan.places, plan.specials, plan.metas
    for group in groups:
        yield from (path for path, _ in group)
    for paths in plan.relinks:
        yield from paths
    yield from plan.parts
    yield from plan.lost


def _is_below(path: bytes, top: bytes) -> bool:
    return not top or (path + b"/").startswith(top + b"/")


def leave_out(plan: TreePlan) -> None:
    """Take what is barred out of a plan."""

    def free(path: bytes) -> bool:
        return not plan.is_barred(path)

    for name in ("removes", "folders", "makes", "places", "specials", "metas"):
        setattr(plan, name, [item for item in getattr(plan, name) if free(item[0])])
    groups = [[path for path in group if free(path)] for group in plan.relinks]
    plan.relinks = [group for group in groups if len(group) > 1]
    plan.parts = [path for path in plan.parts if free(path)]
    for name in ("touched", "lost", "replaced"):
        found = getattr(plan, name)
        setattr(plan, name, {path: value for path, value in found.items() if free(path)})
    plan.vanish = plan.vanish and free(b"")
    if next(paths_of(plan), None) is None:
        plan.touched = {p: entry for p, entry in plan.touched.items() if _differs(plan, p, entry)}


def _differs(plan: TreePlan, path: bytes, wanted: Entry) -> bool:
    """Return whether a folder has other metadata now than it shall have."""
    live = plan.live
    here = find_entry(live.load, live.tree, path) if path else live.captured.meta
    return here is None or metadata_differs(here, wanted)


class _Search:
    """Holds one plan against the folders as they are."""

    def __init__(self, plan: TreePlan, databases: frozenset[bytes], store: bytes) -> None:
        self.plan = plan
        self.root = plan.target.root.path
        self.store = store
        self.mounted = frozenset(mounts_below(self.root))
        self.tops = [b"", *folders_mounted_below(self.root)]
        self.databases = databases
        self.taken = needed_places(plan, databases)

    def run(self) -> None:
        """Bar what cannot be done."""
        fd = open_root(self.root)
        try:
            with cached(fd) as folders:
                self._find_mounts()
                self._find_read_only(folders)
                self._find_shut(folders)
                self._find_left_over(folders)
        finally:
            os.close(fd)
        _bar_above(self.plan, self.taken)

    def _find_mounts(self) -> None:
        moved = [path for path, _ in self.plan.removes] + list(self.plan.replaced)
        for path in self.mounted.intersection(moved):
            self.plan.bar(path, "something is mounted on it", "unmount it")

    def _find_read_only(self, folders: FolderCache) -> None:
        """Bar folders whose own time or mode cannot be set, with all that is in them."""
        for path, entry in sorted(self.plan.touched.items()):
            try:
                if not _is_read_only(folders.open(path)):
                    continue
            except OSError:
                continue  # it is made by this restore
            if _differs(self.plan, path, entry):
                self.plan.bar(path, _READ_ONLY, _WRITABLE)
            else:  # nor does anything come or go in it
                del self.plan.touched[path]

    def _find_shut(self, folders: FolderCache) -> None:
        """Bar what lies in folders that guard may not write to, and what is locked itself."""
        concerned = self.databases.union(paths_of(self.plan))
        changed = {path for path in concerned if not self.plan.is_barred(path)}
        inside: dict[bytes, list[bytes]] = {}
        for path in changed:
            inside.setdefault(split(path)[0], []).append(path)
        for folder in sorted(inside):
            try:
                parent = folders.open(folder)
            except OSError:
                continue  # it is made by this restore, or takes the place of what is there
            shut = _why_shut(parent, self.plan.whole(folder))
            for path in inside[folder]:
                why = shut or _why_locked(parent, path, self.plan.whole(path))
                if why:
                    self.plan.bar(path, *why)

    def _find_left_over(self, folders: FolderCache) -> None:
        """Bar folders whose place is needed and whose rest cannot be moved into the store."""
        load = self.plan.live.load
        for path, entry in self.plan.removes:
            if entry.kind is not Kind.DIRECTORY or path not in self.taken:
                continue
            if self._can_move(path):
                continue
            left = next(_left_over(folders, load(entry.ref), path, load), None)
            if left is not None:
                shown = os.fsdecode(os.path.join(self.root, left))
                why = f"it is a folder now with what snapshots leave out, {shown}"
                self.plan.bar(path, why, "move it away")

    def _can_move(self, path: bytes) -> bool:
        """Return whether a folder can be moved into the store."""
        if any(top.startswith(path + b"/") for top in self.mounted):
            return False
        top = top_of(path, self.tops)
        return is_one_file_system(os.path.join(self.root, top) if top else self.root, self.store)


def bar_above(plan: TreePlan, databases: Iterable[bytes]) -> None:
    """Bar each folder whose place is needed and in which something has to stay.

    Args:
        plan: Of one root.
        databases: Paths in the root where databases will be put.
    """
    _bar_above(plan, needed_places(plan, databases))


def _bar_above(plan: TreePlan, taken: Container[bytes]) -> None:
    for path in sorted(plan.barred):
        folder = split(path)[0]
        while folder:
            if folder in taken:
                why = "it is a folder now, and not all that is in it can be removed"
                plan.bar(folder, why, "move it away")
            folder = split(folder)[0]


def needed_places(plan: TreePlan, databases: Iterable[bytes]) -> frozenset[bytes]:
    """Return the paths at which something other than a folder is put."""
    put = {path for path, _ in plan.places} | {path for path, _ in plan.specials}
    return frozenset(put | plan.lost.keys() | set(databases))


def _why_shut(folder: int, path: bytes) -> tuple[str, str] | None:
    """Return why nothing in an open folder can be changed, and the mend; None where it can."""
    info = os.fstat(folder)
    if _is_read_only(folder):
        return _READ_ONLY, _WRITABLE
    if _is_locked(folder):
        return "its folder is locked", f"chattr -ia {_quoted(path)}"
    here = b"/proc/self/fd/%d" % folder
    if os.geteuid() in {0, info.st_uid} or os.access(here, os.W_OK | os.X_OK):
        return None
    return "its folder is another user's", f"sudo chown {os.geteuid()} {_quoted(path)}"


def _why_locked(parent: int, path: bytes, whole: bytes) -> tuple[str, str] | None:
    """Return why what is at a path cannot be changed; None where it can, or nothing is there."""
    name = split(path)[1]
    try:
        info = os.stat(name, dir_fd=parent, follow_symlinks=False)
        if not (stat.S_ISREG(info.st_mode) or stat.S_ISDIR(info.st_mode)):
            return None
        fd = os.open(name, _LOOK, dir_fd=parent)
    except OSError:
        return None
    try:
        if _is_read_only(fd):
            return _READ_ONLY, _WRITABLE
        return ("it is locked", f"chattr -ia {_quoted(whole)}") if _is_locked(fd) else None
    finally:
        os.close(fd)


def _is_read_only(fd: int) -> bool:
    return bool(os.fstatvfs(fd).f_flag & os.ST_RDONLY)


def _quoted(path: bytes) -> str:
    return shlex.quote(os.fsdecode(path))


def _is_locked(fd: int) -> bool:
    flags = array.array("l", [0])
    with contextlib.suppress(OSError):
        fcntl.ioctl(fd, _GET_FLAGS, flags)
    return bool(flags[0] & _LOCKED)


def _left_over(
    folders: FolderCache, entries: list[Entry], path: bytes, load: Load
) -> Iterator[bytes]:
    """Yield what is in a folder and not in its tree, caches left out."""
    known = {entry.name for entry in entries}
    for name in map(os.fsencode, os.listdir(folders.open(path))):
        if name not in known and name not in DISPOSABLE:
            yield join(path, name)
    for entry in entries:
        if entry.kind is Kind.DIRECTORY:
            below = join(path, entry.name)
            yield from _left_over(folders, load(entry.ref), below, load)
