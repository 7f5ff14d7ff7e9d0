"""How many bytes one sample takes in memory, measured from the data file that holds them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from checks.artifacts import npy
from checks.artifacts.damage import Damaged
from checks.artifacts.source import Unreadable, opened
from checks.artifacts.window import Truncated, Window

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_ROWS = 1000


class SampleUnknown(Exception):
    """The size of a sample cannot be measured.

    Attributes:
        fix: What would mend it.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.fix = 'give the size of a sample: sample = "150KB" in [check.params.batch]'


def sample_bytes(path: Path) -> int:
    """Return the bytes of one sample: a row of a table in memory, or an item of an array.

    Args:
        path: A CSV, Parquet, Arrow, JSON-lines or npy file.

    Raises:
        SampleUnknown: It cannot be read, or holds no row.
    """
    try:
        with opened(path) as (file, status):
            if path.suffix == ".npy":
                shape, width = npy.read_shape(Window(file))
                if width is None or not shape or not shape[0]:
                    raise SampleUnknown(f"{path.name} holds no array of plain numbers")
                return math.prod(shape[1:]) * width
            if not status.st_size:
                raise SampleUnknown(f"{path.name} is empty")
    except (Unreadable, Damaged, Truncated) as error:
        raise SampleUnknown(f"{path.name} {error}") from None
    return _row_bytes(path)


def _row_bytes(path: Path) -> int:
    import polars as pl  # noqa: PLC0415  # 220 ms, and only where a table is measured

    readers: dict[str, Callable[[Path], pl.LazyFrame]] = {
        ".parquet": pl.scan_parquet,
        ".csv": pl.scan_csv,
        ".arrow": pl.scan_ipc,
        ".feather": pl.scan_ipc,
        ".jsonl": pl.scan_ndjson,
        ".ndjson": pl.scan_ndjson,
    }
    reader = readers.get(path.suffix)
    if reader is None:
        raise SampleUnknown(f"{path.name} is of no format that guard measures")
    try:
        frame = reader(path).head(_ROWS).collect()
    except (pl.exceptions.PolarsError, OSError, ValueError) as error:
        raise SampleUnknown(f"{path.name} cannot be read ({type(error).__name__})") from None
    if not frame.height:
        raise SampleUnknown(f"{path.name} holds no row")
    size_bytes: int = frame.estimated_size()  # type: ignore[assignment]
    return -(-size_bytes // frame.height)
