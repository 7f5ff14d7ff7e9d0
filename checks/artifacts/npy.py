"""NumPy's npy: a header that is a literal, then the array's bytes or a pickle of objects.

Format: numpy.lib.format (magic, version, header length of 2 or 4 bytes, a literal dict).
"""

from __future__ import annotations

import ast
import math
import re
from typing import TYPE_CHECKING, Any

from checks.artifacts.damage import Damaged

if TYPE_CHECKING:
    from checks.artifacts.window import Window

MAGIC = b"\x93NUMPY"
_HEADER_LIMIT = 1 << 20
_CODE = re.compile(r"[<>|=]?([a-zA-Z?])(\d*)(?:\[.*\])?")


def array_bytes(window: Window) -> int | None:
    """Read the header of an array and return how many bytes have to follow.

    Returns:
        The bytes of the array; None where a pickle of objects follows.

    Raises:
        Damaged: The header cannot be read.
        Truncated: The header is cut short.
    """
    shape, width = read_shape(window)
    return None if width is None else math.prod(shape) * width


def read_shape(window: Window) -> tuple[tuple[int, ...], int | None]:
    """Read the header of an array.

    Returns:
        Its shape, and the bytes of one item; None for objects.

    Raises:
        Damaged: The header cannot be read.
        Truncated: The header is cut short.
    """
    if window.take(6) != MAGIC:
        raise Damaged("is not a NumPy array: its first bytes are others")
    major = window.take(2)[0]
    if major not in {1, 2, 3}:
        raise Damaged(f"has a version of the npy format that does not exist: {major}")
    length = int.from_bytes(window.take(2 if major == 1 else 4), "little")
    if length > _HEADER_LIMIT:
        raise Damaged("names a header of more than 1 MB")
    header = _header(window.take(length))
    shape = header.get("shape")
    if not isinstance(shape, tuple) or not all(type(n) is int and n >= 0 for n in shape):
        raise Damaged("has an array without a shape")
    return shape, _width(header.get("descr"))


def _header(raw: bytes) -> dict[str, Any]:
    try:
        header = ast.literal_eval(raw.decode("utf-8").strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        raise Damaged("has a header that cannot be read") from None
    if not isinstance(header, dict):
        raise Damaged("has a header that is not a table")
    return header


def _width(descr: Any) -> int | None:
    """Return the bytes of one item; None for objects."""
    if isinstance(descr, str):
        match = _CODE.fullmatch(descr)
        if match is None:
            raise Damaged(f"has items of a type that cannot be read: {descr[:40]!r}")
        kind, digits = match.groups()
        return None if kind == "O" else int(digits or 1) * (4 if kind == "U" else 1)
    if isinstance(descr, tuple) and len(descr) == 2:  # noqa: PLR2004  # (type, shape of a subarray)
        inner, shape = _width(descr[0]), descr[1]
        counts = shape if isinstance(shape, tuple) else (shape,)
        if not all(type(n) is int for n in counts):
            raise Damaged("has items of a type that cannot be read")
        return None if inner is None else inner * math.prod(counts)
    if not isinstance(descr, list):
        raise Damaged("has items of a type that cannot be read")
    total = 0
    for field in descr:
        if not isinstance(field, tuple) or len(field) < 2:  # noqa: PLR2004  # (name, type[, shape])
            raise Damaged("has items of a type that cannot be read")
        width = _width(field[1] if len(field) == 2 else (field[1], field[2]))  # noqa: PLR2004
        if width is None:
            return None
        total += width
    return total
