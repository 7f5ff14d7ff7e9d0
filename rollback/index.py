"""The index of the live state: what a folder looked like when its tree was last known.

For each folder it keeps the names with their signatures (mode, owner, inode, size, mtime), the
ctimes apart from them, the tree, and the trees of the subfolders. Where all of it agrees with a
listing, nothing has to be read. The rule for what is too young to be trusted is git's ("racily
clean", Documentation/technical/racy-git.txt).
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import sqlite3
import stat
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from rollback.listing import NO_CTIME, SIGNATURE, Xattrs, sign
from rollback.model import Category, Entry, Kind
from rollback.store.catalog import storable
from rollback.store.codec import record_name
from rollback.times import coarse_ns, nearest_ns

_PART = re.compile(rb"(([^\0]+)\0.{%d})" % SIGNATURE.size, re.DOTALL)
_RACY = -2
_FETCHED_AT_ONCE = 30_000

Row = tuple[bytes, bytes, bytes, bytes, str]
"""Tree, signatures, ctimes, trees of the subfolders, notes."""


@dataclass(slots=True)
class Folder:
    """A folder that differs from the index.

    Attributes:
        path: Relative to the root; empty for the root itself.
        names: Sorted names.
        infos: Index → stat result as of the walk, of subfolders and of what is fresh.
        children: Index of a subfolder → its tree id, or the `Folder` that will have one.
        xattrs: Index of a subfolder → its extended attributes, where it has any.
        parts: Signature of each name; all of them together are what the index keeps.
        ctimes: Of each name, in nanoseconds, or what stands for one that is not compared.
        records: Of each name that the index knows and that did not change; else None.
        fresh: Index → entry of every other name but subfolders; None where it has to be resolved.
        gone: Records that the index knows and that are no more, or changed.
        linked: Indexes of files that the store keeps by their inode.
        touched: Indexes of such files that have another ctime than the index knows, and nothing
            else of it.
        unseen: Indexes of files that may be written without any of their times telling.
        tree: Its id, once built.
        notes: Databases and the like, see `Notes`.
    """

    path: bytes
    names: list[bytes]
    infos: dict[int, os.stat_result]
    children: dict[int, bytes | Folder] = field(default_factory=dict)
    xattrs: dict[int, Xattrs] = field(default_factory=dict)
    parts: list[bytes] = field(default_factory=list)
    ctimes: array[int] = field(default_factory=lambda: array("q"))
    records: list[bytes | None] = field(default_factory=list)
    fresh: dict[int, Entry | None] = field(default_factory=dict)
    gone: list[bytes] = field(default_factory=list)
    linked: set[int] = field(default_factory=set)
    touched: set[int] = field(default_factory=set)
    unseen: set[int] = field(default_factory=set)
    tree: bytes = b""
    notes: Notes = field(default_factory=lambda: Notes({}, [], []))

    def shed(self) -> None:
        """Forget all but the tree: parents that are still open need no more of it."""
        self.names, self.parts, self.records, self.gone = [], [], [], []
        self.infos, self.children, self.xattrs, self.fresh, self.linked = {}, {}, {}, {}, set()
        self.ctimes, self.touched, self.unseen = array("q"), set(), set()

    def recognise(
        self,
        row: Row | None,
        read_records: Callable[[bytes], list[bytes]],
        info: Callable[[int], os.stat_result],
    ) -> None:
        """Carry over what the index knows and what did not change; subfolders are left open.

        Args:
            row: What the index knows of the folder.
            read_records: Returns the records of a tree.
            info: Returns the stat result of a name.
        """
        known = {} if row is None else _known(row, read_records)
        records, ctimes = self.records, self.ctimes
        for index, part in enumerate(self.parts):
            found = known.get(part)
            record = None
            if (
                found is not None
                and found[0] in (NO_CTIME, ctimes[index], -ctimes[index])
                and found[1][0] != Kind.DIRECTORY
            ):
                ctimes[index], record = found
                del known[part]
            elif found is not None and found[0] < _RACY:
                self.touched.add(index)
            if record is None and index not in self.children:
                self.fresh[index] = None
            records.append(record)
        self.gone = [record for _, record in known.values()]
        self.infos = {n: info(n) for n in (*self.fresh, *self.children)}

    def vanished(self) -> Iterator[bytes]:
        """Yield the names of subfolders that the index knows and that are no more."""
        now = {self.names[index] for index in self.children}
        for record in self.gone:
            if record[0] == Kind.DIRECTORY and (name := record_name(record)) not in now:
                yield name

    def settle(self, index: int, info: os.stat_result, entry: Entry, *, linked: bool) -> None:
        """Take over what became of a name that the index did not know."""
        self.infos[index], self.fresh[index] = info, entry
        if linked:
            self.linked.add(index)


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

    @classmethod
    def of(cls, row: Row | None) -> Notes:
        """Return the totals that the index has; the names are found again."""
        return cls({} if row is None else json.loads(row[4])[0], [], [])

    def count(self, category: Category, size: int, files: int = 1) -> None:
        """Count one file of the folder, or with -1 and a negative size one that is gone."""
        total = self.totals.setdefault(category.value, [0, 0])
        total[0] += files
        total[1] += size

    def dump(self, again: set[str]) -> str:
        """Return the text that the index keeps.

        Args:
            again: Names of files that are looked at again the next time, whatever they look like.
        """
        unkept = [note for note in self.unkept if note[0] not in again]
        return json.dumps([self.totals, self.databases, unkept], separators=(",", ":"))


class LiveIndex:
    """The rows of one root; a small index is read at once, a large one folder by folder.

    Args:
        db: The catalog.
        root: Name of the root.
    """

    def __init__(self, db: sqlite3.Connection, root: str) -> None:
        self._db = db
        self.root = root = storable(root)
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

    def reopened(self, db: sqlite3.Connection) -> LiveIndex:
        """Return this index for a forked process; what was read already is shared."""
        return self if self._rows is not None else LiveIndex(db, self.root)

    def row(self, folder: bytes) -> Row | None:
        """Return what is known of a folder."""
        if self._rows is not None:
            return self._rows.get(folder)
        found: Row | None = self._db.execute(
            "SELECT tree, signatures, ctimes, children, notes FROM live"
            " WHERE root = ? AND folder = ?",
            (self.root, folder),
        ).fetchone()
        return found

    def weights(self) -> dict[bytes, int]:
        """Return about how much there is to look at in each folder, in bytes of signatures."""
        if self._rows is not None:
            return {folder: len(row[1]) for folder, row in self._rows.items()}
        return dict(
            self._db.execute(
                "SELECT folder, length(signatures) FROM live WHERE root = ?", (self.root,)
            )
        )


def listed(db: sqlite3.Connection, root: str, most: int) -> Iterator[tuple[bytes, bytes, bytes]]:
    """Yield folder, signature and name of what the index has of a root.

    Args:
        db: The catalog.
        root: Name of the root.
        most: Of so many folders.
    """
    query = "SELECT folder, signatures FROM live WHERE root = ? ORDER BY folder LIMIT ?"
    for folder, signatures in db.execute(query, (storable(root), most)):
        for part, name in _PART.findall(signatures):
            yield folder, part, name


def readable(row: Row) -> bool:
    """Return whether a row is one: as many times as signatures, notes that can be read."""
    try:
        totals, _, _ = json.loads(row[4])
        count = sum(1 for _ in _PART.finditer(row[1]))
        whole = sum(len(m[0]) for m in _PART.finditer(row[1])) == len(row[1])
        return isinstance(totals, dict) and whole and count * 8 == len(row[2])
    except ValueError:
        return False


def agrees(row: Row, parts: list[bytes], ctimes: array[int]) -> bool:
    """Return whether a listing is what the index knows of a folder."""
    return row[1] == b"".join(parts) and _same_ctimes(row[2], ctimes)


def _known(
    row: Row, read_records: Callable[[bytes], list[bytes]]
) -> dict[bytes, tuple[int, bytes]]:
    """Return what the index knows of a folder: signature → ctime and record."""
    ctimes = array("q")
    ctimes.frombytes(row[2])
    records = {record_name(record): record for record in read_records(row[0])}
    found: dict[bytes, tuple[int, bytes]] = {}
    for (part, name), ctime_ns in zip(_PART.findall(row[1]), ctimes, strict=True):
        record = records.get(name)
        if record is not None:
            found[part] = (ctime_ns, record)
    return found


def _is_young(ns: int, horizon_ns: int) -> bool:
    """Return whether a file could change and keep its time."""
    return ns + coarse_ns(ns) >= horizon_ns


def index_row(
    root: str, folder: Folder, horizon_ns: int
) -> tuple[str, bytes, bytes, bytes, bytes, bytes, str]:
    """Return the row by which the index will know a folder that was built.

    Of files kept by their inode the age is that of the mtime: they were linked just now. What is
    younger than `horizon_ns`, as finely as its time is kept, will be read again. Elsewhere the
    ctime alone tells the age: nobody can set it, while an mtime may lie in any century. What may be
    written unseen is read again whatever its age.
    """
    parts, ctimes = folder.parts, folder.ctimes
    again: set[str] = set()
    for index, entry in folder.fresh.items():
        info = folder.infos[index]
        ctime_ns = nearest_ns(info.st_ctime_ns)
        parts[index] = sign(folder.names[index], info)
        if entry is None or entry.kind is Kind.UNPROTECTED:
            ctimes[index] = _RACY
            again.add(os.fsdecode(folder.names[index]))
        elif index in folder.linked:
            ctimes[index] = _RACY if _is_young(info.st_mtime_ns, horizon_ns) else -ctime_ns
        elif index in folder.unseen:
            ctimes[index] = _RACY
        else:
            ctimes[index] = _RACY if _is_young(ctime_ns, horizon_ns) else ctime_ns
    children = b"".join(
        child if isinstance(child, bytes) else child.tree for child in folder.children.values()
    )
    return (
        storable(root), folder.path, folder.tree, b"".join(parts), ctimes.tobytes(), children,
        folder.notes.dump(again),
    )  # fmt: skip


def refresh_links(db: sqlite3.Connection, root: str, path: bytes, folders: set[bytes]) -> None:
    """Take over the ctimes of files kept by a link, which more links of guard's have changed.

    Args:
        db: The catalog, in a transaction.
        root: Name of a root.
        path: Where it is.
        folders: Those of it in which files were linked.
    """
    for folder in folders:
        query = "SELECT signatures, ctimes FROM live WHERE root = ? AND folder = ?"
        row = db.execute(query, (storable(root), folder)).fetchone()
        if row is None:
            continue
        ctimes = array("q")
        ctimes.frombytes(row[1])
        for index, (part, name) in enumerate(_PART.findall(row[0])):
            mode = SIGNATURE.unpack(part[-SIGNATURE.size :])[0]
            linked = ctimes[index] < _RACY or ctimes[index] == NO_CTIME
            if linked and stat.S_ISREG(mode):
                with contextlib.suppress(OSError):
                    info = os.lstat(os.path.join(path, folder, name))
                    if sign(name, info) == part:
                        ctimes[index] = -nearest_ns(info.st_ctime_ns)
        if (now := ctimes.tobytes()) != row[1]:
            db.execute(
                "UPDATE live SET ctimes = ? WHERE root = ? AND folder = ?",
                (now, storable(root), folder),
            )


def _same_ctimes(known: bytes, now: array[int]) -> bool:
    if known == now.tobytes():
        return True
    then = array("q")
    then.frombytes(known)
    return len(then) == len(now) and all(
        old in (NO_CTIME, new, -new) for old, new in zip(then, now, strict=True)
    )
