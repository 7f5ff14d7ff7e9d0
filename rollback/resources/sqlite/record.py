"""What a snapshot knows of one SQLite file, as values that survive JSON."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

HEADER_BYTES = 100
"""Length of SQLite's file header (https://www.sqlite.org/fileformat2.html, section 1.3)."""

VOLATILE = (range(18, 20), range(24, 28), range(40, 44), range(92, 96))
"""Header bytes that putting a database back through SQLite itself changes: the journal mode,
the change counter, the schema cookie, and the counter for which the page count is valid."""

Signature = dict[str, list[int]]
"""Suffix of the file (empty for the database itself) to size, mtime_ns, ctime_ns, inode."""


class Mode(enum.StrEnum):
    """How much the content means to SQLite."""

    DATABASE = "database"
    """The main file alone is a committed state."""
    RECOVER = "recover"
    """The main file needs the journal or log kept beside it, as after a crash."""
    RAW = "raw"
    """SQLite does not read it (half written, encrypted, damaged): bytes, no more."""
    ABSENT = "absent"
    """There is no such file."""
    UNREADABLE = "unreadable"
    """It is there and may not be read; nothing of it is kept but its signature."""
    UNKEPT = "unkept"
    """It is there and there was no room for it; nothing of it is kept but its signature."""


@dataclass(frozen=True, slots=True)
class Image:
    """Content of a file without the content.

    Attributes:
        header: The first 100 bytes, hexadecimal.
        body_sha256: Digest of everything behind them.
        size: Bytes in all.
    """

    header: str = ""
    body_sha256: str = ""
    size: int = 0

    @property
    def masked(self) -> tuple[str, str, int]:
        """The content with the volatile header bytes blanked: equal for the same database."""
        header = bytearray.fromhex(self.header)
        for offset in (offset for span in VOLATILE for offset in span if offset < len(header)):
            header[offset] = 0
        return header.hex(), self.body_sha256, self.size


@dataclass(frozen=True, slots=True)
class Metadata:
    """Permission bits, owner, time and extended attributes (hexadecimal pairs)."""

    mode: int = 0
    uid: int = 0
    gid: int = 0
    mtime_ns: int = 0
    xattrs: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Side:
    """A ``-wal``, ``-shm`` or ``-journal`` that belongs to the state."""

    suffix: str
    blob: str
    image: Image
    meta: Metadata


@dataclass(frozen=True, slots=True)
class Facts:
    """What people read about a database; never needed to put it back.

    Attributes:
        tables: Name to rows, None where counting would have taken too long.
        user_version: SQLite's own version slot for applications.
        alembic: Revision of the schema where alembic (so MLflow, Optuna, Airflow) keeps one.
        journal_mode: ``wal`` or ``rollback``.
        page_size: Bytes.
    """

    tables: Mapping[str, int | None] = field(default_factory=dict)
    user_version: int = 0
    alembic: str | None = None
    journal_mode: str = "rollback"
    page_size: int = 0


@dataclass(frozen=True, slots=True)
class Record:
    """One SQLite file at one moment.

    Attributes:
        mode: How much the content means to SQLite.
        path: Absolute path without links, as text with surrogates.
        blob: Where the bytes of the main file are kept; empty for a reading that keeps nothing.
        image: The bytes of the main file.
        sides: The files beside it that belong to the state.
        recovered: What SQLite makes of main and side files, where it needs them.
        meta: Metadata of the main file.
        signature: What has to be unchanged for this record to be still true.
        settled: Whether the signature was old enough to be trusted.
        in_use: Whether another process had the file open.
        health: ``ok``, ``unchecked`` (too large for the time there is), or what is wrong.
        facts: For people.
    """

    mode: Mode
    path: str
    blob: str = ""
    image: Image = field(default_factory=Image)
    sides: tuple[Side, ...] = ()
    recovered: Image | None = None
    meta: Metadata = field(default_factory=Metadata)
    signature: Signature = field(default_factory=dict)
    settled: bool = False
    in_use: bool = False
    health: str = "unchecked"
    facts: Facts = field(default_factory=Facts)

    @property
    def is_kept(self) -> bool:
        """Whether the record says all of the state: what it was, or that there was none."""
        return self.mode not in {Mode.UNREADABLE, Mode.UNKEPT}

    @property
    def size(self) -> int:
        """Bytes of all files of the state."""
        return self.image.size + sum(side.image.size for side in self.sides)

    def is_exactly(self, other: Record) -> bool:
        """Whether both are the same bytes; ``-shm`` does not count, SQLite makes it anew."""
        if Mode.ABSENT in {self.mode, other.mode}:
            return self.mode is other.mode
        return self.image == other.image and _lasting(self) == _lasting(other)

    def means(self, other: Record) -> bool:
        """Whether whoever opens both sees the same database, page by page."""
        plain = {Mode.DATABASE, Mode.RECOVER}
        if not {self.mode, other.mode} <= plain:
            return self.is_exactly(other)
        mine, theirs = self.recovered or self.image, other.recovered or other.image
        if 0 in {mine.size, theirs.size}:
            return not self.facts.tables and not other.facts.tables
        return mine.masked == theirs.masked

    def looks_like(self, signature: Signature) -> bool:
        """Whether files with such a signature look as they did: the same sizes and times.

        Side files without content do not count: who only reads makes them.
        """
        return _seen(self.signature) == _seen(signature)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON that `from_json` reads."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Record:
        """Read what `to_json` wrote.

        Raises:
            KeyError, TypeError, ValueError: It is not such a record.
        """
        recovered = data["recovered"]
        return cls(
            mode=Mode(data["mode"]),
            path=data["path"],
            blob=data["blob"],
            image=Image(**data["image"]),
            sides=tuple(_side(side) for side in data["sides"]),
            recovered=None if recovered is None else Image(**recovered),
            meta=_metadata(data["meta"]),
            signature={name: list(values) for name, values in data["signature"].items()},
            settled=data["settled"],
            in_use=data["in_use"],
            health=data["health"],
            facts=Facts(**data["facts"]),
        )


def _lasting(record: Record) -> dict[str, Image]:
    return {side.suffix: side.image for side in record.sides if side.suffix != "-shm"}


def _seen(signature: Signature) -> dict[str, list[int]]:
    return {name: seen[:2] for name, seen in signature.items() if not name or seen[0]}


def _metadata(data: Mapping[str, Any]) -> Metadata:
    xattrs = tuple((name, value) for name, value in data["xattrs"])
    return Metadata(data["mode"], data["uid"], data["gid"], data["mtime_ns"], xattrs)


def _side(data: Mapping[str, Any]) -> Side:
    image, meta = Image(**data["image"]), _metadata(data["meta"])
    return Side(data["suffix"], data["blob"], image, meta)
