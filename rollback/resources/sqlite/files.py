"""The files of one database: found through folder handles, never through a link."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import os
import stat
import time
from collections.abc import Iterator

from rollback.resources.sqlite.holders import SIDE_FILES
from rollback.resources.sqlite.record import HEADER_BYTES, Image, Metadata, Signature
from rollback.times import TICK_NS, coarse_ns

MAGIC = b"SQLite format 3\0"
CHUNK = 1 << 20
_FOLDER = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
_HOT_JOURNAL = bytes.fromhex("d9d505f920a163d7")


def is_sqlite(header: bytes) -> bool:
    """Return whether the first bytes of a file are those of a SQLite database."""
    return header.startswith(MAGIC)


class Files:
    """A database and its side files in one folder, by a handle of that folder.

    Args:
        path: Absolute path without links; each folder of it is opened without following any.

    Raises:
        OSError: A folder is absent (ENOENT) or a link (ENOTDIR, ELOOP).
    """

    def __init__(self, path: bytes, *, create: bool = False) -> None:
        self.path = path
        folder, self.name = os.path.split(path)
        self.folder = _open_folder(folder, create=create)

    def close(self) -> None:
        """Give the folder handle back."""
        os.close(self.folder)

    def try_reading(self) -> None:
        """Do nothing, unless one of the files that exist may not be read.

        Raises:
            PermissionError: Which one.
        """
        for suffix in [b"", *self.sides()]:
            self.head(suffix)

    def stat(self, suffix: bytes = b"") -> os.stat_result | None:
        """Return what is at the name, a link itself; None where nothing is."""
        try:
            return os.stat(self.name + suffix, dir_fd=self.folder, follow_symlinks=False)
        except FileNotFoundError:
            return None
        except OSError as error:
            # The name of a database may leave no room for that of a side file.
            if error.errno == errno.ENAMETOOLONG and suffix:
                return None
            raise

    def is_file(self, suffix: bytes = b"") -> bool:
        """Whether a regular file is at the name."""
        info = self.stat(suffix)
        return info is not None and stat.S_ISREG(info.st_mode)

    def open(self, suffix: bytes = b"", flags: int = 0) -> int:
        """Open a regular file for reading (or with `flags` in addition).

        Raises:
            OSError: It is absent, a link, or nothing that can be read like a file.
        """
        return self.open_name(self.name + suffix, flags)

    def open_name(self, name: bytes, flags: int = 0) -> int:
        """Open a regular file of the folder, as `open` does."""
        fd = os.open(name, _READ | flags, dir_fd=self.folder)
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            shown = os.path.join(os.path.dirname(self.path), name)
            raise OSError(errno.EINVAL, "it is not a regular file", os.fsdecode(shown))
        return fd

    def head(self, suffix: bytes = b"") -> bytes:
        """Return the first 100 bytes; empty where there is no such file."""
        if suffix and not self.is_file(suffix):
            return b""
        try:
            fd = self.open(suffix)
        except FileNotFoundError:
            return b""
        try:
            return os.pread(fd, HEADER_BYTES, 0)
        finally:
            os.close(fd)

    def sides(self) -> list[bytes]:
        """Return the suffixes of the side files that exist."""
        return [suffix for suffix in SIDE_FILES if self.is_file(suffix)]

    def sizes(self) -> tuple[int, int]:
        """Return the bytes of the database, and of its side files together."""
        found = [self.stat(suffix) for suffix in (b"", *self.sides())]
        sizes = [0 if info is None else info.st_size for info in found]
        return sizes[0], sum(sizes[1:])

    def is_obstructed(self) -> bool:
        """Whether a folder, a FIFO or a link has the name of a side file.

        It is an entry of its folder like any other, and no part of the database. SQLite must
        not open the database then: it would wait for the other end of a FIFO.
        """
        return any(self.stat(s) is not None and not self.is_file(s) for s in SIDE_FILES)

    def log_size(self) -> int:
        """Return the bytes in the write-ahead log; -1 where there is none."""
        info = self.stat(b"-wal")
        return info.st_size if info is not None and stat.S_ISREG(info.st_mode) else -1

    def has_hot_journal(self) -> bool:
        """Whether the rollback journal holds pages of a transaction that did not end."""
        return self.head(b"-journal").startswith(_HOT_JOURNAL)

    def signature(self) -> Signature:
        """Return what changes when the content does: of the database, its log and its journal.

        The ``-shm`` is left out: it is an index of the log, and readers write it. So is the
        log's ctime: SQLite gives the log to the owner of the database whenever root opens it,
        even to read.
        """
        found: Signature = {}
        for suffix in (b"", b"-wal", b"-journal"):
            info = self.stat(suffix)
            if info is not None and (not suffix or stat.S_ISREG(info.st_mode)):
                times = [info.st_mtime_ns, 0 if suffix == b"-wal" else info.st_ctime_ns]
                found[suffix.decode()] = [info.st_size, *times, info.st_ino]
        return found

    def metadata(self, suffix: bytes = b"") -> Metadata:
        """Return mode, owner, time and extended attributes, without opening the content."""
        with self._handle(self.name + suffix) as (info, link):
            mode = stat.S_IMODE(info.st_mode)
            return Metadata(mode, info.st_uid, info.st_gid, info.st_mtime_ns, _xattrs(link))

    def set_metadata(self, meta: Metadata, name: bytes | None = None) -> None:
        """Give a file the metadata, as far as this user may.

        Args:
            meta: What it shall have.
            name: Another file of the folder, instead of the database.
        """
        with self._handle(self.name if name is None else name) as (info, link):
            if (info.st_uid, info.st_gid) != (meta.uid, meta.gid):
                # Only root may give a file away; the content matters more.
                with contextlib.suppress(PermissionError):
                    os.chown(link, meta.uid, meta.gid)
            wanted = {attribute for attribute, _ in meta.xattrs}
            for attribute, _ in _xattrs(link):
                if attribute not in wanted:
                    with contextlib.suppress(OSError):
                        os.removexattr(link, bytes.fromhex(attribute))
            for attribute, value in meta.xattrs:
                with contextlib.suppress(OSError):
                    os.setxattr(link, bytes.fromhex(attribute), bytes.fromhex(value))
            try:
                os.chmod(link, meta.mode)
                os.utime(link, ns=(meta.mtime_ns, meta.mtime_ns))
            except PermissionError:
                if os.geteuid() in {0, info.st_uid}:
                    raise

    @contextlib.contextmanager
    def _handle(self, name: bytes) -> Iterator[tuple[os.stat_result, str]]:
        # A path handle: closing it drops none of SQLite's locks, and it follows no link.
        flags = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(name, flags, dir_fd=self.folder)
        try:
            info = os.fstat(fd)
            if not stat.S_ISREG(info.st_mode):
                raise OSError(errno.EINVAL, "it is not a regular file", os.fsdecode(self.path))
            yield info, f"/proc/self/fd/{fd}"
        finally:
            os.close(fd)


class Reading(io.RawIOBase):
    """A stream over an open file that keeps the digest of all that passes.

    Args:
        fd: Read from its start by position; stays the caller's.
    """

    def __init__(self, fd: int) -> None:
        super().__init__()
        self._fd = fd
        self._header = b""
        self._body = hashlib.sha256()
        self._at = 0

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: object) -> int:
        """Fill the buffer as far as the file goes."""
        view = memoryview(buffer).cast("B")  # type: ignore[arg-type]
        filled = 0
        while filled < len(view):
            got = os.preadv(self._fd, [view[filled:]], self._at + filled)
            if not got:
                break
            filled += got
        start = min(filled, max(0, HEADER_BYTES - self._at))
        self._header += view[:start]
        self._body.update(view[start:filled])
        self._at += filled
        return filled

    def drain(self) -> None:
        """Read what is left, for the digest alone."""
        buffer = bytearray(CHUNK)
        while self.readinto(buffer):
            pass

    @property
    def image(self) -> Image:
        """What has passed so far."""
        return Image(self._header.hex(), self._body.hexdigest(), self._at)


def image_of(path: str) -> Image:
    """Return the image of a file of ours."""
    fd = os.open(path, _READ)
    try:
        reading = Reading(fd)
        reading.drain()
        return reading.image
    finally:
        os.close(fd)


def settles_in(signature: Signature) -> float:
    """Return after how many seconds a later write would show in the signature; 0 for now."""
    # Only a time close to now could come again: a later write never gets one of the far future.
    now = time.time_ns()
    times = (moment for values in signature.values() for moment in values[1:3])
    rest = [TICK_NS + coarse_ns(moment) - abs(now - moment) for moment in times]
    return max(0, *rest) / 1e9


def is_settled(signature: Signature) -> bool:
    """Whether a later write would show in the signature."""
    return not settles_in(signature)


def _open_folder(path: bytes, *, create: bool) -> int:
    fd = os.open(b"/", _FOLDER)
    for part in filter(None, path.split(b"/")):
        try:
            try:
                below = os.open(part, _FOLDER, dir_fd=fd)
            except FileNotFoundError:
                if not create:
                    raise
                os.mkdir(part, dir_fd=fd)
                below = os.open(part, _FOLDER, dir_fd=fd)
        finally:
            os.close(fd)
        fd = below
    return fd


def sync_folder(folder: int) -> None:
    """Make the names in a folder durable."""
    fd = os.open(b".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=folder)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _xattrs(link: str) -> tuple[tuple[str, str], ...]:
    try:
        names = sorted(os.listxattr(link))
    except OSError:
        return ()
    found = []
    for name in names:
        with contextlib.suppress(OSError):
            found.append((os.fsencode(name).hex(), os.getxattr(link, name).hex()))
    return tuple(found)
