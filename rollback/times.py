"""Times of files in 64 bits: those of every file system that people use.

Nanoseconds since 1970 are kept modulo 2**64 and stand for the years 1901 to 2486, which is what
XFS can hold (fs/xfs/libxfs/xfs_format.h, "bigtime"); ext4 ends in 2446. A time before or after
them is kept as the nearest that is in between.
"""

from __future__ import annotations

EARLIEST_NS = -(2**31) * 10**9
"""13 December 1901, where 32 bits of seconds begin."""
LATEST_NS = EARLIEST_NS + 2**64 - 1
_MASK = 2**64 - 1
_FIRST_NEGATIVE = EARLIEST_NS & _MASK
_SIGNED = 2**63


def kept_ns(ns: int) -> int:
    """Return a time as it can be kept."""
    return min(max(ns, EARLIEST_NS), LATEST_NS)


def packed_ns(ns: int) -> int:
    """Return a time as an unsigned number of 64 bits."""
    return ns & _MASK


def unpacked_ns(packed: int) -> int:
    """Return the time that `packed_ns` had."""
    return packed if packed < _FIRST_NEGATIVE else packed - _MASK - 1


def nearest_ns(ns: int) -> int:
    """Return a time as a signed number of 64 bits, or the nearest."""
    return ns if -_SIGNED <= ns < _SIGNED else (-_SIGNED if ns < 0 else _SIGNED - 1)
