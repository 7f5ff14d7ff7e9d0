"""HDF5: the superblock names the address at which the file ends.

Format: HDF5 File Format Specification 3.0, section II (superblock versions 0 to 3).
"""

from __future__ import annotations

from typing import BinaryIO

from checks.artifacts.damage import Damaged, expect_size

MAGIC = b"\x89HDF\r\n\x1a\n"
_OPEN_FOR_WRITE = 0x01
_USER_BLOCK_LIMIT = 1 << 20
_SEARCHED_BYTES = 32 << 20
_LAMBDAS = (b'"class_name": "__lambda__"', b'"function_type": "lambda"')
"""How Keras 3 and Keras 2 write down a layer that is a Python function."""


def superblock(file: BinaryIO, size: int) -> int | None:
    """Return where the superblock starts: byte 0, or a power of two from 512 on."""
    at = 0
    while at < size and at <= _USER_BLOCK_LIMIT:
        file.seek(at)
        if file.read(8) == MAGIC:
            return at
        at = at * 2 or 512
    return None


def inspect(file: BinaryIO, size: int) -> None:
    """Raise unless the file reaches to its own end, closed properly.

    Raises:
        Damaged: It is cut short, or a writer never closed it.
    """
    start = superblock(file, size)
    if start is None:
        raise Damaged("is not HDF5: its signature is not there")
    file.seek(start + 8)
    block = file.read(88)
    if not block or block[0] > 3:  # noqa: PLR2004  # the newest superblock there is
        raise Damaged("has an HDF5 superblock of a version that does not exist")
    version = block[0]
    width_at, addresses = (5, 16 + 4 * version) if version < 2 else (1, 4)  # noqa: PLR2004
    if len(block) <= width_at:
        raise Damaged("is cut short inside its HDF5 superblock", value=size)
    width = block[width_at]
    if width not in {2, 4, 8, 16, 32} or len(block) < addresses + 3 * width:
        raise Damaged("has an HDF5 superblock that cannot be read")
    base = _address(block, addresses, width)
    end = _address(block, addresses + 2 * width, width)
    # libhdf5 takes the base address from where it found the superblock, whatever is written.
    expect_size(size, end - base + start if base <= end else end)
    if version == 3 and block[3] & _OPEN_FOR_WRITE:  # noqa: PLR2004
        raise Damaged("is still marked as open for writing: its writer never closed it")


def _address(block: bytes, at: int, width: int) -> int:
    return int.from_bytes(block[at : at + width], "little")


def carries_code(file: BinaryIO, size: int) -> bool:
    """Return whether a Keras model in HDF5 holds a Lambda layer, whose byte code loading runs.

    Keras writes its configuration as JSON into an attribute, uncompressed; it is searched for in
    the first and the last megabytes, where the library puts attributes.

    Args:
        file: The content, seekable.
        size: Its length in bytes.
    """
    for start in sorted({0, max(0, size - _SEARCHED_BYTES)}):
        file.seek(start)
        part = file.read(_SEARCHED_BYTES)
        if any(mark in part for mark in _LAMBDAS):
            return True
    return False
