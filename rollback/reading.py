"""Reading files into the store: small ones into packs, large ones as files, others by a link."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

from rollback.copying import hole_bytes, keep_file
from rollback.durable import sync_folder
from rollback.failpoints import reach
from rollback.folders import FolderCache, cached, split
from rollback.listing import Xattrs
from rollback.model import Kind
from rollback.sqlitefiles import SQLITE_MAGIC
from rollback.store.blobs import file_path
from rollback.store.catalog import BlobKind, Place
from rollback.store.codec import inode_id
from rollback.store.packs import PACK_LIMIT, PackWriter
from rollback.walk import open_root, read_xattrs

SMALL = 1 << 20
"""Files below this many bytes are packed; larger ones lie as files of their own."""
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
_TRIES = 3
_WRITTEN = "it was being written while it was read"
GROWN = "it has grown too large to be read at once"
GONE = "it went while the snapshot was taken"
_ABSENT = {errno.ENOENT, errno.ENOTDIR}
_MOST = 16 * SMALL
_Reduced = tuple[tuple[int, ...], dict[str, Any]]


class Kept(NamedTuple):
    """What became of one file; a tuple, because many are handed from process to process.

    Attributes:
        kind: FILE, DATABASE, or UNPROTECTED with a reason in `note`.
        ref: Blob id.
        place: Where a worker put it; None where the store had it or nothing was stored.
        info: What was read, where it differs from what the walk saw.
        xattrs: Extended attributes.
        note: Why the content is not kept, or that it changed while it was read.
        pack: Index of the worker's pack, where `place` is in one.
    """

    kind: Kind
    ref: bytes = b""
    place: Place | None = None
    info: os.stat_result | None = None
    xattrs: Xattrs = ()
    note: str = ""
    pack: int = -1


@dataclass(slots=True)
class SmallJobs:
    """Small files for one worker.

    Attributes:
        root: Absolute path of the root.
        paths: Relative paths, in walk order.
        infos: What the walk saw of each.
        packs: The store's ``packs`` folder.
        stem: Unique beginning of the names of the packs.
        find_databases: Whether SQLite's magic makes a file a database.
        knows: Whether the store has a blob; has to be safe in the process that works.
    """

    root: bytes
    paths: list[bytes]
    infos: list[os.stat_result]
    packs: bytes
    stem: str
    find_databases: bool
    knows: Callable[[bytes], bool]


def keep_small(jobs: SmallJobs) -> tuple[list[tuple[str, int]], list[Kept]]:
    """Read small files into packs; return the packs (name, length) and what became of each."""
    packs: list[PackWriter] = []
    done: list[tuple[str, int]] = []
    kept: list[Kept] = []
    seen: dict[bytes, Kept] = {}
    root = open_root(jobs.root)
    try:
        with cached(root) as folders:
            for path, walked in zip(jobs.paths, jobs.infos, strict=True):
                if packs and packs[0].length > PACK_LIMIT:
                    done.append(_end(packs.pop()))
                kept.append(_keep_one(jobs, folders, (path, walked), (packs, done, seen)))
        if packs:
            done.append(_end(packs.pop()))
    finally:
        os.close(root)
        for pack in packs:
            pack.abandon()
    return done, kept


def _keep_one(
    jobs: SmallJobs,
    folders: FolderCache,
    file: tuple[bytes, os.stat_result],
    state: tuple[list[PackWriter], list[tuple[str, int]], dict[bytes, Kept]],
) -> Kept:
    packs, done, seen = state
    try:
        content, info, xattrs, note = _read(folders, *file)
    except OSError as error:
        if error.errno in {errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM}:
            raise
        return _unread(error)
    if jobs.find_databases and content.startswith(SQLITE_MAGIC):
        return Kept(Kind.DATABASE, info=info, xattrs=xattrs)
    blob = hashlib.sha256(content).digest()
    before = seen.get(blob)
    if before is not None:
        return Kept(Kind.FILE, blob, before.place, info, xattrs, note, before.pack)
    place, number = None, -1
    if not jobs.knows(blob):
        if not packs:
            packs.append(PackWriter(jobs.packs, f"{jobs.stem}-{len(done)}"))
        number = len(done)
        offset = packs[0].append(BlobKind.PACKED, blob, content)
        place = Place(BlobKind.PACKED, -1, offset, len(content))
    result = Kept(Kind.FILE, blob, place, info, xattrs, note, number)
    seen[blob] = result
    return result


def _unread(error: OSError) -> Kept:
    """Return what became of a file that could not be read."""
    if error.errno in _ABSENT:
        return Kept(Kind.UNPROTECTED, note=GONE)
    grown = error.errno == errno.EFBIG
    note = GROWN if grown else f"it cannot be read: {error.strerror}"
    return Kept(Kind.UNPROTECTED, note=note)


def _end(pack: PackWriter) -> tuple[str, int]:
    pack.close()
    return pack.name, pack.length


def _read(
    folders: FolderCache, path: bytes, walked: os.stat_result
) -> tuple[bytes, os.stat_result | None, Xattrs, str]:
    """Return content, stat and attributes of a file, read again while it changes.

    The stat is None where it is what the walk saw.
    """
    folder, name = split(path)
    for attempt in range(_TRIES):
        fd = os.open(name, _READ, dir_fd=folders.open(folder))
        try:
            before = os.fstat(fd)
            if not stat.S_ISREG(before.st_mode):
                raise OSError(errno.EAGAIN, "it is not a regular file any more")
            if before.st_size > _MOST:
                raise OSError(errno.EFBIG, GROWN)
            content = _read_to(fd, before.st_size + 1)
            after = os.fstat(fd)
            quiet = same_content(before, after) and len(content) == after.st_size
            if quiet:
                changed = None if same_content(after, walked) else after
                return content, changed, read_xattrs(fd), ""
            if attempt == _TRIES - 1:
                content = content[: before.st_size]
                return content, sized(before, len(content)), read_xattrs(fd), _WRITTEN
        finally:
            os.close(fd)
    raise AssertionError("unreachable")


def _read_to(fd: int, most: int) -> bytes:
    """Read a file, but no more of it than `most` bytes: it may grow for as long as it is read."""
    content = os.read(fd, most)
    while content and len(content) < most - 1 and (more := os.read(fd, most - len(content))):
        content += more
    return content


def sized(info: os.stat_result, size: int) -> os.stat_result:
    """Return a stat result with another size: of what was kept of a file that was written."""
    if info.st_size == size:
        return info
    # As pickle and copy do: what has a place goes by it, all else by name, and nothing by both.
    fields, named = cast("_Reduced", info.__reduce__()[1])
    return os.stat_result((*fields[: stat.ST_SIZE], size, *fields[stat.ST_SIZE + 1 :]), named)


def same_content(one: os.stat_result, other: os.stat_result) -> bool:
    """Return whether two stat results speak of the same, unwritten file."""
    return (
        one.st_ctime_ns == other.st_ctime_ns
        and one.st_mtime_ns == other.st_mtime_ns
        and one.st_size == other.st_size
        and one.st_ino == other.st_ino
    )


def hash_file(folders: FolderCache, path: bytes) -> Kept:
    """Return the content id of a file without keeping it, read in large pieces.

    Raises:
        OSError: It cannot be read.
    """
    folder, name = split(path)
    fd = os.open(name, _READ, dir_fd=folders.open(folder))
    with os.fdopen(fd, "rb", buffering=0) as file:
        before = os.fstat(fd)
        digest = hashlib.file_digest(file, "sha256").digest()
        after = os.fstat(fd)
        note = "" if same_content(before, after) else _WRITTEN
        return Kept(Kind.FILE, digest, info=after, xattrs=read_xattrs(fd), note=note)


def keep_large(
    folders: FolderCache, path: bytes, store: bytes, work: bytes, knows: Callable[[bytes], bool]
) -> Kept:
    """Copy a large file into the store as a file of its own, holes kept, durable.

    Where the file system can share blocks, none is copied.

    Args:
        folders: Handles below the root.
        path: Relative path.
        store: The store.
        work: A private folder on the store's file system.
        knows: Whether the store has a blob.
    """
    folder, name = split(path)
    try:
        fd = os.open(name, _READ, dir_fd=folders.open(folder))
    except OSError as error:
        return _unread(error)
    return _keep_open(fd, store, work, knows)


def keep_shut(
    folders: FolderCache, path: bytes, store: bytes, work: bytes, knows: Callable[[bytes], bool]
) -> Kept:
    """Do what `keep_large` does for a file of one's own whose mode forbids to read it.

    Its mode is another one for as long as it takes to open it.
    """
    folder, name = split(path)
    try:
        parent = folders.open(folder)
        mode = stat.S_IMODE(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode)
        os.chmod(name, mode | stat.S_IRUSR, dir_fd=parent)
        try:
            fd = os.open(name, _READ, dir_fd=parent)
        finally:
            os.chmod(name, mode, dir_fd=parent)
    except OSError as error:
        return _unread(error)
    return _keep_open(fd, store, work, knows)


def _keep_open(fd: int, store: bytes, work: bytes, knows: Callable[[bytes], bool]) -> Kept:
    """Copy an open file into the store, and close it."""
    partial = os.path.join(work, b"loose-" + os.urandom(8).hex().encode())
    try:
        for _ in range(_TRIES):
            before = os.fstat(fd)
            digest, length, holes = _copy(fd, partial)
            after = os.fstat(fd)
            if same_content(before, after) and length == after.st_size:
                break
        quiet = same_content(before, after) and length == after.st_size
        place = None
        if not knows(digest):
            final = file_path(store, BlobKind.LOOSE, digest)
            with contextlib.suppress(FileExistsError):
                os.mkdir(os.path.dirname(final), 0o700)
            reach("loose.rename")
            os.rename(partial, final)
            sync_folder(os.path.dirname(final))
            place = Place(BlobKind.LOOSE, 0, holes, length)
        info = after if quiet else sized(before, length)
        return Kept(Kind.FILE, digest, place, info, read_xattrs(fd), "" if quiet else _WRITTEN)
    finally:
        os.close(fd)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(partial)


def _copy(source: int, partial: bytes) -> tuple[bytes, int, int]:
    """Copy an open file to a new one, synced; return its SHA-256, its length and its holes."""
    flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
    target = os.open(partial, flags, 0o600)
    try:
        digest, length = keep_file(source, target)
        reach("loose.sync")
        os.fsync(target)
        return digest, length, hole_bytes(target)
    finally:
        os.close(target)


def keep_link(folders: FolderCache, path: bytes, store: bytes) -> Kept | None:
    """Link a file into the store without reading it; None where that is not possible.

    Raises:
        OSError: The file is gone or the store cannot take it.
    """
    folder, name = split(path)
    parent = folders.open(folder)
    for _ in range(_TRIES):
        info = os.stat(name, dir_fd=parent, follow_symlinks=False)
        if not stat.S_ISREG(info.st_mode):
            return None
        blob = inode_id(info)
        if not link_into(store, blob, name, parent):
            return None
        after = os.stat(name, dir_fd=parent, follow_symlinks=False)
        if inode_id(after) == blob:
            place = Place(BlobKind.INODE, 0, 0, info.st_size)
            attributes = read_xattrs(os.path.join(b"/proc/self/fd/%d" % parent, name))
            return Kept(Kind.FILE, blob, place, after, attributes)
    return None


def link_into(store: bytes, blob: bytes, name: bytes, parent: int) -> bool:
    """Give a file a second name in the store; False where the file system refuses links."""
    target = file_path(store, BlobKind.INODE, blob)
    reach("link.create")
    for _ in range(_TRIES):
        try:
            os.link(name, target, src_dir_fd=parent, follow_symlinks=False)
        except FileExistsError:
            if inode_id(os.lstat(target)) == blob:
                return True
            os.unlink(target)
        except FileNotFoundError:
            # Either the file is gone, which the second try says, or the fan is not there yet.
            with contextlib.suppress(FileExistsError):
                os.mkdir(os.path.dirname(target), 0o700)
            os.stat(name, dir_fd=parent, follow_symlinks=False)
        except OSError as error:
            if error.errno in {errno.EXDEV, errno.EMLINK, errno.EPERM, errno.EOPNOTSUPP}:
                return False
            raise
        else:
            return True
    return False
