"""One file, read once: its format, whether it is whole, and what loading it would import."""

from __future__ import annotations

import lzma
import zlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, BinaryIO

from checks.artifacts import (
    archive,
    boosters,
    gguf,
    hdf5,
    npy,
    protobuf,
    safetensors,
    saved_model,
    streams,
    tflite,
)
from checks.artifacts.damage import Damaged, expect_size
from checks.artifacts.formats import HEAD_BYTES, Format, claimed, recognize
from checks.artifacts.pickled import Walk
from checks.artifacts.window import TooLong, Truncated, Window

if TYPE_CHECKING:
    from collections.abc import Callable

_BROKEN = (
    ValueError,
    LookupError,
    TypeError,
    EOFError,
    OverflowError,
    MemoryError,
    RecursionError,
    zlib.error,
)


@dataclass(slots=True)
class Inspection:
    """What the bytes of an artifact say.

    Attributes:
        format: What it is.
        damage: Why it is not whole, or None.
        unread: Why its inside could not be read here, or None.
        walk: What its pickles import and name.
    """

    format: Format
    damage: Damaged | None = None
    unread: str | None = None
    walk: Walk = field(default_factory=Walk)


def inspect(file: BinaryIO, size: int, name: str) -> Inspection:
    """Return what a file is, without loading it.

    Args:
        file: The content, seekable.
        size: Its length in bytes.
        name: The file's name; only its ending counts, and only where bytes leave it open.
    """
    file.seek(0)
    head = file.read(HEAD_BYTES)
    # A SavedModel begins as an ONNX model may; only its name tells them apart.
    named = Format.SAVED_MODEL if name.rpartition("/")[2] == saved_model.NAME else None
    result = Inspection(named or recognize(head))
    try:
        _read(file, head, (size, name), result)
    except Damaged as error:
        result.damage = error
    except Truncated as error:
        message = f"is cut short: it {error}"
        result.damage = Damaged(message, value=error.offset, limit=error.wanted)
    except streams.Unsupported as error:
        result.unread = f"is compressed with {error}, which cannot be read here"
    except OSError as error:
        if error.errno is not None:
            raise
        result.damage = Damaged(f"cannot be read as {result.format} ({error})")  # bz2's way
    except (*_BROKEN, lzma.LZMAError, TooLong) as error:
        result.damage = Damaged(f"cannot be read as {result.format} ({type(error).__name__})")
    return result


def _read(file: BinaryIO, head: bytes, known: tuple[int, str], result: Inspection) -> None:
    size, name = known
    reader = _READERS.get(result.format)
    if reader is not None:
        result.format = reader(file, size, result.walk)
    elif result.format is Format.COMPRESSED:
        result.format = streams.inspect_compressed(file, head, size, result.walk)
    elif result.format in {Format.UNKNOWN, Format.JSON}:
        result.format = _by_trial(file, size, name, result)


def _by_trial(file: BinaryIO, size: int, name: str, result: Inspection) -> Format:
    """Try what has no signature: pickle protocols 0 and 1, and a user block before HDF5."""
    if result.format is Format.JSON and name.lower().endswith(".json"):
        boosters.inspect_json(file, size)
        return Format.JSON
    if hdf5.superblock(file, size) is not None:
        return _hdf5(file, size, result.walk)
    trial = Walk()
    try:
        found = streams.inspect(file, size, trial)
    except (Damaged, Truncated):
        wanted = claimed(name)
        if trial.imports and Format.PICKLE in wanted:
            result.walk = trial
            result.format = Format.PICKLE
            raise
        # Bytes of chance parse for a while; names that are identifiers are no chance.
        result.walk.imports |= {p for p in trial.imports if streams.is_name(p)}
        return result.format
    result.walk = trial
    return found


def _whole_pickle(file: BinaryIO, size: int, walk: Walk) -> Format:
    return streams.inspect(file, size, walk)


def _zip(file: BinaryIO, _size: int, walk: Walk) -> Format:
    return archive.inspect(file, walk)


def _hdf5(file: BinaryIO, size: int, walk: Walk) -> Format:
    hdf5.inspect(file, size)
    if hdf5.carries_code(file, size):
        walk.imports.add(archive.CARRIED_CODE)
    return Format.HDF5


def _array(file: BinaryIO, size: int, walk: Walk) -> Format:
    file.seek(0)
    window = Window(file)
    wanted = npy.array_bytes(window)
    if wanted is None:
        streams.walk_pickles(window, walk, first_only=True)
    else:
        expect_size(size, window.offset + wanted)
    return Format.NPY


def _torch_legacy(file: BinaryIO, size: int, walk: Walk) -> Format:
    streams.inspect_torch_legacy(file, size, walk)
    return Format.TORCH_LEGACY


def _plain(
    read: Callable[[BinaryIO, int], None], found: Format
) -> Callable[[BinaryIO, int, Walk], Format]:
    def reader(file: BinaryIO, size: int, _walk: Walk) -> Format:
        read(file, size)
        return found

    return reader


_READERS: dict[Format, Callable[[BinaryIO, int, Walk], Format]] = {
    Format.PICKLE: _whole_pickle,
    Format.TORCH_LEGACY: _torch_legacy,
    Format.ZIP: _zip,
    Format.NPY: _array,
    Format.SAFETENSORS: _plain(safetensors.inspect, Format.SAFETENSORS),
    Format.GGUF: _plain(gguf.inspect, Format.GGUF),
    Format.HDF5: _hdf5,
    Format.SAVED_MODEL: _plain(protobuf.inspect_saved_model, Format.SAVED_MODEL),
    Format.ONNX: _plain(protobuf.inspect_onnx, Format.ONNX),
    Format.LIGHTGBM: _plain(boosters.inspect_lightgbm, Format.LIGHTGBM),
    Format.XGBOOST_JSON: _plain(boosters.inspect_xgboost_json, Format.XGBOOST_JSON),
    Format.XGBOOST_UBJ: _plain(boosters.inspect_xgboost_ubj, Format.XGBOOST_UBJ),
    Format.TFLITE: _plain(tflite.inspect, Format.TFLITE),
    Format.SQLITE: _plain(boosters.inspect_sqlite, Format.SQLITE),
    Format.CATBOOST: _plain(boosters.inspect_catboost, Format.CATBOOST),
    Format.PARQUET: _plain(boosters.inspect_parquet, Format.PARQUET),
}
