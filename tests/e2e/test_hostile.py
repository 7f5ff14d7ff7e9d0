"""Hostile projects: nothing of a repository, a pickle or a schema is ever executed by guard."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest

from e2e.guard_command import Guard, assert_clear
from e2e.projects import commit_all, git, make_small_project
from manifest import assert_back, manifest

_HOOKS = ("pre-commit", "post-checkout", "post-index-change", "reference-transaction", "fsmonitor")


class _Bomb:
    """Creates the file when it is unpickled."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[object, tuple[str, int]]:
        return os.open, (str(self.canary), os.O_CREAT | os.O_WRONLY)


@pytest.fixture
def fired(guard: Guard) -> Path:
    """Return a folder in which every hostile vector of the project would leave a file."""
    folder = guard.project.parent / "fired"
    folder.mkdir()
    make_small_project(guard.project)
    _arm(guard.project, folder)
    assert not list(folder.iterdir()), "a canary fired while the test was set up"
    return folder


def test_no_code_of_the_repository_runs(guard: Guard, fired: Path) -> None:
    """Hooks, filters, fsmonitor, external diffs, aliases and pagers stay silent."""
    before = manifest(guard.project)
    spoil = "echo spoilt > params.yaml ; echo new > new.py ; rm train.py"
    assert guard.shell(spoil).status == 0
    for arguments in (
        ("status",),
        ("diff",),
        ("diff", "--stat"),
        ("log",),
        ("show", "1"),
        ("verify",),
        ("check",),
        ("drill",),
        ("snapshot", "--label", "x"),
        ("rollback", "--last", "--dry-run"),
    ):
        guard(*arguments)
    assert_back(before, guard.roll_back())
    assert guard("undo").status == 0
    assert guard("redo").status == 0
    assert_back(before, manifest(guard.project))
    assert sorted(path.name for path in fired.iterdir()) == []


def test_the_canaries_would_have_fired(guard: Guard, fired: Path) -> None:
    """Plain git runs them: the test above can fail."""
    (guard.project / "params.yaml").write_text("changed\n")
    git(guard.project, "add", "-A")
    git(guard.project, "diff", "--cached", "--stat")
    assert "filter-clean" in {path.name for path in fired.iterdir()}
    assert len(list(fired.iterdir())) >= 2


def test_a_pickle_is_never_loaded(guard: Guard) -> None:
    """A pickle that acts when loaded is named by the check, not loaded."""
    make_small_project(guard.project)
    canary = guard.project.parent / "canary"
    (guard.project / "models" / "bomb.pkl").write_bytes(pickle.dumps(_Bomb(canary)))
    (guard.project / "guard.toml").write_text('[[check.artifact]]\npath = "models/*.pkl"\n')
    result = guard("check", "artifacts")
    assert "bomb.pkl" in result.out + result.err, result.said
    run = guard("run", "--checks", "warn", "--", "true")
    assert run.status == 0, run.said
    assert not canary.exists()


def test_a_store_of_another_user_is_refused(messy: Guard) -> None:
    """Root does not trust a store that belongs to somebody else."""
    if os.geteuid() != 0:
        pytest.skip("only root can give a store away: run as root to test the refusal")
    assert messy.shell("rm zero").status == 0
    store = messy.project.parent / "store"
    for base, _, files in os.walk(store):
        os.chown(base, 65534, 65534)
        for name in files:
            if os.lstat(os.path.join(base, name)).st_nlink == 1:
                os.chown(os.path.join(base, name), 65534, 65534)
    before = manifest(messy.project)
    assert_clear(messy("run", "--", "touch", "ran.txt"))
    assert_clear(messy("rollback", "--last", "--yes"))
    assert_back(before, manifest(messy.project))


def _arm(project: Path, fired: Path) -> None:
    def canary(name: str, then: str = "cat") -> str:
        script = project.parent / f"{name}.sh"
        script.write_text(f"#!/bin/sh\ntouch '{fired}/{name}'\n{then}\n")
        script.chmod(0o755)
        return str(script)

    (project / ".gitattributes").write_text("*.yaml filter=evil diff=evil\n*.py text eol=lf\n")
    commit_all(project, "Attributes")
    for hook in _HOOKS:
        path = project / ".git" / "hooks" / hook
        path.write_text(f"#!/bin/sh\ntouch '{fired}/hook-{hook}'\n")
        path.chmod(0o755)
    settings = {
        "filter.evil.clean": canary("filter-clean"),
        "filter.evil.smudge": canary("filter-smudge"),
        "filter.evil.required": "true",
        "diff.evil.textconv": canary("textconv"),
        "diff.external": canary("diff-external", "true"),
        "core.fsmonitor": canary("fsmonitor", "true"),
        "core.pager": canary("pager"),
        "core.editor": canary("editor", "true"),
        "core.sshCommand": canary("ssh", "true"),
        "alias.status": f"!{canary('alias', 'true')}",
        "credential.helper": canary("credential", "true"),
        "gpg.program": canary("gpg", "true"),
    }
    # Written at once and last: each `git config` after the first would run what is set already.
    with open(project / ".git" / "config", "a") as file:
        for key, value in settings.items():
            section, _, name = key.rpartition(".")
            head, _, sub = section.partition(".")
            title = f'{head} "{sub}"' if sub else head
            file.write(f"[{title}]\n\t{name} = {value}\n")
