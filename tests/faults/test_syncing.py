"""The disk syncs while a rollback goes on: its failures count, and nobody waits for it in vain."""

from __future__ import annotations

import errno
import os
import threading
import time
from concurrent.futures import Future
from pathlib import Path

import pytest

from driving import Project
from manifest import assert_back, manifest
from rollback import build, durable, smallfiles
from rollback.errors import RestoreIncomplete, RollbackError
from small_disk import mounted

FILES = 40


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """Return a project after a bad run; its snapshot is the only one."""
    made = Project(tmp_path.resolve())
    for number in range(FILES):
        (made.root / f"f{number}").write_text("built")
    time.sleep(0.03)
    made.snapshot()
    for number in range(FILES):
        (made.root / f"f{number}").write_text("spoilt")
        os.link(made.root / f"f{number}", tmp_path / f"other{number}")  # it is copied, not linked
    return made


def _roll_back(project: Project) -> list[str]:
    """Put the snapshot back and return the states of all rollbacks, newest first."""
    with project.engine() as engine:
        taken = next(s for s in engine.snapshots() if s.kind != "undo")
    project.rollback(taken)
    return _states(project)


def _states(project: Project) -> list[str]:
    with project.engine() as engine:
        return [one.state for one in engine.operations() if one.kind == "rollback"]


def _contents(project: Project) -> set[str]:
    return {path.read_text() for path in project.root.iterdir()}


@pytest.mark.parametrize("failing", [1, 2])
def test_a_disk_that_fails_is_not_taken_for_done(
    project: Project, monkeypatch: pytest.MonkeyPatch, failing: int
) -> None:
    """Whether before the first file is put in place or after the last; the next try makes it."""
    calls = []

    def fail(_libc: object, _fd: int, path: bytes) -> None:
        calls.append(path)
        if len(calls) == failing:
            time.sleep(0.1)  # whatever goes on beside it has ended by now
            raise OSError(errno.EIO, os.strerror(errno.EIO), path)

    monkeypatch.setattr(durable, "_sync", fail)
    with pytest.raises(RestoreIncomplete, match="Input/output error"):
        _roll_back(project)
    assert _states(project) == ["applying"]
    assert _contents(project) == {"spoilt" if failing == 1 else "built"}
    assert _roll_back(project) == ["done", "interrupted"]
    assert _contents(project) == {"built"}


def test_a_disk_that_fails_while_more_is_added_is_told(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sync that comes later is not told of an error that an earlier one was told of."""
    for name in ("_BATCH", "_FIRST_BATCH", "_WORTH_A_SYNC"):
        monkeypatch.setattr(build, name, 5)
    real, begun = durable.sync_beside, []

    def fail_once(folders: list[bytes]) -> Future[None]:
        begun.append(folders)
        if len(begun) > 1:
            return real(folders)
        failed: Future[None] = Future()
        failed.set_exception(OSError(errno.EIO, os.strerror(errno.EIO)))
        return failed

    monkeypatch.setattr(build, "sync_beside", fail_once)
    with pytest.raises(RollbackError, match="Input/output error"):
        _roll_back(project)
    assert len(begun) == 1
    assert _contents(project) == {"spoilt"}
    _roll_back(project)
    assert len(begun) > 2
    assert _contents(project) == {"built"}


def test_where_no_thread_can_be_had_everything_waits(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A limit of processes counts threads, too."""

    def refuse(_self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    assert _roll_back(project) == ["done"]
    assert _contents(project) == {"built"}


@pytest.mark.timeout(30)
@pytest.mark.filterwarnings("default::DeprecationWarning")
def test_processes_are_forked_while_it_syncs(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """None of them inherits a lock that its parent's thread holds."""
    monkeypatch.setattr(smallfiles, "FORK_FILES", 1)
    monkeypatch.setattr(build, "FORK_FILES", 1)
    monkeypatch.setattr(smallfiles, "cores", lambda: 2)
    forks: list[bool] = []
    fork = os.fork

    def note() -> int:
        forks.append(threading.active_count() > 1)
        return fork()

    monkeypatch.setattr(os, "fork", note)
    before = manifest(project.root)
    monkeypatch.setattr(durable, "_sync", lambda *_: time.sleep(0.3))
    assert _roll_back(project) == ["done"]
    assert any(forks)
    project.undo()
    assert_back(before, manifest(project.root))


@pytest.mark.parametrize("act", ["remove", "shut", "create"])
def test_what_is_mounted_in_the_project_is_synced_whatever_was_done_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, act: str
) -> None:
    """A file that went comes again with a power cut, unless that is durable."""
    project = Project(tmp_path.resolve())
    with mounted(project.root / "data", 8) as data:
        (data / "kept").write_text("kept")
        time.sleep(0.03)
        project.snapshot()
        if act == "remove":
            (data / "new").write_text("new")
        elif act == "shut":
            (data / "kept").chmod(0o600)
        else:
            (data / "kept").unlink()
        synced: set[int] = set()
        monkeypatch.setattr(durable, "_sync", lambda _, fd, __: synced.add(os.fstat(fd).st_dev))
        assert _roll_back(project) == ["done"]
        assert data.stat().st_dev in synced
