"""What all readers of formats say when the bytes do not hold what they promise."""

from __future__ import annotations


class Damaged(Exception):
    """The content contradicts its own structure.

    Attributes:
        value: The figure that was found.
        limit: The figure that the structure asks for.
    """

    def __init__(
        self, message: str, *, value: float | str | None = None, limit: float | str | None = None
    ) -> None:
        super().__init__(message)
        self.value = value
        self.limit = limit


def expect_size(size: int, wanted: int, *, exact: bool = False) -> None:
    """Raise unless a file has the size that its header asks for.

    Args:
        size: Bytes that are there.
        wanted: Bytes that the header describes.
        exact: Whether more bytes are wrong too.

    Raises:
        Damaged: The sizes differ.
    """
    if size < wanted:
        message = f"is cut short: its header describes {wanted:,} bytes, the file has {size:,}"
        raise Damaged(message, value=size, limit=wanted)
    if exact and size > wanted:
        message = f"has {size - wanted:,} bytes more than the {wanted:,} that its header describes"
        raise Damaged(message, value=size, limit=wanted)
