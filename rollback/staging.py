"""Where a restore stages content: on the root's file system, so that a rename puts it in place.

That is the store's work folder, or, where the root lies on another file system, a folder in the
root itself, which never shows in the root's time and never lies behind a link.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterable, Iterator

from rollback.atomic import remove_path
from rollback.errors import RollbackError

_OWN = b".guard"
_STAGE = b"stage-"


def refuse_link(root: bytes) -> None:
    """Refuse a root that is no folder any more, or is reached through a link that is new.

    Args:
        root: Absolute path of a root, links resolved when it was captured.

    Raises:
        RollbackError: It is; nothing was written.
    """
    if os.path.realpath(root) != root:
        raise RollbackError(
            f"{os.fsdecode(root)} is now reached through a link; nothing was written",
            hint="remove the link, then run the same rollback again",
        )
    if os.path.lexists(root) and not os.path.isdir(root):
        raise RollbackError(
            f"{os.fsdecode(root)} was a folder and is a file now; nothing was written",
            hint="move the file away, then run the same rollback again",
        )


def make_stage(root: bytes, work: bytes, number: int, seq: int) -> bytes:
    """Return a new, empty staging folder for a root.

    Args:
        root: Absolute path of the root; it need not exist.
        work: The operation's private folder in the store.
        number: Of the root, unique in the operation.
        seq: Number of the operation.

    Raises:
        RollbackError: Something that is no folder of guard's own is in the way.
        OSError: It cannot be made.
    """
    if _device(root) == os.stat(work).st_dev:
        stage = os.path.join(work, _STAGE + b"%d" % number)
        remove_path(stage)
        os.makedirs(stage, mode=0o700)
        return stage
    os.makedirs(root, exist_ok=True)
    own = os.path.join(root, _OWN)
    with _time_kept(root):
        with contextlib.suppress(FileExistsError):
            os.mkdir(own, 0o700)
        if not stat.S_ISDIR(os.lstat(own).st_mode):
            raise RollbackError(
                f"{os.fsdecode(own)} is not guard's folder; nothing was changed",
                hint="move it away, then run the same rollback again",
            )
        stage = os.path.join(own, _STAGE + b"%d" % seq)
        remove_path(stage)
        os.mkdir(stage, 0o700)
    return stage


def remove_stages(roots: Iterable[bytes]) -> None:
    """Remove every staging folder in these roots; the store's lock is held, so none is in use."""
    for root in roots:
        own = os.path.join(root, _OWN)
        with contextlib.suppress(OSError):
            if os.path.realpath(own) != own:
                continue
            with _time_kept(root):
                for name in os.listdir(own):
                    if name.startswith(_STAGE):
                        remove_path(os.path.join(own, name))
                with contextlib.suppress(OSError):
                    os.rmdir(own)


def _device(path: bytes) -> int:
    """Return the file system on which a folder lies, or would be made."""
    while not os.path.isdir(path):
        path = os.path.dirname(path)
    return os.stat(path).st_dev


@contextlib.contextmanager
def _time_kept(folder: bytes) -> Iterator[None]:
    """Put the times of a folder back after a block that makes or removes something in it."""
    info = os.stat(folder)
    try:
        yield
    finally:
        os.utime(folder, ns=(info.st_atime_ns, info.st_mtime_ns))
