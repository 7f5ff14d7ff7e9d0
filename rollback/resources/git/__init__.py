"""git: what of a repository is captured, described, reverted and proven; never its own store.

No function here starts code of the repository: files are read plainly, and where a git process
is needed, every setting that names a program is overridden first. What starts git at all is
imported from its own module: `process`, `verify`, `revert`.
"""

from __future__ import annotations

from rollback.resources.git.attest import git_intact
from rollback.resources.git.describe import describe_git
from rollback.resources.git.layout import GitLayout, find_git
from rollback.resources.git.policy import git_keep_extra, git_policy, git_temporary
from rollback.resources.git.roots import alternates, git_root_from, git_roots, git_skips

__all__ = [
    "GitLayout",
    "alternates",
    "describe_git",
    "find_git",
    "git_intact",
    "git_keep_extra",
    "git_policy",
    "git_root_from",
    "git_roots",
    "git_skips",
    "git_temporary",
]
