"""The SQLite database as a resource of the engine."""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import IO, ClassVar

from rollback.errors import DrillFailed, RestoreIncomplete
from rollback.metadata import AS_OWNER, THEIRS, owner_stays
from rollback.model import Category, ResourceState, Skip, Step
from rollback.resources.base import Rehearsal, StateChange, Vault, Weight
from rollback.resources.sqlite import connection as sql
from rollback.resources.sqlite.comparing import CopyTo, with_rewritten
from rollback.resources.sqlite.describing import (
    compare_looks,
    compare_records,
    describe_records,
)
from rollback.resources.sqlite.files import Files, image_of
from rollback.resources.sqlite.holders import describe, holders
from rollback.resources.sqlite.live import page_size_obstacle
from rollback.resources.sqlite.reading import Discard, Reader
from rollback.resources.sqlite.record import Metadata, Mode, Record, Signature
from rollback.resources.sqlite.recorded import (
    copy_kept,
    differs,
    is_unchanged,
    needs_copy,
    record_of,
)
from rollback.resources.sqlite.restoring import Restorer, build, remove, remove_staged

KIND = "sqlite"
_UNSEEN = "who of other users had it open reads the old file until it is opened anew"
_IN_THE_WAY = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP}


class SqliteResource:
    """One SQLite file and what lies beside it.

    Args:
        path: The database; links on the way to it are resolved now, and never followed later.
        name: Name that people read; unique in a snapshot.
        category: Which of the six it belongs to.
        wait_s: How long to wait for processes that keep it locked, in seconds.
    """

    resource: ClassVar[str] = KIND

    def __init__(
        self,
        path: Path,
        *,
        name: str,
        category: Category = Category.DATABASES,
        wait_s: float = 10.0,
    ) -> None:
        self.name = name
        self.category = category
        self.wait_s = wait_s
        self.location = os.path.abspath(path)
        self._path = os.fsencode(os.path.realpath(self.location))
        self._seen: Record | None = None

    @classmethod
    def from_state(cls, state: ResourceState, *, wait_s: float = 10.0) -> SqliteResource:
        """Return the resource that recorded a state.

        Raises:
            StoreCorrupt: The state is not one that this resource writes.
        """
        made = cls(Path(state.location), name=state.name, category=state.category, wait_s=wait_s)
        made._path = os.fsencode(record_of(state).path)
        return made

    def absent(self) -> ResourceState:
        """Return the state of there being no such database."""
        return self._state(Record(Mode.ABSENT, os.fsdecode(self._path)))

    def capture(
        self, vault: Vault, previous: ResourceState | None
    ) -> tuple[ResourceState, tuple[Skip, ...]]:
        """Record the state as of now: one committed state, whoever writes meanwhile.

        What is no database any more, or not yet, is recorded byte for byte, and said. A file
        that vanished is recorded as absent.

        Args:
            vault: Where content goes.
            previous: State of the same database in the newest snapshot.

        Returns:
            `previous` itself where nothing changed since, and what has to be said.
        """
        before = None if previous is None else record_of(previous)
        try:
            self.try_reading()
        except PermissionError as error:
            why = f"it cannot be read: {error.strerror}"
            fix = f"let this user read it (chmod u+r {self.location}), or exclude it"
            return self._state(self._look(Mode.UNREADABLE)), (Skip(self.name, why, fix),)
        except OSError as error:
            if error.errno not in _IN_THE_WAY:
                raise
            return self.absent(), ()
        with _opened(self._path) as files:
            if before is not None and previous is not None and is_unchanged(before, files):
                return previous, self._damage(before)
            keep = _Keep(vault, None if before is None else before.blob or None)
            reader = Reader(files, keep, vault.scratch, self.wait_s)
            record = reader.read()
        return self._state(record), (*reader.skips, *self._damage(record))

    def try_reading(self) -> None:
        """Do nothing, unless one of its files that are there may not be read.

        Raises:
            PermissionError: Which one.
            OSError: There is no folder to look into.
        """
        with _opened(self._path) as files:
            if files.is_file():
                files.try_reading()

    def weigh(self, previous: ResourceState | None) -> Weight:
        """Return what a capture takes: nothing where nothing changed since the one before.

        Args:
            previous: State of the same database in the newest snapshot.
        """
        before = None if previous is None else record_of(previous)
        try:
            with _opened(self._path) as files:
                if not files.is_file() or (before is not None and is_unchanged(before, files)):
                    return Weight()
                known = before.image.size if before is not None and before.blob else 0
                main, sides = files.sizes()
                scratch = main + 2 * sides if needs_copy(files) else 0
                return Weight(max(0, main - known), main + sides, scratch)
        except OSError as error:
            if error.errno not in _IN_THE_WAY | {errno.EACCES, errno.EPERM}:
                raise
            return Weight()  # a capture says what is wrong

    def leave(self) -> ResourceState:
        """Return the state of a database of which nothing is kept but what it looks like now."""
        return self._state(self._look(Mode.UNKEPT))

    def is_lacking(self, state: ResourceState) -> bool:
        """Whether `state` does not hold the content, and what is there now looks different."""
        record = record_of(state)
        return not (record.is_kept or record.looks_like(self._signature()))

    def _look(self, mode: Mode) -> Record:
        return Record(mode, os.fsdecode(self._path), signature=self._signature())

    def _signature(self) -> Signature:
        try:
            with _opened(self._path) as files:
                return files.signature()
        except OSError as error:
            if error.errno not in _IN_THE_WAY:
                raise
            return {}

    def places(self, state: ResourceState) -> tuple[bytes, ...]:
        """Return where the database and its recorded side files lie, the database first."""
        record, path = record_of(state), os.fsencode(state.location)
        if record.mode is Mode.ABSENT or not record.is_kept:
            return ()
        return (path, *(path + os.fsencode(side.suffix) for side in record.sides))

    def plan(self, state: ResourceState, vault: Vault) -> tuple[Step, ...]:
        """Return what a restore would change; reads only, empty where nothing differs."""
        record = record_of(state)
        if not record.is_kept:
            return ()
        live = self._live(record, vault)
        if not differs(record, live):
            if record.mode is Mode.ABSENT or live.meta == record.meta:
                return ()
            return (Step("metadata", self.name, self.location),)
        if record.mode is Mode.ABSENT:
            detail = describe_records(record, live)
            return (Step("remove", self.name, self.location, detail),)
        detail = describe_records(live, record) + self._who()
        return (Step("database", self.name, self.location, detail, record.size),)

    def obstacle(self, state: ResourceState) -> tuple[str, str] | None:
        """Return who keeps a restore from changing the page size, and what to do; else None."""
        try:
            with _opened(self._path) as files:
                return page_size_obstacle(files, record_of(state))
        except OSError as error:
            if error.errno not in _IN_THE_WAY:
                raise
            return None

    def difference(self, state: ResourceState, vault: Vault) -> StateChange | None:
        """Return what has become of a recorded state by now; None where nothing differs."""
        record = record_of(state)
        if not record.is_kept:
            return compare_looks(record, self._look(Mode.UNKEPT))
        live = self._live(record, vault)
        if differs(record, live):
            change = compare_records(record, live)
            return with_rewritten(change, record, live, self._copies(record, vault), vault.scratch)
        if record.mode is Mode.ABSENT or live.meta == record.meta:
            return None
        return StateChange("metadata", new_bytes=live.size)

    def _copies(self, record: Record, vault: Vault) -> Callable[[str], tuple[str, str]]:
        """Return what makes copies of a recorded state and of the present one."""

        def make(folder: str) -> tuple[str, str]:
            after = os.path.join(folder, "after")
            with _opened(self._path) as files:
                Reader(files, CopyTo(after), vault.scratch, self.wait_s).read()
            return copy_kept(record, vault, folder), after

        return make

    def restore(self, state: ResourceState, vault: Vault) -> tuple[Skip, ...]:
        """Make the live database equal `state`; killed at any moment, call it again.

        Returns:
            Who does not see it, because the file that they have open was deleted; and what of
            its metadata this user cannot set.

        Raises:
            RestoreIncomplete: It is kept locked, or something else is in its place; who and
                what is named. The live database is whole: the old one, or already the new one.
        """
        record = record_of(state)
        if not record.is_kept:
            return ()
        if record.mode is Mode.ABSENT:
            self.remove(vault)
            return ()
        other = differs(record, self._live(record, vault))
        with self._writable() as files:
            remove_staged(files)
            if other:
                Restorer(files, record, vault, self.wait_s).restore()
            else:
                files.set_metadata(record.meta)
            unset = self._unset(files.metadata(), record.meta)
        return (*self._left_behind(), *unset)

    def _unset(self, live: Metadata, wanted: Metadata) -> Iterator[Skip]:
        """Yield what has to be said of metadata that this user cannot set."""
        if (live.uid, live.gid) != (wanted.uid, wanted.gid):
            why = f"{owner_stays(wanted.uid, wanted.gid)}; {_UNSEEN}"
            yield Skip(self.location, why, AS_OWNER)
        elif live.mode != wanted.mode:
            yield Skip(self.location, THEIRS, AS_OWNER)

    def needs(self, state: ResourceState) -> tuple[int, int]:
        """Return the bytes that a restore writes beside the live database, and into scratch."""
        size = record_of(state).size
        return size, size if holders(self._path, deleted=False) else 0

    def clean(self) -> None:
        """Remove what a restore that was killed staged beside the database."""
        try:
            with _opened(self._path) as files:
                remove_staged(files)
        except OSError as error:
            if error.errno not in _IN_THE_WAY:
                raise

    def remove(self, vault: Vault) -> None:  # noqa: ARG002 - of the protocol
        """Make the database and its side files absent."""
        try:
            with _opened(self._path) as files:
                remove(files)
        except FileNotFoundError:
            return

    def verify(self, state: ResourceState, vault: Vault) -> None:
        """Read the live database again and compare.

        Raises:
            RestoreIncomplete: It differs; the message says in what.
        """
        record = record_of(state)
        if not record.is_kept:
            return
        live = self._live(record, vault, trust_signature=False)
        if differs(record, live):
            raise RestoreIncomplete(
                f"{self.location} is not what the snapshot holds: "
                f"{describe_records(record, live)}{self._who()}",
                hint="stop what writes to it, then run the rollback again",
            )
        if live.health not in {"ok", "unchecked", record.health}:
            raise RestoreIncomplete(
                f"{self.location} is damaged: {live.health}", hint="run the rollback again"
            )

    def rehearse(self, state: ResourceState, vault: Vault) -> Rehearsal:
        """Restore into scratch, open and check it there, and say how long it took.

        Raises:
            DrillFailed: The copy is not what was captured, or SQLite does not accept it.
        """
        record = record_of(state)
        if record.mode is Mode.ABSENT or not record.is_kept:
            return Rehearsal(0, 0, 0.0)
        start = time.monotonic()
        folder = tempfile.mkdtemp(prefix="sqlite-", dir=vault.scratch)
        try:
            path = build(record, vault, folder)
            self._compare_copy(record, path)
            if record.mode is not Mode.RAW:
                self._open_copy(record, path)
        finally:
            shutil.rmtree(folder)
        return Rehearsal(1 + len(record.sides), record.size, time.monotonic() - start)

    def _left_behind(self) -> tuple[Skip, ...]:
        """Name who goes on with a file that is not in the folder any more."""
        ghosts = self._ghosts(holders(self._path, deleted=False))
        if not ghosts:
            return ()
        who = describe(ghosts)
        why = f"{who} still has a deleted file open and goes on with that"
        return (
            Skip(f"{self.name} in {who}", f"the database is back, but {why}", f"restart {who}"),
        )

    def _ghosts(self, users: list[tuple[int, str]]) -> list[tuple[int, str]]:
        return [who for who in holders(self._path) if who not in users]

    def _who(self) -> str:
        """Name who has the database open, and who will not see it because theirs is gone."""
        users = holders(self._path, deleted=False)
        ghosts = self._ghosts(users)
        said = f"; open in {describe(users)}" if users else ""
        if ghosts:
            said += f"; restart {describe(ghosts)}: it still has a deleted one open"
        return said

    def _damage(self, record: Record) -> tuple[Skip, ...]:
        if record.health in {"ok", "unchecked"}:
            return ()
        return (
            Skip(
                f"the check of {self.name}",
                f"SQLite finds it damaged or unfinished ({record.health});"
                " its bytes are kept as they are",
                f"look at it with sqlite3 {self.location} .recover, then take a snapshot again",
            ),
        )

    def _compare_copy(self, record: Record, path: str) -> None:
        pairs = [(path, record.image), *((path + s.suffix, s.image) for s in record.sides)]
        for copy, image in pairs:
            if image_of(copy) != image:
                raise self._drill_failed("the copy differs from what was captured")

    def _open_copy(self, record: Record, path: str) -> None:
        try:
            if record.mode is Mode.RECOVER:
                sql.recover(path)
                if record.recovered != image_of(path):
                    raise self._drill_failed("SQLite recovers another state than at the capture")
            with sql.connect(os.fsencode(path), "immutable") as db:
                health = sql.check(db)
        except (sql.NotReadable, sqlite3.Error) as error:
            health = str(error)
        # Where the capture had no time to check, the copy equals the source byte for byte: what
        # is wrong with it is wrong with the source, and no reason to distrust the rollback.
        if health not in {"ok", "unchecked"} and record.health == "ok":
            raise self._drill_failed(health)

    def _drill_failed(self, why: str) -> DrillFailed:
        return DrillFailed(
            f"the rehearsal of {self.location} failed: {why}",
            hint="guard verify reads the whole store; then take a snapshot again",
        )

    def _live(self, record: Record, vault: Vault, *, trust_signature: bool = True) -> Record:
        """Return the present state, read without keeping anything."""
        try:
            with _opened(self._path) as files:
                # A plan, the plan that is carried out, and the restore ask one after the other:
                # a large file is read once for all of them.
                for known in (record, self._seen) if trust_signature else ():
                    if known is not None and is_unchanged(known, files):
                        users = bool(holders(self._path, deleted=False))
                        return replace(known, meta=files.metadata(), in_use=users)
                self._seen = Reader(files, Discard(), vault.scratch, self.wait_s).read()
                return self._seen
        except OSError as error:
            if error.errno not in _IN_THE_WAY:
                raise
            return Record(Mode.ABSENT, record.path)

    @contextmanager
    def _writable(self) -> Iterator[Files]:
        try:
            with _opened(self._path, create=True) as files:
                yield files
        except OSError as error:
            if error.errno not in {errno.ENOTDIR, errno.ELOOP}:
                raise
            raise RestoreIncomplete(
                f"a folder on the way to {self.location} is a link or a file now;"
                " nothing was written through it",
                hint="remove what is in the way, then run the rollback again",
            ) from error

    def _state(self, record: Record) -> ResourceState:
        nothing = record.mode is Mode.ABSENT or not record.is_kept
        count = 0 if nothing else 1 + len(record.sides)
        return ResourceState(
            self.resource, self.name, self.category, self.location, count, record.size,
            record.to_json(),
        )  # fmt: skip


class _Keep:
    """Hands the bytes to the vault."""

    def __init__(self, vault: Vault, previous: str | None) -> None:
        self._vault = vault
        self._previous = previous

    def pages(self, source: IO[bytes]) -> str:
        return self._vault.put_pages(source, self._previous)

    def file(self, source: IO[bytes]) -> str:
        return self._vault.put_file(source)


@contextmanager
def _opened(path: bytes, *, create: bool = False) -> Iterator[Files]:
    files = Files(path, create=create)
    try:
        yield files
    finally:
        files.close()
