"""Looking at a root: what is left out, what is read again, and what stops it."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from driving import Project
from manifest import assert_back, manifest
from rollback import walk
from rollback.engine import Engine
from rollback.errors import RollbackError
from rollback.inventory import EngineSettings, compile_patterns


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A project with a file."""
    made = Project(tmp_path.resolve())
    (made.root / "file").write_text("before")
    return made


def test_an_edit_in_the_same_tick_with_its_time_put_back_is_seen(project: Project) -> None:
    """Racily clean, as git calls it: same size, same mtime, written right after the snapshot."""
    for number in range(20):
        text = f"{number:06}"
        (project.root / "file").write_text(text)
        info = (project.root / "file").stat()
        before = manifest(project.root)
        taken = project.snapshot().snapshot
        (project.root / "file").write_text(text[::-1][:6].replace("0", "x"))
        os.utime(project.root / "file", ns=(info.st_atime_ns, info.st_mtime_ns))
        project.rollback(taken)
        assert_back(before, manifest(project.root))


def test_caches_are_left_out_and_kept(project: Project) -> None:
    """Neither captured nor removed, wherever they lie."""
    (project.root / "__pycache__").mkdir()
    (project.root / "__pycache__/x.pyc").write_text("1")
    taken = project.snapshot().snapshot
    (project.root / "__pycache__/x.pyc").write_text("2")
    (project.root / "file").write_text("after")
    project.rollback(taken)
    assert (project.root / "__pycache__/x.pyc").read_text() == "2"
    assert (project.root / "file").read_text() == "before"


def test_excluded_paths_are_never_touched(project: Project) -> None:
    """By pattern, a folder with all that is in it."""
    (project.root / "scratch").mkdir()
    (project.root / "scratch/file").write_text("1")
    (project.root / "a.tmp").write_text("1")
    settings = EngineSettings(project.root, store=project.store, exclude=("scratch/", "*.tmp"))
    with Engine(settings) as engine:
        operation = engine.begin("snapshot", {})
        taken = engine.snapshot(operation, kind="manual", label="").snapshot
        engine.finish(operation, "done", {})
    (project.root / "scratch/file").write_text("2")
    (project.root / "scratch/new").write_text("2")
    (project.root / "a.tmp").write_text("2")
    project.rollback(taken)
    assert (project.root / "scratch/file").read_text() == "2"
    assert (project.root / "scratch/new").exists()
    assert (project.root / "a.tmp").read_text() == "2"


@pytest.mark.parametrize(
    ("pattern", "yes", "no"),
    [
        ("scratch/", b"scratch", b"my/scratchy"),
        ("scratch/", b"deep/scratch/file", b"scratch2"),
        ("/out", b"out/x", b"a/out"),
        ("a/*.bin", b"a/x.bin", b"a/b/x.bin"),
        ("*.ckpt", b"m/x.ckpt", b"x.ckpt.txt"),
        ("[ab]", b"x/a", b"x/c"),
        ("data\xff", "data\xff".encode(), b"data"),
    ],
)
def test_patterns(pattern: str, yes: bytes, no: bytes) -> None:
    """Anchored with a slash inside, at any depth without."""
    matches = compile_patterns([pattern])
    assert matches is not None
    assert matches(yes)
    assert not matches(no)


def test_a_fifo_without_a_writer_does_not_hang(project: Project) -> None:
    """It is never opened for reading, and made again."""
    os.mkfifo(project.root / "pipe", 0o640)
    before = manifest(project.root)
    taken = project.snapshot().snapshot
    (project.root / "pipe").unlink()
    project.rollback(taken)
    assert_back(before, manifest(project.root))


@pytest.mark.parametrize("number", [errno.EMFILE, errno.EIO, errno.ENOMEM])
def test_a_failure_of_the_system_is_no_unreadable_folder(
    project: Project, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """A folder that could not be opened for want of handles must not pass as not protected."""
    (project.root / "sub").mkdir()

    def failing(parent: int, name: bytes) -> int:
        raise OSError(number, os.strerror(number), name)

    monkeypatch.setattr(walk, "open_folder", failing)
    with pytest.raises(RollbackError):
        project.snapshot()


def test_times_far_from_now_are_kept_and_not_read_again(project: Project) -> None:
    """Before 1970 and after 2038."""
    for number, time_ns in enumerate((-1, -2_000_000_001, 4_102_444_800_000_000_007, 0)):
        path = project.root / f"f{number}"
        path.write_text("x")
        os.utime(path, ns=(time_ns, time_ns))
    before = manifest(project.root)
    taken = project.snapshot().snapshot
    for number in range(4):
        (project.root / f"f{number}").unlink()
    project.rollback(taken)
    assert_back(before, manifest(project.root))
