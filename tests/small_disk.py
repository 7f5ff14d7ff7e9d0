"""A small file system of a test's own, in memory."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def mounted(place: Path, size_mib: int) -> Iterator[Path]:
    """Mount a tmpfs of a given size on a folder, which is made; skip where that is not allowed."""
    place.mkdir()
    options = f"size={size_mib}m,mode=700"
    mount = ["mount", "-t", "tmpfs", "-o", options, "guard-test", str(place)]
    if not shutil.which("mount") or subprocess.run(mount, check=False).returncode != 0:
        pytest.skip("a small file system cannot be mounted here: run as root, or in unshare -Urm")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)
