"""The README's one set-up command does what it says, from a copy of the checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

pytestmark = pytest.mark.timeout(600)

_CHECKOUT = Path(__file__).parents[2]
# Read before the fixtures isolate the test: installers keep what they fetched there.
_REAL: Mapping[str, str] = dict(os.environ)


def test_the_quickstart_ends_with_everything_back(tmp_path: Path) -> None:
    """A fresh clone, one command: a bad run is undone and proven by hash."""
    clone = tmp_path / "clone"
    shutil.copytree(
        _CHECKOUT,
        clone,
        symlinks=True,
        ignore=shutil.ignore_patterns(".venv", ".git", "demo", ".*_cache", "__pycache__", "dist"),
    )
    # A home of its own, but the installers' caches of this machine: they are only read quickly.
    home = Path(_REAL["HOME"])
    caches = {"UV_CACHE_DIR": home / ".cache" / "uv", "PIP_CACHE_DIR": home / ".cache" / "pip"}
    environment = dict(os.environ)
    for name, folder in caches.items():
        environment[name] = _REAL.get(name, str(folder))
    del environment["GUARD_STORE"]
    done = subprocess.run(
        [sys.executable, clone / "examples" / "quickstart"],
        cwd=clone,
        env=environment,
        check=False,
        capture_output=True,
        text=True,
    )
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    assert "files are gone" in done.stdout
    assert "mode, time and SHA-256 are equal" in done.stdout
    assert (clone / "demo" / "wine" / ".env").stat().st_mode & 0o777 == 0o600
    assert len(said.splitlines()) < 80, "the demonstration has become too long to read"
