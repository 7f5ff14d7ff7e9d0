"""safetensors: a length, a JSON header, then exactly the bytes that the header describes.

Format: https://huggingface.co/docs/safetensors (eight bytes little-endian length, header of at
most 100 MB, offsets from the end of the header, no holes).
"""

from __future__ import annotations

import json
import math
from typing import Any, BinaryIO

from checks.artifacts.damage import Damaged, expect_size

_HEADER_LIMIT = 100_000_000
_BITS = {
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3", "F8_E8M0"), 8),
    **dict.fromkeys(("F8_E4M3FNUZ", "F8_E5M2FNUZ"), 8),
    **dict.fromkeys(("I16", "U16", "F16", "BF16"), 16),
    **dict.fromkeys(("I32", "U32", "F32"), 32),
    **dict.fromkeys(("I64", "U64", "F64", "C64"), 64),
    "C128": 128,
    "F4": 4,
    "F6_E2M3": 6,
    "F6_E3M2": 6,
}


def inspect(file: BinaryIO, size: int) -> None:
    """Raise unless header, tensors and file size agree.

    Raises:
        Damaged: They do not.
    """
    file.seek(0)
    length = int.from_bytes(file.read(8), "little")
    if length > _HEADER_LIMIT:
        raise Damaged("names a header larger than the format allows", limit=_HEADER_LIMIT)
    expect_size(size, 8 + length)
    header = _header(file.read(length))
    spans = sorted(_span(name, entry) for name, entry in header.items() if name != "__metadata__")
    reached = 0
    for begin, end in spans:
        if begin != reached:
            raise Damaged(f"leaves a hole or overlap in its tensors at byte {reached:,}")
        reached = end
    expect_size(size, 8 + length + reached, exact=True)


def _header(raw: bytes) -> dict[str, Any]:
    try:
        header = json.loads(raw)
    except (ValueError, RecursionError):
        raise Damaged("has a header that is not JSON") from None
    if not isinstance(header, dict):
        raise Damaged("has a header that is not a table of tensors")
    return header


def _span(name: str, entry: Any) -> tuple[int, int]:
    try:
        begin, end = entry["data_offsets"]
        shape, kind = entry["shape"], entry["dtype"]
        if not all(type(n) is int and n >= 0 for n in (begin, end, *shape)) or end < begin:
            raise ValueError  # noqa: TRY301  # one way out for all malformed entries
    except (TypeError, KeyError, ValueError):
        raise Damaged(f"describes the tensor {name!r} in a way that cannot be read") from None
    bits = _BITS.get(kind)
    if bits is not None and -(-math.prod(shape) * bits // 8) != end - begin:
        message = f"gives the tensor {name!r} {end - begin:,} bytes, not what its shape needs"
        raise Damaged(message, value=end - begin, limit=-(-math.prod(shape) * bits // 8))
    return begin, end
