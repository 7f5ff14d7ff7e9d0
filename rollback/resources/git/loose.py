"""Branches of other work trees, brought out of the one file that a restore puts back.

git keeps a branch in a file of its own, or (after `git gc`) as a line of `packed-refs`. That file
is every work tree's, and is put back as a whole: a branch that shall stay where it is has to have
a file of its own by then, which git reads first (gitrepository-layout(5)).
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterable

from rollback.failpoints import reach
from rollback.folders import FOLDER, open_folder, split
from rollback.resources.git.refs import packed_refs

_NAMELESS = os.O_WRONLY | os.O_TMPFILE | os.O_CLOEXEC
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_PARTIAL = b".guard-ref"
_BRANCHES = b"refs/heads/"
_NO_NAMELESS = {errno.EOPNOTSUPP, errno.EISDIR, errno.ENOENT, errno.EINVAL}


def bring_out(commondir: bytes, names: Iterable[bytes]) -> None:
    """Give branches that only `packed-refs` has a file of their own; they mean what they meant.

    Folders keep their times. No link is followed, and nothing that is there is replaced.

    Args:
        commondir: The folder with the references, absolute.
        names: ``refs/heads/main``; what is not a branch, or is nowhere, is passed over.

    Raises:
        OSError: A file cannot be made. Nothing means anything else than before.
    """
    packed = packed_refs(commondir)
    wanted = sorted(name for name in names if name.startswith(_BRANCHES) and name in packed)
    if not wanted:
        return
    root = os.open(commondir, FOLDER)
    try:
        for name in wanted:
            reach("git.branch")
            _bring_out_one(root, name, packed[name] + b"\n")
    finally:
        os.close(root)


def _bring_out_one(root: int, name: bytes, content: bytes) -> None:
    folder, leaf = split(name)
    handle = os.dup(root)
    try:
        for part in folder.split(b"/"):
            if part in {b"", b".", b".."}:
                raise OSError(errno.EINVAL, "it is no name of a branch", os.fsdecode(name))
            below = _folder(handle, part)
            os.close(handle)
            handle = below
        if not _is_there(handle, leaf):
            info = os.fstat(handle)
            _create(handle, leaf, content)
            os.utime(handle, ns=(info.st_atime_ns, info.st_mtime_ns))
            os.fsync(handle)
    finally:
        os.close(handle)


def _folder(parent: int, name: bytes) -> int:
    """Open a folder, made where it is absent: git removes those that it has emptied."""
    try:
        return open_folder(parent, name)
    except FileNotFoundError:
        info = os.fstat(parent)
        with contextlib.suppress(FileExistsError):
            os.mkdir(name, dir_fd=parent)
        os.utime(parent, ns=(info.st_atime_ns, info.st_mtime_ns))
        os.fsync(parent)
        return open_folder(parent, name)


def _is_there(parent: int, name: bytes) -> bool:
    try:
        os.stat(name, dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _create(parent: int, name: bytes, content: bytes) -> None:
    """Make a file at once and whole; one that somebody else made meanwhile stays."""
    try:
        fd = os.open(b".", _NAMELESS, 0o666, dir_fd=parent)
    except OSError as error:
        if error.errno not in _NO_NAMELESS:
            raise
        _create_by_name(parent, name, content)
        return
    try:
        os.write(fd, content)
        os.fsync(fd)
        with contextlib.suppress(FileExistsError):
            os.link(f"/proc/self/fd/{fd}", name, dst_dir_fd=parent, follow_symlinks=True)
    finally:
        os.close(fd)


def _create_by_name(parent: int, name: bytes, content: bytes) -> None:
    """Do the same where the file system has no files without a name; git ignores this one."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(_PARTIAL, dir_fd=parent)
    fd = os.open(_PARTIAL, _CREATE, 0o666, dir_fd=parent)
    try:
        os.write(fd, content)
        os.fsync(fd)
        with contextlib.suppress(FileExistsError):
            os.link(_PARTIAL, name, src_dir_fd=parent, dst_dir_fd=parent, follow_symlinks=False)
    finally:
        os.close(fd)
        os.unlink(_PARTIAL, dir_fd=parent)
