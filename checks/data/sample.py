"""Draws rows that lie evenly over a data set, at a fraction of the price of a pass."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from checks.data.source import Source

_SLICES = 20


@dataclass(frozen=True, slots=True)
class Sampler:
    """How rows are drawn from one data set.

    Attributes:
        frame: The whole data set, lazily.
        source: Its files.
        parse: Parses a piece of a text file without its header; None where that does not
            give the columns of the frame.
    """

    frame: pl.LazyFrame
    source: Source
    parse: Callable[[io.BytesIO], pl.DataFrame] | None

    def draw(self, total: int, rows: int) -> pl.DataFrame:
        """Return about `rows` rows, evenly spread; all of them where there are fewer.

        Args:
            total: How many rows the data set has.
            rows: How many are wanted.

        Slices lie at fixed places, so that the same data gives the same sample.
        """
        if total <= rows:
            return self.frame.collect(engine="streaming")
        if self.source.format in {"parquet", "arrow"}:
            return self._by_number(total, rows)
        if self.parse is not None and not self.source.compressed:
            try:
                return self._by_offset(self.parse, total, rows)
            except (pl.exceptions.PolarsError, ValueError):
                pass  # a piece began inside a quoted field: read everything instead
        step = -(-total // rows)
        index = f"row of {total}"
        numbered = self.frame.with_row_index(index)
        chosen = numbered.filter(pl.col(index) % step == 0).drop(index)
        return chosen.collect(engine="streaming")

    def _by_number(self, total: int, rows: int) -> pl.DataFrame:
        length = rows // _SLICES
        starts = [n * (total - length) // (_SLICES - 1) for n in range(_SLICES)]
        parts = [self.frame.slice(start, length) for start in starts]
        return pl.concat(parts).collect(engine="streaming")

    def _by_offset(
        self, parse: Callable[[io.BytesIO], pl.DataFrame], total: int, rows: int
    ) -> pl.DataFrame:
        length = max(1, self.source.size_bytes * rows // total // _SLICES)
        parts = [parse(io.BytesIO(piece)) for piece in _pieces(self.source, length)]
        return pl.concat(part for part in parts if part.height)


def _pieces(source: Source, length: int) -> Iterator[bytes]:
    """Yield whole lines of about `length` bytes at evenly spread places of the files."""
    span = max(1, source.size_bytes - length)
    wanted = [n * span // (_SLICES - 1) for n in range(_SLICES)]
    before = 0
    for file in source.files:
        size = file.stat().st_size
        with file.open("rb") as handle:
            for at in (w - before for w in wanted if before <= w < before + size):
                handle.seek(at)
                handle.readline()  # the rest of a line, or the header at the start
                yield handle.read(length) + handle.readline()
        before += size
