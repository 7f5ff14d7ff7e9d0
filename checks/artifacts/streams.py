"""Pickles as files hold them: alone, one after another, compressed, or as PyTorch once wrote them.

joblib's compressed files are zlib, gzip, bz2, xz or lzma streams around the same pickle. The
old format of `torch.save`: three small pickles, the object, the list of storages, then for
each storage its number of items (8 bytes) and the items (`torch.serialization`).
"""

from __future__ import annotations

import bz2
import contextlib
import gzip
import lzma
import zlib
from typing import TYPE_CHECKING, Any, BinaryIO

from checks.artifacts.damage import Damaged, expect_size
from checks.artifacts.formats import Format
from checks.artifacts.opcodes import NotPickle
from checks.artifacts.pickled import Symbol, Walk, Walker
from checks.artifacts.window import TooLong, Truncated, Window

if TYPE_CHECKING:
    from checks.artifacts.pickled import Import
    from checks.artifacts.window import Readable

TORCH_NUMBER = 0x1950A86A20F9469CFC6C
_EXPANSION = 1000
_EXPANSION_FLOOR_BYTES = 1 << 30
_STORAGE_BYTES = {
    **dict.fromkeys(("Byte", "Char", "Bool", "QInt8", "QUInt8", "QUInt4x2", "QUInt2x4"), 1),
    **dict.fromkeys(("Short", "Half", "BFloat16"), 2),
    **dict.fromkeys(("Int", "Float", "QInt32"), 4),
    **dict.fromkeys(("Long", "Double", "ComplexFloat"), 8),
    "ComplexDouble": 16,
}


class Unsupported(Exception):
    """A compression that the standard library cannot read."""


def walk_pickles(window: Window, walk: Walk, *, first_only: bool = False) -> None:
    """Walk the pickles of a stream that holds nothing else, as `pickle.load` reads them.

    Raises:
        Damaged: The stream is no pickle.
        Truncated: It ends before the first pickle does.
    """
    _run(Walker(window, walk))
    while not first_only and not window.at_end():
        _run(Walker(window, walk))


def inspect(file: BinaryIO, size: int, walk: Walk) -> Format:
    """Walk a file of pickles, with or without joblib's arrays between the opcodes.

    Returns:
        `JOBLIB` where it holds joblib's arrays, else `PICKLE`.

    Raises:
        Damaged: It is no pickle, or goes on with something else after its end.
        Truncated: It ends before its STOP.
    """
    file.seek(0)
    plain = Walk()
    window = Window(file)
    try:
        _run(Walker(window, plain))
    except (Damaged, Truncated):
        _join(walk, plain)
        if plain.wrapper_at is None:
            raise
        return _inspect_joblib(file, size, walk)
    _join(walk, plain)
    end = window.offset
    if plain.wrapper_at is not None:
        # Both readings are possible, so what either of them imports counts.
        with contextlib.suppress(Damaged, Truncated):
            return _inspect_joblib(file, size, walk)
        file.seek(end)
        window = Window(file)
    try:
        while not window.at_end():
            _run(Walker(window, walk))
    except (Damaged, Truncated):
        message = f"goes on for {size - end:,} bytes after the end of its pickle"
        raise Damaged(message, value=size, limit=end) from None
    return Format.PICKLE


def _join(walk: Walk, plain: Walk) -> None:
    """Add what was named up to a failure: it is imported before the failure, too.

    After joblib's first array the opcodes may be chance; chance makes no identifiers.
    """
    chance = plain.wrapper_at is not None
    walk.imports |= {pair for pair in plain.imports if not chance or is_name(pair)}
    walk.versions.update(plain.versions)
    walk.persistent += plain.persistent
    for key, counts in plain.reached.items():
        have = walk.reached.setdefault(key, [0, 0])
        have[:] = [have[0] + counts[0], have[1] + counts[1]]


def is_name(pair: Import) -> bool:
    """Return whether module and name are such as Python can have."""
    return all(part.isidentifier() for text in pair for part in text.split("."))


