"""What is in a folder: names, and for each a signature by which it is known again.

The work is done by a small compiled helper where there is one (`listing.c`, built at installation
where a compiler is at hand, as the module `mlguard_listing`); else by the Python here, which
does the same. `GUARD_PURE=1` in the environment says to do without the helper.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import os
import stat
import struct
import sys
import zlib
from array import array
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol, cast

from rollback.store.codec import encode_xattrs
from rollback.times import nearest_ns, packed_ns

SIGNATURE = struct.Struct("<IIIQQQ")
"""Mode, owner, group, inode, size, time of modification; the name and a NUL stand before it."""
NO_CTIME = -1
"""Stands for a ctime that is not compared: that of a folder.

That of a file that is kept by a link is negative: guard itself changes it, see `refresh_links`.
"""
_VERSION = 1
_CODING = sys.getfilesystemencoding()

Xattrs = tuple[tuple[bytes, bytes], ...]
Looked = tuple[list[bytes], list[bytes], bytes, bytes, list[int], list[int]]


@dataclass(frozen=True, slots=True)
class Listing:
    """What `lstat` says of names in a folder.

    Attributes:
        names: Those that were there, in the order asked for.
        parts: Signature of each.
        ctimes: Of each, in nanoseconds.
        folders: Indexes of folders.
        shared: Indexes of regular files with more than one name.
        info: Returns the whole stat result behind an index.
    """

    names: list[bytes]
    parts: list[bytes]
    ctimes: array[int]
    folders: list[int]
    shared: list[int]
    info: Callable[[int], os.stat_result]

    def settle(self, xattrs: Mapping[int, Xattrs]) -> None:
        """Let the signatures of folders tell of their extended attributes.

        Size and ctime of a folder say nothing, and no other time would show the attributes.

        Args:
            xattrs: Of those folders that have any.
        """
        for n in self.folders:
            i, found = self.info(n), xattrs.get(n)
            mark = 0 if not found else zlib.crc32(encode_xattrs(found))
            mtime = packed_ns(i.st_mtime_ns)
            packed = SIGNATURE.pack(i.st_mode, i.st_uid, i.st_gid, i.st_ino, mark, mtime)
            self.parts[n] = self.names[n] + b"\0" + packed
            self.ctimes[n] = NO_CTIME


class Lister(Protocol):
    """Reads folders behind handles."""

    def names_in(self, fd: int) -> list[bytes]:
        """Return the names in a folder, sorted."""

    def look(self, fd: int, names: list[bytes]) -> Listing:
        """Return what is known of names in a folder; what is gone by now is left out.

        Raises:
            PermissionError: The folder may be listed, but not searched.
        """


class PureLister:
    """Reads folders by the standard library alone."""

    def names_in(self, fd: int) -> list[bytes]:
        """Return the names in a folder, sorted."""
        found = os.listdir(fd)
        # All at once: a call for each name would cost as much as to look at it.
        joined = "\0".join(found).encode(_CODING, "surrogateescape")
        return sorted(joined.split(b"\0")) if found else []

    def look(self, fd: int, names: list[bytes]) -> Listing:
        """Return what is known of names in a folder; what is gone by now is left out."""
        look = os.stat
        try:
            infos = [look(name, dir_fd=fd, follow_symlinks=False) for name in names]
        except FileNotFoundError:
            names, infos = _remaining(fd, names)
        regular, folder = stat.S_ISREG, stat.S_ISDIR
        return Listing(
            names,
            [sign(name, info) for name, info in zip(names, infos, strict=True)],
            array("q", [nearest_ns(info.st_ctime_ns) for info in infos]),
            [n for n, info in enumerate(infos) if folder(info.st_mode)],
            [n for n, info in enumerate(infos) if info.st_nlink > 1 and regular(info.st_mode)],
            infos.__getitem__,
        )


class _Helper(Protocol):
    """The compiled module."""

    VERSION: int

    def names_in(self, fd: int, /) -> list[bytes]: ...

    def look(self, fd: int, names: list[bytes], /) -> Looked: ...

    def info(self, raw: bytes, n: int, /) -> tuple[float, ...]: ...


class HelpedLister:
    """Reads folders by the compiled helper.

    Args:
        helper: That module.
    """

    def __init__(self, helper: _Helper) -> None:
        self.names_in = helper.names_in
        self._helper = helper

    def look(self, fd: int, names: list[bytes]) -> Listing:
        """Return what is known of names in a folder; what is gone by now is left out."""
        helper = self._helper
        found, parts, times, raw, folders, shared = helper.look(fd, names)
        ctimes = array("q")
        ctimes.frombytes(times)

        def info(n: int) -> os.stat_result:
            return os.stat_result(helper.info(raw, n))

        return Listing(found, parts, ctimes, folders, shared, info)


@functools.cache
def find_lister() -> Lister:
    """Return the fastest that this installation has."""
    if not os.environ.get("GUARD_PURE"):
        with contextlib.suppress(ImportError):
            helper = cast("_Helper", importlib.import_module("mlguard_listing"))
            if getattr(helper, "VERSION", None) == _VERSION:
                return HelpedLister(helper)
    return PureLister()


def sign(name: bytes, info: os.stat_result) -> bytes:
    """Return the signature of one name that is not a folder."""
    packed = SIGNATURE.pack(
        info.st_mode, info.st_uid, info.st_gid, info.st_ino, info.st_size,
        packed_ns(info.st_mtime_ns),
    )  # fmt: skip
    return name + b"\0" + packed


def _remaining(fd: int, names: list[bytes]) -> tuple[list[bytes], list[os.stat_result]]:
    found, infos = [], []
    for name in names:
        with contextlib.suppress(FileNotFoundError):
            infos.append(os.stat(name, dir_fd=fd, follow_symlinks=False))
            found.append(name)
    return found, infos
