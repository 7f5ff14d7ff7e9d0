"""Models of gradient boosting libraries, and tables: told whole by how they end."""

from __future__ import annotations

import json
from typing import BinaryIO

from checks.artifacts.damage import Damaged, expect_size

_TAIL_BYTES = 4096
_JSON_LIMIT_BYTES = 64 << 20


def inspect_lightgbm(file: BinaryIO, size: int) -> None:
    """Raise unless a LightGBM text model goes on to the end of its parameters.

    Raises:
        Damaged: It is cut short.
    """
    text = _tail(file, size, 1 << 20)
    if b"\nend of parameters" not in text:
        raise Damaged("is cut short: its line 'end of parameters' is not there")


def inspect_xgboost_json(file: BinaryIO, size: int) -> None:
    """Raise unless an XGBoost JSON model is whole; very large ones are judged by their end.

    Raises:
        Damaged: It is cut short or no JSON.
    """
    _inspect_json(file, size, (b"}",))


def _inspect_json(file: BinaryIO, size: int, ends: tuple[bytes, ...]) -> None:
    if not _tail(file, size, _TAIL_BYTES).rstrip().endswith(ends):
        raise Damaged("is cut short: its last bracket is not there")
    if size <= _JSON_LIMIT_BYTES:
        file.seek(0)
        try:
            json.load(file)
        except (ValueError, RecursionError):
            raise Damaged("is no whole JSON") from None


def inspect_json(file: BinaryIO, size: int) -> None:
    """Raise unless a JSON file is whole; very large ones are judged by their end.

    Raises:
        Damaged: It is cut short or no JSON.
    """
    _inspect_json(file, size, (b"}", b"]"))


def inspect_xgboost_ubj(file: BinaryIO, size: int) -> None:
    """Raise unless an XGBoost UBJSON model ends with its last bracket.

    Raises:
        Damaged: It is cut short.
    """
    if not _tail(file, size, _TAIL_BYTES).endswith(b"}"):
        raise Damaged("is cut short: its last bracket is not there")


def inspect_catboost(file: BinaryIO, size: int) -> None:
    """Raise unless a CatBoost model is as long as its first part says.

    Raises:
        Damaged: It is cut short.
    """
    file.seek(4)
    expect_size(size, 8 + int.from_bytes(file.read(4), "little"))


def inspect_parquet(file: BinaryIO, size: int) -> None:
    """Raise unless a Parquet file has its footer.

    Raises:
        Damaged: It is cut short.
    """
    tail = _tail(file, size, 8)
    if tail[-4:] != b"PAR1":
        raise Damaged("is cut short: its footer is not there")
    expect_size(size, 12 + int.from_bytes(tail[:4], "little"))


def _tail(file: BinaryIO, size: int, count: int) -> bytes:
    file.seek(max(0, size - count))
    return file.read(count)
