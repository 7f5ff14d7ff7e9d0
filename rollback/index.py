"""The index of the live state: what a folder looked like when its tree was last known.

For each folder it keeps the names with their signatures (mode, owner, inode, size, mtime), the
ctimes apart from them, the tree, and the trees of the subfolders. Where all of it agrees with a
listing, nothing has to be read. The rule for what is too young to be trusted is git's ("racily
clean", Documentation/technical/racy-git.txt).
"""

from __future__ import annotations

import json
import os
import sqlite3
import stat
import struct
import zlib
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from rollback.model import Entry, Kind
from rollback.store.catalog import storable
from rollback.store.codec import encode_xattrs

_SIGNATURE = struct.Struct("<IIIQQq")
NO_CTIME = -1
"""Stands for a ctime that is not compared: of folders, and of files that are kept by a link."""
_RACY = -2
_FETCHED_AT_ONCE = 30_000

Xattrs = tuple[tuple[bytes, bytes], ...]
Row = tuple[bytes, bytes, bytes, bytes, str]
"""Tree, signatures, ctimes, trees of the subfolders, notes."""


@dataclass(slots=True)
class Folder:
    """A folder that differs from the index.

    Attributes:
        path: Relative to the root; empty for the root itself.
        names: Sorted names.
        infos: Their stat results, as of the walk.
        entries: What is known of each name; None where it has to be resolved.
        children: Index of a subfolder → its tree id, or the `Folder` that will have one.
        xattrs: Index of a subfolder → its extended attributes, where it has any.
        linked: Indexes of files that the store keeps by their inode.
        tree: Its id, once built.
        notes: Databases and the like, see `Notes`.
    """

    path: bytes
    names: list[bytes]
    infos: list[os.stat_result]
    entries: list[Entry | None]
    children: dict[int, bytes | Folder]
    xattrs: dict[int, Xattrs] = field(default_factory=dict)
    linked: set[int] = field(default_factory=set)
    tree: bytes = b""
    notes: Notes = field(default_factory=lambda: Notes({}, [], []))

    def shed(self) -> None:
        """Forget all but the tree: parents that are still open need no more of it."""
        self.names, self.infos, self.entries = [], [], []
        self.children, self.xattrs, self.linked = {}, {}, set()


@dataclass(slots=True)
class Notes:
    """What is worth knowing of a folder without reading its tree.

    Attributes:
        totals: Category → number and bytes of the folder's own files.
        databases: Names of SQLite files.
        unkept: Names of files whose content is not kept, with the reason.
    """

    totals: dict[str, list[int]]
    databases: list[str]
    unkept: list[list[str]]

    def dump(self) -> str:
        """Return the text that the index keeps."""
        return json.dumps([self.totals, self.databases, self.unkept], separators=(",", ":"))


class Known(NamedTuple):
    """What the index knows of one name: its entry, its signature, its ctime."""

    entry: Entry
    signature: bytes
    ctime_ns: int

    @property
    def linked(self) -> bool:
        """Whether the store keeps the file by its inode."""
        return self.ctime_ns == NO_CTIME and self.entry.kind is Kind.FILE

    def matches(self, info: os.stat_result) -> bool:
        """Return whether a stat result speaks of the same, unchanged file."""
        signature = _SIGNATURE.pack(
            info.st_mode, info.st_uid, info.st_gid, info.st_ino, info.st_size, info.st_mtime_ns
        )
        return self.signature == signature and self.ctime_ns in (NO_CTIME, info.st_ctime_ns)


class LiveIndex:
    """The rows of one root; a small index is read at once, a large one folder by folder.

    Args:
        db: The catalog.
        root: Name of the root.
    """

    def __init__(self, db: sqlite3.Connection, root: str) -> None:
        self._db = db
        self._root = root = storable(root)
        self._rows: dict[bytes, Row] | None = None
        count = db.execute(
            "SELECT count(*) FROM (SELECT 1 FROM live WHERE root = ? LIMIT ?)",
            (root, _FETCHED_AT_ONCE),
        ).fetchone()[0]
        if count < _FETCHED_AT_ONCE:
            self._rows = {
                row[0]: row[1:]
                for row in db.execute(
                    "SELECT folder, tree, signatures, ctimes, children, notes FROM live"
                    " WHERE root = ?",
                    (root,),
                )
            }

    def row(self, folder: bytes) -> Row | None:
        """Return what is known of a folder."""
        if self._rows is not None:
            return self._rows.get(folder)
        found: Row | None = self._db.execute(
            "SELECT tree, signatures, ctimes, children, notes FROM live"
            " WHERE root = ? AND folder = ?",
            (self._root, folder),
        ).fetchone()
        return found


