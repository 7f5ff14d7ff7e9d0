"""Little room: what fits is kept, what does not is named, and nobody's disk is filled."""

from __future__ import annotations

import os
import threading
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from driving import Project, scratch_project
from faults.unkept import unkept_files
from manifest import assert_back, differences, manifest
from rollback import failpoints
from rollback.errors import NoSpace
from rollback.reports import DrillReport
from rollback.room import Room
from rollback.snapshots import SnapshotTaker
from small_disk import mounted

_MIB = 1 << 20


def _fill(root: Path, files: int, size: int, folders: int = 20, step: int = 1) -> None:
    for number in range(0, files, step):
        folder = root / f"d{number % folders}"
        folder.mkdir(exist_ok=True)
        (folder / f"f{number}").write_bytes(os.urandom(size))


@contextmanager
def _least_free(place: Path) -> Iterator[list[int]]:
    """Watch a disk; the list has what was free at the worst moment."""
    least = [os.statvfs(place).f_bavail * os.statvfs(place).f_frsize]
    done = threading.Event()

    def look() -> None:
        while not done.wait(0.0005):
            fs = os.statvfs(place)
            least[0] = min(least[0], fs.f_bavail * fs.f_frsize)

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        yield least
    finally:
        done.set()
        watcher.join()


def _drill(project: Project, mode: str = "auto") -> DrillReport:
    with project.engine() as engine:
        return engine.drill(engine.find_snapshot("last"), mode=mode)


@pytest.mark.parametrize(("files", "size"), [(4_800, 4_096), (48, 500_000), (12, 2_000_000)])
def test_a_project_of_two_fifths_of_the_disk(tmp_path: Path, files: int, size: int) -> None:
    """The snapshot fits; the rehearsal has no room for all of it, takes a part, and says so."""
    with mounted(tmp_path / "disk", 60) as disk:
        project = Project(disk)
        _fill(project.root, files, size)
        before = manifest(project.root)
        taken = project.snapshot().snapshot
        assert not [skip for skip in taken.skipped if "space" in skip.why]
        for mode in ("auto", "full", "sample"):
            with _least_free(disk) as least:
                report = _drill(project, mode)
            assert report.passed, report.failures
            assert report.mode == "sample"
            assert report.bound_s > 0
            assert least[0] > 2 * _MIB, "the rehearsal filled the disk"
            told = any("space" in skip.why for skip in report.skips)
            assert told or mode == "sample", report.skips
        (project.root / "d1" / "f1").unlink()
        project.rollback(taken)
        assert_back(before, manifest(project.root))


@pytest.mark.parametrize(("files", "size", "disk_mib"), [(2_000, 20_000, 20), (24_000, 1_500, 30)])
def test_what_the_stores_disk_cannot_take_is_named(
    tmp_path: Path, files: int, size: int, disk_mib: int
) -> None:
    """More small files than the store's disk has room for: the snapshot is there without some."""
    with mounted(tmp_path / "disk", disk_mib) as disk, scratch_project() as project:
        project.store = disk / "store"
        _fill(project.root, files, size)
        for _ in range(2):
            taken = project.snapshot().snapshot
            assert any("not enough space" in skip.why for skip in taken.skipped)
            tree = next(state for state in taken.states if state.resource == "files")
            assert tree.files > files // 4


@pytest.mark.parametrize(
    ("files", "size", "left", "folders"),
    [
        (4_800, 100, 450, 20),
        (4_800, 100, 450, 400),
        (4_800, 100, 1_000, 400),
        (4_800, 1_000, 2_500, 400),
        (4_800, 4_000, 5_000, 20),
    ],
)
def test_many_small_files_on_a_disk_that_is_nearly_full(
    tmp_path: Path, files: int, size: int, left: int, folders: int
) -> None:
    """Neither a snapshot nor a rollback is blocked, time after time; what did not fit is named."""
    with mounted(tmp_path / "disk", 40) as disk, scratch_project() as project:
        project.store = disk / "store"
        fs = os.statvfs(disk)
        (disk / "filler").write_bytes(bytes((fs.f_bavail - left) * fs.f_frsize))
        for turn in range(3):
            _fill(project.root, files, size, folders, step=1 + turn)
            before = manifest(project.root)
            taken = project.snapshot().snapshot
            (project.root / "d0" / "f0").unlink()
            named = {skip.what for skip in project.rollback(taken).skipped}
            assert named <= {str(project.root / "d0" / "f0")}
            differing = set(differences(before, manifest(project.root)))
            assert len(differing) == len(named), differing
        with project.engine() as engine:
            assert engine.verify(repair=False).ok


