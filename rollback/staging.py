"""Where a restore stages content: on the root's file system, so that a rename puts it in place.

That is the store's work folder, or, where the root lies on another file system, a folder in the
root itself, which never shows in the root's time and never lies behind a link. What is mounted
below a root has a staging folder of its own.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections.abc import Iterable, Iterator

from rollback.errors import RollbackError
from rollback.removal import remove_path

_OWN = b".guard"
_STAGE = b"stage-"
_MOUNTS = "/proc/self/mountinfo"


def mounts() -> list[bytes]:
    """Return where file systems are mounted, absolute; empty where the system does not say."""
    found = []
    with contextlib.suppress(OSError), open(_MOUNTS, "rb") as lines:
        for line in lines:
            place = line.split(b" ")[4]
            found.append(re.sub(rb"\\([0-7]{3})", lambda m: bytes([int(m[1], 8)]), place))
    return found


def mounts_below(root: bytes) -> list[bytes]:
    """Return where something is mounted below a root, relative to it."""
    below = root.rstrip(b"/") + b"/"
    return sorted({place[len(below) :] for place in mounts() if place.startswith(below)})


def folders_mounted_below(root: bytes) -> list[bytes]:
    """Return the folders below a root on which something is mounted, relative to it."""
    return [top for top in mounts_below(root) if os.path.isdir(os.path.join(root, top))]


def make_stage(folder: bytes, work: bytes, number: int, seq: int) -> bytes:
    """Return a new, empty staging folder from which a rename leads into a folder.

    Args:
        folder: Absolute path of the top of a file system in a root; it need not exist.
        work: The operation's private folder in the store.
        number: Of the staging folder, unique in the operation.
        seq: Number of the operation.

    Raises:
        RollbackError: Something that is no folder of guard's own is in the way.
        OSError: It cannot be made.
    """
    if is_one_file_system(folder, work):
        stage = os.path.join(work, _STAGE + b"%d" % number)
        remove_path(stage)
        os.makedirs(stage, mode=0o700)
        return stage
    os.makedirs(folder, exist_ok=True)
    own = os.path.join(folder, _OWN)
    with _left_as_it_was(folder):
        with contextlib.suppress(FileExistsError):
            os.mkdir(own, 0o700)
        if not stat.S_ISDIR(os.lstat(own).st_mode):
            raise RollbackError(
                f"{os.fsdecode(own)} is not guard's folder; nothing was changed",
                hint="move it away, then run the same rollback again",
            )
        stage = os.path.join(own, _STAGE + b"%d-%d" % (seq, number))
        remove_path(stage)
        os.mkdir(stage, 0o700)
    return stage


def remove_stages(roots: Iterable[bytes]) -> None:
    """Remove every staging folder in these roots; the store's lock is held, so none is in use."""
    for root in roots:
        for top in (b"", *folders_mounted_below(root)):
            with contextlib.suppress(OSError):
                _remove_stages_in(os.path.join(root, top) if top else root)


def _remove_stages_in(folder: bytes) -> None:
    own = os.path.join(folder, _OWN)
    if os.path.realpath(own) != own or not os.path.isdir(own):
        return
    with _left_as_it_was(folder):
        for name in os.listdir(own):
            if name.startswith(_STAGE):
                remove_path(os.path.join(own, name))
        with contextlib.suppress(OSError):
            os.rmdir(own)


def is_one_file_system(one: bytes, other: bytes) -> bool:
    """Return whether a rename leads from one folder to another; they need not exist.

    One device may be mounted in two places, and no rename leads from one into the other.
    """
    one, other = (_existing(os.path.realpath(path)) for path in (one, other))
    if os.stat(one).st_dev != os.stat(other).st_dev:
        return False
    places = mounts()
    return not places or _mount_of(one, places) == _mount_of(other, places)


def _mount_of(path: bytes, places: Iterable[bytes]) -> bytes:
    below = path.rstrip(b"/") + b"/"
    return max((p for p in places if below.startswith(p.rstrip(b"/") + b"/")), key=len, default=b"")


def _existing(path: bytes) -> bytes:
    """Return a folder, or the one in which it would be made."""
    while not os.path.isdir(path):
        path = os.path.dirname(path)
    return path


@contextlib.contextmanager
def _left_as_it_was(folder: bytes) -> Iterator[None]:
    """Open a folder for a block that makes or removes something in it; its times and mode stay."""
    info = os.stat(folder)
    mode = stat.S_IMODE(info.st_mode)
    shut = mode & stat.S_IRWXU != stat.S_IRWXU and info.st_uid == os.geteuid() != 0
    if shut:
        os.chmod(folder, mode | stat.S_IRWXU)
    try:
        yield
    finally:
        os.utime(folder, ns=(info.st_atime_ns, info.st_mtime_ns))
        if shut:
            os.chmod(folder, mode)
