r"""How a directory is written in the store.

A tree is ``GT1\n`` followed by its entries, sorted by the bytes of their names. An entry is a
fixed head (little endian) followed by the name, the reference and the extended attributes.
The id of a tree is the SHA-256 of these bytes, so equal directories share one record and a
comparison can stop at equal ids.
"""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Iterable

from rollback.errors import StoreCorrupt
from rollback.model import Entry, Kind

_MAGIC = b"GT1\n"
_HEAD = struct.Struct("<BHIIqQHHI")
_INODE = struct.Struct("<QQq")
_XATTR = struct.Struct("<HI")
_KINDS = {kind.value: kind for kind in Kind}
_EMPTY: tuple[tuple[bytes, bytes], ...] = ()

EMPTY_TREE = hashlib.sha256(_MAGIC).digest()
"""Id of a directory without entries."""


def encode_tree(entries: Iterable[Entry]) -> bytes:
    """Return the bytes of a directory whose entries are sorted by name."""
    parts = [_MAGIC]
    for e in entries:
        xattrs = b"" if not e.xattrs else encode_xattrs(e.xattrs)
        parts.append(
            _HEAD.pack(
                e.kind, e.mode, e.uid, e.gid, e.mtime_ns, e.size,
                len(e.name), len(e.ref), len(xattrs),
            )
        )  # fmt: skip
        parts.append(e.name)
        parts.append(e.ref)
        if xattrs:
            parts.append(xattrs)
    return b"".join(parts)


def decode_tree(content: bytes) -> list[Entry]:
    """Return the entries of a directory; every length and name is checked.

    Raises:
        StoreCorrupt: The bytes are not a tree, or a name could leave its directory.
    """
    if content[:4] != _MAGIC:
        raise _corrupt("it does not begin like a tree")
    entries: list[Entry] = []
    at, end, head = 4, len(content), _HEAD.size
    unpack = _HEAD.unpack_from
    try:
        while at < end:
            kind, mode, uid, gid, mtime_ns, size, names, refs, attrs = unpack(content, at)
            at += head
            name = content[at : at + names]
            at += names
            ref = content[at : at + refs]
            at += refs
            xattrs = _EMPTY
            if attrs:
                xattrs = _decode_xattrs(content[at : at + attrs])
                at += attrs
            if at > end or b"/" in name or b"\0" in name or name in (b"", b".", b".."):
                raise _corrupt(f"the name {name!r} is not allowed")
            entries.append(Entry(name, _KINDS[kind], mode, uid, gid, mtime_ns, size, ref, xattrs))
    except (struct.error, KeyError) as error:
        raise _corrupt(str(error)) from error
    return entries


def tree_id(content: bytes) -> bytes:
    """Return the id of an encoded tree: its SHA-256, 32 bytes."""
    return hashlib.sha256(content).digest()


def references(entries: Iterable[Entry]) -> list[bytes]:
    """Return the blobs and trees that a directory record refers to."""
    return [e.ref for e in entries if e.kind in (Kind.FILE, Kind.DIRECTORY)]


def inode_id(info: os.stat_result) -> bytes:
    """Return the id of a file that is kept by its inode: SHA-256 of inode, size and mtime."""
    head = b"inode\0" + _INODE.pack(info.st_ino, info.st_size, info.st_mtime_ns)
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