def test_a_quota_that_the_disk_does_not_tell_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That of a user shows when it is reached (EDQUOT): what fits is kept, the rest named."""
    with mounted(tmp_path / "disk", 56) as disk, scratch_project() as project:
        project.store = disk / "store"
        monkeypatch.setattr("rollback.store.reserve.Reserve.free", lambda _: 1 << 40)
        for number in range(8):
            (project.root / f"{number}.ckpt").write_bytes(bytes([number]) * (8 << 20))
            (project.root / f"{number}.txt").write_text(f"{number}")
        before = manifest(project.root)
        report = project.snapshot()
        with project.engine() as engine:
            unkept = set(unkept_files(engine))
        assert 0 < len(unkept) < 8
        assert all(path.endswith(b".ckpt") for path in unkept)
        for path in project.root.iterdir():
            path.write_text("spoilt")
        named = {skip.what for skip in project.rollback(report.snapshot).skipped}
        assert named == {str(project.root / os.fsdecode(path)) for path in unkept}
        now = manifest(project.root)
        for name in unkept:
            del before[name], now[name]
        assert_back(before, now)


@pytest.mark.parametrize(("offered", "tries"), [(0, 3), (1 << 20, 7), (1 << 40, 27)])
def test_a_full_disk_is_not_tried_again_and_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, offered: int, tries: int
) -> None:
    """Each try walks the whole project: where the disk says that it has nothing, two are enough."""
    made: list[int] = []

    def fail(taker: SnapshotTaker, *_: object, **__: object) -> None:
        made.append(taker.most)
        taker.room = Room(taker.store, 1 << 50, taker.writer)
        taker.room.upkeep, taker.room.asked, taker.room.offered = 1, 1 << 40, offered
        raise NoSpace("there is none", hint="free some")

    monkeypatch.setattr(SnapshotTaker, "take", fail)
    with pytest.raises(NoSpace):
        Project(tmp_path.resolve()).snapshot()
    assert len(made) == tries
    assert made[-1] == 0


def test_a_disk_that_others_fill_during_the_rehearsal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There was room when it began, and then there is none: that is said, and stops nothing."""
    project = Project(tmp_path)
    _fill(project.root, 12, 5_000)
    project.snapshot()
    for armed in ("stage.file:enospc@7", "drill.build:enospc"):
        with monkeypatch.context() as patch:
            patch.setattr(failpoints, "_armed", failpoints._arm(armed))
            report = _drill(project, "full")
        assert report.passed, report.failures
        assert report.mode == "sample"
        assert any("became full" in skip.why for skip in report.skips), report.skips
        assert not list((project.store / "work").glob("drill-*"))
    assert _drill(project, "full").mode == "full"


def test_a_catalog_that_finds_no_room_is_counted_before_the_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was found too late the first time is known the second time; on a full disk it ends."""
    project = Project(tmp_path)
    _fill(project.root, 12, 5_000)
    before = manifest(project.root)
    monkeypatch.setattr(failpoints, "_armed", failpoints._arm("snapshot.commit:enospc"))
    taken = project.snapshot().snapshot
    monkeypatch.setattr(failpoints, "_armed", failpoints._arm("snapshot.commit:enospc+"))
    with pytest.raises(NoSpace):
        project.snapshot()
    monkeypatch.setattr(failpoints, "_armed", [])
    (project.root / "d1" / "f1").unlink()
    project.rollback(taken)
    assert_back(before, manifest(project.root))
    with project.engine() as engine:
        assert engine.verify(repair=False).ok


def test_an_environment_that_could_not_be_kept_whole_stops_nothing(tmp_path: Path) -> None:
    """Its copy does not work, which says nothing of the environment."""
    project = Project(tmp_path)
    venv.create(project.root / ".venv", symlinks=True)
    project.max_store_bytes = 1
    taken = project.snapshot().snapshot
    assert any("pyvenv.cfg" in skip.what for skip in taken.skipped)
    report = _drill(project, "full")
    assert report.passed, report.failures


def test_what_was_not_kept_is_no_difference(tmp_path: Path) -> None:
    """Neither to the present nor to a snapshot that has it, unless it looks different."""
    project = Project(tmp_path)
    (project.root / "big").write_bytes(os.urandom(2 * _MIB))
    (project.root / "other").write_bytes(os.urandom(2 * _MIB))
    project.max_store_bytes = _MIB
    taken = project.snapshot().snapshot
    assert len([skip for skip in taken.skipped if "not enough space" in skip.why]) == 2
    with (project.root / "other").open("ab") as file:
        file.write(b"more")
    project.max_store_bytes = 100 * _MIB
    later = project.snapshot().snapshot
    with project.engine() as engine:
        for new in (None, later):
            found = {(c.path, c.action) for c in engine.diff(taken, new).changes}
            assert found == {("other", "modified")}
