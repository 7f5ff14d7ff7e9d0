"""Comparing two trees: equal ids end the comparison, so it costs what differs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from rollback.folders import join
from rollback.model import Entry, Kind
from rollback.store.codec import EMPTY_TREE, decode_entry

Load = Callable[[bytes], list[Entry]]
Records = Callable[[bytes], list[bytes]]


@dataclass(frozen=True, slots=True)
class Pair:
    """A path that differs: its entry before and after; None where it is absent.

    A folder that both have appears only where its own metadata differs; what is in it follows.
    A folder that one side lacks appears alone, unless the comparison expands it.
    """

    path: bytes
    old: Entry | None
    new: Entry | None


class Comparison:
    """Compares trees and remembers which folders both sides have and were looked into.

    Args:
        records: Returns the records of a tree of either side; equal ones are never decoded.
        expand: Whether folders that one side lacks are followed by all that is in them.
    """

    def __init__(self, records: Records, *, expand: bool) -> None:
        self.records = records
        self.expand = expand
        self.folders: dict[bytes, Entry] = {}

    def compare(self, old: bytes, new: bytes, path: bytes = b"") -> Iterator[Pair]:
        """Yield what differs between two tree ids, in the order of names, folders first."""
        if old == new:
            return
        before, after = dict.fromkeys(self.records(old)), dict.fromkeys(self.records(new))
        ones = {e.name: e for e in map(decode_entry, before.keys() - after.keys())}
        others = {e.name: e for e in map(decode_entry, after.keys() - before.keys())}
        for name in sorted(ones.keys() | others.keys()):
            one, other = ones.get(name), others.get(name)
            here = join(path, name)
            if one is not None and other is not None and _both_folders(one, other):
                self.folders[here] = other
                if _metadata(one) != _metadata(other):
                    yield Pair(here, one, other)
                yield from self.compare(one.ref, other.ref, here)
                continue
            yield Pair(here, one, other)
            if self.expand:
                yield from self._expanded(here, one, other)

    def _expanded(self, path: bytes, one: Entry | None, other: Entry | None) -> Iterator[Pair]:
        if one is not None and one.kind is Kind.DIRECTORY:
            for below, entry in contents(self._load, one.ref, path):
                yield Pair(below, entry, None)
        if other is not None and other.kind is Kind.DIRECTORY:
            for below, entry in contents(self._load, other.ref, path):
                yield Pair(below, None, entry)

    def _load(self, tree: bytes) -> list[Entry]:
        return [decode_entry(record) for record in self.records(tree)]


def contents(load: Load, tree: bytes, path: bytes = b"") -> Iterator[tuple[bytes, Entry]]:
    """Yield path and entry of everything in a tree, each folder before what is in it."""
    for entry in load(tree):
        here = join(path, entry.name)
        yield here, entry
        if entry.kind is Kind.DIRECTORY:
            yield from contents(load, entry.ref, here)


def find_entry(load: Load, tree: bytes, path: bytes) -> Entry | None:
    """Return the entry at a path of a tree, or None."""
    entry: Entry | None = None
    for name in path.split(b"/"):
        entry = next((e for e in load(tree) if e.name == name), None)
        if entry is None:
            return None
        tree = entry.ref if entry.kind is Kind.DIRECTORY else EMPTY_TREE
    return entry


def metadata_differs(one: Entry, other: Entry) -> bool:
    """Return whether owner, mode, mtime or attributes of two entries differ."""
    return _metadata(one) != _metadata(other)


def _metadata(entry: Entry) -> tuple[object, ...]:
    mtime = None if entry.kind is Kind.DATABASE else entry.mtime_ns
    return (entry.mode, entry.uid, entry.gid, mtime, entry.xattrs)


def _both_folders(one: Entry, other: Entry) -> bool:
    return one.kind is Kind.DIRECTORY and other.kind is Kind.DIRECTORY
