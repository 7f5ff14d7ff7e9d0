"""A second process walks the far half: the same result, and nothing depends on it."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from driving import Project
from manifest import assert_back, manifest
from rollback import parallel, scout, walk
from rollback.folders import open_folder
from rollback.scout import far_half
from rollback.walk import Survey, Walker

NAMES = st.sampled_from([b"a", b"b", b"b!", b"c", b"\xff", b"a-"])
FOLDERS = st.lists(st.lists(NAMES, min_size=1, max_size=4).map(tuple), max_size=30)


def _with_parents(folders: list[tuple[bytes, ...]]) -> set[bytes]:
    return {b"/".join(path[:n]) for path in [*folders, ()] for n in range(len(path) + 1)}


def _below(path: bytes, top: bytes) -> bool:
    return path == top or path.startswith(top + b"/")


@given(folders=FOLDERS, weight=st.integers(1, 9))
def test_the_far_half_is_disjoint_and_a_little_less_than_half(
    folders: list[tuple[bytes, ...]], weight: int
) -> None:
    """What is left to the first process is its share, and what is sent never overlaps."""
    weights = dict.fromkeys(_with_parents(folders), weight * scout.WORTH_BYTES)
    far = far_half(weights)
    for path in far:
        assert sum(_below(path, top) for top in far) == 1
        assert path in weights
    sent = [path for path in weights if any(_below(path, top) for top in far)]
    assert len(sent) == len(weights) * (100 - scout.NEAR_PERCENT) // 100


def test_little_is_walked_alone() -> None:
    """A fork costs more than it saves."""
    assert far_half({b"": 100, b"a": 100, b"b": 100}) == []
    assert far_half({}) == []


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project of many folders, every walk of which is shared."""
    monkeypatch.setattr(scout, "WORTH_BYTES", 1)
    monkeypatch.setattr(walk, "cores", lambda: 2)
    made = Project(tmp_path.resolve())
    for top in "abcdef":
        for below in "123":
            folder = made.root / top / below
            folder.mkdir(parents=True)
            for number in range(4):
                (folder / f"{number}.txt").write_text(f"{top}{below}{number}")
    os.link(made.root / "a/1/0.txt", made.root / "f/3/same.txt")
    (made.root / "e/1/link").symlink_to("nowhere")
    time.sleep(0.05)  # what is younger than the clock's grain is read again by design
    made.snapshot()
    return made


@pytest.fixture
def surveys(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Survey | None]]:
    """What the scouts of a test came back with."""
    came: list[Survey | None] = []
    survey: Callable[[scout.Scout[Survey]], tuple[Survey | None, bool]] = scout.Scout.survey

    def noting(self: scout.Scout[Survey]) -> tuple[Survey | None, bool]:
        found, news = survey(self)
        if news:
            came.append(found)
        return found, news

    monkeypatch.setattr(scout.Scout, "survey", noting)
    yield came
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)  # every scout was waited for


def _damage(root: Path) -> None:
    for name in ("a/1/1.txt", "d/2/3.txt", "f/3/0.txt"):
        (root / name).write_text("spoilt")
    (root / "f/1/2.txt").unlink()
    shutil.rmtree(root / "e/2")
    (root / "f/new").mkdir()
    (root / "f/new/more").write_text("more")
    (root / "c/1/0.txt").chmod(0o600)


def test_what_both_halves_find_is_put_back(project: Project, surveys: list[Survey | None]) -> None:
    """Changes, new and missing folders, and hard links from one half to the other."""
    before = manifest(project.root)
    taken = project.snapshot().snapshot
    _damage(project.root)
    spoilt = manifest(project.root)
    project.rollback(taken)
    assert_back(before, manifest(project.root))
    project.undo()
    assert_back(spoilt, manifest(project.root))
    assert surveys
    assert all(found is not None and found.entered for found in surveys)


def test_what_did_not_change_is_known_by_both(
    project: Project, surveys: list[Survey | None]
) -> None:
    """The same tree, nothing read, nothing added."""
    first, second = project.snapshot(), project.snapshot()
    assert second.new_bytes == 0
    assert [s.data["tree"] for s in first.snapshot.states] == [
        s.data["tree"] for s in second.snapshot.states
    ]
    assert surveys[-1] is not None
    assert not surveys[-1].pending


def test_where_no_process_can_be_had_one_walks_all(
    project: Project, surveys: list[Survey | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A limit of processes stops nothing that one of them can do."""

    def refuse() -> int:
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    before = manifest(project.root)
    taken = project.snapshot().snapshot
    _damage(project.root)
    monkeypatch.setattr(os, "fork", refuse)
    project.rollback(taken)
    assert_back(before, manifest(project.root))
    assert surveys[-1] is None


@pytest.mark.parametrize("how", ["killed", "failed", "too much"])
def test_a_scout_that_does_not_come_back_is_not_missed(
    how: str, project: Project, surveys: list[Survey | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed for memory, stopped by an error, or with more than it can carry."""
    look = Walker._survey

    def lost(self: Walker, fd: int, paths: list[bytes]) -> Survey:
        if how == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if how == "failed":
            raise OSError(5, "an error of the disk")
        self.batch = 1
        return look(self, fd, paths)

    before = manifest(project.root)
    taken = project.snapshot().snapshot
    _damage(project.root)
    monkeypatch.setattr(Walker, "_survey", lost)
    surveys.clear()
    project.rollback(taken)
    assert None in surveys
    assert_back(before, manifest(project.root))


def test_a_walk_that_fails_leaves_no_scout_behind(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ended and waited for, whatever happened here."""
    children: list[int] = []
    start = parallel._start

    def noting(*words: object) -> tuple[int, int, int]:
        child = start(*words)  # type: ignore[arg-type]
        children.append(child[0])
        return child

    def failing(_self: Walker, _fd: int, _path: bytes) -> bytes:
        raise OSError(5, "an error of the disk")

    monkeypatch.setattr(parallel, "_start", noting)
    monkeypatch.setattr(Walker, "_walk", failing)
    with pytest.raises(Exception, match="error of the disk"):
        project.snapshot()
    assert children
    with pytest.raises(ChildProcessError):
        os.waitpid(children[0], 0)


def test_a_folder_that_was_shut_is_named_once(
    project: Project, surveys: list[Survey | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The scout says so, and nobody tries again."""

    def shut(parent: int, name: bytes) -> int:
        if name == b"f":
            raise PermissionError(13, "Permission denied")
        return open_folder(parent, name)

    monkeypatch.setattr(walk, "open_folder", shut)
    skipped = [skip.what for skip in project.snapshot().snapshot.skipped]
    assert surveys[-1] is not None
    assert b"f" in surveys[-1].entered
    assert skipped.count(str(project.root / "f")) == 1