def _inspect_joblib(file: BinaryIO, size: int, walk: Walk) -> Format:
    file.seek(0)
    window = Window(file)
    _run(Walker(window, walk, arrays=True))
    expect_size(size, window.offset, exact=True)
    return Format.JOBLIB


def inspect_compressed(file: BinaryIO, head: bytes, size: int, walk: Walk) -> Format:
    """Walk the pickle inside a compressed stream.

    Returns:
        `JOBLIB` where a pickle is inside, else `COMPRESSED`.

    Raises:
        Damaged: The stream is broken or expands without end.
        Truncated: It is cut short.
        Unsupported: It is compressed in a way that cannot be read here.
    """
    file.seek(0)
    limit = _EXPANSION_FLOOR_BYTES + _EXPANSION * size
    stream = _decompressor(file, head)
    window = Window(stream, limit)
    try:
        if window.at_end():
            return Format.COMPRESSED
        Walker(window, walk, arrays=True).run()
        if not window.at_end():
            raise Damaged("goes on after the end of its pickle")
    except NotPickle:
        if window.offset > 2:  # noqa: PLR2004  # some opcodes were fine: a damaged pickle
            raise Damaged("is no whole pickle inside its compression") from None
        return Format.COMPRESSED
    except EOFError:
        raise Damaged("is cut short: its compressed stream does not end") from None
    except (zlib.error, lzma.LZMAError, TooLong, gzip.BadGzipFile) as error:
        raise Damaged(f"is damaged inside its compression ({error})") from None
    return Format.JOBLIB


def inspect_torch_legacy(file: BinaryIO, size: int, walk: Walk) -> None:
    """Walk an old PyTorch file and compare its storages with its size.

    Raises:
        Damaged: Storages are missing.
        Truncated: It ends inside its pickles.
    """
    file.seek(0)
    window = Window(file)
    for _part in ("magic number", "protocol", "system", "object", "keys of storages"):
        _run(Walker(window, walk))
    storages = {entry[2]: _storage_bytes(entry) for entry in walk.persistent if _is_storage(entry)}
    if all(storages.values()):
        expect_size(size, window.offset + sum(8 + (n or 0) for n in storages.values()))


def _is_storage(entry: Any) -> bool:
    return (
        isinstance(entry, tuple)
        and len(entry) >= 5  # noqa: PLR2004  # ("storage", class, key, place, items[, view])
        and entry[0] == "storage"
        and isinstance(entry[2], str)
    )


def _storage_bytes(entry: Any) -> int | None:
    of, items = entry[1], entry[4]
    if not isinstance(of, Symbol) or type(items) is not int:
        return None
    width = _STORAGE_BYTES.get(of.name.removesuffix("Storage"))
    return None if width is None else width * items


def _run(walker: Walker) -> None:
    try:
        walker.run()
    except (NotPickle, TooLong) as error:
        raise Damaged(str(error)) from None


def _decompressor(file: BinaryIO, head: bytes) -> Readable:
    if head.startswith(b"\x1f\x8b"):
        return gzip.GzipFile(fileobj=file)
    if head.startswith(b"BZh"):
        return bz2.BZ2File(file)
    if head.startswith((b"\xfd7zXZ\x00", b"\x5d\x00\x00")):
        return lzma.LZMAFile(file)
    if head[:1] == b"\x78":
        return _Inflated(file)
    raise Unsupported("lz4" if head.startswith(b"\x04") else "zstd")


class _Inflated:
    """A zlib stream, which the standard library reads only by hand."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._engine = zlib.decompressobj()

    def read(self, size: int, /) -> bytes:
        """Return at most `size` bytes; fewer at the end."""
        while not self._engine.eof:
            pending = self._engine.unconsumed_tail or self._file.read(1 << 16)
            if not pending:
                raise EOFError
            if part := self._engine.decompress(pending, size):
                return part
        return b""
