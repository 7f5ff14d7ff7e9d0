"""UBJSON: a walk through its markers, which proves that a file is whole and holds nothing else.

Format: https://ubjson.org (Draft 12): big-endian lengths, typed and counted containers. XGBoost
writes its models so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from checks.artifacts.damage import Damaged, expect_size

if TYPE_CHECKING:
    from checks.artifacts.window import Window

_WIDTHS = {
    **dict.fromkeys(b"ZTFN", 0),
    **dict.fromkeys(b"iUC", 1),
    ord("I"): 2,
    **dict.fromkeys(b"ld", 4),
    **dict.fromkeys(b"LD", 8),
}
_TEXTS = b"SH"
_OPEN, _CLOSE = b"[{", {ord("["): ord("]"), ord("{"): ord("}")}
_DEPTH_LIMIT = 1_000


class _Container:
    """An open container: what ends it, and how many values are left where it is counted."""

    __slots__ = ("close", "left", "of", "pairs")

    def __init__(self, opened: int) -> None:
        self.close = _CLOSE[opened]
        self.pairs = opened == ord("{")
        self.of: int | None = None
        self.left: int | None = None


def walk(window: Window, size: int) -> None:
    """Walk over one value that fills the whole file.

    Raises:
        Damaged: A marker does not exist, or something follows the value.
        Truncated: The file ends first.
    """
    stack: list[_Container] = []
    _value(window, window.byte(), stack)
    while stack:
        top = stack[-1]
        if top.left == 0:
            stack.pop()
            continue
        marker = window.byte() if top.left is None or top.pairs or top.of is None else None
        if top.left is None and marker == top.close:
            stack.pop()
            continue
        if top.left is not None:
            top.left -= 1
        if top.pairs:
            assert marker is not None  # noqa: S101 - pairs begin with the length of their key
            window.skip(_length(window, marker))
            marker = None if top.of is not None else window.byte()
        _value(window, marker if top.of is None else top.of, stack)
    expect_size(size, window.offset, exact=True)


def _value(window: Window, marker: int | None, stack: list[_Container]) -> None:
    if marker in _WIDTHS:
        window.skip(_WIDTHS[marker])
    elif marker is not None and marker in _TEXTS:
        window.skip(_length(window, window.byte()))
    elif marker is not None and marker in _OPEN and len(stack) < _DEPTH_LIMIT:
        _open(window, marker, stack)
    else:
        raise Damaged(f"has a marker that does not exist at byte {window.offset:,}")


def _open(window: Window, marker: int, stack: list[_Container]) -> None:
    """Open a container; ``$`` gives the type of all its values, ``#`` their number."""
    container = _Container(marker)
    ahead = window.peek()
    if ahead == ord("$"):
        window.byte()
        container.of = window.byte()
        if window.peek() != ord("#"):
            raise Damaged(f"has a typed container without a count at byte {window.offset:,}")
        ahead = ord("#")
    if ahead == ord("#"):
        window.byte()
        container.left = _length(window, window.byte())
        if not container.pairs and container.of in _WIDTHS:
            window.skip(container.left * _WIDTHS[container.of])
            return
    stack.append(container)


def _length(window: Window, marker: int) -> int:
    width = _WIDTHS.get(marker)
    if marker not in b"iUIlL" or width is None:
        raise Damaged(f"has a length that is none at byte {window.offset:,}")
    length = int.from_bytes(window.take(width), "big", signed=marker != ord("U"))
    if length < 0:
        raise Damaged(f"has a length below zero at byte {window.offset:,}")
    return length
