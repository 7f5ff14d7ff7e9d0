r"""How a directory is written in the store.

A tree is ``GT1\n`` followed by its entries, sorted by the bytes of their names. An entry is a
record: a fixed head (little endian) followed by the name, the reference and the extended
attributes.
The id of a tree is the SHA-256 of these bytes, so equal directories share one record and a
comparison can stop at equal ids.
"""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Iterable, Iterator

from rollback.errors import StoreCorrupt
from rollback.model import Entry, Kind
from rollback.times import packed_ns, unpacked_ns

_MAGIC = b"GT1\n"
_HEAD = struct.Struct("<BHIIQQHHI")
_LENGTHS = struct.Struct("<HHI")
_LENGTHS_AT = _HEAD.size - _LENGTHS.size
_REFERRING = (Kind.FILE, Kind.DIRECTORY)
_INODE = struct.Struct("<QQQ")
_XATTR = struct.Struct("<HI")
_KINDS = {kind.value: kind for kind in Kind}
_EMPTY: tuple[tuple[bytes, bytes], ...] = ()

EMPTY_TREE = hashlib.sha256(_MAGIC).digest()
"""Id of a directory without entries."""


def encode_entry(e: Entry) -> bytes:
    """Return the record of one entry."""
    xattrs = b"" if not e.xattrs else encode_xattrs(e.xattrs)
    head = _HEAD.pack(
        e.kind, e.mode, e.uid, e.gid, packed_ns(e.mtime_ns), e.size,
        len(e.name), len(e.ref), len(xattrs),
    )  # fmt: skip
    return head + e.name + e.ref + xattrs


def decode_entry(record: bytes) -> Entry:
    """Return the entry that a record stands for; every length and name is checked.

    Raises:
        StoreCorrupt: It is not a record, or its name could leave its directory.
    """
    try:
        kind, mode, uid, gid, mtime, size, names, refs, attrs = _HEAD.unpack_from(record)
        at = _HEAD.size + names
        name, ref = record[_HEAD.size : at], record[at : at + refs]
        xattrs = _decode_xattrs(record[at + refs :]) if attrs else _EMPTY
        if at + refs + attrs != len(record):
            raise _corrupt("a record has another length than it says")
        if b"/" in name or b"\0" in name or name in (b"", b".", b".."):
            raise _corrupt(f"the name {name!r} is not allowed")
        return Entry(name, _KINDS[kind], mode, uid, gid, unpacked_ns(mtime), size, ref, xattrs)
    except (struct.error, KeyError) as error:
        raise _corrupt(str(error)) from error


def join_tree(records: Iterable[bytes]) -> bytes:
    """Return the bytes of a directory from records that are sorted by name."""
    return _MAGIC + b"".join(records)


def split_tree(content: bytes) -> list[bytes]:
    """Return the records of a directory; what is in them is checked by `decode_entry`.

    Most of a directory is carried over or compared as it is: a record is a fifth of the work
    that an entry is.

    Raises:
        StoreCorrupt: The bytes are not a tree.
    """
    if content[:4] != _MAGIC:
        raise _corrupt("it does not begin like a tree")
    records: list[bytes] = []
    at, end, head = 4, len(content), _HEAD.size
    unpack = _LENGTHS.unpack_from
    try:
        while at < end:
            names, refs, attrs = unpack(content, at + _LENGTHS_AT)
            after = at + head + names + refs + attrs
            records.append(content[at:after])
            at = after
    except struct.error as error:
        raise _corrupt(str(error)) from error
    if at != end:
        raise _corrupt("its last record is not complete")
    return records


def record_name(record: bytes) -> bytes:
    """Return the name in a record."""
    return record[_HEAD.size : _HEAD.size + _LENGTHS.unpack_from(record, _LENGTHS_AT)[0]]


def record_references(records: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the blobs and trees that records of a directory refer to."""
    for record in records:
        if record[0] in _REFERRING:
            names, refs, _ = _LENGTHS.unpack_from(record, _LENGTHS_AT)
            at = _HEAD.size + names
            yield record[at : at + refs]


def encode_tree(entries: Iterable[Entry]) -> bytes:
    """Return the bytes of a directory whose entries are sorted by name."""
    return join_tree(map(encode_entry, entries))


def decode_tree(content: bytes) -> list[Entry]:
    """Return the entries of a directory; every length and name is checked.

    Raises:
        StoreCorrupt: The bytes are not a tree, or a name could leave its directory.
    """
    return [decode_entry(record) for record in split_tree(content)]


def tree_id(content: bytes) -> bytes:
    """Return the id of an encoded tree: its SHA-256, 32 bytes."""
    return hashlib.sha256(content).digest()


def inode_id(info: os.stat_result) -> bytes:
    """Return the id of a file that is kept by its inode: SHA-256 of inode, size and mtime."""
    head = b"inode\0" + _INODE.pack(info.st_ino, info.st_size, packed_ns(info.st_mtime_ns))
    return hashlib.sha256(head).digest()


def encode_xattrs(xattrs: tuple[tuple[bytes, bytes], ...]) -> bytes:
    """Return extended attributes as they are written in a tree."""
    return b"".join(_XATTR.pack(len(k), len(v)) + k + v for k, v in xattrs)


def _decode_xattrs(content: bytes) -> tuple[tuple[bytes, bytes], ...]:
    found, at = [], 0
    while at < len(content):
        names, values = _XATTR.unpack_from(content, at)
        at += _XATTR.size
        found.append((content[at : at + names], content[at + names : at + names + values]))
        at += names + values
    return tuple(found)


def _corrupt(why: str) -> StoreCorrupt:
    return StoreCorrupt(
        f"a directory record in the store cannot be read: {why}",
        hint="guard verify --repair",
    )
