"""What people want to know of a repository at a glance, read plainly in milliseconds.

`git status` would run filters, hooks and the fsmonitor that the repository's own configuration
names; so nothing here says which files are modified: the file engine knows that by itself.
"""

from __future__ import annotations

import os
from typing import Any

from rollback.resources.git.layout import GitLayout, read_small
from rollback.resources.git.refs import read_head, resolve

_UNDER_WAY = (
    ("rebase-merge", "rebase"),
    ("rebase-apply/applying", "am"),
    ("rebase-apply", "rebase"),
    ("MERGE_HEAD", "merge"),
    ("CHERRY_PICK_HEAD", "cherry-pick"),
    ("REVERT_HEAD", "revert"),
    ("sequencer/todo", "cherry-pick or revert"),
    ("BISECT_LOG", "bisect"),
)
"""The files that git's own prompt looks at (contrib/completion/git-prompt.sh), same order."""

_LOCKS = (b"index.lock", b"HEAD.lock", b"config.lock", b"packed-refs.lock", b"shallow.lock")
_NO_BRANCH = "refs/heads/.invalid"


def describe_git(layout: GitLayout) -> dict[str, Any]:
    """Return what a repository is at, as JSON.

    Returns:
        ``head``: hash of the commit, None where unborn or not readable; ``branch``: short name,
        None where detached; ``detached``, ``unborn``, ``bare``, ``linked``; ``under_way``: a
        merge, rebase … that was begun; ``stashes``: how many; ``refs``: ``files`` or
        ``reftable``; ``locks``: lock files that lie there.
    """
    reftable = os.path.isdir(os.path.join(layout.commondir, b"reftable"))
    value = read_head(layout.gitdir)
    name = os.fsdecode(value) if value is not None else ""
    on_branch = name.startswith("refs/") and name != _NO_BRANCH
    head = None if reftable else resolve(layout, b"HEAD")
    return {
        "head": head,
        "branch": name.removeprefix("refs/heads/") if on_branch else None,
        "detached": value is not None and not name.startswith("refs/"),
        "unborn": on_branch and head is None and not reftable,
        "bare": layout.worktree is None,
        "linked": layout.linked,
        "under_way": _under_way(layout.gitdir),
        "stashes": _stashes(layout),
        "refs": "reftable" if reftable else "files",
        "locks": [
            os.fsdecode(lock)
            for lock in _LOCKS
            if os.path.lexists(os.path.join(layout.gitdir, lock))
            or os.path.lexists(os.path.join(layout.commondir, lock))
        ],
    }


def _under_way(gitdir: bytes) -> str | None:
    for name, operation in _UNDER_WAY:
        if os.path.lexists(os.path.join(gitdir, os.fsencode(name))):
            return operation
    return None


def _stashes(layout: GitLayout) -> int:
    """Return how many stashes there are: each but the first lives in the reflog alone."""
    content = read_small(os.path.join(layout.commondir, b"logs", b"refs", b"stash"))
    if content is not None:
        return content.count(b"\n")
    return int(resolve(layout, b"refs/stash") is not None)
