"""Putting a database back: byte for byte where nobody has it open, else through SQLite.

A file that is replaced under a server leaves the server with the old one: it goes on serving
the new state and every write of it fails. So where another process has the database open, the
snapshot goes *into* the live file, in one transaction of SQLite's own, and the server sees the
old state with its next query. Both ways can be killed at any step and begun again.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import shutil
import sqlite3
import stat
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass

from rollback.errors import NoSpace, RestoreIncomplete
from rollback.failpoints import reach
from rollback.resources.base import Vault
from rollback.resources.sqlite import connection as sql
from rollback.resources.sqlite.connection import Blocked
from rollback.resources.sqlite.files import Files, sync_folder
from rollback.resources.sqlite.holders import (
    LOCK_FIRST,
    LOCK_LENGTH,
    SIDE_FILES,
    describe,
    holders,
)
from rollback.resources.sqlite.live import live_users, page_size_obstacle
from rollback.resources.sqlite.record import Metadata, Mode, Record

_RETRY_S = 0.05
_PAGES = 4096
_CACHE_KIB = 65_536
_CHUNK = 1 << 20
_WHOLE = b"-whole"
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_UNLOCKABLE = {errno.ENOENT, errno.ELOOP, errno.EINVAL, errno.ENXIO, errno.EACCES, errno.EROFS}
_SPOILT = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}


@dataclass
class Restorer:
    """Puts one database back.

    Attributes:
        files: The live database.
        record: The state that it shall have.
        vault: Where the content is.
        wait_s: How long to wait for others, in seconds.
    """

    files: Files
    record: Record
    vault: Vault
    wait_s: float

    def restore(self) -> None:
        """Make the live state equal the record.

        Raises:
            RestoreIncomplete: Another process keeps it locked, or something that is no file is
                in its place. The live database is what it was, or already the record.
            NoSpace: The log or journal of a live database does not fit. It is what it was.
        """
        if live_users(self.files, self.record):
            self._restore_into_live()
        else:
            self._replace()

    # Byte for byte.

    def _replace(self) -> None:
        staged = [(b"", self.record.blob, self.record.meta)]
        staged += [(os.fsencode(s.suffix), s.blob, s.meta) for s in self.record.sides]
        try:
            for suffix, blob, meta in staged:
                self._stage(suffix, blob, meta)
            whole = self._stage_whole()
            self._make_room()
            self._settle()
            self._swap([suffix for suffix, _, _ in staged], whole=whole)
        except BaseException:
            remove_staged(self.files)
            raise

    def _swap(self, suffixes: list[bytes], *, whole: bool) -> None:
        """Rename what was staged into place; at each step there is one state or the other.

        The live file alone is the state that it had (`_settle`). Side files never come to lie
        beside it, but beside a file that holds all that is in them already.
        """
        moves = [(suffix, suffix) for suffix in reversed(suffixes)]
        if whole:
            moves.insert(0, (_WHOLE, b""))
        with self._locked(self.files.name), self._locked(self._staged_name(_WHOLE)):
            # An opener of the old file meets our lock until the new one is in its place, and
            # who opens the new one finds exactly the side files that belong to it.
            for suffix in SIDE_FILES:
                if self.files.is_file(suffix):
                    _unlink(self.files, self.files.name + suffix)
            for staged, suffix in moves:
                reach("sqlite.swap")
                os.rename(
                    self._staged_name(staged),
                    self.files.name + suffix,
                    src_dir_fd=self.files.folder,
                    dst_dir_fd=self.files.folder,
                )
            sync_folder(self.files.folder)

    def _settle(self) -> None:
        """Let SQLite bring what lies beside the live file into it.

        What it has to say of that is left unheard: a file that it does not read is no better
        with its side files than without, and the undo snapshot has them all.
        """
        files = self.files
        if not files.is_file() or not files.sides() or files.is_obstructed():
            return
        with (
            contextlib.suppress(sqlite3.Error, Blocked),
            sql.connect(self.files.path, "rw", wait_s=min(self.wait_s, 1.0)) as live,
        ):
            self._refuse_another_file(live)
            live.execute("SELECT count(*) FROM sqlite_master").fetchone()
            live.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()

    def _stage_whole(self) -> bool:
        """Stage the database with its side files brought into it; say whether there is one."""
        telling = any(side.suffix in {"-wal", "-journal"} for side in self.record.sides)
        if self.record.mode is Mode.RAW or not telling:
            return False
        name = self._staged_name(_WHOLE)
        try:
            with self._recovered() as path, open(path, "rb") as source:
                fd = os.open(name, _CREATE, 0o600, dir_fd=self.files.folder)
                with os.fdopen(fd, "wb") as target:
                    shutil.copyfileobj(source, target, _CHUNK)
                    target.flush()
                    os.fsync(target.fileno())
                self.files.set_metadata(self.record.meta, name)
        except (OSError, sql.NotReadable):
            _unlink(self.files, name)  # it only bridges a moment, and there may be no space for it
            return False
        return True

    def _stage(self, suffix: bytes, blob: str, meta: Metadata) -> None:
        """Write verified content beside its place, durable and with its metadata."""
        name = self._staged_name(suffix)
        reach("sqlite.stage")
        fd = os.open(name, _CREATE, 0o600, dir_fd=self.files.folder)
        with os.fdopen(fd, "wb") as target:
            self.vault.copy_to(blob, target)
            target.flush()
            os.fsync(target.fileno())
        self.files.set_metadata(meta, name)

    def _staged_name(self, suffix: bytes) -> bytes:
        return _staged_name(self.files, suffix)

    def _make_room(self) -> None:
        for side in self.record.sides:
            suffix = os.fsencode(side.suffix)
            if self.files.stat(suffix) is not None and not self.files.is_file(suffix):
                raise RestoreIncomplete(
                    f"{_shown(self.files)}{side.suffix} is no file, and its place is needed",
                    hint="move it away, then run the rollback again",
                )
        info = self.files.stat()
        if info is None or not stat.S_ISDIR(info.st_mode):
            return  # a rename replaces links and special files and follows none
        try:
            os.rmdir(self.files.name, dir_fd=self.files.folder)
        except OSError as error:
            raise RestoreIncomplete(
                f"{_shown(self.files)} is a folder now and not empty; it was a database",
                hint="move the folder away, then run the rollback again",
            ) from error

    @contextlib.contextmanager
    def _locked(self, name: bytes) -> Iterator[int | None]:
        """Hold SQLite's exclusive lock on a file of the folder, if there is one.

        The lock is taken on SQLite's lock bytes, not through SQLite: opening the file would
        roll its journal back or make side files, and a damaged file does not open at all.
        """
        try:
            fd = self.files.open_name(name, flags=os.O_RDWR)
        except OSError as error:
            # Nothing is there to lock, or only to be replaced; or it may not be written, and
            # then nobody who might be writing it was found either.
            if error.errno not in _UNLOCKABLE:
                raise
            yield None
            return
        try:
            self._lock(fd)
            yield fd
        finally:
            os.close(fd)

    def _lock(self, fd: int) -> None:
        deadline = time.monotonic() + self.wait_s
        while True:
            try:
                fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB, LOCK_LENGTH, LOCK_FIRST)
            except OSError as error:
                if error.errno not in {errno.EAGAIN, errno.EACCES}:
                    raise
            else:
                return
            if time.monotonic() > deadline:
                raise self._busy()
            time.sleep(_RETRY_S)

    # Through SQLite.

    def _restore_into_live(self) -> None:
        with self._source() as source:
            try:
                self._back_up(source)
            except _Spoilt:
                self._empty_live()
                self._back_up(source)
        # After it: the last close of a WAL database may still write.
        self.files.set_metadata(self.record.meta)

    def _back_up(self, source: bytes) -> None:
        deadline = time.monotonic() + self.wait_s
        try:
            with (
                sql.connect(source, "ro") as snapshot,
                sql.connect(self.files.path, "rw", wait_s=min(self.wait_s, 1.0)) as live,
            ):
                self._refuse_another_file(live)
                # With the default of 2 MB the journal is synced hundreds of times on the way.
                live.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
                reach("sqlite.online")
                snapshot.backup(live, pages=_PAGES, progress=sql.patience(deadline), sleep=0.02)
                reach("sqlite.checkpoint")
                # In WAL mode the content is in the log by now, and counts; this makes the main
                # file agree, which readers in the middle of a query may delay.
                live.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        except Blocked:
            raise self._busy() from None
        except sqlite3.Error as error:
            raise self._translated(error) from error

    def _refuse_another_file(self, live: sqlite3.Connection) -> None:
        """Make sure that SQLite opened the file that is in the folder, not one behind a link."""
        with contextlib.suppress(sqlite3.Error):
            live.execute("PRAGMA schema_version").fetchone()
        wanted = self.files.stat()
        if wanted is None or not stat.S_ISREG(wanted.st_mode):
            raise RestoreIncomplete(
                f"{_shown(self.files)} was replaced during the rollback",
                hint="run the rollback again",
            )
        for fd in os.listdir("/proc/self/fd"):
            with contextlib.suppress(OSError):
                if os.path.samestat(os.stat(f"/proc/self/fd/{fd}"), wanted):
                    return
        raise RestoreIncomplete(
            f"a link on the way to {_shown(self.files)} leads elsewhere",
            hint="remove the link, then run the rollback again",
        )

    def _empty_live(self) -> None:
        """Turn a live file that SQLite does not read into an empty database, same inode.

        Its content is in the undo snapshot, and is of no use to whoever has it open.
        """
        with self._locked(self.files.name) as fd:
            if fd is None:
                return
            for suffix in SIDE_FILES:
                _unlink(self.files, self.files.name + suffix)
            os.ftruncate(fd, 0)
            os.fsync(fd)

    @contextlib.contextmanager
    def _source(self) -> Iterator[bytes]:
        """Give the snapshot as one file in scratch, in rollback-journal mode."""
        with self._recovered() as path:
            with open(path, "r+b") as file:
                if os.pread(file.fileno(), 1, 19) == b"\2":
                    os.pwrite(file.fileno(), b"\1\1", 18)
            yield os.fsencode(path)

    @contextlib.contextmanager
    def _recovered(self) -> Iterator[str]:
        """Give the snapshot as one file in scratch that needs none beside it."""
        folder = tempfile.mkdtemp(prefix="sqlite-", dir=self.vault.scratch)
        try:
            path = build(self.record, self.vault, folder)
            if self.record.mode is Mode.RECOVER:
                sql.recover(path)
            yield path
        finally:
            shutil.rmtree(folder)

    def _translated(self, error: sqlite3.Error) -> Exception:
        code = (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF
        if sql.is_blocked(error):
            return self._busy()
        if code in _SPOILT:
            return _Spoilt()
        if code == sqlite3.SQLITE_FULL:
            return NoSpace(
                f"there is no space to put {_shown(self.files)} back under those who have it open",
                hint="free some space, then run the rollback again",
                missing_bytes=self.record.size,
            )
        if (obstacle := page_size_obstacle(self.files, self.record)) is not None:
            why, fix = obstacle
            return RestoreIncomplete(
                f"{_shown(self.files)} was not put back: {why}",
                hint=f"{fix}, then run the rollback again",
            )
        who = describe(holders(self.files.path))
        return RestoreIncomplete(
            f"{_shown(self.files)} could not be put back while {who} has it open: {error}",
            hint="stop that process, or make file and folder writable for this user,"
            " then run the rollback again",
        )

    def _busy(self) -> RestoreIncomplete:
        who = describe(holders(self.files.path))
        return RestoreIncomplete(
            f"{_shown(self.files)} was kept locked for {self.wait_s:g} s by {who}",
            hint="stop that process, then run the rollback again",
        )


class _Spoilt(Exception):
    """SQLite does not read the live file."""


def build(record: Record, vault: Vault, folder: str) -> str:
    """Write a recorded database, with the side files that it needs, into an empty folder.

    Returns:
        Path of the database there.
    """
    path = os.path.join(folder, "database")
    with open(path, "xb") as target:
        vault.copy_to(record.blob, target)
        target.flush()
        os.fsync(target.fileno())
    for side in record.sides:
        with open(path + side.suffix, "xb") as target:
            vault.copy_to(side.blob, target)
            target.flush()
            os.fsync(target.fileno())
    return path


def remove_staged(files: Files) -> None:
    """Remove what a killed restore staged beside a database; the folder keeps its time."""
    info = os.stat(b".", dir_fd=files.folder)
    for suffix in (b"", _WHOLE, *SIDE_FILES):
        _unlink(files, _staged_name(files, suffix))
    if os.stat(b".", dir_fd=files.folder).st_mtime_ns != info.st_mtime_ns:
        os.utime(f"/proc/self/fd/{files.folder}", ns=(info.st_atime_ns, info.st_mtime_ns))


def remove(files: Files) -> None:
    """Unlink a database and what is beside it; nothing where it is absent.

    The database goes first: what is left of it after a kill means nothing without it.
    """
    for suffix in (b"", *SIDE_FILES):
        info = files.stat(suffix)
        if info is None or (suffix and not stat.S_ISREG(info.st_mode)):
            continue
        if stat.S_ISDIR(info.st_mode):
            raise RestoreIncomplete(
                f"{_shown(files)} is a folder now", hint="move it away, then run the rollback again"
            )
        os.unlink(files.name + suffix, dir_fd=files.folder)
    sync_folder(files.folder)


def _staged_name(files: Files, suffix: bytes) -> bytes:
    # Always the same, so that the next try finds it, and short, whatever the name.
    return b".guard-" + hashlib.sha256(files.name).hexdigest()[:16].encode() + suffix


def _unlink(files: Files, name: bytes) -> None:
    try:
        os.unlink(name, dir_fd=files.folder)
    except OSError as error:
        if error.errno not in {errno.ENOENT, errno.ENAMETOOLONG}:
            raise


def _shown(files: Files) -> str:
    return files.path.decode("utf-8", "backslashreplace")
