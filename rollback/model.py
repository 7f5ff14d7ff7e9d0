"""The words of the engine as values: categories, entries, states, snapshots, operations."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple


class Category(enum.StrEnum):
    """The kinds of things that a rollback covers; `--only` takes these names."""

    CODE = "code"
    DEPENDENCIES = "dependencies"
    DATABASES = "databases"
    ARTIFACTS = "artifacts"
    CONFIGURATION = "configuration"
    VALIDATION = "validation"


class Policy(enum.Enum):
    """How the content of a file is kept."""

    COPY = "copy"
    LINK = "link"
    WATCH = "watch"


class Kind(enum.IntEnum):
    """What an entry of a tree is; the numbers are part of the store's format."""

    FILE = 1
    DIRECTORY = 2
    SYMLINK = 3
    FIFO = 4
    SOCKET = 5
    CHARACTER_DEVICE = 6
    BLOCK_DEVICE = 7
    DATABASE = 8
    """A SQLite file: its metadata is here, its content is kept by the database resource."""
    WATCHED = 9
    """Fingerprint only: a change is detected and reported, not undone."""
    UNPROTECTED = 10
    """Content that could not be kept (unreadable, or no space); named in the skips."""


class Entry(NamedTuple):
    """One name in a directory; a tuple, because a million of them are made and compared.

    Attributes:
        name: Bytes of the name; never empty, ``.``, ``..``, with ``/`` or NUL.
        kind: What it is.
        mode: Permission bits, 0 to 0o7777.
        uid: Owner.
        gid: Group.
        mtime_ns: Modification time in nanoseconds.
        size: Bytes of content.
        ref: Blob id of a file, tree id of a directory, target of a link, device number.
        xattrs: Extended attributes, sorted by name.
    """

    name: bytes
    kind: Kind
    mode: int
    uid: int
    gid: int
    mtime_ns: int
    size: int = 0
    ref: bytes = b""
    xattrs: tuple[tuple[bytes, bytes], ...] = ()


@dataclass(frozen=True, slots=True)
class Skip:
    """A safeguard that is not available here: what, why, and how to mend it."""

    what: str
    why: str
    fix: str


@dataclass(frozen=True, slots=True)
class TableChange:
    """One table of a database that differs between two states.

    Attributes:
        action: ``added``, ``modified``, ``deleted``.
        name: The table's.
        old_rows: Rows before; None where there was no such table, or nobody counted.
        new_rows: Rows after; None likewise.
        rewritten: Rows with values that no row had before, where the number is the same; None
            where it is another, or nobody looked.
    """

    action: str
    name: str
    old_rows: int | None = None
    new_rows: int | None = None
    rewritten: int | None = None


@dataclass(frozen=True, slots=True)
class ResourceState:
    """What one resource recorded in a snapshot; `data` is JSON and enough to put it back.

    Attributes:
        resource: Kind of the resource: ``files``, ``git``, ``python``, ``sqlite`` …
        name: Name that people read; unique in a snapshot.
        category: Which of the six it belongs to.
        location: Absolute path or URL without secrets.
        files: Number of files.
        bytes: Bytes of content.
        data: What the resource needs to put itself back.
    """

    resource: str
    name: str
    category: Category
    location: str
    files: int
    bytes: int
    data: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A complete, durable, verified capture of all resources at one moment.

    Attributes:
        seq: Sequence number of the operation that took it.
        id: Random name, 16 hexadecimal digits.
        kind: ``run``, ``manual``, or ``undo`` (what a rollback displaced).
        label: What the user called it.
        created_at: Unix time in seconds, for people; order goes by `seq`.
        project: Absolute path of the project.
        states: What each resource recorded.
        skipped: Safeguards that were not available.
        facts: What is shown but not restored: git head, Python version, host.
    """

    seq: int
    id: str
    kind: str
    label: str
    created_at: float
    project: str
    states: tuple[ResourceState, ...]
    skipped: tuple[Skip, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Step:
    """One change that a restore makes, for people and for `--dry-run`.

    Attributes:
        action: ``create``, ``replace``, ``remove``, ``metadata``, ``database`` …
        resource: Name of the resource.
        path: Path that people read, relative to the project where it is inside.
        detail: What else is worth saying: ``2 tables``.
        bytes: Bytes that are written.
        changes: For how many changes it stands: the files of a folder that comes in whole.
    """

    action: str
    resource: str
    path: str
    detail: str = ""
    bytes: int = 0
    changes: int = 1


@dataclass(frozen=True, slots=True)
class Operation:
    """One line of the log.

    Attributes:
        seq: Sequence number; the order of everything.
        id: Random name, 16 hexadecimal digits.
        kind: ``run``, ``snapshot``, ``drill``, ``rollback``, ``undo``, ``redo``, ``prune``.
        state: ``running``, ``applying``, ``done``, ``failed``, ``interrupted``.
        started_at: Unix time in seconds.
        ended_at: Unix time in seconds, None while it runs.
        data: What the operation recorded, JSON.
    """

    seq: int
    id: str
    kind: str
    state: str
    started_at: float
    ended_at: float | None
    data: Mapping[str, Any]
