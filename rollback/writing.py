"""Writing files from the store: each proven while it is written, and read again.

What is written is held against the manifest: size, mode, mtime, SHA-256.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass, field
from io import BufferedReader

from rollback.copying import restore_file
from rollback.errors import damaged
from rollback.failpoints import reach
from rollback.folders import FolderCache, cached, split
from rollback.metadata import set_metadata
from rollback.model import Entry, Policy
from rollback.resources.base import Root
from rollback.store.blobs import BlobReader, file_path, open_blob
from rollback.store.catalog import BlobKind, Place
from rollback.store.codec import inode_id
from rollback.store.pages import CHUNK
from rollback.walk import open_root

_CREATE = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


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


def _are_two(_one: bytes, _other: bytes) -> bool:
    return False


@dataclass(frozen=True, slots=True)
class Linking:
    """What is known of files that the store holds by a link; paths are those of the build.

    Attributes:
        may: Whether the file at a path may share its inode with the store.
        intact: Whether a linked file whose signature changed still holds what its owner wrote.
        share_large: Whether large blobs, and what a rollback moved, are linked instead of copied,
            for want of space.
        one_file: Whether two paths are to be names of one file.
    """

    may: Callable[[bytes], bool]
    intact: Callable[[bytes, BufferedReader], bool | None]
    share_large: bool = False
    one_file: Callable[[bytes, bytes], bool] = _are_two

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


def write_files(
    reader: BlobReader, target: bytes, jobs: list[FileJob], linking: Linking, *, prove: bool
) -> Built:
    """Write files below `target`.

    Args:
        reader: The store.
        target: A folder of guard's own.
        jobs: What to write.
        linking: What is known of linked files.
        prove: Whether content is hashed before it is written; else the caller reads all again.

    Raises:
        StoreCorrupt: A blob is damaged; its file is not left behind.
    """
    built = Built()
    fd = open_root(target)
    try:
        plain = not _inherits_acl(fd)
        with cached(fd) as folders:
            for job in jobs:
                reach("stage.file")
                parent = folders.open(split(job.path)[0])
                if job.link:
                    notes = _link_blob(reader.folder, parent, job, linking)
                elif job.place.kind is BlobKind.INODE:
                    notes = _copy_inode(reader.folder, parent, job, linking)
                else:
                    content = _content(reader, job, prove=prove)
                    notes = _write_one(parent, job, content, plain=plain)
                built.notes += [(job.path, why) for why in notes]
                built.size += 0 if job.link else job.entry.size
                built.files += 1
    finally:
        os.close(fd)
    return built


def _content(reader: BlobReader, job: FileJob, *, prove: bool) -> bytes:
    content = reader.read_at(job.place, job.entry.ref)
    if prove and hashlib.sha256(content).digest() != job.entry.ref:
        raise damaged(job.entry.ref, f"it is the content of {os.fsdecode(job.path)}")
    return content


def _share_blob(store: bytes, parent: int, name: bytes, job: FileJob) -> list[str]:
    """Put a large blob itself in place, proven first: the disk has no room for a copy."""
    blob = job.entry.ref
    with open_blob(store, BlobKind.LOOSE, blob) as source:
        if hashlib.file_digest(source, "sha256").digest() != blob:
            raise damaged(blob, f"it is the content of {os.fsdecode(job.path)}")
        path = file_path(store, BlobKind.LOOSE, blob)
        os.link(path, name, dst_dir_fd=parent, follow_symlinks=False)
        return set_metadata(source.fileno(), job.entry)


def _link_blob(store: bytes, parent: int, job: FileJob, linking: Linking) -> list[str]:
    blob, name = job.entry.ref, split(job.path)[1]
    if job.place.kind is BlobKind.LOOSE:
        return _share_blob(store, parent, name, job)
    source = file_path(store, BlobKind.INODE, blob)
    try:
        os.link(source, name, dst_dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError:
        raise damaged(blob, "its file is missing") from None
    except OSError as error:
        if error.errno in {errno.EXDEV, errno.EMLINK, errno.EPERM}:
            return _copy_inode(store, parent, job, linking)
        raise
    info = os.stat(name, dir_fd=parent, follow_symlinks=False)
    # A time that git has freshened since is the link's, too: it cannot have both.
    held = inode_id(info) == blob or job.place.moved
    if not held or (info.st_size, info.st_mtime_ns) != (job.entry.size, job.entry.mtime_ns):
        os.unlink(name, dir_fd=parent)
        return _copy_inode(store, parent, job, linking)
    if stat.S_IMODE(info.st_mode) != job.entry.mode:
        os.chmod(name, job.entry.mode, dir_fd=parent)
    return []


def _copy_inode(store: bytes, parent: int, job: FileJob, linking: Linking) -> list[str]:
    entry = job.entry
    fd = os.open(split(job.path)[1], _CREATE, 0o600, dir_fd=parent)
    try:
        with _open(store, job, linking) as source:
            while chunk := source.read(CHUNK):
                write_all(fd, chunk)
        return set_metadata(fd, entry)
    finally:
        os.close(fd)


def _open(store: bytes, job: FileJob, linking: Linking) -> BufferedReader:
    def intact(file: BufferedReader) -> bool | None:
        # What was written to after a rollback had moved it is what it is now: see `later_entry`.
        return job.place.moved or linking.intact(job.path, file)

    return open_blob(store, job.place.kind, job.entry.ref, intact)


def _write_one(parent: int, job: FileJob, content: bytes, *, plain: bool) -> list[str]:
    """Write a packed blob."""
    entry = job.entry
    notes: list[str] = []
    fd = os.open(split(job.path)[1], _CREATE, entry.mode & 0o777, dir_fd=parent)
    try:
        write_all(fd, content)
        info = os.fstat(fd)
        made = (stat.S_IMODE(info.st_mode), info.st_uid, info.st_gid)
        if plain and not entry.xattrs and made == (entry.mode, entry.uid, entry.gid):
            os.utime(fd, ns=(entry.mtime_ns, entry.mtime_ns))
        else:
            notes = set_metadata(fd, entry)
    finally:
        os.close(fd)
    return notes


def _inherits_acl(folder: int) -> bool:
    """Return whether files made below a folder get an access list that nobody asked for."""
    try:
        return bool(os.getxattr(folder, "system.posix_acl_default"))
    except OSError:
        return False


def write_large(
    store: bytes, folders: FolderCache, job: FileJob, linking: Linking, *, prove: bool
) -> Built:
    """Copy or clone a large blob, holes kept.

    Raises:
        StoreCorrupt: It is damaged, as far as `prove` lets that show.
    """
    folder, name = split(job.path)
    reach("stage.file")
    fd = os.open(name, _CREATE, 0o600, dir_fd=folders.open(folder))
    try:
        with _open(store, job, linking) as source:
            digest = hashlib.sha256() if prove and job.place.kind is BlobKind.LOOSE else None
            restore_file(source.fileno(), fd, digest)
        if digest is not None and digest.digest() != job.entry.ref:
            raise damaged(job.entry.ref, f"it is the content of {os.fsdecode(job.path)}")
        notes = [(job.path, why) for why in set_metadata(fd, job.entry)]
    finally:
        os.close(fd)
    return Built(1, job.entry.size, notes)


def write_all(fd: int, content: bytes) -> None:
    """Write all of `content`."""
    view = memoryview(content)
    while view:
        view = view[os.write(fd, view) :]
