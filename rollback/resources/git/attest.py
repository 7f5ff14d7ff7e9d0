"""Whether an object or pack is still what git wrote, told from the file itself.

git touches the time of an object or pack when it is asked to write the same content again
(`freshen_loose_object`, `freshen_packed_object` in object-file.c), through every hard link. So a
changed time says nothing; the hash that each of these files carries does.

Formats: gitformat-pack(5) (pack, idx, rev, mtimes and bitmap end in a hash of what precedes),
gitrepository-layout(5) (a loose object is named by the hash of its inflated content), Git LFS
(an object is named by the SHA-256 of its content).
"""

from __future__ import annotations

import hashlib
import os
import re
import zlib
from io import BufferedReader

_CHUNK = 1 << 20
_BY_LENGTH = {40: "sha1", 64: "sha256"}
_LOOSE = re.compile(rb"(?:.*/)?objects/([0-9a-f]{2})/([0-9a-f]{38}|[0-9a-f]{62})\Z", re.DOTALL)
_PACK = re.compile(rb"(?:.*/)?objects/pack/pack-([0-9a-f]{40}|[0-9a-f]{64})\.", re.DOTALL)
_LARGE = re.compile(rb"(?:.*/)?lfs/objects/[0-9a-f]{2}/[0-9a-f]{2}/([0-9a-f]{64})\Z", re.DOTALL)


def git_intact(path: bytes, file: BufferedReader) -> bool | None:
    """Return whether a linked file of a repository holds what its owner wrote.

    Args:
        path: Any path below a git folder, or relative to it, that `git_policy` links.
        file: The content, open for reading at its beginning, seekable.

    Returns:
        True or False by the file's own hash; None where it carries none.
    """
    large = _LARGE.match(path)
    if large:
        return hashlib.file_digest(_reader(file), "sha256").hexdigest().encode() == large[1]
    loose = _LOOSE.match(path)
    if loose:
        return _loose_digest(file, len(loose[1] + loose[2])) == loose[1] + loose[2]
    pack = _PACK.match(path)
    return _trailer_agrees(file, len(pack[1])) if pack else None


def _reader(file: BufferedReader) -> BufferedReader:
    file.seek(0)
    return file


def _loose_digest(file: BufferedReader, length: int) -> bytes:
    """Return the hash of the inflated content; empty where it cannot be inflated whole."""
    digest = hashlib.new(_BY_LENGTH[length], usedforsecurity=False)
    inflater = zlib.decompressobj()
    file.seek(0)
    try:
        while chunk := file.read(_CHUNK):
            digest.update(inflater.decompress(chunk))
        digest.update(inflater.flush())
    except zlib.error:
        return b""
    if not inflater.eof or inflater.unused_data:
        return b""
    return digest.hexdigest().encode()


def _trailer_agrees(file: BufferedReader, length: int) -> bool:
    """Return whether a file ends in the hash of all that precedes it."""
    digest = hashlib.new(_BY_LENGTH[length], usedforsecurity=False)
    remaining = file.seek(0, os.SEEK_END) - digest.digest_size
    if remaining < 0:
        return False
    file.seek(0)
    while remaining:
        chunk = file.read(min(_CHUNK, remaining))
        if not chunk:
            return False
        digest.update(chunk)
        remaining -= len(chunk)
    return file.read() == digest.digest()
