"""Zip archives that hold models: PyTorch, NumPy's npz, Keras.

A zip has its table of contents at its end, so one that was cut short has none at all. One that
was only partly written (a crash, a bad copy) has it, and members that do not fit their checksums.
"""

from __future__ import annotations

import lzma
import zipfile
import zlib
from typing import TYPE_CHECKING, BinaryIO

from checks.artifacts import npy
from checks.artifacts.damage import Damaged
from checks.artifacts.formats import Format
from checks.artifacts.streams import walk_pickles
from checks.artifacts.window import Truncated, Window

if TYPE_CHECKING:
    from checks.artifacts.pickled import Walk

_MEMBER_LIMIT = 1_000_000
_CHUNK_BYTES = 1 << 20
_EXPANSION = 1000
_EXPANSION_FLOOR_BYTES = 1 << 30
_KERAS_CONFIG = "config.json"
_CONFIG_BYTES = 64 << 20
CARRIED_CODE = ("keras.layers", "Lambda")
"""What stands for a Keras layer that carries byte code; `danger` counts it as running code."""
_PICKLE_ENDINGS = (".pkl", ".pickle", ".joblib")


def inspect(file: BinaryIO, walk: Walk) -> Format:
    """Return what kind of archive this is, having walked every pickle inside.

    Raises:
        Damaged: The archive or a member of it is not whole.
    """
    file.seek(0)
    try:
        with zipfile.ZipFile(file) as archive:
            members = archive.infolist()
            if len(members) > _MEMBER_LIMIT:
                raise Damaged(f"holds {len(members):,} members", limit=_MEMBER_LIMIT)
            if min((member.header_offset for member in members), default=0):
                # Cut short behind an archive inside: its table of contents was found instead.
                raise Damaged("is cut short: its own table of contents is not there")
            kind = _kind({member.filename for member in members})
            for member in members:
                _inspect_member(archive, member, walk)
    except (zipfile.BadZipFile, NotImplementedError, UnicodeDecodeError) as error:
        raise Damaged(f"is cut short or not a whole zip archive ({error})") from None
    return kind


def _kind(names: set[str]) -> Format:
    if any(name.rpartition("/")[2] == "data.pkl" and "/" in name for name in names):
        return Format.TORCH
    if {"metadata.json", "config.json"} <= names:
        return Format.KERAS
    if names and all(name.endswith(".npy") for name in names):
        return Format.NPZ
    return Format.ZIP


def _inspect_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, walk: Walk) -> None:
    if member.is_dir():
        return
    name = member.filename
    try:
        head = _verify(archive, member)
        if name == _KERAS_CONFIG and member.file_size <= _CONFIG_BYTES:
            _inspect_config(archive.read(member), walk)
        if head.startswith(npy.MAGIC):
            _inspect_array(archive, member, walk)
        elif name.endswith(_PICKLE_ENDINGS) or (head[:1] == b"\x80" and head[1:2] <= b"\x05"):
            _inspect_pickle(archive, member, walk, sure=name.endswith(_PICKLE_ENDINGS))
    except (Damaged, Truncated) as error:
        raise Damaged(f"holds a member {name!r} that {error}") from None
    except zipfile.BadZipFile as error:
        what = "does not fit its checksum" if "CRC" in str(error) else f"is broken ({error})"
        raise Damaged(f"holds a member {name!r} that {what}: it was not written out") from None
    except (RuntimeError, zlib.error, lzma.LZMAError, EOFError, OSError) as error:
        if isinstance(error, OSError) and error.errno:
            raise
        raise Damaged(f"holds a member {name!r} that cannot be read ({error})") from None


def _verify(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytes:
    """Read a member to its end, where its checksum is compared; return its first bytes.

    PyTorch can be told to write no checksums; it then leaves zeros.

    Raises:
        BadZipFile: The checksum is another.
        Damaged: It expands without measure.
    """
    if member.file_size > _EXPANSION_FLOOR_BYTES + _EXPANSION * member.compress_size:
        raise Damaged(f"expands to {member.file_size:,} bytes")
    if not member.CRC:
        member.CRC = None  # type: ignore[assignment]  # what the module takes for "unknown"
    with archive.open(member) as stream:
        head = stream.read(8)
        have = len(head)
        while part := stream.read(_CHUNK_BYTES):
            have += len(part)
    if have < member.file_size:
        raise Truncated(have, member.file_size)
    return head


def _inspect_config(raw: bytes, walk: Walk) -> None:
    """Note a layer of Keras that carries Python's byte code, which loading it would run."""
    if b'"__lambda__"' in raw:
        walk.imports.add(CARRIED_CODE)


def _inspect_array(archive: zipfile.ZipFile, member: zipfile.ZipInfo, walk: Walk) -> None:
    with archive.open(member) as stream:
        window = Window(stream)
        wanted = npy.array_bytes(window)
        if wanted is None:
            walk_pickles(window, walk, first_only=True)
        elif member.file_size < window.offset + wanted:
            raise Truncated(member.file_size, window.offset + wanted)


def _inspect_pickle(
    archive: zipfile.ZipFile, member: zipfile.ZipInfo, walk: Walk, *, sure: bool
) -> None:
    try:
        with archive.open(member) as stream:
            walk_pickles(Window(stream), walk, first_only=True)
    except (Damaged, Truncated):
        # A member that only looks like a pickle (raw weights may start with any byte) is none.
        if sure:
            raise
