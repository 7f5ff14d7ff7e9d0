"""Installs guard as a plain git hook; a hook that is there already is called first, not lost.

Where hooks are: githooks(5), `core.hooksPath` in git-config(1).
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from rollback.resources.git.layout import GitLayout, find_git
from rollback.resources.git.process import GitFailed, run_git, safe_environment
from safeguards.errors import WrongUsage

MARK = "# Installed by `guard hook install`."
_NAME = "pre-commit"
_CHAINED = "pre-commit.before-guard"
_SCRIPT = """\
#!/bin/sh
{mark}
# Checks what is staged. A hook that was here before is called first.
before="$(dirname "$0")/{chained}"
if [ -x "$before" ]; then
    "$before" "$@" || exit $?
fi
if [ -x {program} ]; then
    exec {program} {options}hook pre-commit
fi
if command -v guard >/dev/null 2>&1; then
    exec guard {options}hook pre-commit
fi
echo "guard: not found, so this commit is not checked; install it, or remove $0" >&2
exit 0
"""


@dataclass(frozen=True, slots=True)
class HookInstall:
    """What installing the hook did.

    Attributes:
        path: The hook.
        chained: The hook that was there before and is called first, else None.
        changed: Whether anything was written.
        by_framework: Whether the pre-commit framework's hook is there and calls guard's.
    """

    path: Path
    chained: Path | None = None
    changed: bool = True
    by_framework: bool = False


def install_git_hook(
    project: Path, *, force: bool = False, environ: Mapping[str, str] | None = None
) -> HookInstall:
    """Install guard's pre-commit hook where git looks for it.

    Args:
        project: A folder in the work tree; the hook checks this project.
        force: Whether to write into a folder of hooks that other repositories use, too, and to
            chain a hook though an older one is chained already.
        environ: The environment.

    Returns:
        What was done; calling it again changes nothing.

    Raises:
        WrongUsage: There is no work tree, or the folder of hooks is shared or cannot be written.
    """
    environ = os.environ if environ is None else environ
    layout = find_git(project)
    if layout is None or layout.worktree is None:
        raise WrongUsage(f"{project} is in no git work tree", hint="git init, or change folder")
    folder = _hooks_folder(layout, environ, force=force)
    path, chained = folder / _NAME, folder / _CHAINED
    script = _script(project, Path(os.fsdecode(layout.worktree)))
    if _is_ours(folder / f"{_NAME}.legacy") and not _is_ours(path):
        return HookInstall(path, changed=False, by_framework=True)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if os.path.lexists(path) and not _is_ours(path):
            _chain(path, chained, force=force)
        elif path.is_file() and path.read_text("utf-8") == script:
            return HookInstall(path, chained if chained.exists() else None, changed=False)
        _write(path, script)
    except OSError as error:
        hint = "give yourself write permission there"
        raise WrongUsage(f"{folder} cannot be written: {error.strerror}", hint=hint) from error
    return HookInstall(path, chained if os.path.lexists(chained) else None)


def _hooks_folder(layout: GitLayout, environ: Mapping[str, str], *, force: bool) -> Path:
    common, top = Path(os.fsdecode(layout.commondir)), Path(os.fsdecode(layout.worktree or b""))
    try:
        safe = safe_environment(layout, environ)
        listed = run_git(
            ["config", "--type=path", "--get-all", "-z", "core.hooksPath"], layout, safe
        )
    except GitFailed as error:
        raise WrongUsage(str(error), hint=error.hint) from error
    values = listed.split(b"\0")[:-2]  # the last one is the override under which git was asked
    if not values or not values[-1]:
        return common / "hooks"
    folder = Path(os.path.normpath(top / os.fsdecode(values[-1])))
    if not (folder.is_relative_to(top) or folder.is_relative_to(common)) and not force:
        raise WrongUsage(
            f"core.hooksPath is {folder}, outside of this repository: other repositories may "
            "use it, too",
            hint="install there all the same: guard hook install --force",
        )
    return folder


def _chain(path: Path, chained: Path, *, force: bool) -> None:
    """Move a foreign hook aside, where guard's hook calls it."""
    if os.path.lexists(chained):
        if not force:
            raise WrongUsage(
                f"there is a hook {path} and one chained before it, {chained.name}",
                hint=f"merge the two into {chained}, or: guard hook install --force "
                f"(which keeps the older one as {chained.name}.old)",
            )
        os.replace(chained, chained.with_name(f"{chained.name}.old"))
    os.rename(path, chained)


def _write(path: Path, script: str) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o777)
    try:
        with open(descriptor, "w", encoding="utf-8") as file:
            file.write(script)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError:
        os.unlink(temporary)
        raise


def _script(project: Path, top: Path) -> str:
    inside = os.path.relpath(os.path.realpath(project), os.path.realpath(top))
    options = "" if inside == "." else f"--project {shlex.quote(inside)} "
    return _SCRIPT.format(
        mark=MARK, chained=_CHAINED, program=shlex.quote(_program()), options=options
    )


def _program() -> str:
    """Return the `guard` of this environment; the one on the PATH is asked second."""
    beside = os.path.join(os.path.dirname(sys.executable), "guard")
    return beside if os.path.exists(beside) else "guard"


def _is_ours(path: Path) -> bool:
    try:
        return path.is_file() and MARK in path.read_text("utf-8", "replace")[:500]
    except OSError:
        return False
