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
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from rollback.errors import CaptureFailed, StoreCorrupt
from rollback.folders import FOLDER, cached, join, open_folder, split
from rollback.index import Folder, LiveIndex, Notes, Row, agrees
from rollback.listing import Listing, Xattrs, find_lister
from rollback.model import Entry, Kind, Skip
from rollback.parallel import cores
from rollback.resources.base import Root
from rollback.scout import Scout, far_half
from rollback.sqlitefiles import side_files
from rollback.store.blobs import BlobReader
from rollback.times import TICK_NS, kept_ns

_NOTHING: frozenset[bytes] = frozenset()
_FIRST_BATCH = 4_000
"""So many files are handed over first: until then nobody reads."""
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
        links: Device and inode → paths, of regular files with more than one name.
        skips: What could not be read.
        gone: Folders of the index that are no more.
        scanned: Number of entries looked at.
    """

    totals: dict[str, list[int]] = field(default_factory=dict)
    databases: list[bytes] = field(default_factory=list)
    unkept: list[tuple[bytes, str]] = field(default_factory=list)
    links: dict[tuple[int, int], list[bytes]] = field(default_factory=dict)
    skips: list[Skip] = field(default_factory=list)
    gone: list[bytes] = field(default_factory=list)
    scanned: int = 0

    def add(self, other: Walked) -> None:
        """Take over what the walk of another part of the same root found."""
        add_totals(self.totals, other.totals)
        self.databases += other.databases
        self.unkept += other.unkept
        for inode, paths in other.links.items():
            self.links.setdefault(inode, []).extend(paths)
        self.skips += other.skips
        self.gone += other.gone
        self.scanned += other.scanned

    def hard_links(self) -> list[list[bytes]]:
        """Return the groups of paths that are one file, sorted."""
        return sorted(sorted(paths) for paths in self.links.values() if len(paths) > 1)


Flush = Callable[[list[Folder]], None]


Entered = tuple[bytes | Folder, Xattrs] | None
"""What became of a subfolder: its tree, or the folder that will have one, and its attributes."""


@dataclass(slots=True)
class Survey:
    """What a scout found.

    Attributes:
        entered: Of each folder that it was sent to.
        pending: Folders that differ from the index, each after those that are in it.
        unresolved: How many files in them have to be resolved.
        found: As of a walk.
    """

    entered: dict[bytes, Entered]
    pending: list[Folder]
    unresolved: int
    found: Walked


class _Shut(PermissionError):
    """A folder whose names can be read, but nothing of what they stand for."""


class Walker:
    """Walks one root against the index of the live state.

    Args:
        root: What is walked.
        reader: The store, which has the index.
        flush: Called with folders in an order in which they can be built; it sets `tree` of them,
            now or later, and takes the list over.
        batch: Number of unresolved files after which `flush` is called.
        index: That of the root, where it was opened before.
    """

    def __init__(
        self,
        root: Root,
        reader: BlobReader,
        flush: Flush,
        batch: int = 20_000,
        index: LiveIndex | None = None,
    ) -> None:
        self.root = root
        self.reader = reader
        self.flush = flush
        self.batch = self._room = batch
        self.found = Walked()
        self._lister = find_lister()
        self.horizon_ns = time.time_ns() - TICK_NS
        self._pending: list[Folder] = []
        self._unresolved = 0
        self._nested: dict[bytes, frozenset[bytes]] = {}
        for folder, name in map(split, root.nested):
            self._nested[folder] = self._nested.get(folder, _NOTHING) | {name}
        self.index = LiveIndex(reader.catalog.db, root.name) if index is None else index
        self._scout: Scout[Survey] | None = None

    def walk(self, fd: int) -> bytes | Folder:
        """Walk the root behind a folder handle; return its tree, or what will have one."""
        self._room = min(self.batch, _FIRST_BATCH)
        far = far_half(self.index.weights()) if cores() > 1 else []
        self._scout = Scout(self._survey, fd, far) if far else None
        try:
            result = self._walk(fd, b"")
        finally:
            if self._scout is not None:
                self._scout.abandon()
        self._flush()
        return result

    def _survey(self, fd: int, paths: list[bytes]) -> Survey:
        """Walk these folders in a forked process; what has to be read is left to the parent."""
        reader = self.reader.reopened()
        index = self.index.reopened(reader.catalog.db)
        walker = Walker(self.root, reader, _refuse, self.batch, index)
        entered: dict[bytes, Entered] = {}
        with cached(fd) as folders:
            for path in paths:
                folder, name = split(path)
                entered[path] = walker._enter(folders.open(folder), folder, name)
        return Survey(entered, walker._pending, walker._unresolved, walker.found)

    def _surveyed(self, path: bytes) -> Mapping[bytes, Entered]:
        """Return what the scout found, empty where it was not sent to a folder or is lost."""
        if self._scout is None or path not in self._scout.paths:
            return {}
        survey, news = self._scout.survey()
        if survey is None:
            return {}
        if news:
            self.found.add(survey.found)
            self._pending += survey.pending
            self._unresolved += survey.unresolved
        return survey.entered

    def _walk(self, fd: int, path: bytes) -> bytes | Folder:
        listing = self._list(fd, path)
        children: dict[int, bytes | Folder] = {}
        xattrs: dict[int, Xattrs] = {}
        for n in listing.folders:
            child = self._enter(fd, path, listing.names[n])
            if child is not None:
                children[n], found = child
                if found:
                    xattrs[n] = found
        row = self.index.row(path)
        listing.settle(xattrs)
        if row is not None and agrees(row, listing.parts, listing.ctimes):
            ids = [c for c in children.values() if isinstance(c, bytes)]
            if len(ids) == len(children) and b"".join(ids) == row[3]:
                self._add_notes(path, row[4])
                return bytes(row[0])
        folder = Folder(path, listing.names, {}, children, xattrs, listing.parts, listing.ctimes)
        self._look_into(fd, folder, row, listing.info)
        self._pending.append(folder)
        if self._unresolved >= self._room:
            self._flush()
        return folder

    def _list(self, fd: int, path: bytes) -> Listing:
        """Return what is in a folder and belongs to the root.

        Raises:
            _Shut: The folder may be listed, but not searched.
        """
        names = self._lister.names_in(fd)
        left_out = self._outside(fd, path, names)
        if self.root.find_databases:
            left_out |= side_files(fd, names)
        if left_out:
            names = [name for name in names if name not in left_out]
        try:
            listing = self._lister.look(fd, names)
        except PermissionError as error:
            raise _Shut(error.errno, error.strerror) from error
        self.found.scanned += len(listing.names)
        for n in listing.shared:
            info = listing.info(n)
            paths = self.found.links.setdefault((info.st_dev, info.st_ino), [])
            paths.append(join(path, listing.names[n]))
        return listing

    def _outside(self, fd: int, path: bytes, names: list[bytes]) -> set[bytes]:
        """Return the names in a folder that do not belong to the root.

        What stands where the folder of another root was, and is no folder, does belong to it.
        """
        nested = self._nested.get(path, _NOTHING).intersection(names)
        outside = self.root.leave_out.intersection(names)
        outside |= {name for name in nested if _is_folder(fd, name)}
        excluded = self.root.excluded
        if excluded is not None:
            outside |= {name for name in names if excluded(join(path, name))}
        return set(outside)

    def _enter(self, fd: int, path: bytes, name: bytes) -> Entered:
        here = join(path, name)
        surveyed = self._surveyed(here)
        if here in surveyed:
            return surveyed[here]
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

    def _look_into(
        self, fd: int, folder: Folder, row: Row | None, info_of: Callable[[int], os.stat_result]
    ) -> None:
        """Fill a folder: what the index knows, what a stat says; regular files stay open."""
        try:
            folder.recognise(row, self.reader.records, info_of)
        except StoreCorrupt:
            # Whose tree cannot be read is not known: the folder is read anew.
            row = None
            folder.recognise(row, self.reader.records, info_of)
        folder.notes = Notes.of(row)
        for index in folder.fresh:
            name, info = folder.names[index], folder.infos[index]
            if stat.S_ISDIR(info.st_mode):
                entry = bare(name, Kind.UNPROTECTED, info) if _is_there(fd, name) else None
            else:
                entry = self._plain(fd, name, info)
            folder.fresh[index] = entry
            self._unresolved += entry is None
        self.found.gone += [join(folder.path, name) for name in folder.vanished()]

    def _plain(self, fd: int, name: bytes, info: os.stat_result) -> Entry | None:
        """Return the entry of what is not a regular file, None for a regular file or nothing."""
        if stat.S_ISREG(info.st_mode):
            return None
        if stat.S_ISLNK(info.st_mode):
            try:
                target = os.readlink(name, dir_fd=fd)
            except FileNotFoundError:
                return None
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
            self._pending, self._unresolved, self._room = [], 0, self.batch


def _is_there(fd: int, name: bytes) -> bool:
    try:
        os.stat(name, dir_fd=fd, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _refuse(_folders: list[Folder]) -> None:
    """Give up: where most has changed, carrying it from one process to another costs more."""
    raise CaptureFailed("there is too much to hand over", hint="walk it here")


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
        kept_ns(info.st_mtime_ns),
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


def _is_folder(fd: int, name: bytes) -> bool:
    try:
        return stat.S_ISDIR(os.stat(name, dir_fd=fd, follow_symlinks=False).st_mode)
    except OSError:
        return True
