"""Nothing that guard does with a repository runs the repository's code."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from hostile import build_hostile_repository, fired
from rollback.resources.git import (
    GitLayout,
    describe_git,
    find_git,
    git_root_from,
    git_roots,
    git_skips,
)
from rollback.resources.git.process import GitFailed, run_git, safe_environment
from rollback.resources.git.revert import commits_between, find_pushed, revert_pushed
from rollback.resources.git.verify import verify_git

_NO_PROCESS = ("-c", "filter.proc.process=", "-c", "filter.proc.required=false")
"""The process filter speaks no protocol, and would end the command before other vectors."""


def _layout(path: Path) -> GitLayout:
    layout = find_git(path)
    assert layout is not None
    return layout


def _plain(path: Path, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    """Run git as somebody would who trusts the repository, in the folder itself."""
    environ = {**os.environ, "GIT_WORK_TREE": str(path), "GIT_DIR": str(path / ".git")}
    return subprocess.run(
        ["git", *arguments],
        cwd=path,
        env=environ,
        capture_output=True,
        check=False,
        timeout=60,
        stdin=subprocess.DEVNULL,
    )


@pytest.mark.parametrize(
    ("arguments", "vector"),
    [
        (["status"], "included.fsmonitor"),
        (["add", "data.csv"], "filter.clean"),
        (["add", "train.py"], "filter.process"),
        (["diff", "HEAD~1", "HEAD"], "diff.command"),
        (["st"], "alias.st"),
        ([*_NO_PROCESS, "commit", "--allow-empty", "-m", "x"], "hooksPath-pre-commit"),
        ([*_NO_PROCESS, "commit", "--allow-empty", "-m", "x"], "gpg.program"),
        (["update-ref", "refs/heads/y", "HEAD"], "hooksPath-reference-transaction"),
        (["ls-remote", "origin"], "core.sshCommand"),
        (["var", "GIT_EDITOR"], ""),
    ],
)
def test_the_canaries_are_alive(tmp_path: Path, arguments: list[str], vector: str) -> None:
    """Plain git does run them: a silent canary elsewhere means something."""
    canary = build_hostile_repository(tmp_path / "repository")
    assert fired(canary) == []
    _plain(tmp_path / "repository", *arguments)
    assert (vector in fired(canary)) if vector else fired(canary) == []


def _first(layout: GitLayout) -> str:
    return str(describe_git(layout)["head"])


def _read_plainly(path: Path) -> None:
    layout = _layout(path)
    assert describe_git(layout)["branch"] == "main"
    for root in git_roots(layout, path):
        again = git_root_from(root.parameters)
        assert again.path == root.path
    assert git_skips(layout, path) == []


def _verify(path: Path) -> None:
    assert verify_git(_layout(path)).problems == ()


def _commits(path: Path) -> None:
    layout = _layout(path)
    commits = commits_between(layout, _first(layout) + "~1", _first(layout))
    assert [commit.subject for commit in commits] == ["second"]


def _revert(path: Path) -> None:
    layout = _layout(path)
    pushed = find_pushed(layout, _first(layout) + "~1")
    assert pushed is not None
    commit = revert_pushed(layout, pushed)
    assert describe_git(layout)["head"] == commit


@pytest.mark.parametrize("use", [_read_plainly, _verify, _commits, _revert])
def test_no_vector_fires(tmp_path: Path, use: Callable[[Path], None]) -> None:
    """Reading, proving, listing and reverting leave every canary alone."""
    path = tmp_path / "repository"
    canary = build_hostile_repository(path)
    use(path)
    assert fired(canary) == []


def test_a_git_program_in_the_work_tree_is_not_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PATH may lead into the repository or be relative; its `git` is passed over."""
    path = tmp_path / "repository"
    canary = build_hostile_repository(path)
    for folder in (path / "bin", path):
        folder.mkdir(exist_ok=True)
        program = folder / "git"
        program.write_text(f"#!/bin/sh\n: > '{canary}/own-git'\n")
        program.chmod(0o755)
    monkeypatch.chdir(path)
    monkeypatch.setenv("PATH", f".:bin:{path}/bin:{os.environ['PATH']}")
    assert verify_git(_layout(path)).problems == ()
    _commits(path)
    assert fired(canary) == []


def test_variables_of_the_caller_do_not_bring_programs_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A guard that a hook or `git -c` started inherits GIT_* that would undo the protection."""
    path = tmp_path / "repository"
    canary = build_hostile_repository(path)
    hooks = tmp_path / "repository-programs" / "hooks"
    monkeypatch.setenv("GIT_CONFIG_PARAMETERS", f"'core.hookspath'='{hooks}'")
    monkeypatch.setenv("GIT_DIR", "/nowhere")
    monkeypatch.setenv("GIT_INDEX_FILE", "/nowhere/index")
    _verify(path)
    _revert(path)
    assert fired(canary) == []


def test_a_missing_object_is_not_fetched(tmp_path: Path) -> None:
    """A promisor remote would be asked over ssh; the object is reported as missing instead."""
    path = tmp_path / "repository"
    canary = build_hostile_repository(path)
    layout = _layout(path)
    with pytest.raises(GitFailed, match="cat-file failed"):
        run_git(["cat-file", "-p", "1" * 40], layout, safe_environment(layout, os.environ))
    assert fired(canary) == []
    _plain(path, "cat-file", "-p", "1" * 40)
    assert "core.sshCommand" in fired(canary)
