"""Reads the live state of a root, and only what changed since the index was written.

A folder whose names and signatures equal the index is not looked into further: its tree is the
one the index names. Everything else becomes a `Folder` with the files that have to be resolved
(read, linked, or only named), folders after what they contain, so that trees can be built in
the order in which they come.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import stat
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from rollback.folders import FOLDER, join, open_folder
from rollback.index import (
    Folder,
    LiveIndex,
    Notes,
    Row,
    Xattrs,
    agrees,
    known_names,
    sign,
)
from rollback.model import Category, Entry, Kind, Skip
from rollback.resources.base import Root
from rollback.store.catalog import Catalog

SIDE_SUFFIXES = (b"-wal", b"-shm", b"-journal")
SQLITE_MAGIC = b"SQLite format 3\0"
RACY_NS = 20_000_000
"""Files younger than this at the walk are read again next time: more than a kernel tick."""
_CODING = sys.getfilesystemencoding()
_SHUT = {errno.EACCES, errno.EPERM, errno.ELOOP, errno.ENOTDIR}
"""What a folder that may not be opened answers; anything else is a failure of the system."""
_SPECIAL = {
    stat.S_IFIFO: Kind.FIFO,
    stat.S_IFSOCK: Kind.SOCKET,
    stat.S_IFCHR: Kind.CHARACTER_DEVICE,
    stat.S_IFBLK: Kind.BLOCK_DEVICE,
}


@dataclass(slots=True)
class Walked:
    """What a walk found besides the folders it yielded.

    Attributes:
        totals: Category → number and bytes of files in unchanged folders.
        databases: Paths of SQLite files in unchanged folders.
        unkept: Paths in unchanged folders whose content is not kept, with the reason.
        links: Inode → paths, of regular files with more than one name.
        skips: What could not be read.
        gone: Folders of the index that are no more.
        scanned: Number of entries looked at.
    """

    totals: dict[str, list[int]] = field(default_factory=dict)
    databases: list[bytes] = field(default_factory=list)
    unkept: list[tuple[bytes, str]] = field(default_factory=list)
    links: dict[int, list[bytes]] = field(default_factory=dict)
    skips: list[Skip] = field(default_factory=list)
    gone: list[bytes] = field(default_factory=list)
    scanned: int = 0

    def hard_links(self) -> list[list[bytes]]:
        """Return the groups of paths that are one file, sorted."""
        return sorted(sorted(paths) for paths in self.links.values() if len(paths) > 1)


Flush = Callable[[list[Folder]], None]


class _Shut(PermissionError):
    """A folder whose names can be read, but nothing of what they stand for."""


class Walker:
    """Walks one root against the index of the live state.

    Args:
        root: What is walked.
        catalog: For the index.
        read_tree: Returns the entries of a known tree.
        flush: Called with folders in an order in which they can be built; it sets `tree`.
        batch: Number of unresolved files after which `flush` is called.
    """

    def __init__(
        self,
        root: Root,
        catalog: Catalog,
        read_tree: Callable[[bytes], list[Entry]],
        flush: Flush,
        batch: int = 20_000,
    ) -> None:
        self.root = root
        self.read_tree = read_tree
        self.flush = flush
        self.batch = batch
        self.found = Walked()
        self.horizon_ns = time.time_ns() - RACY_NS
        self._pending: list[Folder] = []
        self._unresolved = 0
        self.index = LiveIndex(catalog.db, root.name)

    def walk(self, fd: int) -> bytes:
        """Walk the root behind a folder handle and return the id of its tree."""
        result = self._walk(fd, b"")
        self._flush()
        return result.tree if isinstance(result, Folder) else result

    def _walk(self, fd: int, path: bytes) -> bytes | Folder:
        names, infos = self._list(fd, path)
        children: dict[int, bytes | Folder] = {}
        xattrs: dict[int, Xattrs] = {}
        is_folder = stat.S_ISDIR
        folders = [n for n, info in enumerate(infos) if is_folder(info.st_mode)]
        for n in folders:
            child = self._enter(fd, path, names[n])
            if child is not None:
                children[n], found = child
                if found:
                    xattrs[n] = found
        row = self.index.row(path)
        if row is not None and agrees(row, *sign(names, infos, folders, xattrs)):
            ids = [c for c in children.values() if isinstance(c, bytes)]
            if len(ids) == len(children) and b"".join(ids) == row[3]:
                self._add_notes(path, row[4])
                return bytes(row[0])
        folder = Folder(path, names, infos, [], children, xattrs)
        self._look_into(fd, folder, row)
        self._pending.append(folder)
        if self._unresolved >= self.batch:
            self._flush()
        return folder

    def _list(self, fd: int, path: bytes) -> tuple[list[bytes], list[os.stat_result]]:
        root = self.root
        leave_out, nested, excluded = root.leave_out, root.nested, root.excluded
        look_for_sides = root.find_databases
        links, coding = self.found.links, _CODING
        listing: list[tuple[bytes, os.stat_result]] = []
        prefix = path + b"/" if path else b""
        sides = False
        with os.scandir(fd) as names:
            for item in names:
                name = item.name.encode(coding, "surrogateescape")
                if name in leave_out:
                    continue
                if nested and prefix + name in nested:
                    continue
                if excluded is not None and excluded(prefix + name):
                    continue
                try:
                    info = item.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue
                except PermissionError as error:
                    raise _Shut(error.errno, error.strerror) from error
                listing.append((name, info))
                if info.st_nlink > 1 and stat.S_ISREG(info.st_mode):
                    links.setdefault(info.st_ino, []).append(prefix + name)
                if look_for_sides and name.endswith(SIDE_SUFFIXES):
                    sides = True
        if sides:
            listing = _without_side_files(fd, listing)
        listing.sort(key=_first)
        self.found.scanned += len(listing)
        return [name for name, _ in listing], [info for _, info in listing]

    def _enter(self, fd: int, path: bytes, name: bytes) -> tuple[bytes | Folder, Xattrs] | None:
        try:
            child = open_folder(fd, name)
        except FileNotFoundError:
            return None
        except OSError as error:
            if error.errno not in _SHUT:
                raise
            self._skip(join(path, name), error)
            return None
        try:
            return self._walk(child, join(path, name)), read_xattrs(child)
        except _Shut as error:
            self._skip(join(path, name), error)
            return None
        finally:
            os.close(child)

    def _skip(self, path: bytes, error: OSError) -> None:
        shown = os.fsdecode(os.path.join(self.root.path, path))
        self.found.skips.append(
            Skip(shown, f"it cannot be read: {error.strerror}", "give yourself read permission")
        )

    def _look_into(self, fd: int, folder: Folder, row: Row | None) -> None:
        """Fill the entries of a folder: what the index knows, what a stat says, else None."""
        known = {} if row is None else known_names(row, self.read_tree)
        path, children = folder.path, folder.children
        for index, (name, info) in enumerate(zip(folder.names, folder.infos, strict=True)):
            entry: Entry | None
            old = known.get(name)
            if stat.S_ISDIR(info.st_mode):
                kind = Kind.DIRECTORY if index in children else Kind.UNPROTECTED
                entry = bare(name, kind, info, xattrs=folder.xattrs.get(index, ()))
            elif old is not None and old.matches(info):
                entry = old.entry
                if old.linked:
                    folder.linked.add(index)
            else:
                entry = self._plain(fd, name, info)
                self._unresolved += entry is None
            folder.entries.append(entry)
        now = {folder.names[index] for index in children}
        self.found.gone += [
            join(path, name)
            for name, old in known.items()
            if old.entry.kind is Kind.DIRECTORY and name not in now
        ]

    def _plain(self, fd: int, name: bytes, info: os.stat_result) -> Entry | None:
        """Return the entry of what is not a regular file, None for a regular file."""
        if stat.S_ISREG(info.st_mode):
            return None
        if stat.S_ISLNK(info.st_mode):
            try:
                target = os.readlink(name, dir_fd=fd)
            except OSError:
                return bare(name, Kind.UNPROTECTED, info)
            return bare(name, Kind.SYMLINK, info, ref=os.fsencode(target))
        kind = _SPECIAL.get(stat.S_IFMT(info.st_mode), Kind.UNPROTECTED)
        number = b"%d" % info.st_rdev if kind >= Kind.CHARACTER_DEVICE else b""
        return bare(name, kind, info, ref=number)

    def _add_notes(self, path: bytes, text: str) -> None:
        totals, databases, unkept = json.loads(text)
        add_totals(self.found.totals, totals)
        for name in databases:
            self.found.databases.append(join(path, os.fsencode(name)))
        for name, why in unkept:
            self.found.unkept.append((join(path, os.fsencode(name)), why))

    def _flush(self) -> None:
        if self._pending:
            self.flush(self._pending)
            for folder in self._pending:
                folder.shed()
            self._pending, self._unresolved = [], 0


def bare(
    name: bytes, kind: Kind, info: os.stat_result, *, ref: bytes = b"", xattrs: Xattrs = ()
) -> Entry:
    """Return the entry that a stat result describes."""
    return Entry(
        name,
        kind,
        stat.S_IMODE(info.st_mode),
        info.st_uid,
        info.st_gid,
        info.st_mtime_ns,
        0 if kind is Kind.DIRECTORY else info.st_size,
        ref,
        xattrs,
    )


def read_xattrs(target: int | bytes) -> Xattrs:
    """Return the extended attributes of an open file, or of a path without following links.

    Attributes that only the system may read are left out.
    """
    follow = isinstance(target, int)
    found = []
    try:
        names = os.listxattr(target, follow_symlinks=follow)
    except OSError:
        return ()
    for name in sorted(names):
        with contextlib.suppress(OSError):
            found.append((os.fsencode(name), os.getxattr(target, name, follow_symlinks=follow)))
    return tuple(found)


def open_root(path: bytes) -> int:
    """Open the folder of a root; the root itself may be reached through links."""
    return os.open(path, FOLDER & ~os.O_NOFOLLOW)


def add_totals(into: dict[str, list[int]], more: dict[str, list[int]]) -> None:
    """Add numbers and bytes by category."""
    for category, (files, size) in more.items():
        total = into.setdefault(category, [0, 0])
        total[0] += files
        total[1] += size


def count(notes: Notes, category: Category, size: int) -> None:
    """Count one file of a folder."""
    total = notes.totals.setdefault(category.value, [0, 0])
    total[0] += 1
    total[1] += size


def _first(item: tuple[bytes, os.stat_result]) -> bytes:
    return item[0]


def _without_side_files(
    fd: int, listing: list[tuple[bytes, os.stat_result]]
) -> list[tuple[bytes, os.stat_result]]:
    """Return the listing without the side files of SQLite databases that are in it."""
    regular = {name for name, info in listing if stat.S_ISREG(info.st_mode)}
    bases: dict[bytes, bool] = {}

    def is_side(name: bytes) -> bool:
        for suffix in SIDE_SUFFIXES:
            base = name.removesuffix(suffix)
            if base != name and base in regular and name in regular:
                if base not in bases:
                    bases[base] = has_sqlite_magic(fd, base)
                return bases[base]
        return False

    return [item for item in listing if not is_side(item[0])]


def has_sqlite_magic(fd: int, name: bytes) -> bool:
    """Return whether the file `name` in an open folder begins like a SQLite database."""
    try:
        file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=fd)
    except OSError:
        return False
    try:
        return os.read(file, len(SQLITE_MAGIC)) == SQLITE_MAGIC
    except OSError:
        return False
    finally:
        os.close(file)
