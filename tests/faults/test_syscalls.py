"""A sample of the sweep over system calls, and disks that are really full."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from faults import syscalls
from faults.traced import why_not

_COUNT = int(os.environ.get("GUARD_SYSCALLS", "16"))
_FULL = Path(__file__).with_name("full_disk.py")


@pytest.mark.skipif(bool(why_not()), reason=why_not() or "never")
@pytest.mark.timeout(400)
def test_no_call_that_fails_or_kills_loses_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fixed sample; the long version is a command."""
    monkeypatch.setattr(syscalls, "_STATES", {"links of all kinds", "SQLite, rollback journal"})
    monkeypatch.setattr(syscalls, "_SCENARIOS", {"snapshot again", "rollback"})
    faults = list(syscalls.all_faults(kills=2, errors=2))
    chosen = random.Random(3).sample(faults, min(_COUNT, len(faults)))
    found = {fault: syscalls.judge_fault(fault) for fault in chosen}
    wrong = [f"{fault}: {what}" for fault, told in found.items() for what in told or ()]
    assert not wrong, "\n".join(wrong)
    assert sum(told is not None for told in found.values()) > len(chosen) * 3 // 4


def _unshared() -> list[str]:
    """Return what runs a command where it may mount; empty where nothing does."""
    for words in (["unshare", "-Urm"], ["unshare", "-m"]):
        if shutil.which("unshare") is None:
            return []
        tried = subprocess.run(
            [*words, "mount", "-t", "tmpfs", "none", "/mnt"], check=False, capture_output=True
        )
        if tried.returncode == 0:
            return words
    return []


@pytest.mark.timeout(300)
@pytest.mark.parametrize("limit", ["size", "nr_inodes"])
@pytest.mark.parametrize("verb", ["snapshot", "rollback"])
def test_a_disk_that_is_really_full_loses_nothing(tmp_path: Path, limit: str, verb: str) -> None:
    """From no room at all to enough: a clear error, nothing changed, and a later run succeeds."""
    mounting = _unshared()
    if not mounting:
        pytest.skip("a small file system cannot be mounted here")
    done = subprocess.run(
        [*mounting, sys.executable, str(_FULL), str(tmp_path), limit, verb],
        check=False, capture_output=True, text=True, timeout=280,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert "tries" in done.stdout
