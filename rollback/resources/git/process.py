"""The only place that starts git: with every setting that names a program taken away.

Which settings run code: git-config(1), gitattributes(5), githooks(5). Overriding them by
environment (`GIT_CONFIG_COUNT`, git 2.31) beats every file, includes and `config.worktree` too,
and takes names that `-c` cannot spell. Filters have to be blanked one by one, by name.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence

from rollback.errors import RollbackError
from rollback.resources.git.layout import GitLayout

_OVERRIDES = {
    "core.hooksPath": "/dev/null",
    "core.fsmonitor": "false",
    "core.untrackedCache": "false",
    "core.pager": "cat",
    "core.editor": "false",
    "core.askPass": "false",
    "core.sshCommand": "false",
    "core.gitProxy": "",
    "core.alternateRefsCommand": "true",
    "sequence.editor": "false",
    "credential.helper": "",
    "diff.external": "",
    "gpg.program": "false",
    "gpg.ssh.program": "false",
    "gpg.x509.program": "false",
    "commit.gpgSign": "false",
    "tag.gpgSign": "false",
    "log.showSignature": "false",
    "protocol.allow": "never",
    "submodule.recurse": "false",
    "fetch.recurseSubmodules": "false",
    "gc.auto": "0",
    "maintenance.auto": "false",
    "advice.detachedHead": "false",
}
_FORCED = {
    "GIT_CONFIG_PARAMETERS": "",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_NO_LAZY_FETCH": "1",
    "GIT_ALLOW_PROTOCOL": "none",
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_PAGER": "cat",
    "GIT_EDITOR": "false",
    "GIT_ASKPASS": "false",
    "GIT_SSH_COMMAND": "false",
    "LC_ALL": "C",
}
_PASSED = frozenset(
    {"HOME", "XDG_CONFIG_HOME", "TMPDIR", "GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM"}
    | {"GIT_CONFIG_NOSYSTEM", "GIT_AUTHOR_NAME", "GIT_AUTHOR_EMAIL", "GIT_AUTHOR_DATE"}
    | {"GIT_COMMITTER_NAME", "GIT_COMMITTER_EMAIL", "GIT_COMMITTER_DATE"}
)
_SAID = 2000
_BLANKED = ("clean", "smudge", "process", "textconv", "command", "driver")
"""The keys of `filter.*`, `diff.*` and `merge.*` that name a program."""


class GitFailed(RollbackError):
    """git could not be started, or refused; the repository is as it was."""

    code = "git_failed"


def find_program(environ: Mapping[str, str], layout: GitLayout) -> str | None:
    """Return the git binary, None where there is none.

    Relative folders of PATH and those in the work tree are passed over: a repository could
    bring its own `git`.
    """
    found = shutil.which("git", path=_safe_path(environ, layout))
    return os.path.abspath(found) if found else None


def safe_environment(layout: GitLayout, environ: Mapping[str, str]) -> dict[str, str]:
    """Return variables under which git runs nothing but itself in this repository.

    Starts `git config --list` once, which reads files and runs nothing, to learn the names of
    filters and drivers from wherever they are configured.

    Raises:
        GitFailed: There is no git, or it cannot read the configuration.
    """
    listed = run_git(["config", "--list", "--name-only", "-z"], layout, _base(layout, environ))
    return _base(layout, environ, _drivers(listed))


def run_git(
    arguments: Sequence[str],
    layout: GitLayout,
    environment: Mapping[str, str],
    *,
    timeout_s: float = 30.0,
) -> bytes:
    """Return what git writes; `environment` comes from `safe_environment`.

    Raises:
        GitFailed: git is missing, fails, or takes longer than `timeout_s` seconds.
    """
    program = find_program(environment, layout)
    if program is None:
        raise GitFailed("there is no git program on the PATH", hint="install git")
    try:
        done = subprocess.run(
            [program, "--no-pager", *arguments],
            env=dict(environment),
            cwd=os.fsdecode(layout.commondir),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise GitFailed(
            f"git {arguments[0]} took longer than {timeout_s:g} s",
            hint=f"run it yourself: git {' '.join(arguments)}",
        ) from error
    except OSError as error:
        raise GitFailed(f"{program} cannot be started: {error}", hint="install git") from error
    if done.returncode != 0:
        text = (done.stdout + b"\n" + done.stderr).decode("utf-8", "replace")
        said = text.strip()[-_SAID:] or f"status {done.returncode}"
        raise GitFailed(
            f"git {arguments[0]} failed in {os.fsdecode(layout.gitdir)}: {said}",
            hint="look at the repository: git fsck",
        )
    return done.stdout


def _safe_path(environ: Mapping[str, str], layout: GitLayout) -> str:
    worktree = os.fsdecode(layout.worktree or layout.gitdir)
    folders = environ.get("PATH", os.defpath).split(os.pathsep)
    kept = []
    for folder in folders:
        real = os.path.realpath(folder)
        if os.path.isabs(folder) and real != worktree and not real.startswith(worktree + "/"):
            kept.append(folder)
    return os.pathsep.join(kept)


def _base(
    layout: GitLayout, environ: Mapping[str, str], extra: Mapping[str, str] | None = None
) -> dict[str, str]:
    environment = {name: value for name, value in environ.items() if name in _PASSED}
    environment |= _FORCED
    environment["PATH"] = _safe_path(environ, layout)
    environment["GIT_DIR"] = os.fsdecode(layout.gitdir)
    if layout.linked:
        environment["GIT_COMMON_DIR"] = os.fsdecode(layout.commondir)
    if layout.worktree is not None:
        environment["GIT_WORK_TREE"] = os.fsdecode(layout.worktree)
    settings = {**_OVERRIDES, **(extra or {})}
    environment["GIT_CONFIG_COUNT"] = str(len(settings))
    for number, (key, value) in enumerate(settings.items()):
        environment[f"GIT_CONFIG_KEY_{number}"] = key
        environment[f"GIT_CONFIG_VALUE_{number}"] = value
    return environment


def _drivers(listed: bytes) -> dict[str, str]:
    """Return settings that blank each program of a filter, diff or merge driver."""
    settings = {}
    for raw in listed.split(b"\0"):
        key = os.fsdecode(raw)
        section, _, rest = key.partition(".")
        name, _, last = rest.rpartition(".")
        if section in {"filter", "diff", "merge"} and name:
            if last.lower() in _BLANKED:
                settings[key] = ""
            if section == "filter":
                settings[f"filter.{name}.required"] = "false"
        elif section in {"credential", "gpg"} and last.lower() in {"helper", "program"}:
            settings[key] = "" if section == "credential" else "false"
    return settings
