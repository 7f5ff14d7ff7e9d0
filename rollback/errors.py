"""Errors of the snapshot engine: what happened, to which path, and what to type next."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar


class RollbackError(Exception):
    """Base of every error that a caller of the engine may want to catch."""

    code: ClassVar[str] = "rollback_failed"

    def __init__(self, message: str, *, hint: str) -> None:
        super().__init__(message)
        self.hint = hint

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel from a worker process: class, message, hint."""
        return _remake, (type(self), str(self), self.hint)


def _remake(kind: type[RollbackError], message: str, hint: str) -> RollbackError:
    return kind(message, hint=hint)


@contextlib.contextmanager
def speaking(kind: type[RollbackError], what: str) -> Iterator[None]:
    """Turn errors of the system into the engine's, so that callers have one tree to expect.

    Args:
        kind: The class that says which state is left behind.
        what: The beginning of the sentence: what could not be done.

    Raises:
        NoSpace: The disk is full.
        RollbackError: Of `kind`, for anything else of the system.
    """
    try:
        yield
    except RecursionError as error:
        raise kind(
            f"{what}: a folder is nested too deep", hint="exclude it in guard.toml"
        ) from error
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT} and kind is not RestoreIncomplete:
            raise NoSpace(
                f"{what}: {error.strerror}",
                hint="free some space, then run the same command again",
            ) from error
        raise kind(
            f"{what}: {told(error)}",
            hint="mend what the message names, then run the same command again",
        ) from error


class NothingToDo(RollbackError):
    """There is no such snapshot, no run to roll back, nothing to undo."""

    code: ClassVar[str] = "nothing_to_act_on"


class StoreBusy(RollbackError):
    """Another guard operation holds the store; its owner is named, and known where it says so."""

    code: ClassVar[str] = "busy"

    def __init__(self, message: str, *, hint: str, owner: Mapping[str, Any] | None = None) -> None:
        super().__init__(message, hint=hint)
        self.owner = owner or {}


class StoreCorrupt(RollbackError):
    """What the store holds does not match its hash or cannot be read."""

    code: ClassVar[str] = "store_damaged"


class CatalogCorrupt(StoreCorrupt):
    """The catalog is lost or damaged; it can be made again from the packs and documents."""


class StoreUnusable(RollbackError):
    """The store cannot be used here: foreign owner, unknown format, not writable."""

    code: ClassVar[str] = "store_unusable"


class NoSpace(RollbackError):
    """There is not enough space; `missing_bytes` says how much."""

    code: ClassVar[str] = "no_space"

    def __init__(self, message: str, *, hint: str, missing_bytes: int = 0) -> None:
        super().__init__(message, hint=hint)
        self.missing_bytes = missing_bytes


class CaptureFailed(RollbackError):
    """A snapshot could not be completed; nothing of it is kept."""

    code: ClassVar[str] = "snapshot_failed"


class DrillFailed(RollbackError):
    """The rehearsal did not reproduce the snapshot, or not inside the budget."""

    code: ClassVar[str] = "drill_failed"


class RestoreIncomplete(RollbackError):
    """A rollback stopped half way; running it again resumes it."""

    code: ClassVar[str] = "rollback_incomplete"


class RestoreRefused(RollbackError):
    """What stands where the project was is not to be written to; nothing was changed."""

    code: ClassVar[str] = "rollback_refused"


def told(error: OSError) -> str:
    """Return what the system said, as people read it: of which path, and why."""
    path = error.filename
    shown = os.fsdecode(path) if isinstance(path, (str, bytes, os.PathLike)) else ""
    reason = error.strerror or str(error)
    return f"{shown}: {reason}" if shown else reason


def damaged(blob: bytes, why: str) -> StoreCorrupt:
    """Return the error that names a damaged blob."""
    return StoreCorrupt(
        f"{blob_name(blob)} in the store is damaged: {why}", hint="guard verify --repair"
    )


def blob_name(blob: bytes) -> str:
    """Return what messages call a blob."""
    return f"blob {blob.hex()[:16]}"
