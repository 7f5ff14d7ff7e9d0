"""On a file system that can share blocks, neither a snapshot nor a rollback copies a byte."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from driving import Project
from manifest import assert_back, manifest

SIZE = 24 << 20
FILES = 4
# Journal, catalog and reserve; far below the content.
SLACK = 40 << 20


@pytest.fixture
def shared_blocks(tmp_path: Path) -> Iterator[Path]:
    """An XFS of its own with reflinks, mounted."""
    mkfs = shutil.which("mkfs.xfs", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if mkfs is None or os.geteuid() != 0:
        pytest.skip("needs root and mkfs.xfs (package xfsprogs)")
    image, place = tmp_path / "xfs.img", tmp_path / "xfs"
    place.mkdir()
    with image.open("wb") as file:
        file.truncate(1 << 30)
    subprocess.run([mkfs, "-q", "-m", "reflink=1", image], check=True)
    done = subprocess.run(["mount", "-o", "loop", image, place], check=False, capture_output=True)
    if done.returncode:
        pytest.skip(f"no loop device may be mounted here: {done.stderr.decode().strip()}")
    yield place
    subprocess.run(["umount", place], check=True)


def _used(place: Path) -> int:
    os.sync()
    found = os.statvfs(place)
    return (found.f_blocks - found.f_bfree) * found.f_frsize


def test_no_byte_is_copied(shared_blocks: Path) -> None:
    """Four large files: kept, rehearsed, spoilt, put back, in the room of one copy."""
    project = Project(shared_blocks)
    for number in range(FILES):
        (project.root / f"{number}.ckpt").write_bytes(os.urandom(SIZE))
    before, used = manifest(project.root), _used(shared_blocks)
    report = project.snapshot()
    assert report.new_bytes >= FILES * SIZE
    with project.engine() as engine:
        drill = engine.drill(report.snapshot, mode="full")
    assert drill.passed
    assert drill.bytes == FILES * SIZE
    assert _used(shared_blocks) - used < SLACK
    for number in range(FILES - 1):
        with (project.root / f"{number}.ckpt").open("r+b") as file:
            file.seek(4096 * number)
            file.write(b"spoilt")
    (project.root / f"{FILES - 1}.ckpt").unlink()
    project.rollback(report.snapshot)
    assert_back(before, manifest(project.root))
    assert _used(shared_blocks) - used < SLACK
