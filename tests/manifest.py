"""The oracle of the tests: M(), all of a project that has to be back after a rollback.

It shares no code with guard on purpose, and is slow and plain: every file is read.
"""

from __future__ import annotations

import hashlib
import os
import stat
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from pathlib import Path

LEFT_OUT = frozenset(
    {
        b"__pycache__",
        b".pytest_cache",
        b".mypy_cache",
        b".ruff_cache",
        b"node_modules",
        b".ipynb_checkpoints",
        b".guard",
    }
)
"""Names that guard documents as not protected, and its own store."""

# Offsets that SQLite's own backup may change: file format, change counter, cookie, version.
_SQLITE_VOLATILE = (range(18, 20), range(24, 28), range(40, 44), range(92, 96))

_KINDS = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "folder",
    stat.S_IFLNK: "link",
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket",
    stat.S_IFCHR: "character device",
    stat.S_IFBLK: "block device",
}


@dataclass(frozen=True, slots=True)
class Entry:
    """What M() knows of one path.

    Attributes:
        kind: ``file``, ``folder``, ``link`` or a special file.
        mode: Permission bits with setuid, setgid and sticky.
        mtime_ns: Time of the last modification; None where it is not compared.
        size_bytes: Length of a file, else 0.
        sha256: Hex digest of a file's content, else None.
        target: What a symbolic link holds, else None.
        group: First path of the hard-link group inside the project; None for a single link.
        xattrs: Extended attributes that can be read, sorted.
    """

    kind: str
    mode: int
    mtime_ns: int | None
    size_bytes: int = 0
    sha256: str | None = None
    target: bytes | None = None
    group: bytes | None = None
    xattrs: tuple[tuple[str, bytes], ...] = ()


def manifest(root: Path, *, live_databases: Collection[str] = ()) -> dict[bytes, Entry]:
    """Return M() of the folder `root`, the folder itself as ``b"."``.

    Args:
        root: The project.
        live_databases: Relative paths of SQLite files that a server holds open; the header
            bytes that SQLite's backup changes are masked in these.
    """
    live = {os.fsencode(path) for path in live_databases}
    base = os.fsencode(root)
    found: dict[bytes, Entry] = {}
    groups: dict[tuple[int, int], list[bytes]] = {}
    for path, info in _walk(base):
        found[path] = _entry(os.path.join(base, path), info, masked=path in live)
        if info.st_nlink > 1 and stat.S_ISREG(info.st_mode):
            groups.setdefault((info.st_dev, info.st_ino), []).append(path)
    for paths in groups.values():
        if len(paths) > 1:
            for path in paths:
                found[path] = replace(found[path], group=min(paths))
    return found


def differences(before: dict[bytes, Entry], after: dict[bytes, Entry]) -> list[str]:
    """Return one readable line for each difference; empty when the project is back.

    Below ``.git/objects`` only a loss counts: guard never deletes objects, so that undone
    commits stay reachable, and git itself touches their times.
    """
    lines = []
    for path in sorted(before.keys() | after.keys()):
        shown = path.decode("utf-8", "backslashreplace")
        then, now = before.get(path), after.get(path)
        if then is None:
            if not _in_objects(path):
                lines.append(f"{shown}: is new")
        elif now is None:
            if not (_in_objects(path) and then.kind == "folder"):
                lines.append(f"{shown}: is missing")
        elif _in_objects(path):
            if then.sha256 != now.sha256:
                lines.append(f"{shown}: content differs")
        else:
            lines += [f"{shown}: {what}" for what in _changed(then, now)]
    return lines


def assert_back(before: dict[bytes, Entry], after: dict[bytes, Entry]) -> None:
    """Fail with the first forty differences unless both manifests agree."""
    lines = differences(before, after)
    if lines:
        head = "\n  ".join(lines[:40])
        raise AssertionError(f"{len(lines)} differences from the state before:\n  {head}")


def _walk(base: bytes) -> Iterator[tuple[bytes, os.stat_result]]:
    yield b".", os.lstat(base)
    pending = [b""]
    while pending:
        folder = pending.pop()
        with os.scandir(os.path.join(base, folder)) as entries:
            for entry in entries:
                if entry.name in LEFT_OUT:
                    continue
                path = os.path.join(folder, entry.name)
                yield path, entry.stat(follow_symlinks=False)
                if entry.is_dir(follow_symlinks=False):
                    pending.append(path)


def _entry(path: bytes, info: os.stat_result, *, masked: bool) -> Entry:
    kind = _KINDS[stat.S_IFMT(info.st_mode)]
    return Entry(
        kind=kind,
        mode=stat.S_IMODE(info.st_mode),
        mtime_ns=info.st_mtime_ns,
        size_bytes=info.st_size if kind == "file" else 0,
        sha256=_digest(path, masked=masked) if kind == "file" else None,
        target=os.readlink(path) if kind == "link" else None,
        xattrs=_xattrs(path) if kind in {"file", "folder"} else (),
    )


def _digest(path: bytes, *, masked: bool) -> str:
    with open(path, "rb") as file:
        if not masked:
            return hashlib.file_digest(file, "sha256").hexdigest()
        content = bytearray(file.read())
    for offsets in _SQLITE_VOLATILE:
        for offset in offsets:
            if offset < len(content):
                content[offset] = 0
    return hashlib.sha256(content).hexdigest()


def _xattrs(path: bytes) -> tuple[tuple[str, bytes], ...]:
    try:
        names = os.listxattr(path, follow_symlinks=False)
    except OSError:
        return ()
    found = []
    for name in sorted(names):
        try:
            found.append((name, os.getxattr(path, name, follow_symlinks=False)))
        except OSError:
            continue
    return tuple(found)


def _in_objects(path: bytes) -> bool:
    parts = path.split(b"/")
    if b".git" not in parts:
        return False
    below = parts[parts.index(b".git") + 1 :]
    return below[:1] == [b"objects"] or (below[:1] == [b"modules"] and b"objects" in below)


def _changed(then: Entry, now: Entry) -> Iterator[str]:
    for field in fields(Entry):
        old, new = getattr(then, field.name), getattr(now, field.name)
        if old == new:
            continue
        if field.name == "mode":
            old, new = f"{old:04o}", f"{new:04o}"
        yield f"{field.name} was {old!r}, is {new!r}"
