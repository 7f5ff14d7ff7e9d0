"""Reading a database as it is now: one committed state, under writers, inside a deadline.

Three ways, by what is found beside the file:

* no log in use and no locks needed: the bytes themselves, and the signature before and after
  proves that nobody wrote meanwhile (a WAL database at rest; opening it, even read only, would
  leave ``-wal`` and ``-shm`` behind);
* rollback journal: the bytes under a read transaction, which keeps writers waiting;
* write-ahead log in use: SQLite's backup API under a held read transaction, which keeps nobody
  waiting (without the held transaction it starts again with each commit and never ends).

What a crash left (a hot journal, a log with nobody at it) is kept as it lies, files and all,
and a copy in scratch proves what SQLite will make of it: recovering in place would write.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import IO, Protocol, cast

from rollback.model import Skip
from rollback.resources.sqlite import connection as sql
from rollback.resources.sqlite.connection import Blocked, NotReadable
from rollback.resources.sqlite.files import (
    Files,
    Reading,
    image_of,
    is_settled,
    is_sqlite,
    settles_in,
)
from rollback.resources.sqlite.holders import describe, holders
from rollback.resources.sqlite.record import Metadata, Mode, Record, Side, Signature

_SETTLE_S = 0.005
_RETRY_S = 0.05
_BACKUP_PAGES = 1000


class Keep(Protocol):
    """Where the bytes go while they are read."""

    def pages(self, source: IO[bytes]) -> str:
        """Take the main file and return its id."""

    def file(self, source: IO[bytes]) -> str:
        """Take a side file and return its id."""


class Discard:
    """Keeps nothing: for a reading that only compares."""

    def pages(self, source: IO[bytes]) -> str:
        """Read to the end."""
        cast("Reading", source).drain()
        return ""

    def file(self, source: IO[bytes]) -> str:
        """Read to the end."""
        cast("Reading", source).drain()
        return ""


@dataclass
class Reader:
    """Reads one database.

    Attributes:
        files: The database and what is beside it.
        keep: Where the bytes go.
        scratch: A private folder with room for a copy.
        wait_s: How long to wait for others, in seconds.
        skips: What has to be said about the result.
    """

    files: Files
    keep: Keep
    scratch: str
    wait_s: float
    skips: list[Skip] = field(default_factory=list)
    _users: list[tuple[int, str]] | None = None

    @property
    def users(self) -> list[tuple[int, str]]:
        """Other processes that have it open, looked up once."""
        if self._users is None:
            self._users = holders(self.files.path, deleted=False)
        return self._users

    def read(self) -> Record:
        """Return the record of the state as of now; never fails for what the file contains.

        Raises:
            OSError: It cannot be read, or scratch cannot be written.
        """
        path = os.fsdecode(self.files.path)
        if not self.files.is_file():
            return Record(Mode.ABSENT, path)
        deadline = time.monotonic() + self.wait_s
        while True:
            self._users = None
            try:
                record = self._read_once(deadline)
            except FileNotFoundError:
                # The database went away, or what is beside it: look again.
                if not self.files.is_file():
                    return Record(Mode.ABSENT, path)
                if time.monotonic() > deadline:
                    raise
                record = None
            if record is not None:
                return replace(record, path=path)
            if time.monotonic() > deadline:
                return replace(self._last_resort(), path=path)
            time.sleep(_RETRY_S)

    def _read_once(self, deadline: float) -> Record | None:
        """Try the way that fits what is there; None where others were in the way."""
        # Looking for users opens the file, and closing it drops every lock of this process on
        # it: so this comes first.
        files, users = self.files, self.users
        head, log = files.head(), files.log_size()
        unfinished = log > 0 or files.has_hot_journal()
        no_database = bool(head) and not is_sqlite(head)
        if no_database or files.is_obstructed() or (unfinished and not users):
            return self._as_it_lies()
        try:
            if log > 0:
                return self._through_log(deadline)
            if head[19:20] == b"\2" or log == 0:  # the version that a reader has to know: WAL
                record = self._at_rest()
                return self._through_log(deadline) if record is None and users else record
            return self._under_lock(deadline)
        except (Blocked, NotReadable):
            # Locked for ever, but perhaps not written: then the bytes as they lie are what a
            # crash of the holder would leave, and recovery makes the last commit of them. Or a
            # hot journal that only a writer may roll back. Or no database at all.
            return self._as_it_lies()

    def _at_rest(self) -> Record | None:
        before = self._settled_signature()
        if before is None:
            return None
        try:
            with sql.connect(self.files.path, "immutable") as db:
                record = self._take(db)
        except sqlite3.Error as error:
            raise NotReadable(str(error)) from error
        if self.files.signature() != before:
            return None
        return replace(record, signature=before, settled=True)

    def _under_lock(self, deadline: float) -> Record | None:
        with contextlib.ExitStack() as stack:
            # Closing any descriptor of the file drops this process's locks on it, so the one
            # for the bytes is opened before, and closed after, the connection.
            fd = self.files.open()
            stack.callback(os.close, fd)
            try:
                db = stack.enter_context(sql.connect(self.files.path, "ro"))
                sql.hold(db, deadline)
                before = self.files.signature()
                settled = is_settled(before)
                record = self._take(db, fd)
            except sqlite3.Error as error:
                if sql.is_blocked(error):
                    raise Blocked from error
                raise NotReadable(str(error)) from error
        # A writer may open and write its journal meanwhile, but not the database. Should it have
        # (our lock was dropped by another descriptor of this process), the bytes are read again.
        if self.files.signature().get("") != before[""]:
            return None
        return replace(record, signature=before, settled=settled)

    def _through_log(self, deadline: float) -> Record | None:
        before = self.files.signature()
        with self._scratch_folder() as folder:
            copy = os.path.join(folder, "database")
            try:
                with sql.connect(self.files.path, "ro") as db:
                    sql.hold(db, deadline)
                    _back_up(db, copy, deadline)
            except sqlite3.Error as error:
                sql.refuse_full(error, copy)
                if sql.is_blocked(error):
                    raise Blocked from error
                raise NotReadable(str(error)) from error
            _set_journal_mode(copy, b"\2\2")
            record = replace(self._take_copy(copy), meta=self.files.metadata())
        settled = is_settled(before) and before == self.files.signature()
        return replace(record, signature=before, settled=settled, in_use=bool(self.users))

    def _as_it_lies(self, *, steady: bool = True) -> Record | None:
        """Keep the very bytes of all files; SQLite judges a copy of them in scratch."""
        with self._scratch_folder() as folder:
            before = self._settled_signature() if steady else self.files.signature()
            if before is None:
                return None
            copy = os.path.join(folder, "database")
            meta = self._copy_out(b"", copy)
            sides = {}
            for suffix in filter(self._belongs, self.files.sides()):
                try:
                    sides[suffix] = self._copy_out(suffix, copy + suffix.decode())
                except FileNotFoundError:
                    if steady:
                        return None
            if steady and self.files.signature() != before:
                return None
            record = replace(
                self._keep_copy(copy, sides),
                meta=meta,
                signature=before,
                settled=steady,
                in_use=bool(self.users),
            )
            return self._judge(record, copy)

    def _last_resort(self) -> Record:
        """Copy what is there although it never stood still; said loudly."""
        record = self._as_it_lies(steady=False)
        if record is None:
            raise AssertionError("only a steady reading comes back empty")
        who = describe(self.users)
        self.skips.append(
            Skip(
                f"a consistent copy of {os.fsdecode(self.files.name)}",
                f"it was locked or written without a pause for {self.wait_s:g} s by {who}; the"
                " copy that was made is what lay on the disk",
                "end the writer, or run again when it is idle",
            )
        )
        return record

    def _judge(self, record: Record, copy: str) -> Record:
        hot = any(side.suffix in {"-wal", "-journal"} for side in record.sides)
        try:
            sql.recover(copy)
            with sql.connect(os.fsencode(copy), "immutable") as db:
                health = sql.check(db, limit_s=sql.CHECK_S)
                recovered = image_of(copy)
                facts = sql.facts(db, recovered)
        except (NotReadable, sqlite3.Error) as error:
            return replace(record, mode=Mode.RAW, health=str(error))
        if recovered == record.image:
            hot = False
        mode = Mode.RECOVER if hot else Mode.DATABASE
        recovered_image = recovered if hot else None
        return replace(record, mode=mode, recovered=recovered_image, health=health, facts=facts)

    def _take(self, db: sqlite3.Connection, fd: int | None = None) -> Record:
        """Read the live bytes and facts, while the caller keeps them from changing."""
        opened = self.files.open() if fd is None else fd
        try:
            reading = Reading(opened)
            blob = self.keep.pages(cast("IO[bytes]", reading))
            image = reading.image
        finally:
            if fd is None:
                os.close(opened)
        sides = tuple(self._take_side(s) for s in self.files.sides() if self._belongs(s))
        health, about = sql.check(db, limit_s=sql.CHECK_S), sql.facts(db, image)
        meta, users = self.files.metadata(), bool(self.users)
        return Record(
            Mode.DATABASE, "", blob, image, sides, None, meta,
            in_use=users, health=health, facts=about,
        )  # fmt: skip

    def _take_side(self, suffix: bytes) -> Side:
        fd = self.files.open(suffix)
        try:
            reading = Reading(fd)
            blob = self.keep.file(cast("IO[bytes]", reading))
            return Side(suffix.decode(), blob, reading.image, self.files.metadata(suffix))
        finally:
            os.close(fd)

    def _take_copy(self, copy: str) -> Record:
        """Keep a consistent copy that lies in scratch."""
        record = self._keep_copy(copy, {})
        with sql.connect(os.fsencode(copy), "immutable") as db:
            health, about = sql.check(db, limit_s=sql.CHECK_S), sql.facts(db, record.image)
        return replace(record, mode=Mode.DATABASE, health=health, facts=about)

    def _keep_copy(self, copy: str, sides: dict[bytes, Metadata]) -> Record:
        with open(copy, "rb") as file:
            reading = Reading(file.fileno())
            blob = self.keep.pages(cast("IO[bytes]", reading))
        kept = []
        for suffix, meta in sides.items():
            with open(copy + suffix.decode(), "rb") as file:
                stream = Reading(file.fileno())
                name = self.keep.file(cast("IO[bytes]", stream))
            kept.append(Side(suffix.decode(), name, stream.image, meta))
        return Record(Mode.RAW, "", blob, reading.image, tuple(kept))

    def _belongs(self, suffix: bytes) -> bool:
        """Whether a side file is part of the state: never while its owner is at work on it."""
        if not self.users:
            return True
        if suffix == b"-journal":
            return self.files.has_hot_journal()
        return suffix == b"-wal" and self.files.log_size() > 0

    def _settled_signature(self) -> Signature | None:
        """Return a signature in which a later write shows; None while somebody writes."""
        signature = self.files.signature()
        if rest_s := settles_in(signature):
            time.sleep(rest_s + _SETTLE_S)
            signature = self.files.signature()
        return signature if is_settled(signature) else None

    def _copy_out(self, suffix: bytes, target: str) -> Metadata:
        with (
            os.fdopen(self.files.open(suffix), "rb") as source,
            open(target, "xb") as copy,
        ):
            shutil.copyfileobj(source, copy, 1 << 20)
        return self.files.metadata(suffix)

    @contextlib.contextmanager
    def _scratch_folder(self) -> Iterator[str]:
        folder = tempfile.mkdtemp(prefix="sqlite-", dir=self.scratch)
        try:
            yield folder
        finally:
            shutil.rmtree(folder)


def _back_up(db: sqlite3.Connection, copy: str, deadline: float) -> None:
    with sql.connect(os.fsencode(copy), "rwc") as target:
        target.execute("PRAGMA journal_mode=OFF")
        target.execute("PRAGMA synchronous=OFF")
        db.backup(target, pages=_BACKUP_PAGES, progress=sql.patience(deadline), sleep=0.02)


def _set_journal_mode(path: str, mode: bytes) -> None:
    """Write the journal mode into the header of a scratch copy: a byte each to read and write."""
    with open(path, "r+b") as file:
        if len(os.pread(file.fileno(), 20, 0)) == 20:  # noqa: PLR2004 - offset of the field
            os.pwrite(file.fileno(), mode, 18)
