"""A way back that needs nothing installed: the engine as one file in the store.

The run that guard watches can break guard itself, or delete the environment that it lives in.
So the store holds `rescue.pyz`, a zip application of this package that any Python 3.11 runs.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path

from rollback.durable import write_durably
from rollback.failpoints import reach
from rollback.store.store import Store

NAME = "rescue.pyz"
_VALUE = "rescue"
"""Under which the catalog has what it was made of, and its SHA-256."""
_MAIN = b"""\
import sys

if sys.version_info < (3, 11):
    sys.exit("rescue: needs Python 3.11 or newer, this is %d.%d" % tuple(sys.version_info[:2]))
from rollback.rescue.program import main

main()
"""
"""Any Python can read it: an older one shall say so, and not what it stumbled over."""
_EPOCH = (1980, 1, 1, 0, 0, 0)


def write_rescue(store: Store) -> None:
    """Write the rescue program into a store, where it is absent, damaged or of another engine."""
    package = Path(__file__).resolve().parent.parent
    mark = _mark(package)
    known, _, digest = store.catalog.value(_VALUE).partition(" ")
    if known == mark and digest == _digest_of(store):
        return
    reach("rescue.write")
    program = _program(package)
    write_durably(os.fsencode(store.path / NAME), program, "rescue.write")
    with store.catalog.transaction():
        store.catalog.set_value(_VALUE, f"{mark} {hashlib.sha256(program).hexdigest()}")


def rescue_is_whole(store: Store) -> bool:
    """Return whether the rescue program is what was written, or what would be written now.

    A store into which none was written needs none.
    """
    _, _, digest = store.catalog.value(_VALUE).partition(" ")
    found = _digest_of(store)
    if not digest and not found:
        return True
    package = Path(__file__).resolve().parent.parent
    return digest == found or hashlib.sha256(_program(package)).hexdigest() == found


def _program(package: Path) -> bytes:
    """Return the program that this engine makes; one that runs out of a program is that one."""
    return build(package) if package.is_dir() else package.parent.read_bytes()


def _digest_of(store: Store) -> str:
    """Return the SHA-256 of the program in a store, empty where there is none."""
    try:
        return hashlib.sha256((store.path / NAME).read_bytes()).hexdigest()
    except OSError:
        return ""


def build(package: Path) -> bytes:
    """Return the zip application; equal sources give equal bytes.

    Args:
        package: The folder of the `rollback` package.
    """
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        try:
            archive.writestr(zipfile.ZipInfo("__main__.py", _EPOCH), _MAIN)
            for path in _sources(package):
                info = zipfile.ZipInfo(str(Path("rollback") / path.relative_to(package)), _EPOCH)
                info.compress_type = zipfile.ZIP_DEFLATED
                archive.writestr(info, path.read_bytes())
        except BaseException:
            # An interrupt inside a member: closing would raise, and hide why this ends.
            archive.fp = None
            raise
    return b"#!/usr/bin/env python3\n" + target.getvalue()


def _sources(package: Path) -> Iterator[Path]:
    yield from sorted(package.rglob("*.py"))


def _mark(package: Path) -> str:
    """Return what changes when the engine does: names, sizes and times of its sources."""
    digest = hashlib.sha256()
    with contextlib.suppress(OSError):
        for path in _sources(package):
            info = path.stat()
            digest.update(f"{path.name} {info.st_size} {info.st_mtime_ns}\n".encode())
    return digest.hexdigest()
