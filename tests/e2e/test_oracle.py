"""The oracle itself: M() sees every kind of damage, and only that."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from e2e.projects import git, make_messy_project
from manifest import differences, manifest


def _same_time(path: Path, content: bytes) -> None:
    info = path.stat()
    path.write_bytes(content)
    os.utime(path, ns=(info.st_atime_ns, info.st_mtime_ns))


def _touch(path: Path) -> None:
    os.utime(path, ns=(1, 1))


def _relink(path: Path) -> None:
    path.unlink()
    path.symlink_to("there")


def _break_link(path: Path) -> None:
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content)


DAMAGE: dict[str, Callable[[Path], object]] = {
    "content, with size and time kept": lambda p: _same_time(p / "params.yaml", b"lr: 0.2\n"),
    "mode": lambda p: (p / ".env").chmod(0o644),
    "time": lambda p: _touch(p / "train.py"),
    "time of a folder": lambda p: _touch(p / "empty"),
    "deleted file": lambda p: (p / "zero").unlink(),
    "new file": lambda p: (p / "new").touch(),
    "empty folder gone": lambda p: (p / "empty" / "deeper").rmdir(),
    "link target": lambda p: _relink(p / "nowhere"),
    "hard link broken": lambda p: _break_link(p / "models" / "same.ckpt"),
    "staged change": lambda p: git(p, "add", "-A"),
    "stash": lambda p: git(p, "stash", "drop", "-q"),
    "tag": lambda p: git(p, "tag", "-d", "v1"),
    "lost object": lambda p: next(f for f in p.glob(".git/objects/??/*")).unlink(),
    "odd name": lambda p: os.unlink(os.path.join(os.fsencode(p), b"odd-\xff\n name")),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_every_damage_is_seen(kind: str, tmp_path: Path) -> None:
    """Each kind of damage gives a difference."""
    make_messy_project(tmp_path / "p")
    before = manifest(tmp_path / "p")
    DAMAGE[kind](tmp_path / "p")
    assert differences(before, manifest(tmp_path / "p"))


def test_what_is_left_out_is_no_difference(tmp_path: Path) -> None:
    """Caches and git objects that were added do not count."""
    make_messy_project(tmp_path / "p")
    (tmp_path / "p" / "src" / "__pycache__").mkdir()
    before = manifest(tmp_path / "p")
    (tmp_path / "p" / "src" / "__pycache__" / "x.pyc").touch()
    git(tmp_path / "p", "hash-object", "-w", "train.py", "params.yaml", "explore.ipynb")
    assert differences(before, manifest(tmp_path / "p")) == []
