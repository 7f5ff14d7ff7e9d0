"""Two guards at once, owners that died, a clock that goes back, and an editor in between."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from driving import Project
from manifest import assert_back, manifest
from rollback import atomic, restore, smallfiles
from rollback.errors import RestoreIncomplete, RollbackError, StoreBusy
from rollback.listing import Listing
from rollback.model import Operation
from rollback.reading import Kept, SmallJobs, keep_small
from rollback.rebuilding import rebuild_catalog
from rollback.reports import Selection
from rollback.walk import Walker


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A small project."""
    made = Project(tmp_path.resolve())
    (made.root / "file").write_text("before")
    return made


def _hold(project: Project) -> int:
    """Let a child begin an operation and stay in it; return its pid once it has the lock."""
    ready, done = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            engine = project.engine()
            engine.begin("run", {"command": ["python", "train.py"]})
            os.write(done, b"x")
            time.sleep(60)
        finally:
            os._exit(1)
    os.close(done)
    assert os.read(ready, 1) == b"x"
    os.close(ready)
    return pid


def test_a_second_guard_is_told_who_is_at_work(project: Project) -> None:
    """The message names the pid; nothing is waited for."""
    pid = _hold(project)
    try:
        started = time.monotonic()
        with pytest.raises(StoreBusy, match=f"pid {pid}"):
            project.snapshot()
        assert time.monotonic() - started < 2
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def test_a_killed_owner_never_blocks(project: Project) -> None:
    """The kernel gives the lock back; what died is told and ended."""
    pid = _hold(project)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    with project.engine() as engine:
        assert [op.state for op in engine.status().unfinished] == ["running"]
    assert len(project.recover()) == 1
    project.snapshot()
    with project.engine() as engine:
        assert not engine.status().unfinished


@pytest.mark.parametrize(
    "text", [b"", b"not json", b"[]", b'{"pid": "x"}', b'{"pid": 1}', b"\xff" * 600, b"null"]
)
def test_what_the_lock_file_says_is_never_believed(project: Project, text: bytes) -> None:
    """A fake owner blocks nobody, and a real one is named as far as it can be."""
    project.snapshot()
    locks = list(project.store.glob("lock*"))
    assert len(locks) == 2
    for lock in locks:
        lock.write_bytes(text)
    project.snapshot()
    pid = _hold(project)
    try:
        for lock in locks:
            lock.write_bytes(text)
        with pytest.raises(StoreBusy):
            project.snapshot()
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def test_a_reused_pid_is_not_taken_for_the_owner(project: Project) -> None:
    """An operation whose pid runs something else now is dead all the same."""
    with project.engine() as engine:
        operation = engine.begin("run", {})
        other = {**operation.data["owner"], "start": 1}
        engine.update(operation, {"owner": other})
        engine.store.lock.release()
    with project.engine() as engine:
        assert len(engine.status().unfinished) == 1


def test_two_stores_made_at_once(project: Project) -> None:
    """Processes that make the same store together all get it, or are told that it is busy."""
    children = []
    for _ in range(6):
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                project.snapshot()
                code = 0
            except StoreBusy:
                code = 0
            except BaseException as error:  # noqa: BLE001 - told by its number
                os.write(2, f"{error!r}\n".encode())
            finally:
                os._exit(code)
        children.append(pid)
    assert [os.waitpid(pid, 0)[1] for pid in children] == [0] * 6
    project.snapshot()


