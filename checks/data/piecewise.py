"""A lazy frame over pieces that are read one after another: memory holds one of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import polars as pl

if TYPE_CHECKING:
    from collections.abc import Iterator


class Pieces(Protocol):
    """Gives the pieces of a table from the start, each time that it is called."""

    def __call__(self, columns: list[str] | None) -> Iterator[pl.DataFrame]:
        """Yield the rows in order, with these columns alone where they are named."""


def scan_pieces(schema: pl.Schema, pieces: Pieces) -> pl.LazyFrame:
    """Return a lazy frame; projections, filters and limits are applied piece by piece.

    Args:
        schema: Columns and types of every piece.
        pieces: Where the rows come from.
    """
    from polars.io.plugins import register_io_source  # noqa: PLC0415 - where it is needed

    def rows(
        with_columns: list[str] | None,
        predicate: pl.Expr | None,
        n_rows: int | None,
        batch_size: int | None,  # noqa: ARG001 - a piece is as large as it is
    ) -> Iterator[pl.DataFrame]:
        left = n_rows
        for frame in pieces(with_columns):
            part = frame if with_columns is None else frame.select(with_columns)
            part = part if predicate is None else part.filter(predicate)
            part = part if left is None else part.head(left)
            yield part
            left = None if left is None else left - part.height
            if left is not None and left <= 0:
                return

    return register_io_source(rows, schema=schema)