def agrees(row: Row, signatures: bytes, ctimes: array[int]) -> bool:
    """Return whether a listing is what the index knows of a folder."""
    return row[1] == signatures and _same_ctimes(row[2], ctimes)


def known_names(row: Row, read_tree: Callable[[bytes], list[Entry]]) -> dict[bytes, Known]:
    """Return what the index knows of each name in a folder."""
    ctimes = array("q")
    ctimes.frombytes(row[2])
    by_name = {entry.name: entry for entry in read_tree(row[0])}
    found: dict[bytes, Known] = {}
    for (name, signature), ctime_ns in zip(_split(row[1]), ctimes, strict=True):
        entry = by_name.get(name)
        if entry is not None:
            found[name] = Known(entry, signature, ctime_ns)
    return found


def index_row(
    root: str, folder: Folder, horizon_ns: int
) -> tuple[str, bytes, bytes, bytes, bytes, bytes, str]:
    """Return the row by which the index will know a folder that was built.

    Files kept by their inode are held against size, mtime and inode alone: linking changes
    their ctime. What is younger than `horizon_ns` will be read again. Elsewhere the ctime alone
    tells the age: nobody can set it, while an mtime may lie in any century.
    """
    folders = [i for i, info in enumerate(folder.infos) if stat.S_ISDIR(info.st_mode)]
    signatures, ctimes = sign(folder.names, folder.infos, folders, folder.xattrs)
    for index, (entry, info) in enumerate(zip(folder.entries, folder.infos, strict=True)):
        if entry is None or entry.kind is Kind.UNPROTECTED:
            ctimes[index] = _RACY
        elif entry.kind is Kind.DIRECTORY:
            ctimes[index] = NO_CTIME
        elif index in folder.linked:
            ctimes[index] = _RACY if info.st_mtime_ns >= horizon_ns else NO_CTIME
        elif info.st_ctime_ns >= horizon_ns:
            ctimes[index] = _RACY
    children = b"".join(
        child if isinstance(child, bytes) else child.tree for child in folder.children.values()
    )
    return (
        storable(root), folder.path, folder.tree, signatures, ctimes.tobytes(), children,
        folder.notes.dump(),
    )  # fmt: skip


def sign(
    names: list[bytes],
    infos: list[os.stat_result],
    folders: list[int],
    xattrs: dict[int, Xattrs],
) -> tuple[bytes, array[int]]:
    """Return the signatures of a listing, and apart from them the ctimes.

    Args:
        names: Sorted names.
        infos: Their stat results.
        folders: Which of them are folders: size and ctime of these say nothing.
        xattrs: Attributes of folders, which no other time would show.
    """
    pack = _SIGNATURE.pack
    parts = [
        name + b"\0" + pack(i.st_mode, i.st_uid, i.st_gid, i.st_ino, i.st_size, i.st_mtime_ns)
        for name, i in zip(names, infos, strict=True)
    ]
    ctimes = array("q", [i.st_ctime_ns for i in infos])
    for n in folders:
        i, found = infos[n], xattrs.get(n)
        mark = 0 if not found else zlib.crc32(encode_xattrs(found))
        packed = pack(i.st_mode, i.st_uid, i.st_gid, i.st_ino, mark, i.st_mtime_ns)
        parts[n] = names[n] + b"\0" + packed
        ctimes[n] = NO_CTIME
    return b"".join(parts), ctimes


def _same_ctimes(known: bytes, now: array[int]) -> bool:
    if known == now.tobytes():
        return True
    then = array("q")
    then.frombytes(known)
    return len(then) == len(now) and all(
        old in (NO_CTIME, new) for old, new in zip(then, now, strict=True)
    )


def _split(signatures: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = 0
    while at < len(signatures):
        end = signatures.index(b"\0", at)
        after = end + 1 + _SIGNATURE.size
        yield signatures[at:end], signatures[end + 1 : after]
        at = after
