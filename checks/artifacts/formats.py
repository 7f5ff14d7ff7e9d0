"""What an artifact is: told by its bytes, compared with what its name claims."""

from __future__ import annotations

import enum
import re
from typing import TYPE_CHECKING

from checks.artifacts.protobuf import looks_like_onnx

if TYPE_CHECKING:
    from collections.abc import Callable

HEAD_BYTES = 4096
"""How many first bytes `recognize` wants."""


class Format(enum.StrEnum):
    """A serialization format, by the name that people use for it."""

    PICKLE = "pickle"
    JOBLIB = "joblib"
    COMPRESSED = "compressed"
    TORCH = "torch"
    TORCH_LEGACY = "torch (legacy)"
    SAFETENSORS = "safetensors"
    ONNX = "ONNX"
    HDF5 = "HDF5"
    KERAS = "Keras archive"
    SAVED_MODEL = "SavedModel"
    GGUF = "GGUF"
    NPY = "NumPy array"
    NPZ = "NumPy archive"
    LIGHTGBM = "LightGBM text"
    XGBOOST_JSON = "XGBoost JSON"
    XGBOOST_UBJ = "XGBoost UBJSON"
    CATBOOST = "CatBoost"
    TFLITE = "TensorFlow Lite"
    PARQUET = "Parquet"
    SQLITE = "SQLite"
    ZIP = "zip archive"
    JSON = "JSON"
    LFS_POINTER = "Git LFS pointer"
    HTML = "HTML page"
    UNKNOWN = "unknown"


LOADS_CODE = frozenset(
    {Format.PICKLE, Format.JOBLIB, Format.TORCH, Format.TORCH_LEGACY, Format.COMPRESSED}
)
"""Formats whose loading can run code."""

_MAGIC: tuple[tuple[bytes, Format], ...] = (
    (b"\x89HDF\r\n\x1a\n", Format.HDF5),
    (b"GGUF", Format.GGUF),
    (b"\x93NUMPY", Format.NPY),
    (b"PK\x03\x04", Format.ZIP),
    (b"PK\x05\x06", Format.ZIP),
    (b"\x1f\x8b", Format.COMPRESSED),
    (b"BZh", Format.COMPRESSED),
    (b"\xfd7zXZ\x00", Format.COMPRESSED),
    (b"\x5d\x00\x00", Format.COMPRESSED),
    (b"\x04\x22\x4d\x18", Format.COMPRESSED),
    (b"\x28\xb5\x2f\xfd", Format.COMPRESSED),
    (b"CBM1", Format.CATBOOST),
    (b"PAR1", Format.PARQUET),
    (b"SQLite format 3\x00", Format.SQLITE),
    (b"version https://git-lfs.github.com/spec/", Format.LFS_POINTER),
    (b"tree\nversion=", Format.LIGHTGBM),
    (b"{L\x00\x00\x00\x00\x00\x00\x00\x07learner", Format.XGBOOST_UBJ),
    (b"{L\x07\x00\x00\x00\x00\x00\x00\x00learner", Format.XGBOOST_UBJ),
)
_TORCH_LEGACY_NUMBER = bytes.fromhex("6cfc9c46f9206aa85019")  # 0x1950a86a20f9469cfc6c
_ZLIB = {b"\x78\x01", b"\x78\x5e", b"\x78\x9c", b"\x78\xda"}


def recognize(head: bytes) -> Format:
    """Return the format that the first bytes show.

    Args:
        head: The first `HEAD_BYTES` of the file, or all of a shorter one.
    """
    for magic, found in _MAGIC:
        if head.startswith(magic):
            return found
    return next((found for looks, found in _LOOKS if looks(head)), Format.UNKNOWN)


def _is_torch_legacy(head: bytes) -> bool:
    return head[:1] == b"\x80" and _TORCH_LEGACY_NUMBER in head[:24]


def _is_pickle(head: bytes) -> bool:
    return len(head) > 2 and head[0] == 0x80 and head[1] <= 5 and not looks_like_onnx(head)  # noqa: PLR2004


def _is_safetensors(head: bytes) -> bool:
    return head[8:9] == b"{" and head[6:8] == b"\0\0" and head[:8] != bytes(8)


def _is_xgboost_json(head: bytes) -> bool:
    return re.match(rb'\s*\{\s*"(learner|version)"\s*:', head) is not None and b"learner" in head


def _is_html(head: bytes) -> bool:
    return re.match(rb"\s*<(!doctype\s+html|html|\?xml)", head, re.IGNORECASE) is not None


_LOOKS: tuple[tuple[Callable[[bytes], bool], Format], ...] = (
    (_is_torch_legacy, Format.TORCH_LEGACY),
    (_is_pickle, Format.PICKLE),
    (_is_safetensors, Format.SAFETENSORS),
    (looks_like_onnx, Format.ONNX),
    (lambda head: head[4:8] == b"TFL3", Format.TFLITE),
    (lambda head: head[:2] in _ZLIB, Format.COMPRESSED),
    (_is_xgboost_json, Format.XGBOOST_JSON),
    (lambda head: head.lstrip()[:1] in {b"{", b"["} and b"\0" not in head, Format.JSON),
    (_is_html, Format.HTML),
)

_PICKLES = {Format.PICKLE, Format.JOBLIB, Format.COMPRESSED}
_TORCHES = {Format.TORCH, Format.TORCH_LEGACY}
_CLAIMS: dict[str, set[Format]] = {
    ".pkl": _PICKLES,
    ".pickle": _PICKLES,
    ".joblib": _PICKLES,
    ".pt": _TORCHES | {Format.PICKLE},
    ".pth": _TORCHES | {Format.PICKLE},
    ".ckpt": _TORCHES | _PICKLES | {Format.UNKNOWN, Format.HDF5},
    ".safetensors": {Format.SAFETENSORS},
    ".onnx": {Format.ONNX},
    ".h5": {Format.HDF5},
    ".hdf5": {Format.HDF5},
    ".keras": {Format.KERAS},
    ".gguf": {Format.GGUF},
    ".npy": {Format.NPY},
    ".npz": {Format.NPZ},
    ".ubj": {Format.XGBOOST_UBJ},
    ".cbm": {Format.CATBOOST},
    ".tflite": {Format.TFLITE},
    ".skops": {Format.ZIP},
    ".pt2": {Format.ZIP},
    ".parquet": {Format.PARQUET},
}
EXTENSIONS = frozenset(_CLAIMS)
"""Endings of file names that promise a format."""


def claimed(name: str) -> frozenset[Format]:
    """Return the formats that the ending of a name allows; empty where it promises nothing."""
    _stem, dot, ending = name.rpartition(".")
    return frozenset(_CLAIMS.get(f"{dot}{ending}".lower(), ()))
