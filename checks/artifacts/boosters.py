"""Models of gradient boosting libraries, and tables: told whole by how they end."""

from __future__ import annotations

import json
from typing import BinaryIO

from checks.artifacts import ubjson
from checks.artifacts.damage import Damaged, expect_size
from checks.artifacts.window import Truncated, Window

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
    """Raise unless an XGBoost UBJSON model is one whole value.

    Raises:
        Damaged: It is cut short or no UBJSON.
        Truncated: It ends inside a value.
    """
    file.seek(0)
    ubjson.walk(Window(file), size)


def inspect_catboost(file: BinaryIO, size: int) -> None:
    """Raise unless a CatBoost model is as long as its parts say.

    Format: catboost/libs/model (magic and core with its length; where categories are hashed, the
    number of tables, and each with its length).

    Raises:
        Damaged: It is cut short, or goes on.
        Truncated: It ends inside a length.
    """
    file.seek(4)
    at = 8 + _length(file)
    expect_size(size, at)
    if at == size:
        return
    file.seek(at)
    tables = _length(file)
    at += 4
    for _table in range(tables):
        file.seek(at)
        at += 4 + _length(file)
        expect_size(size, at)
    expect_size(size, at, exact=True)


def _length(file: BinaryIO) -> int:
    raw = file.read(4)
    if len(raw) < 4:  # noqa: PLR2004 - 32 bits
        raise Truncated(file.tell(), file.tell() + 4 - len(raw))
    return int.from_bytes(raw, "little")


def inspect_sqlite(file: BinaryIO, size: int) -> None:
    """Raise unless an SQLite database has all the pages that its header counts.

    Format: https://sqlite.org/fileformat2.html (page size at 16, change counter at 24, pages at
    28, the counter for which that number holds at 92).

    Raises:
        Damaged: It is cut short.
    """
    file.seek(0)
    head = file.read(100)
    page = int.from_bytes(head[16:18], "big")
    page = 65_536 if page == 1 else page
    if len(head) < 100 or head[24:28] == head[92:96]:  # noqa: PLR2004 - length of the header
        expect_size(size, max(100, page * int.from_bytes(head[28:32], "big")))


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
