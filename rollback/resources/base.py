"""The protocols behind which every kind of state lives.

File trees are declared as a `Root`, and the engine captures them. State that is more than
files (a database under a live server) implements `Resource` and moves its bytes through the
`Vault` it is handed; it never sees the store.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from io import BufferedReader
from typing import IO, Any, ClassVar, Protocol

from rollback.model import Category, Policy, ResourceState, Skip, Step, TableChange

DEFAULT_LEAVE_OUT = frozenset(
    {
        b"__pycache__",
        b".pytest_cache",
        b".mypy_cache",
        b".ruff_cache",
        b".ipynb_checkpoints",
        b"node_modules",
        b".guard",
    }
)
"""Names that are never captured: caches that their tools make again, and guard's own store."""


def _copy_always(_path: bytes) -> Policy:
    return Policy.COPY


def _unknown(_path: bytes, _file: BufferedReader) -> bool | None:
    return None


def _never(_path: bytes) -> bool:
    return False


def _do_nothing() -> None:
    return


@dataclass(frozen=True, slots=True)
class Root:
    """A file tree that the engine captures and puts back.

    Attributes:
        resource: Kind: ``files``, ``git``, ``python``.
        name: Name that people read; unique in a snapshot.
        path: Absolute path of the folder, bytes.
        category: Category of the whole tree (the project's is refined path by path).
        policy: How a new or changed regular file (path relative to the root) is kept.
        leave_out: Base names that are never captured.
        excluded: Whether a path relative to the root is left out; called for each entry.
        nested: Relative paths that another root or resource captures.
        keep_extra: Whether a restore leaves an entry alone that the snapshot does not have.
        intact: Whether a linked file (path relative to the root, open content) still holds what
            its owner wrote, by a hash that the owner wrote down; None where there is none.
        prepare: Called before a restore changes anything in the root: brings what is left alone
            (`excluded`) out of files that will be put back, without a change of its meaning.
        find_databases: Whether files with SQLite's magic are handed to the database resource.
        parameters: JSON that rebuilds this root when the snapshot is put back.
        facts: JSON that is shown (installed distributions, HEAD …), not restored.
    """

    resource: str
    name: str
    path: bytes
    category: Category
    policy: Callable[[bytes], Policy] = _copy_always
    leave_out: frozenset[bytes] = DEFAULT_LEAVE_OUT
    excluded: Callable[[bytes], bool] | None = None
    nested: frozenset[bytes] = frozenset()
    keep_extra: Callable[[bytes], bool] = _never
    intact: Callable[[bytes, BufferedReader], bool | None] = _unknown
    prepare: Callable[[], None] = _do_nothing
    find_databases: bool = False
    parameters: Mapping[str, Any] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)


class Vault(Protocol):
    """Where a resource keeps content and finds it again; every byte is verified on the way out."""

    @property
    def scratch(self) -> str:
        """A private folder (0700) on the store's file system, emptied afterwards."""

    def put(self, content: bytes) -> str:
        """Keep a small content whole and return its id (hexadecimal SHA-256)."""

    def put_file(self, source: IO[bytes]) -> str:
        """Keep a stream whole and return its id."""

    def put_pages(self, source: IO[bytes], previous: str | None = None) -> str:
        """Keep a stream as 4 KiB pages, so that a small change costs little; return its id.

        Args:
            source: Read once, sequentially, to its end.
            previous: Id of an earlier capture of the same thing, to compare cheaply.
        """

    def get(self, blob: str) -> bytes:
        """Return a small content.

        Raises:
            StoreCorrupt: The content is missing or does not match its id.
        """

    def copy_to(self, blob: str, target: IO[bytes]) -> None:
        """Write the content to a stream, verified.

        Raises:
            StoreCorrupt: The content is missing or does not match its id.
        """


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """What a drill of one resource did: files and bytes put into scratch, and seconds taken."""

    files: int
    bytes: int
    elapsed_s: float


@dataclass(frozen=True, slots=True)
class StateChange:
    """What has become of a resource's state.

    Attributes:
        action: ``added``, ``modified``, ``deleted``, ``metadata``.
        detail: What is worth saying besides tables and sizes: ``alembic 4f… → 3a…``.
        tables: Tables that differ, where it is a database.
        new_bytes: Size after, None where absent.
    """

    action: str
    detail: str = ""
    tables: tuple[TableChange, ...] = ()
    new_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Weight:
    """What a capture takes, as far as that can be told without reading.

    Attributes:
        least: Bytes of content that are expected to be new in any case.
        most: Bytes of content, should nothing of it be known.
        scratch: Bytes of copies that lie in scratch meanwhile.
    """

    least: int = 0
    most: int = 0
    scratch: int = 0


class Resource(Protocol):
    """State that is more than files.

    All methods may raise `rollback.errors.RollbackError`; OSError is translated by the engine.
    """

    resource: ClassVar[str]
    name: str
    category: Category

    def capture(
        self, vault: Vault, previous: ResourceState | None
    ) -> tuple[ResourceState, tuple[Skip, ...]]:
        """Record the state as of now: consistent, under writers, inside a bounded wait.

        Args:
            vault: Where content goes.
            previous: State of the same resource in the newest snapshot; where nothing changed
                since (by signature), it is returned as it is and nothing is read.
        """

    def try_reading(self) -> None:
        """Do nothing, unless the live state may not be read.

        Raises:
            PermissionError: Of what.
        """

    def weigh(self, previous: ResourceState | None) -> Weight:
        """Return what `capture` would take now."""

    def leave(self) -> ResourceState:
        """Return the state of which nothing is known but what it looks like now.

        A restore leaves it alone; see `is_lacking`.
        """

    def is_lacking(self, state: ResourceState) -> bool:
        """Whether `state` does not hold the content, and what is there now looks different."""

    def places(self, state: ResourceState) -> tuple[bytes, ...]:
        """Return the absolute paths at which a restore puts files, the main one first."""

    def plan(self, state: ResourceState, vault: Vault) -> tuple[Step, ...]:
        """Return what a restore would change; reads only, empty where nothing differs.

        Raises:
            PermissionError: The live state may not be read.
        """

    def obstacle(self, state: ResourceState) -> tuple[str, str] | None:
        """Return what a restore could not get past as things are: why, and the mend.

        None where nothing is seen; asked only where something would be changed.
        """

    def difference(self, state: ResourceState, vault: Vault) -> StateChange | None:
        """Return what has become of `state` by now; reads only, None where nothing differs."""

    def restore(self, state: ResourceState, vault: Vault) -> tuple[Skip, ...]:
        """Make the live state equal `state`; killed at any moment, calling it again completes it.

        The engine has captured the present state for the undo before it calls this.

        Returns:
            What has to be done by hand although the state is back: a server to be restarted.
        """

    def needs(self, state: ResourceState) -> tuple[int, int]:
        """Return the bytes that a restore writes beside the live state, and into scratch."""

    def clean(self) -> None:
        """Remove what a restore that was killed left beside the live state."""

    def remove(self, vault: Vault) -> None:
        """Make the live state absent, as it was at a snapshot that does not have it."""

    def verify(self, state: ResourceState, vault: Vault) -> None:
        """Read the live state again and compare.

        Raises:
            RestoreIncomplete: It differs; the message says where.
        """

    def rehearse(self, state: ResourceState, vault: Vault) -> Rehearsal:
        """Restore into `vault.scratch`, open and check it there, and say how long it took.

        Raises:
            DrillFailed: The copy in scratch is not what was captured.
        """
