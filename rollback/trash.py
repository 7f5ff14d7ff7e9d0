"""Throwing guard's own large folders away without making anybody wait.

On some disks removing a file takes longer than writing it (ext4 with `discard`). A folder of many
files is renamed out of sight and removed by a process of its own, which holds nothing of its
parent's: no lock, no standard stream, no place in its process tree.
"""

from __future__ import annotations

import contextlib
import os
import re

from rollback.lock import process_start
from rollback.removal import remove_path

_AT_ONCE = 2_000
_NAME = re.compile(rb"trash-(\d+)-(\d+)-")


def discard(path: bytes, store: bytes, *, files: int) -> None:
    """Remove a folder of guard's own; in the background where it holds many files.

    Args:
        path: Absolute path, on the file system of the store.
        store: The store.
        files: About how many files are in it.
    """
    if files < _AT_ONCE:
        remove_path(path)
        return
    waiting = os.path.join(store, b"work", b"trash-0-0-" + os.urandom(6).hex().encode())
    try:
        os.rename(path, waiting)
    except FileNotFoundError:
        return
    _remove_apart(waiting)


def sweep(store: bytes) -> None:
    """Remove what a reaper that died has left."""
    work = os.path.join(store, b"work")
    for name in os.listdir(work):
        match = _NAME.match(name)
        if match and (match[1] == b"0" or process_start(int(match[1])) != int(match[2])):
            remove_path(os.path.join(work, name))


def _remove_apart(path: bytes) -> None:
    """Remove a folder in a grandchild, so that nobody has to wait for it or reap it."""
    pid = os.fork()
    if pid:
        os.waitpid(pid, 0)
        return
    try:
        os.setsid()
        if os.fork() == 0:
            _become_reaper(path)
    finally:
        os._exit(0)


def _become_reaper(path: bytes) -> None:
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nothing, stream)
    os.closerange(3, min(1 << 16, os.sysconf("SC_OPEN_MAX")))
    with contextlib.suppress(OSError):
        os.chdir("/")
        os.nice(19)
        mine = b"trash-%d-%d-" % (os.getpid(), process_start(os.getpid()))
        claimed = os.path.join(os.path.dirname(path), mine + os.urandom(4).hex().encode())
        os.rename(path, claimed)
        remove_path(claimed)
