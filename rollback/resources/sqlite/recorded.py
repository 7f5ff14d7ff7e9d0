"""Recorded states of databases: their records, and what lies between two of them."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence

from rollback.errors import StoreCorrupt
from rollback.model import ResourceState
from rollback.resources.base import StateChange, Vault
from rollback.resources.sqlite.comparing import with_rewritten
from rollback.resources.sqlite.describing import compare_looks, compare_records
from rollback.resources.sqlite.files import Files, is_sqlite
from rollback.resources.sqlite.record import Metadata, Mode, Record


def record_of(state: ResourceState) -> Record:
    """Return the record that a state is made of.

    Raises:
        StoreCorrupt: It is not one.
    """
    try:
        return Record.from_json(state.data)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise StoreCorrupt(
            f"what the snapshot records of {state.location} cannot be read: {error!r}",
            hint="guard verify",
        ) from error


def is_unchanged(record: Record, files: Files) -> bool:
    """Whether files still have the signature of a record, where that can be trusted."""
    if not record.settled or record.mode is Mode.ABSENT or not record.is_kept:
        return False
    return files.signature() == record.signature


def needs_copy(files: Files) -> bool:
    """Whether a reading makes a copy in scratch; see `Reader`."""
    plain = is_sqlite(files.head()) and not files.is_obstructed()
    return not plain or files.log_size() > 0 or files.has_hot_journal()


def differs(record: Record, live: Record) -> bool:
    """Whether the live content has to be put back.

    While others have it open (now, or when it was recorded through a log in use), the bytes
    that SQLite itself changes in the header are not held against it.
    """
    if record.is_exactly(live):
        return False
    if live.in_use:
        return not record.means(live)
    through_log = record.in_use and record.mode is live.mode is Mode.DATABASE
    same_mode = record.facts.journal_mode == live.facts.journal_mode
    return not (through_log and same_mode and record.means(live))


def is_on_the_way(
    now: ResourceState, first: ResourceState | None, wanted: ResourceState | None
) -> bool:
    """Return whether a restore that died can have left a database as it is.

    SQLite brings a log or journal into the live file before that is replaced, and what is put
    back comes as one file before its own log lies beside it. So a restore leaves behind what
    means the same as the one state or the other, or files of both. The time is not looked at:
    SQLite sets it whenever it writes.

    Args:
        now: The state as it is.
        first: The state that the restore found; None where there was no such database.
        wanted: The state that it was to put back; None likewise.
    """
    found = record_of(now)
    known = [_record_or_absent(state) for state in (first, wanted)]
    if not (found.is_kept and all(one.is_kept for one in known)):
        return any(compare_looks(one, found) is None for one in known)
    if any(found.is_exactly(one) for one in known if one.mode is Mode.ABSENT):
        return True
    known = [one for one in known if one.mode is not Mode.ABSENT]
    return _has_metadata_of(known, found.meta) and (
        any(found.means(one) for one in known)
        or _has_files_of(known, found)
        or _was_emptied(known, found)
    )


def _record_or_absent(state: ResourceState | None) -> Record:
    return Record(Mode.ABSENT, "") if state is None else record_of(state)


def _has_files_of(known: Sequence[Record], found: Record) -> bool:
    """Whether each file is one of some states; the index of a log says nothing."""
    mains = {image for one in known for image in (one.image, one.recovered)}
    sides = {(side.suffix, side.image) for one in known for side in one.sides}
    return found.image in mains and all(
        not side.image.size or side.suffix == "-shm" or (side.suffix, side.image) in sides
        for side in found.sides
    )


def _was_emptied(known: Sequence[Record], found: Record) -> bool:
    """Whether a live file that SQLite did not read was made empty, to be filled through it."""
    empty = not (found.recovered or found.image).size
    return empty and any(one.mode is Mode.RAW or one.health != "ok" for one in known)


def _has_metadata_of(known: Sequence[Record], meta: Metadata) -> bool:
    """Whether metadata come from some states; what kills part is set one after the other."""
    seen = [one.meta for one in known]
    return (
        meta.mode in {one.mode for one in seen}
        and meta.uid in {one.uid for one in seen}
        and meta.gid in {one.gid for one in seen}
        and set(meta.xattrs) <= {pair for one in seen for pair in one.xattrs}
    )


def describe_change(
    old: ResourceState | None, new: ResourceState | None, vault: Vault
) -> StateChange | None:
    """Return what happened between two states of a database: tables, rows, schema revision.

    Args:
        old: The state before; None where nothing is known of it, which counts as absent.
        new: The state after; None likewise.
        vault: Where their content is.

    Returns:
        None where nothing differs.
    """
    nothing = Record(Mode.ABSENT, "")
    before = nothing if old is None else record_of(old)
    after = nothing if new is None else record_of(new)
    if not (before.is_kept and after.is_kept):
        return compare_looks(before, after)
    if before.is_exactly(after) and before.meta == after.meta:
        return None

    def copies(folder: str) -> tuple[str, str]:
        return copy_kept(before, vault, folder), copy_kept(after, vault, folder, "after")

    change = compare_records(before, after)
    return with_rewritten(change, before, after, copies, vault.scratch)


def copy_kept(record: Record, vault: Vault, folder: str, name: str = "before") -> str:
    """Write the recorded main file into a folder and return its path.

    Raises:
        OSError: It cannot be written, or the vault does not have it any more.
    """
    path = os.path.join(folder, name)
    with open(path, "xb") as target:
        try:
            vault.copy_to(record.blob, target)
        except StoreCorrupt as error:
            raise OSError(errno.EIO, str(error), path) from error
    return path
