"""Where a repository keeps its things, read plainly: no git process, no code of the repository.

Formats: gitrepository-layout(5), gitformat-index(5), git-worktree(1), git-config(1).
"""

from __future__ import annotations

import os
from dataclasses import dataclass

AnyPath = bytes | str | os.PathLike[str]

_SMALL_FILE_BYTES = 1 << 20
"""Pointer files are a line; whatever is longer is not one of them."""


@dataclass(frozen=True, slots=True)
class GitLayout:
    """The folders of one repository as seen from one work tree.

    Attributes:
        gitdir: Folder with HEAD and index of this work tree; absolute, symlinks resolved.
        commondir: Folder with objects, refs and configuration; equals `gitdir` except in a
            linked work tree.
        worktree: Folder that is checked out, None for a bare repository.
    """

    gitdir: bytes
    commondir: bytes
    worktree: bytes | None

    @property
    def linked(self) -> bool:
        """Whether this is a linked work tree, whose objects and refs are another folder's."""
        return self.gitdir != self.commondir


def find_git(project: AnyPath) -> GitLayout | None:
    """Return the repository that `project` lies in, or None where there is none.

    Looks in `project` and then in its parents, as git does, and stops at the border of the
    file system. Reads names and pointer files only.

    Args:
        project: A folder; need not be the top of the work tree.
    """
    folder = os.path.realpath(os.fsencode(project))
    try:
        device = os.stat(folder).st_dev
    except OSError:
        return None
    while True:
        found = _repository_at(folder)
        if found is not None:
            return found
        parent = os.path.dirname(folder)
        try:
            if parent == folder or os.stat(parent).st_dev != device:
                return None
        except OSError:
            return None
        folder = parent


def _repository_at(folder: bytes) -> GitLayout | None:
    dotgit = os.path.join(folder, b".git")
    if is_gitdir(dotgit):
        gitdir: bytes | None = os.path.realpath(dotgit)
    else:
        gitdir = read_gitfile(dotgit)
    if gitdir is not None:
        return GitLayout(gitdir, common_folder(gitdir), folder)
    if is_gitdir(folder):
        return GitLayout(folder, common_folder(folder), None)
    return None


def read_gitfile(path: bytes) -> bytes | None:
    """Return the folder that a `.git` file points to, None unless it is a repository's.

    Linked work trees and submodules have such a file: ``gitdir: <path>``.
    """
    content = read_small(path)
    if content is None or not content.startswith(b"gitdir:"):
        return None
    target = content[len(b"gitdir:") :].strip()
    if not target or b"\0" in target:
        return None
    gitdir = os.path.realpath(os.path.join(os.path.dirname(path), target))
    return gitdir if is_gitdir(gitdir) else None


def is_gitdir(folder: bytes) -> bool:
    """Return whether `folder` is what git takes for a repository: HEAD, objects and refs."""
    if not os.path.lexists(os.path.join(folder, b"HEAD")):
        return False
    common = common_folder(folder)
    return os.path.isdir(os.path.join(common, b"objects")) and os.path.isdir(
        os.path.join(common, b"refs")
    )


def common_folder(gitdir: bytes) -> bytes:
    """Return the folder that holds objects and refs for `gitdir`, absolute and resolved."""
    content = read_small(os.path.join(gitdir, b"commondir"))
    pointer = content.strip() if content else b""
    if not pointer or b"\0" in pointer:
        return os.path.realpath(gitdir)
    return os.path.realpath(os.path.join(gitdir, pointer))


def read_small(path: bytes) -> bytes | None:
    """Return the content of a small regular file, None where there is none to read.

    Opens without blocking: a FIFO that was put in its place does not hang guard.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError):
        return None
    try:
        content = os.read(handle, _SMALL_FILE_BYTES)
    except OSError:
        return None
    finally:
        os.close(handle)
    return content
