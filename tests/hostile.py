"""A repository that tries to run its own code through every setting that git offers.

Each vector is a program that leaves a file of its name in the canary folder. Whatever opens the
repository safely leaves that folder empty.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

HOOKS = (
    "applypatch-msg",
    "commit-msg",
    "fsmonitor-watchman",
    "post-applypatch",
    "post-checkout",
    "post-commit",
    "post-index-change",
    "post-merge",
    "post-receive",
    "post-rewrite",
    "post-update",
    "pre-applypatch",
    "pre-auto-gc",
    "pre-commit",
    "pre-merge-commit",
    "pre-push",
    "pre-rebase",
    "pre-receive",
    "prepare-commit-msg",
    "push-to-checkout",
    "reference-transaction",
    "sendemail-validate",
    "update",
)
_VICTIM = "victim.txt"
_VICTIM_TEXT = "a file outside of the repository\n"


def build_hostile_repository(path: Path) -> Path:
    """Make a repository at `path` with two commits and thirteen ways to run code.

    fsmonitor; hooks of every kind, in place and through `core.hooksPath`; filters (clean and
    smudge, process); diff drivers (external, textconv) and merge drivers, by attributes;
    aliases over git's own names; pagers; editors; credential helpers; ssh and proxy commands;
    gpg programs; all of that again in an included file; submodule update commands; and a
    `core.worktree` outside.

    Returns:
        The canary folder beside it; ask `fired` what happened.
    """
    path.mkdir(parents=True)
    canary = path.with_name(path.name + "-canary")
    programs = path.with_name(path.name + "-programs")
    outside = path.with_name(path.name + "-outside")
    for folder in (canary, programs, outside):
        folder.mkdir()
    (outside / _VICTIM).write_text(_VICTIM_TEXT)
    _commits(path)
    for hook in HOOKS:
        _program(path / ".git" / "hooks" / hook, canary, f"hook-{hook}")
        _program(programs / "hooks" / hook, canary, f"hooksPath-{hook}")
    (path / ".git" / "evil.conf").write_text(_included(programs, canary))
    (path / ".git" / "modules").mkdir()
    with (path / ".git" / "config").open("a") as file:
        file.write(_settings(programs, canary, outside))
    for name in ("data.csv", "train.py"):  # stat differs from the index: git will look inside
        os.utime(path / name, ns=(1, 1))
    return canary


def fired(canary: Path) -> list[str]:
    """Return the vectors that ran, or changed what lies outside; empty where all was safe."""
    found = sorted(os.listdir(canary))
    victim = canary.with_name(canary.name.removesuffix("-canary") + "-outside") / _VICTIM
    if not victim.is_file() or victim.read_text() != _VICTIM_TEXT:
        found.append("core.worktree")
    return found


def _commits(path: Path) -> None:
    _git(path, "init", "--quiet", "--initial-branch=main")
    (path / "train.py").write_text("print('training')\n")
    (path / "data.csv").write_text("a,b\n1,2\n")
    _git(path, "add", "--all")
    _git(path, "commit", "--quiet", "--message=first")
    first = _git(path, "rev-parse", "HEAD").strip()
    (path / ".gitattributes").write_text("* filter=evil diff=evil merge=evil\n*.py filter=proc\n")
    (path / ".gitmodules").write_text('[submodule "evil"]\n\tpath = evil\n\turl = ./evil\n')
    (path / "evil").mkdir()
    _git(path, "add", ".gitattributes", ".gitmodules")
    _git(path, "update-index", "--add", "--cacheinfo", f"160000,{first},evil")
    _git(path, "commit", "--quiet", "--message=second")
    _git(path, "update-ref", "refs/remotes/origin/main", "HEAD")


def _git(path: Path, *arguments: str) -> str:
    return subprocess.run(
        ["git", *arguments], cwd=path, check=True, capture_output=True, text=True
    ).stdout


def _program(path: Path, canary: Path, name: str) -> str:
    """Write a program that marks its vector and succeeds; a filter passes its input on."""
    path.parent.mkdir(parents=True, exist_ok=True)
    passing = "cat" if name.endswith(("clean", "smudge")) else ":"
    path.write_text(f"#!/bin/sh\n: > '{canary / name}'\n{passing}\nexit 0\n")
    path.chmod(0o755)
    return str(path)


def _settings(programs: Path, canary: Path, outside: Path) -> str:
    def evil(name: str) -> str:
        return _program(programs / name, canary, name)

    return f"""
[core]
	fsmonitor = {evil("fsmonitor")}
	hooksPath = {programs / "hooks"}
	pager = {evil("core.pager")}
	editor = {evil("core.editor")}
	askPass = {evil("core.askPass")}
	sshCommand = {evil("core.sshCommand")}
	gitProxy = {evil("core.gitProxy")}
	alternateRefsCommand = {evil("core.alternateRefsCommand")}
	worktree = {outside}
	attributesFile = {outside / "attributes"}
[filter "evil"]
	clean = {evil("filter.clean")}
	smudge = {evil("filter.smudge")}
	required = true
[filter "proc"]
	process = {evil("filter.process")}
	required = true
[diff]
	external = {evil("diff.external")}
[diff "evil"]
	command = {evil("diff.command")}
	textconv = {evil("diff.textconv")}
[merge "evil"]
	driver = {evil("merge.driver")}
[alias]
	fsck = !{evil("alias.fsck")}
	st = !{evil("alias.st")}
[pager]
	log = {evil("pager.log")}
	config = {evil("pager.config")}
	rev-list = {evil("pager.rev-list")}
[sequence]
	editor = {evil("sequence.editor")}
[credential]
	helper = {evil("credential.helper")}
[credential "https://example.invalid"]
	helper = {evil("credential.url.helper")}
[gpg]
	program = {evil("gpg.program")}
[gpg "ssh"]
	program = {evil("gpg.ssh.program")}
[commit]
	gpgSign = true
[log]
	showSignature = true
[remote "origin"]
	url = ssh://example.invalid/repository
	uploadpack = {evil("remote.uploadpack")}
	promisor = true
	partialclonefilter = blob:none
[submodule "evil"]
	update = !{evil("submodule.update")}
	active = true
[include]
	path = evil.conf
"""


def _included(programs: Path, canary: Path) -> str:
    def evil(name: str) -> str:
        return _program(programs / name, canary, name)

    return f"""[core]
	fsmonitor = {evil("included.fsmonitor")}
	hooksPath = {programs / "hooks"}
[filter "inc=luded.x y"]
	clean = {evil("included.clean")}
	required = true
[diff "included"]
	textconv = {evil("included.textconv")}
"""
