"""Removing folders of guard's own, whole, by folder handles."""

from __future__ import annotations

import contextlib
import os

from rollback.folders import FOLDER


def remove_tree(parent: int, name: bytes) -> None:
    """Remove a folder of guard's own, or a cache, with all that is in it; no link is followed."""
    try:
        fd = os.open(name, FOLDER, dir_fd=parent)
    except NotADirectoryError:
        os.unlink(name, dir_fd=parent)
        return
    except PermissionError:
        os.chmod(name, 0o700, dir_fd=parent)
        fd = os.open(name, FOLDER, dir_fd=parent)
    try:
        if os.geteuid() != 0:
            os.chmod(fd, 0o700)
        with os.scandir(fd) as entries:
            items = [(os.fsencode(e.name), e.is_dir(follow_symlinks=False)) for e in entries]
        for item, is_folder in items:
            if is_folder:
                remove_tree(fd, item)
            else:
                os.unlink(item, dir_fd=fd)
    finally:
        os.close(fd)
    os.rmdir(name, dir_fd=parent)


def remove_path(path: bytes) -> None:
    """Remove a folder of guard's own by its absolute path; absent is fine."""
    folder, name = os.path.split(path)
    try:
        parent = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        with contextlib.suppress(FileNotFoundError):
            remove_tree(parent, name)
    finally:
        os.close(parent)
