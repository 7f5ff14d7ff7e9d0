"""Incident 9 and the store's modes: no secret in what guard says or keeps about a run."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from e2e.guard_command import Guard
from e2e.projects import SECRET
from manifest import assert_back, manifest


def test_9_an_overwritten_env_is_back_and_its_secret_nowhere(
    messy: Guard, monkeypatch: pytest.MonkeyPatch, isolated_home: Path
) -> None:
    """.env is back with mode 0600, and the canary is in no output, log, report or catalog."""
    monkeypatch.setenv("MY_SERVICE_PASSWORD", SECRET)
    before = manifest(messy.project)
    report = messy.project.parent / "report.json"
    said = [messy.shell("echo A=1 > .env ; chmod 644 .env ; exit 1", "--report", report)]
    assert said[0].status == 1, said[0].said
    said += [
        messy("-v", "status"),
        messy("--json", "status"),
        messy("log"),
        messy("show", "1"),
        messy("--json", "show", "1"),
        messy("diff"),
        messy("--json", "diff"),
        messy("-v", "rollback", "--last", "--dry-run"),
        messy("--json", "rollback", "--last", "--dry-run"),
        messy("-v", "rollback", "--last", "--yes"),
    ]
    for result in said:
        assert SECRET not in result.out + result.err
    assert_back(before, manifest(messy.project))
    assert SECRET not in report.read_text()
    assert _holders(messy.project.parent / "store") <= {"blob"}, "the canary is outside the blobs"
    assert _holders(isolated_home) == set()


def test_the_store_is_the_users_alone(messy: Guard) -> None:
    """With umask 000, each folder of the store is 0700 and each file 0600 or less."""
    umask = os.umask(0)
    try:
        run = messy("run", "--", "true")
        assert run.status == 0, run.said
        modes = _modes(messy.project.parent / "store")
    finally:
        os.umask(umask)
    assert modes, "the store is not where GUARD_STORE says"
    assert {mode for kind, mode in modes.values() if kind == "folder"} == {0o700}
    linked = {path for path, (kind, mode) in modes.items() if kind == "file" and mode & 0o077}
    assert not linked, f"readable by others: {sorted(linked)[:10]}"


def _holders(folder: Path) -> set[str]:
    """Return which kinds of files below `folder` hold the canary: ``blob`` or the path."""
    found = set()
    for base, _, files in os.walk(folder):
        for name in files:
            path = Path(base, name)
            if path.is_file() and not path.is_symlink() and SECRET.encode() in path.read_bytes():
                relative = str(path.relative_to(folder))
                kept = any(part.startswith(("blob", "pack")) for part in path.parts)
                found.add("blob" if kept else relative)
    return found


def _modes(folder: Path) -> dict[str, tuple[str, int]]:
    found = {}
    for base, folders, files in os.walk(folder):
        for name in folders:
            info = os.lstat(os.path.join(base, name))
            found[os.path.join(base, name)] = ("folder", stat.S_IMODE(info.st_mode))
        for name in files:
            info = os.lstat(os.path.join(base, name))
            # A hard link shares the mode of the file that it keeps: git's objects, packages.
            if info.st_nlink == 1:
                found[os.path.join(base, name)] = ("file", stat.S_IMODE(info.st_mode))
    return found