def test_the_children_of_a_killed_guard_hold_nothing(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Workers die with the process that started them: neither lock nor files are theirs."""
    from faults.states import _few_files_fork  # noqa: PLC0415 - patches this test's engine only
    from rollback import build  # noqa: PLC0415

    monkeypatch.setattr(build, "FORK_FILES", build.FORK_FILES)
    monkeypatch.setattr(smallfiles, "FORK_FILES", smallfiles.FORK_FILES)
    _few_files_fork()
    for number in range(12):
        (project.root / f"f{number}").write_text("x" * number)
    pid = os.fork()
    if pid == 0:
        from rollback import failpoints  # noqa: PLC0415

        failpoints._armed = [failpoints._Armed("worker.start:sleep")]
        try:
            project.snapshot()
        finally:
            os._exit(0)
    deadline = time.monotonic() + 20
    while not _children(pid):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    time.sleep(0.2)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    time.sleep(0.2)
    project.recover()
    project.snapshot()


def test_the_workers_of_a_killed_owner_are_waited_for(project: Project) -> None:
    """The kernel ends them a moment after it; until then they have its lock."""
    ready, done = os.pipe()
    pid = os.fork()
    if pid == 0:
        engine = project.engine()
        engine.begin("run", {"command": ["python", "train.py"]})
        if os.fork() == 0:
            os.write(done, b"x")
            time.sleep(0.4)
        os._exit(0)
    os.close(done)
    assert os.read(ready, 1) == b"x"
    os.close(ready)
    os.waitpid(pid, 0)
    project.recover()


@pytest.fixture
def other(project: Project) -> Project:
    """A project that shares the store of the first one."""
    made = Project(project.base, b"other")
    (made.root / "file").write_text("other")
    return made


def _churn(project: Project) -> None:
    """Let a project do all that it can in a store: write, restore, prune, pack anew."""
    taken = project.snapshot().snapshot
    for number in range(3):
        (project.root / "file").write_text(f"{number}" * 5_000)
        project.snapshot()
    project.rollback(taken)
    project.undo()
    with project.engine() as engine:
        engine.prune(keep_last=1)
        assert engine.verify(repair=False).ok


def test_a_run_of_another_project_is_no_obstacle_while_its_command_runs(
    project: Project, other: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it needs stays, is found where it is by then, and comes back byte for byte."""
    (project.root / "more").write_text("x" * 3_000)
    before = manifest(project.root)
    other.snapshot()
    with project.engine() as engine:
        operation = engine.begin("run", {})
        report = engine.snapshot(operation, kind="run", label="")
        engine.drill(report.snapshot, mode="full")
        assert _open_packs(project)
        with engine.parked():
            assert not _open_packs(project)
            (project.root / "file").write_text("the run's")
            (project.root / "more").unlink()
            engine.update(operation, {"phase": "run"})
            _churn(other)
            engine.update(operation, {"phase": "ended"})
        assert engine.store.lock.held
        with monkeypatch.context() as patch:
            _hurry(patch)
            with pytest.raises(StoreBusy):
                other.snapshot()
        assert {change.path for change in engine.diff(report.snapshot, None).changes}
        engine.restore(engine.plan(report.snapshot, Selection()))
        assert_back(before, manifest(project.root))
        engine.finish(operation, "done", {})
        assert not engine.store.lock.held
    _churn(other)
    with project.engine() as engine:
        assert engine.verify(repair=True).ok


def test_a_run_keeps_its_own_project_while_its_command_runs(project: Project) -> None:
    """Nothing else of the same project begins, and that is said at once."""
    with project.engine() as engine:
        operation = engine.begin("run", {})
        taken = engine.snapshot(operation, kind="run", label="").snapshot
        with engine.parked():
            started = time.monotonic()
            with pytest.raises(StoreBusy, match=f"pid {os.getpid()}"):
                project.snapshot()
            with pytest.raises(StoreBusy), project.engine() as second:
                second.prune(keep_last=1)
            with pytest.raises(StoreBusy):
                project.rollback(taken)
            assert time.monotonic() - started < 2
        engine.finish(operation, "done", {})
    project.snapshot()


def test_a_repair_waits_for_no_run_and_goes_below_none(project: Project, other: Project) -> None:
    """A catalog that is made again is another file: no run may have the old one open."""
    other.snapshot()
    with project.engine() as engine:
        operation = engine.begin("run", {})
        with engine.parked():
            with pytest.raises(StoreBusy, match=f"pid {os.getpid()}"):
                other.repair()
            with pytest.raises(StoreBusy, match=f"pid {os.getpid()}"):
                rebuild_catalog(project.store)
            other.snapshot()
        engine.finish(operation, "done", {})
    assert other.repair()[0].ok
    rebuild_catalog(project.store)
    other.snapshot()
    project.snapshot()


def test_an_operation_waits_a_little_for_one_of_another_project(
    project: Project, other: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It writes for moments mostly; where it takes longer, it is named."""
    project.snapshot()
    with project.engine() as engine:
        operation = engine.begin("snapshot", {})
        _hurry(monkeypatch)
        with pytest.raises(StoreBusy, match=f"pid {os.getpid()}"):
            other.snapshot()
        monkeypatch.undo()
        later = threading.Timer(0.3, engine.store.lock.release)
        later.start()
        other.snapshot()
        later.join()
        engine.finish(operation, "done", {})


def test_a_run_ends_though_another_project_does_not_give_the_store_back(
    project: Project, other: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its line in the log is closed; what would write is refused, and works afterwards."""
    before = manifest(project.root)
    _hurry(monkeypatch)
    with project.engine() as engine, other.engine() as stubborn:
        operation = engine.begin("run", {})
        taken = engine.snapshot(operation, kind="run", label="").snapshot
        with engine.parked():
            (project.root / "file").write_text("the run's")
            stubborn.begin("drill", {})
        assert not engine.store.lock.held
        with pytest.raises(StoreBusy):
            engine.restore(engine.plan(taken, Selection()))
        with pytest.raises(StoreBusy):
            engine.prune(keep_last=1)
        engine.finish(operation, "failed", {})
        assert [o.kind for o in stubborn.store.at_work()] == ["drill"]
        assert stubborn.store.lock.held
    project.rollback(taken)
    assert_back(before, manifest(project.root))


def test_what_a_run_left_that_was_killed_while_parked_stays_until_it_is_found(
    project: Project, other: Project
) -> None:
    """Another project goes on beside it, and the way back is there."""
    before = manifest(project.root)
    pid = os.fork()
    if pid == 0:
        try:
            engine = project.engine()
            operation = engine.begin("run", {})
            engine.snapshot(operation, kind="run", label="")
            with engine.parked():
                (project.root / "file").write_text("the run's")
                os.kill(os.getpid(), signal.SIGKILL)
        finally:
            os._exit(1)
    os.waitpid(pid, 0)
    _churn(other)
    assert [o.kind for o in _unfinished(project)] == ["run"]
    assert len(project.recover()) == 1
    with project.engine() as engine:
        taken = engine.find_snapshot(str(engine.last_run().data["snapshot_id"]))
    project.rollback(taken)
    assert_back(before, manifest(project.root))


def _open_packs(project: Project) -> list[str]:
    """Return the packs that this process has open."""
    packs = str(project.store / "packs")
    links = (Path(entry) for entry in os.scandir("/proc/self/fd"))
    return [str(link) for link in links if os.path.realpath(link).startswith(packs)]


def _unfinished(project: Project) -> list[Operation]:
    with project.engine() as engine:
        return list(engine.status().unfinished)


def _hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nobody wait long for the store."""
    monkeypatch.setattr("rollback.lock._OTHERS_S", 0.05)
    monkeypatch.setattr("rollback.lock._BACK_S", 0.05)


def _children(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


def test_the_order_is_that_of_the_log_not_of_the_clock(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the clock set back a day, the newest snapshot is still the newest."""
    first = project.snapshot().snapshot
    (project.root / "file").write_text("second")
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() - 86_400)
    wanted = manifest(project.root)
    second = project.snapshot().snapshot
    assert second.seq > first.seq
    with project.engine() as engine:
        assert engine.find_snapshot("last").id == second.id
        assert engine.prune(keep_last=1).kept[0][0].id == second.id
    (project.root / "file").write_text("third")
    project.rollback(second)
    assert_back(wanted, manifest(project.root))


@pytest.mark.parametrize("how", ["in place", "renamed over"])
def test_what_an_editor_saves_during_a_rollback_is_not_lost(
    project: Project, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """A file that changes after it was kept for the undo is kept aside, and named."""
    taken = project.snapshot().snapshot
    (project.root / "file").write_text("the run's")

    def save() -> None:
        if how == "in place":
            (project.root / "file").write_text("just saved by an editor")
        else:
            (project.root / "new").write_text("just saved by an editor")
            (project.root / "new").rename(project.root / "file")

    todo: list[Callable[[], None]] = [save]

    def reached(name: str) -> None:
        if name == "restore.replace" and todo:
            todo.pop()()

    monkeypatch.setattr(atomic, "reach", reached)
    outcome = project.rollback(taken)
    assert (project.root / "file").read_text() == "before"
    assert len(outcome.kept_aside) == 1
    found = json.loads(json.dumps(outcome.kept_aside[0]))
    assert "file" in found
    kept = [p for p in project.store.rglob("*") if p.is_file() and not p.is_symlink()]
    assert any(p.read_bytes() == b"just saved by an editor" for p in kept)


def _append_at_each_reading(path: Path, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    """Let a file grow whenever guard has read a part of it."""
    read = os.read

    def growing(fd: int, most: int) -> bytes:
        content = read(fd, most)
        if os.readlink(f"/proc/self/fd/{fd}") == str(path):
            with path.open("ab") as file:
                file.write(b"x" * size)
        return content

    monkeypatch.setattr(os, "read", growing)


def test_a_file_that_grows_as_fast_as_it_is_read_ends_the_reading(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it held at one moment is kept, with the size that it had then, and that is said."""
    log = project.root / "log"
    log.write_bytes(b"first line\n")
    with monkeypatch.context() as patch:
        _append_at_each_reading(log, patch, 1_000)
        report = project.snapshot()
    assert str(log) in [skip.what for skip in report.snapshot.skipped]
    grown = log.read_bytes()
    log.unlink()
    project.rollback(report.snapshot)
    kept = log.read_bytes()
    assert kept == grown[: len(kept)]
    assert kept.startswith(b"first line\n")


def test_a_file_that_was_small_when_the_walk_saw_it_does_not_fill_the_memory(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A checkpoint that is being written is copied piece by piece, however large it is by now."""
    model = project.root / "model.bin"
    model.write_bytes(b"begun")
    whole = os.urandom(1 << 20) * 20

    def late(jobs: SmallJobs) -> tuple[list[tuple[str, int]], list[Kept]]:
        model.write_bytes(whole)
        return keep_small(jobs)

    with monkeypatch.context() as patch:
        patch.setattr("rollback.smallfiles.keep_small", late)
        taken = project.snapshot().snapshot
    loose = [path for path in (project.store / "loose").rglob("*") if path.is_file()]
    assert [path.stat().st_size for path in loose] == [len(whole)]
    model.unlink()
    project.rollback(taken)
    assert model.read_bytes() == whole


def test_what_an_editor_writes_during_a_rollback_is_counted_after_one_sentence(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first path with what is wrong about it, then how many more."""
    names = [project.root / "one", project.root / "two"]
    for path in names:
        path.write_text("before")
    taken = project.snapshot().snapshot
    for path in names:
        path.write_text("after, longer")

    def edit(place: str) -> None:
        if place == "restore.verify":
            for path in names:
                path.write_text("edited during the rollback")

    monkeypatch.setattr(restore, "reach", edit)
    said = r"after the rollback \S+ differs from the snapshot \(and \d+ more\)$"
    with pytest.raises(RestoreIncomplete, match=said):
        project.rollback(taken)


def _make_file(path: Path) -> None:
    path.write_bytes(b"half a checkpoint")


def _make_large_file(path: Path) -> None:
    path.write_bytes(os.urandom(3 << 20))


def _make_link(path: Path) -> None:
    path.symlink_to("nowhere")


def _make_folder(path: Path) -> None:
    path.mkdir()
    (path / "part").write_bytes(b"1")


@pytest.mark.parametrize("make", [_make_file, _make_large_file, _make_link, _make_folder])
def test_what_goes_while_a_snapshot_is_taken_is_no_part_of_it(
    project: Project, monkeypatch: pytest.MonkeyPatch, make: Callable[[Path], None]
) -> None:
    """As of a temporary file that gets its final name: a rollback does not miss it."""
    victim, away = project.root / "epoch.tmp", project.base / "away"
    make(victim)
    (project.root / "steady").write_text("before")
    look = Walker._list

    def leave(walker: Walker, fd: int, path: bytes) -> Listing:
        listing = look(walker, fd, path)
        if path == b"" and victim.is_symlink() | victim.exists():
            victim.rename(away)
        return listing

    with monkeypatch.context() as patch:
        patch.setattr(Walker, "_list", leave)
        report = project.snapshot()
    before = manifest(project.root)
    told = {skip.what: skip.fix for skip in report.snapshot.skipped}
    assert told[str(victim)] == "snapshot again when nothing writes to it"
    (project.root / "steady").write_text("spoilt")
    outcome = project.rollback(report.snapshot)
    assert outcome.skipped == ()
    assert_back(before, manifest(project.root))

    away.rename(victim)
    before, second = manifest(project.root), project.snapshot().snapshot
    victim.rename(away)
    project.rollback(second)
    assert_back(before, manifest(project.root))


def test_a_file_that_is_written_all_the_time_is_said(project: Project) -> None:
    """A training run writes its log during the snapshot: taken, and named as unsteady."""
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        number = 0
        while os.getppid() == parent:
            number += 1
            with (project.root / "log").open("a") as file:
                file.write(f"{number}\n" * 50)
    try:
        while not (project.root / "log").exists():
            time.sleep(0.01)
        for _ in range(5):
            report = project.snapshot()
            assert report.snapshot.states
    except RollbackError as error:
        pytest.fail(f"a writer stopped the snapshot: {error}")
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
