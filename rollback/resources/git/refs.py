"""Branches, tags and HEAD, read plainly from files."""

from __future__ import annotations

import os
import re

from rollback.resources.git.layout import GitLayout, read_small

_HASH = re.compile(rb"(?:[0-9a-f]{40}|[0-9a-f]{64})\Z")
_DEPTH = 5
"""git follows symbolic references this deep (refs.c, SYMREF_MAXDEPTH)."""


def read_head(gitdir: bytes) -> bytes | None:
    """Return what HEAD of a work tree holds: a hash, or the name of a branch.

    Returns:
        ``refs/heads/main``, a hexadecimal hash, or None where it cannot be read.
    """
    path = os.path.join(gitdir, b"HEAD")
    try:
        if os.path.islink(path):  # what git wrote long ago, and still reads
            return os.readlink(path)
    except OSError:
        return None
    content = read_small(path)
    if content is None:
        return None
    content = content.strip()
    return content[4:].strip() if content.startswith(b"ref:") else content


def resolve(layout: GitLayout, name: bytes) -> str | None:
    """Return the hash that a reference or HEAD stands for, None where it does not exist.

    Args:
        layout: The repository.
        name: ``HEAD``, ``refs/…`` or a hash.
    """
    for _ in range(_DEPTH):
        if _HASH.match(name):
            return name.decode()
        if not _well_formed(name):
            return None
        value = read_head(layout.gitdir) if name == b"HEAD" else _loose(layout, name)
        if value is None:
            packed = packed_refs(layout.commondir).get(name)
            return packed.decode() if packed else None
        name = value
    return None


def packed_refs(commondir: bytes) -> dict[bytes, bytes]:
    """Return the references of the file `packed-refs`: name to hash, in bytes."""
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC  # a FIFO in its place does not hang guard
    try:
        with os.fdopen(os.open(os.path.join(commondir, b"packed-refs"), flags), "rb") as file:
            lines = (file.read() or b"").split(b"\n")
    except OSError:
        return {}
    found = {}
    for line in lines:
        value, _, name = line.partition(b" ")
        if name and _HASH.match(value):
            found[name] = value
    return found


def _well_formed(name: bytes) -> bool:
    parts = name.split(b"/")
    return bool(name) and b"\0" not in name and b".." not in parts and b"" not in parts


def _loose(layout: GitLayout, name: bytes) -> bytes | None:
    content = read_small(os.path.join(layout.gitdir, name))
    if content is None and layout.linked:
        content = read_small(os.path.join(layout.commondir, name))
    if content is None:
        return None
    content = content.strip()
    return content[4:].strip() if content.startswith(b"ref:") else content
