"""Owner, mode, attributes and times of what was made, and what has no content at all."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator

from rollback.model import Entry, Kind

AS_OWNER = "root can set it (chown, setfattr); guard runs as the owner of its store alone"
"""The mend where this user cannot set something."""
THEIRS = "it is another user's: its mode and time cannot be set"


def set_metadata(fd: int, entry: Entry, *, fresh: bool = True) -> list[str]:
    """Give an open file or folder the owner, mode, attributes and mtime of its entry.

    Args:
        fd: The file or folder.
        entry: What it shall have.
        fresh: Whether it was just made: then it has no attributes but those of an inherited
            ACL, which shows in the group's permissions, and they need not be looked for.

    Returns:
        What could not be set, as sentences.
    """
    notes: list[str] = []
    info = os.fstat(fd)
    if (info.st_uid, info.st_gid) != (entry.uid, entry.gid):
        try:
            os.chown(fd, entry.uid, entry.gid)
        except PermissionError:
            notes.append(owner_stays(entry.uid, entry.gid))
    look = entry.xattrs or info.st_mode & 0o70 or not fresh
    notes += _set_xattrs(fd, entry, dict(_xattrs(fd)) if look else {})
    try:
        if stat.S_IMODE(os.fstat(fd).st_mode) != entry.mode:
            os.chmod(fd, entry.mode)
        os.utime(fd, ns=(entry.mtime_ns, entry.mtime_ns))
    except PermissionError:
        if os.geteuid() in {0, info.st_uid}:
            raise
        notes.append(THEIRS)
    return notes


def _set_xattrs(fd: int, entry: Entry, current: dict[bytes, bytes]) -> list[str]:
    """Give an open file the attributes of its entry in place of those that it has."""
    notes: list[str] = []
    mode = os.fstat(fd).st_mode
    if current != dict(entry.xattrs) and not mode & stat.S_IWUSR:
        # Attributes are for those who may write the file, even its owner.
        with contextlib.suppress(PermissionError):
            os.chmod(fd, stat.S_IMODE(mode) | stat.S_IWUSR)
    for key in current.keys() - {k for k, _ in entry.xattrs}:
        with contextlib.suppress(OSError):
            os.removexattr(fd, key)
    for key, value in entry.xattrs:
        if current.get(key) != value:
            try:
                os.setxattr(fd, key, value)
            except OSError:
                notes.append(f"its attribute {os.fsdecode(key)} cannot be set")
    return notes


def _xattrs(fd: int) -> Iterator[tuple[bytes, bytes]]:
    with contextlib.suppress(OSError):
        for name in os.listxattr(fd):
            with contextlib.suppress(OSError):
                yield os.fsencode(name), os.getxattr(fd, name)


def make_special(parent: int, name: bytes, entry: Entry) -> list[str]:
    """Make a link, FIFO or device in an open folder.

    Returns:
        What could not be set, as sentences.

    Raises:
        PermissionError: Devices need privileges.
    """
    if entry.kind is Kind.SYMLINK:
        os.symlink(entry.ref, name, dir_fd=parent)
    elif entry.kind is Kind.FIFO:
        os.mkfifo(name, entry.mode, dir_fd=parent)
    else:
        kind = stat.S_IFCHR if entry.kind is Kind.CHARACTER_DEVICE else stat.S_IFBLK
        os.mknod(name, kind | entry.mode, int(entry.ref), dir_fd=parent)
    return set_special_metadata(parent, name, entry)


def set_special_metadata(parent: int, name: bytes, entry: Entry) -> list[str]:
    """Give what cannot be opened its owner, mode and mtime.

    Returns:
        What could not be set, as sentences.
    """
    notes: list[str] = []
    info = os.stat(name, dir_fd=parent, follow_symlinks=False)
    if (info.st_uid, info.st_gid) != (entry.uid, entry.gid):
        try:
            os.chown(name, entry.uid, entry.gid, dir_fd=parent, follow_symlinks=False)
        except PermissionError:
            notes.append(owner_stays(entry.uid, entry.gid))
    times = (entry.mtime_ns, entry.mtime_ns)
    try:
        if entry.kind is not Kind.SYMLINK:
            # Always: a new owner may have cost it its setuid bit.
            os.chmod(name, entry.mode, dir_fd=parent)
        os.utime(name, ns=times, dir_fd=parent, follow_symlinks=False)
    except PermissionError:
        if os.geteuid() in {0, info.st_uid}:
            raise
        notes.append(THEIRS)
    return notes


def owner_stays(uid: int, gid: int) -> str:
    """Return what to say of an owner that this user cannot give."""
    return f"its owner cannot be set to {uid}:{gid}"
