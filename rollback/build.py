"""Building trees from the store: the one way in which content becomes files again.

A drill builds whole trees in scratch; a rollback builds missing folders and single files in a
staging folder. What is written is read again and held against the manifest.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from io import BufferedReader
from pathlib import Path
from typing import Self

from rollback.errors import DrillFailed, StoreCorrupt, damaged
from rollback.failpoints import reach
from rollback.folders import FolderCache, cached, join, open_folder, split
from rollback.model import Entry, Kind, Policy
from rollback.parallel import cores, fork_map, share_out
from rollback.reading import SMALL, clone, segments
from rollback.resources.base import Root
from rollback.store.blobs import BlobReader, file_path, open_blob
from rollback.store.catalog import BlobKind, Catalog, Place
from rollback.store.codec import inode_id
from rollback.store.pages import CHUNK
from rollback.walk import open_root

FORK_FILES = 600
FORK_BYTES = 48 << 20
_FILE_COST = 60_000
_BATCH = 20_000
_CREATE = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class FileJob:
    """A file to write: where, what, from which blob, and whether a link will do."""

    path: bytes
    entry: Entry
    place: Place
    link: bool


@dataclass(slots=True)
class Built:
    """What a build wrote: files and bytes of content, and what could not be made."""

    files: int = 0
    size: int = 0
    notes: list[tuple[bytes, str]] = field(default_factory=list)

    def add(self, other: Built) -> None:
        """Add what another build wrote."""
        self.files += other.files
        self.size += other.size
        self.notes += other.notes


Choose = Callable[[bytes, Entry], bool]


@dataclass(frozen=True, slots=True)
class Linking:
    """What is known of files that the store holds by a link; paths are those of the build.

    Attributes:
        may: Whether the file at a path may share its inode with the store.
        intact: Whether a linked file whose signature changed still holds what its owner wrote.
        share_large: Whether large blobs are linked instead of copied, for want of space.
    """

    may: Callable[[bytes], bool]
    intact: Callable[[bytes, BufferedReader], bool | None]
    share_large: bool = False

    @classmethod
    def of(cls, root: Root, *, undo: bool, path_of: Callable[[bytes], bytes] | None) -> Linking:
        """Return what holds for a root.

        A snapshot links only what its root's policy allows, so its links may be linked again.
        What a rollback displaced was moved into the store whatever its policy.

        Args:
            root: The root.
            undo: Whether the snapshot is what a rollback displaced.
            path_of: Path in the root of a path of the build, where they differ.
        """
        real = path_of or (lambda path: path)

        def may(path: bytes) -> bool:
            return not undo or root.policy(real(path)) is Policy.LINK

        return cls(may, lambda path, file: root.intact(real(path), file))


class TreeBuilder:
    """Writes trees and files below a folder that is guard's own.

    Args:
        reader: The store.
        target: Absolute path of the folder.
        linking: What is known of linked files.

    Attributes:
        shared: Large blobs whose inode was given away, for want of space.
    """

    def __init__(self, reader: BlobReader, target: bytes, linking: Linking) -> None:
        self.reader = reader
        self.target = target
        self.linking = linking
        self.shared: set[bytes] = set()
        self.built = Built()
        self._jobs: list[FileJob] = []
        self._folders: list[tuple[bytes, Entry]] = []
        self._fd = open_root(target)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)

    def add_tree(self, tree: bytes, path: bytes, choose: Choose | None = None) -> None:
        """Create the folders of a tree below `path` and plan its files.

        Args:
            tree: Its id.
            path: Relative to the target; the folder itself has to exist.
            choose: Which files to write; all where None.
        """
        for entry in self.reader.tree(tree):
            here = join(path, entry.name)
            if entry.kind is Kind.DIRECTORY:
                self._make_folder(here)
                self._folders.append((here, entry))
                self.add_tree(entry.ref, here, choose)
            elif choose is None or choose(here, entry):
                self.add_file(here, entry)

    def add_file(self, path: bytes, entry: Entry) -> None:
        """Plan one file, or make what has no content at once."""
        if entry.kind is Kind.FILE:
            place = self.reader.place(entry.ref)
            linkable = place.kind is BlobKind.INODE and self.linking.may(path)
            if place.kind is BlobKind.LOOSE and self.linking.share_large:
                # A second link would make two files one: only the first may share.
                linkable = entry.ref not in self.shared
                self.shared.add(entry.ref)
            self._jobs.append(FileJob(path, entry, place, linkable))
            if len(self._jobs) >= _BATCH:
                self.write()
        elif entry.kind not in (Kind.DATABASE, Kind.WATCHED, Kind.UNPROTECTED, Kind.SOCKET):
            self._make_special(path, entry)

    def add_folder(self, path: bytes, entry: Entry, choose: Choose | None = None) -> None:
        """Create a folder whose metadata `finish` will set, and plan what is in it.

        Args:
            path: Relative to the target.
            entry: The folder.
            choose: Which files to write; all where None.
        """
        self._make_folder(path)
        self._folders.append((path, entry))
        self.add_tree(entry.ref, path, choose)

    def write(self) -> None:
        """Write the planned files, verified."""
        jobs, self._jobs = self._jobs, []
        large = [job for job in jobs if job.entry.size >= SMALL and not job.link]
        small = [job for job in jobs if job.entry.size < SMALL or job.link]
        sizes = [0 if job.link else job.entry.size for job in small]
        many = len(small) > FORK_FILES or sum(sizes) > FORK_BYTES
        runs = share_out(sizes, cores() if many else 1, _FILE_COST) if small else []
        parts = [[small[i] for i in run] for run in runs]

        def others() -> None:
            for built in self._write_large(large):
                self.built.add(built)

        if many and len(parts) > 1:
            folder, path = self.reader.folder, self.reader.catalog.path
            answers = fork_map(
                lambda _, part: _write_apart((folder, path), self.target, part, self.linking),
                parts,
                others,
            )
        else:
            others()
            answers = [write_files(self.reader, self.target, p, self.linking) for p in parts]
        for built in answers:
            self.built.add(built)

    def link_groups(self, groups: Iterable[list[bytes]]) -> None:
        """Make each group of paths one file again; the first that exists leads."""
        for group in groups:
            leader = None
            for path in group:
                if leader is None:
                    leader = path if self._exists(path) else None
                elif self._exists(path):
                    self._unlink(path)
                    self._link(leader, path)

    def finish(self) -> None:
        """Write what is still planned, then set the metadata of folders, deepest first."""
        if self._jobs:
            self.write()
        with cached(self._fd) as folders:
            for path, entry in reversed(self._folders):
                folder, name = split(path)
                fd = open_folder(folders.open(folder), name)
                try:
                    self.built.notes += [(path, why) for why in set_metadata(fd, entry)]
                finally:
                    os.close(fd)
        self._folders.clear()

    def _write_large(self, large: list[FileJob]) -> Iterator[Built]:
        """Write large files on all cores; copying and hashing free the interpreter."""
        if not large:
            return iter(())
        loose = [job for job in large if job.place.kind in (BlobKind.LOOSE, BlobKind.INODE)]

        def write(job: FileJob) -> Built:
            with cached(self._fd) as folders:
                return _write_large(self.reader.folder, folders, job, self.linking)

        with ThreadPoolExecutor(max_workers=cores()) as pool:
            answers = list(pool.map(write, loose))
        rest = [job for job in large if job.place.kind not in (BlobKind.LOOSE, BlobKind.INODE)]
        return iter([*answers, write_files(self.reader, self.target, rest, self.linking)])

    def _make_folder(self, path: bytes) -> None:
        folder, name = split(path)
        with cached(self._fd) as folders:
            os.mkdir(name, 0o700, dir_fd=folders.open(folder))

    def _make_special(self, path: bytes, entry: Entry) -> None:
        folder, name = split(path)
        with cached(self._fd) as folders:
            parent = folders.open(folder)
            try:
                make_special(parent, name, entry)
            except PermissionError as error:
                self.built.notes.append((path, f"it cannot be made: {error.strerror}"))

    def _exists(self, path: bytes) -> bool:
        folder, name = split(path)
        try:
            with cached(self._fd) as folders:
                os.stat(name, dir_fd=folders.open(folder), follow_symlinks=False)
        except FileNotFoundError:
            return False
        return True

    def _unlink(self, path: bytes) -> None:
        folder, name = split(path)
        with cached(self._fd) as folders:
            os.unlink(name, dir_fd=folders.open(folder))

    def _link(self, leader: bytes, path: bytes) -> None:
        with cached(self._fd) as sources, cached(self._fd) as folders:
            folder, name = split(path)
            source_folder, source = split(leader)
            os.link(
                source, name, src_dir_fd=sources.open(source_folder),
                dst_dir_fd=folders.open(folder), follow_symlinks=False,
            )  # fmt: skip


def _write_apart(
    store: tuple[bytes, Path], target: bytes, jobs: list[FileJob], linking: Linking
) -> Built:
    """Write files in a process of its own, with its own handles on the store."""
    folder, catalog = store
    # Files get their mode when they are created: nobody else runs in this process.
    os.umask(0)
    own = Catalog(catalog, writable=False)
    reader = BlobReader(folder, own)
    try:
        return write_files(reader, target, jobs, linking)
    finally:
        reader.close()
        own.close()


def write_files(reader: BlobReader, target: bytes, jobs: list[FileJob], linking: Linking) -> Built:
    """Write files below `target`, then read them again and compare.

    Raises:
        StoreCorrupt: A blob is damaged; its file is not left behind.
        DrillFailed: What was written reads differently.
    """
    built = Built()
    fd = open_root(target)
    try:
        plain = not _inherits_acl(fd)
        with cached(fd) as folders:
            for job in jobs:
                reach("stage.file")
                if job.link:
                    _link_blob(reader.folder, folders, job, linking)
                else:
                    if job.place.kind is BlobKind.INODE:
                        _copy_inode(reader.folder, folders.open(split(job.path)[0]), job, linking)
                        _prove(folders, job)
                    else:
                        built.notes += _write_one(reader, folders, job, plain=plain)
                    built.size += job.entry.size
                built.files += 1
    finally:
        os.close(fd)
    return built


def _share_blob(store: bytes, parent: int, name: bytes, job: FileJob) -> None:
    """Put a large blob itself in place, proven first: the disk has no room for a copy."""
    blob = job.entry.ref
    with open_blob(store, BlobKind.LOOSE, blob) as source:
        if hashlib.file_digest(source, "sha256").digest() != blob:
            raise damaged(blob, f"it is the content of {os.fsdecode(job.path)}")
        path = file_path(store, BlobKind.LOOSE, blob)
        os.link(path, name, dst_dir_fd=parent, follow_symlinks=False)
        set_metadata(source.fileno(), job.entry)


def _link_blob(store: bytes, folders: FolderCache, job: FileJob, linking: Linking) -> None:
    blob = job.entry.ref
    folder, name = split(job.path)
    parent = folders.open(folder)
    if job.place.kind is BlobKind.LOOSE:
        _share_blob(store, parent, name, job)
        return
    source = file_path(store, BlobKind.INODE, blob)
    try:
        os.link(source, name, dst_dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError:
        raise damaged(blob, "its file is missing") from None
    except OSError as error:
        if error.errno in {errno.EXDEV, errno.EMLINK, errno.EPERM}:
            _copy_inode(store, parent, job, linking)
            return
        raise
    info = os.stat(name, dir_fd=parent, follow_symlinks=False)
    if inode_id(info) != blob:
        os.unlink(name, dir_fd=parent)
        _copy_inode(store, parent, job, linking)
        return
    if stat.S_IMODE(info.st_mode) != job.entry.mode:
        os.chmod(name, job.entry.mode, dir_fd=parent)


def _copy_inode(store: bytes, parent: int, job: FileJob, linking: Linking) -> None:
    entry = job.entry
    fd = os.open(split(job.path)[1], _CREATE, 0o600, dir_fd=parent)
    try:
        with _open(store, job, linking) as source:
            while chunk := source.read(CHUNK):
                write_all(fd, chunk)
        set_metadata(fd, entry)
    finally:
        os.close(fd)


def _open(store: bytes, job: FileJob, linking: Linking) -> BufferedReader:
    def intact(file: BufferedReader) -> bool | None:
        return linking.intact(job.path, file)

    return open_blob(store, job.place.kind, job.entry.ref, intact)


def _write_one(
    reader: BlobReader, folders: FolderCache, job: FileJob, *, plain: bool
) -> list[tuple[bytes, str]]:
    """Write a packed blob, proven, and read the file again through its handle."""
    folder, name = split(job.path)
    entry = job.entry
    content = reader.read_at(job.place, entry.ref)
    if hashlib.sha256(content).digest() != entry.ref:
        raise damaged(entry.ref, f"it is the content of {os.fsdecode(job.path)}")
    notes: list[str] = []
    fd = os.open(name, _CREATE, entry.mode & 0o777, dir_fd=folders.open(folder))
    try:
        write_all(fd, content)
        info = os.fstat(fd)
        made = (stat.S_IMODE(info.st_mode), info.st_uid, info.st_gid)
        if plain and not entry.xattrs and made == (entry.mode, entry.uid, entry.gid):
            os.utime(fd, ns=(entry.mtime_ns, entry.mtime_ns))
        else:
            notes = set_metadata(fd, entry)
        info = os.fstat(fd)
        found = (stat.S_IMODE(info.st_mode), info.st_mtime_ns, info.st_size)
        if found != (entry.mode, entry.mtime_ns, entry.size):
            raise _differs(job.path, f"mode, mtime, size are {found}")
        if os.pread(fd, entry.size + 1, 0) != content:
            raise _differs(job.path, "its content differs")
    finally:
        os.close(fd)
    return [(job.path, why) for why in notes]


def _inherits_acl(folder: int) -> bool:
    """Return whether files made below a folder get an access list that nobody asked for."""
    try:
        return bool(os.getxattr(folder, "system.posix_acl_default"))
    except OSError:
        return False


def _write_large(store: bytes, folders: FolderCache, job: FileJob, linking: Linking) -> Built:
    """Copy or clone a large blob, holes kept, and prove it while it is copied."""
    folder, name = split(job.path)
    reach("stage.file")
    fd = os.open(name, _CREATE, 0o600, dir_fd=folders.open(folder))
    try:
        with _open(store, job, linking) as source:
            from_fd = source.fileno()
            info = os.fstat(from_fd)
            digest = hashlib.sha256()
            cloned = clone(from_fd, fd)
            buffer = bytearray(4 * CHUNK)
            for start, end, hole in segments(from_fd, info):
                if hole:
                    _hash_hole(digest, end - start)
                else:
                    _copy_hashed((from_fd, fd), (start, end), digest, buffer, write=not cloned)
            os.ftruncate(fd, info.st_size)
        if job.place.kind is BlobKind.LOOSE and digest.digest() != job.entry.ref:
            raise damaged(job.entry.ref, f"it is the content of {os.fsdecode(job.path)}")
        notes = [(job.path, why) for why in set_metadata(fd, job.entry)]
    finally:
        os.close(fd)
    return Built(1, job.entry.size, notes)


def _copy_hashed(
    fds: tuple[int, int],
    span: tuple[int, int],
    digest: hashlib._Hash,
    buffer: bytearray,
    *,
    write: bool,
) -> None:
    source, target = fds
    at, end = span
    while at < end:
        view = memoryview(buffer)[: min(len(buffer), end - at)]
        got = os.preadv(source, [view], at)
        if not got:
            raise StoreCorrupt("a blob became shorter", hint="guard verify --repair")
        digest.update(view[:got])
        done = 0
        while write and done < got:
            done += os.pwrite(target, view[done:got], at + done)
        at += got


def _hash_hole(digest: hashlib._Hash, count: int) -> None:
    zeros = bytes(min(count, CHUNK))
    while count > 0:
        digest.update(zeros[: min(count, CHUNK)])
        count -= CHUNK


def _prove(folders: FolderCache, job: FileJob) -> None:
    """Read a file that was written and compare it with its entry.

    Raises:
        DrillFailed: It reads differently.
    """
    folder, name = split(job.path)
    entry = job.entry
    parent = folders.open(folder)
    info = os.stat(name, dir_fd=parent, follow_symlinks=False)
    found = (stat.S_IMODE(info.st_mode), info.st_mtime_ns, info.st_size)
    if found != (entry.mode, entry.mtime_ns, entry.size):
        raise _differs(job.path, f"mode, mtime, size are {found}")
    if job.place.kind is BlobKind.INODE or not entry.mode & 0o400:
        return
    fd = os.open(name, _READ, dir_fd=parent)
    try:
        digest = hashlib.sha256()
        while chunk := os.read(fd, CHUNK):
            digest.update(chunk)
    finally:
        os.close(fd)
    if digest.digest() != entry.ref:
        raise _differs(job.path, "its content differs")


def _differs(path: bytes, why: str) -> DrillFailed:
    return DrillFailed(
        f"{os.fsdecode(path)} does not read as it was written: {why}",
        hint="check the disk; guard verify reads the whole store",
    )


def write_all(fd: int, content: bytes) -> None:
    """Write all of `content`."""
    view = memoryview(content)
    while view:
        view = view[os.write(fd, view) :]


def set_metadata(fd: int, entry: Entry, *, fresh: bool = True) -> list[str]:
    """Give an open file or folder the owner, mode, attributes and mtime of its entry.

    Args:
        fd: The file or folder.
        entry: What it shall have.
        fresh: Whether it was just made: then it has no attributes but those of an inherited
            ACL, which shows in the group's permissions, and they need not be looked for.

    Returns:
        What could not be set, as sentences.
    """
    notes: list[str] = []
    info = os.fstat(fd)
    if (info.st_uid, info.st_gid) != (entry.uid, entry.gid):
        try:
            os.chown(fd, entry.uid, entry.gid)
        except PermissionError:
            notes.append(f"its owner cannot be set to {entry.uid}:{entry.gid}")
    look = entry.xattrs or info.st_mode & 0o70 or not fresh
    current = dict(_xattrs(fd)) if look else {}
    for key in current.keys() - {k for k, _ in entry.xattrs}:
        with contextlib.suppress(OSError):
            os.removexattr(fd, key)
    for key, value in entry.xattrs:
        if current.get(key) != value:
            try:
                os.setxattr(fd, key, value)
            except OSError:
                notes.append(f"its attribute {os.fsdecode(key)} cannot be set")
    if stat.S_IMODE(os.fstat(fd).st_mode) != entry.mode:
        os.chmod(fd, entry.mode)
    os.utime(fd, ns=(entry.mtime_ns, entry.mtime_ns))
    return notes


def _xattrs(fd: int) -> Iterator[tuple[bytes, bytes]]:
    with contextlib.suppress(OSError):
        for name in os.listxattr(fd):
            with contextlib.suppress(OSError):
                yield os.fsencode(name), os.getxattr(fd, name)


def make_special(parent: int, name: bytes, entry: Entry) -> None:
    """Make a link, FIFO or device in an open folder.

    Raises:
        PermissionError: Devices need privileges.
    """
    if entry.kind is Kind.SYMLINK:
        os.symlink(entry.ref, name, dir_fd=parent)
    elif entry.kind is Kind.FIFO:
        os.mkfifo(name, entry.mode, dir_fd=parent)
    else:
        kind = stat.S_IFCHR if entry.kind is Kind.CHARACTER_DEVICE else stat.S_IFBLK
        os.mknod(name, kind | entry.mode, int(entry.ref), dir_fd=parent)
    set_special_metadata(parent, name, entry)


def set_special_metadata(parent: int, name: bytes, entry: Entry) -> None:
    """Give what cannot be opened its owner, mode and mtime."""
    info = os.stat(name, dir_fd=parent, follow_symlinks=False)
    if (info.st_uid, info.st_gid) != (entry.uid, entry.gid):
        with contextlib.suppress(PermissionError):
            os.chown(name, entry.uid, entry.gid, dir_fd=parent, follow_symlinks=False)
    if entry.kind is not Kind.SYMLINK:
        # Always: a new owner may have cost it its setuid bit.
        os.chmod(name, entry.mode, dir_fd=parent)
    times = (entry.mtime_ns, entry.mtime_ns)
    os.utime(name, ns=times, dir_fd=parent, follow_symlinks=False)
