"""Whether a repository that was put back is whole."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from rollback.model import Skip
from rollback.resources.git.layout import GitLayout
from rollback.resources.git.process import GitFailed, find_program, run_git, safe_environment
from rollback.resources.git.refs import packed_refs, read_head, resolve


@dataclass(frozen=True, slots=True)
class GitVerdict:
    """What a check of a repository found.

    Attributes:
        problems: What is wrong, one line each; empty where it is whole.
        skips: What could not be checked.
    """

    problems: tuple[str, ...] = ()
    skips: tuple[Skip, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong, as far as it was checked."""
        return not self.problems


def verify_git(
    layout: GitLayout, environ: Mapping[str, str] | None = None, *, timeout_s: float = 60.0
) -> GitVerdict:
    """Check that references resolve and that every object they reach is there.

    Runs `git fsck --connectivity-only` with all programs of the repository taken away. A
    repository that was damaged before the snapshot is damaged after an exact restore too:
    compare with a verdict from before.

    Args:
        layout: The repository, live or restored into scratch.
        environ: The caller's variables; `os.environ` where None.
        timeout_s: Seconds after which the walk is given up, and skipped.
    """
    environ = os.environ if environ is None else environ
    problems = _plain_problems(layout)
    if find_program(environ, layout) is None:
        return GitVerdict(
            tuple(problems),
            (Skip("check of git objects", "there is no git program on the PATH", "install git"),),
        )
    arguments = ["fsck", "--connectivity-only", "--no-dangling", "--no-reflogs", "--no-progress"]
    try:
        run_git(arguments, layout, safe_environment(layout, environ), timeout_s=timeout_s)
    except GitFailed as error:
        if "took longer" not in str(error):
            return GitVerdict((*problems, str(error)))
        return GitVerdict(tuple(problems), (Skip("check of git objects", str(error), error.hint),))
    return GitVerdict(tuple(problems))


def _plain_problems(layout: GitLayout) -> list[str]:
    """Return what can be seen without git: HEAD, and references whose file is not a hash."""
    head = read_head(layout.gitdir)
    if head is None:
        return [f"{os.fsdecode(layout.gitdir)}/HEAD cannot be read"]
    if os.path.isdir(os.path.join(layout.commondir, b"reftable")):
        return []
    problems = []
    if not head.startswith(b"refs/") and resolve(layout, head) is None:
        problems.append(f"HEAD holds neither a branch nor a commit: {os.fsdecode(head)!r}")
    packed = packed_refs(layout.commondir)
    base = os.path.join(layout.commondir, b"refs")
    for folder, _, names in os.walk(base):
        for name in names:
            path = os.path.relpath(os.path.join(folder, name), layout.commondir)
            if name.endswith(b".lock"):
                problems.append(f"{os.fsdecode(path)} is a lock that somebody left")
            elif resolve(layout, path) is None and path not in packed and not _dangling(path):
                problems.append(f"{os.fsdecode(path)} does not name a commit")
    return problems


def _dangling(path: bytes) -> bool:
    """Return whether a reference may point to nothing: HEAD of a remote whose branch went."""
    return path.startswith(b"refs/remotes/") and path.endswith(b"/HEAD")
