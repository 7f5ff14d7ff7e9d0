"""Times of files in 64 bits, those of every file system that people use, and how fine they are.

Nanoseconds since 1970 are kept modulo 2**64 and stand for the years 1901 to 2486, which is what
XFS can hold (fs/xfs/libxfs/xfs_format.h, "bigtime"); ext4 ends in 2446. A time before or after
them is kept as the nearest that is in between.
"""

from __future__ import annotations

EARLIEST_NS = -(2**31) * 10**9
"""13 December 1901, where 32 bits of seconds begin."""
LATEST_NS = EARLIEST_NS + 2**64 - 1
TICK_NS = 20_000_000
"""More than a tick of the kernel, by which times with nanoseconds go on: a file younger than that
could be written again without its times telling."""
_SECOND_NS = 10**9
_WHOLE_SECONDS_NS = 2 * _SECOND_NS
"""More than a second: what keeps whole ones may be a server with a clock of its own."""
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


def coarse_ns(ns: int) -> int:
    """Return how much longer than a tick a time may stay the same while its file changes.

    ext3, ext4 with inodes of 128 bytes and several network file systems keep whole seconds. On
    any other, such a time is one in a hundred million, or was set: then something is read in vain.
    """
    return 0 if ns % _SECOND_NS else _WHOLE_SECONDS_NS
