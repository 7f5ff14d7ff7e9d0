"""Undoing commits that others may have: a commit that reverts, instead of a branch that moves.

The new commit has the snapshot's tree and follows what was pushed, so nobody's history is
rewritten and nothing can conflict. Index and work tree are not touched: `rollback` has put them
back byte for byte, staged changes included, and they compare with the new commit as they did
with the old one.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING

from rollback.resources.git.describe import describe_git
from rollback.resources.git.layout import GitLayout
from rollback.resources.git.process import GitFailed, find_program, safe_environment

if TYPE_CHECKING:
    import git

_LISTED = 20


@dataclass(frozen=True, slots=True)
class CommitLine:
    """A commit as people read it."""

    id: str
    author: str
    subject: str


@dataclass(frozen=True, slots=True)
class PushedCommits:
    """Commits since a snapshot that a remote has.

    Attributes:
        branch: Full name of the branch that was pushed: ``refs/heads/main``.
        base: The newest commit of the branch that a remote has; the revert follows it.
        target: The commit of the snapshot.
        commits: What is reverted, newest first.
        dropped: Commits on top of `base` that no remote has: they leave the branch, as in a
            rollback without `--revert`, and stay in the undo.
        remotes: Remote-tracking references and what they say. They tell of the remote, which no
            rollback has moved, so the revert sets them again: else what was pushed would look
            unpushed, and the revert as if it rewrote history.
    """

    branch: str
    base: str
    target: str
    commits: tuple[CommitLine, ...]
    dropped: tuple[CommitLine, ...] = ()
    remotes: tuple[tuple[str, str], ...] = ()


def find_pushed(
    layout: GitLayout, target: str, environ: Mapping[str, str] | None = None
) -> PushedCommits | None:
    """Return the commits since `target` that were pushed, None where there are none.

    Ask before a restore puts the branch and the remote-tracking references back.

    Args:
        layout: The repository.
        target: Hash of the snapshot's commit.
        environ: The caller's variables; `os.environ` where None.

    Raises:
        GitFailed: No git, a detached or unborn HEAD, a merge under way, or an unknown commit.
    """
    branch = _branch(layout)
    with _Opened(layout, environ) as repository:
        names = repository.rev_parse("--verify", "--end-of-options", target + "^{commit}")
        known = _remotes(repository)
        if not known:
            return None
        remotes = sorted({commit for _, commit in known})
        target = names.strip()
        ahead = _lines(repository, "HEAD", "--not", target)
        local = {line.id for line in _lines(repository, "HEAD", "--not", target, *remotes)}
        first = repository.rev_list("--first-parent", "HEAD", "--not", target, "--").split()
    base = next((commit for commit in first if commit not in local), None)
    if base is None:
        return None
    return PushedCommits(
        branch=branch,
        base=base,
        target=target,
        commits=tuple(line for line in ahead if line.id not in local),
        dropped=tuple(line for line in ahead if line.id in local),
        remotes=known,
    )


def revert_pushed(
    layout: GitLayout, pushed: PushedCommits, environ: Mapping[str, str] | None = None
) -> str:
    """Add the commit that reverts, move the branch to it, and return its hash.

    Call it after the restore. Killed between its two steps it leaves an unreferenced commit and
    may be called again.

    Raises:
        GitFailed: git refused (no identity, a lock, a branch that moved meanwhile); the branch
            is where it was.
    """
    if _branch(layout) != pushed.branch:
        raise GitFailed(
            f"HEAD is not on {pushed.branch} any more, so the revert was not made",
            hint=f"git switch {pushed.branch.removeprefix('refs/heads/')}, then try again",
        )
    with _Opened(layout, environ) as repository:
        commit = repository.commit_tree(
            f"{pushed.target}^{{tree}}", "-p", pushed.base, "-m", _message(pushed)
        ).strip()
        present = repository.rev_parse("--verify", pushed.branch).strip()
        repository.update_ref(
            "-m", f"guard: revert to {pushed.target[:12]}", pushed.branch, commit, present
        )
        for name, known in pushed.remotes:
            repository.update_ref("-m", "guard: what the remote has", name, known)
    return str(commit)


def commits_between(
    layout: GitLayout,
    old: str,
    new: str,
    environ: Mapping[str, str] | None = None,
) -> tuple[CommitLine, ...]:
    """Return the commits that `new` has and `old` has not, newest first, at most twenty.

    Raises:
        GitFailed: There is no git, or a commit is unknown.
    """
    with _Opened(layout, environ) as repository:
        return tuple(_lines(repository, f"--max-count={_LISTED}", new, "--not", old))


class _Opened:
    """GitPython's command of one repository, with all programs of its configuration taken away."""

    def __init__(self, layout: GitLayout, environ: Mapping[str, str] | None) -> None:
        self._layout = layout
        self._environ = os.environ if environ is None else environ

    def __enter__(self) -> git.Git:
        program = find_program(self._environ, self._layout)
        if program is None:
            raise GitFailed("there is no git program on the PATH", hint="install git")
        safe = safe_environment(self._layout, self._environ)
        command: git.Git = _gitpython(program).Git(os.fsdecode(self._layout.commondir))
        command.update_environment(**safe)
        return command

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        import git  # noqa: PLC0415

        if isinstance(error, git.CommandError):
            said = str(error.stderr or error).replace("stderr:", "").strip().strip("'")
            raise GitFailed(
                f"git refused in {os.fsdecode(self._layout.gitdir)}: {said}",
                hint="nothing was changed; look at the repository: git status",
            ) from error


def _gitpython(program: str) -> ModuleType:
    """Import GitPython, which starts git at once: the one that was found, not one of the tree."""
    name = "GIT_PYTHON_GIT_EXECUTABLE"
    before = os.environ.get(name)
    os.environ[name] = program
    try:
        import git  # noqa: PLC0415
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
    return git


def _remotes(repository: git.Git) -> tuple[tuple[str, str], ...]:
    """Return the remote-tracking references and their commits; no symbolic ones."""
    listed = repository.for_each_ref(
        "--format=%(refname)%00%(objectname)%00%(symref)", "refs/remotes"
    )
    rows = (line.split("\0") for line in listed.split("\n") if line)
    return tuple((row[0], row[1]) for row in rows if not row[2])


def _lines(repository: git.Git, *arguments: str) -> list[CommitLine]:
    text = repository.rev_list("--format=%H%x00%an%x00%s", *arguments, "--")
    rows = (line.split("\0") for line in text.split("\n") if "\0" in line)
    return [CommitLine(*row[:3]) for row in rows]


def _branch(layout: GitLayout) -> str:
    state = describe_git(layout)
    if state["under_way"]:
        raise GitFailed(
            f"a {state['under_way']} is under way, so nothing was reverted",
            hint=f"finish it (git {state['under_way']} --continue) or roll back without --revert",
        )
    if state["branch"] is None or state["unborn"]:
        raise GitFailed(
            "HEAD is not on a branch with commits, so there is nothing to revert on",
            hint="roll back without --revert, or switch to the branch: git switch NAME",
        )
    return f"refs/heads/{state['branch']}"


def _message(pushed: PushedCommits) -> str:
    count = len(pushed.commits)
    lines = [f"Revert {count} commit{'s' if count != 1 else ''}: back to {pushed.target[:12]}", ""]
    lines += [f"This reverts {line.id[:12]} {line.subject}" for line in pushed.commits[:_LISTED]]
    if count > _LISTED:
        lines.append(f"and {count - _LISTED} more.")
    return "\n".join(lines)
