"""Pruning forgets all that the store knew of what goes, and nothing else."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from driving import Project
from faults.states import STATES, project_in
from manifest import assert_back, manifest
from rollback import atomic, capture
from rollback.reports import SnapshotReport
from rollback.store.codec import inode_id
from rollback.walk import Walker

STATE = next(state for state in STATES if state.name == "git repository")


@pytest.fixture
def project() -> Iterator[Project]:
    """A repository, whose objects are kept by their inodes."""
    with project_in(STATE) as made:
        STATE.make(made)
        yield made


def _digests(project: Project) -> dict[bytes, bytes]:
    with project.engine() as engine:
        rows = engine.store.catalog.db.execute("SELECT id, sha256 FROM digest").fetchall()
    return {bytes(blob): bytes(digest) for blob, digest in rows}


def _verify(project: Project) -> None:
    with project.engine() as engine:
        report = engine.verify(repair=True)
    assert report.ok, report.damage


def _prune_to_newest(project: Project) -> None:
    with project.engine() as engine:
        engine.prune(keep_last=1)


def test_what_would_go_is_told_while_another_operation_is_at_work(project: Project) -> None:
    """A dry run only looks: it takes no lock, and nothing is gone after it."""
    for _ in range(3):
        project.snapshot()
    with project.engine() as busy, project.engine() as engine:
        busy.begin("run", {})
        assert len(engine.prune(keep_last=1, dry_run=True).removed) == 2
        assert busy.store.lock.held
        assert len(engine.snapshots()) == 3


def test_the_digest_of_a_linked_file_goes_with_it(project: Project) -> None:
    """What stays is still known; what went could be another file's with the same inode."""
    project.snapshot()
    _verify(project)
    before = _digests(project)
    gone = next((project.root / ".git" / "objects").glob("??/*"))
    identity = inode_id(os.lstat(gone))
    assert identity in before
    gone.unlink()
    project.snapshot()
    _prune_to_newest(project)
    after = _digests(project)
    assert set(before) - set(after) == {identity}


def test_an_inode_that_is_given_out_again_is_no_damage(project: Project) -> None:
    """Same inode, size and time, other content: `verify` believes what it reads now."""
    objects = project.root / ".git" / "objects"
    project.snapshot()
    _verify(project)
    path = next(objects.glob("??/*"))
    info = path.stat()
    held = project.base / "held"  # for no test can ask for a certain inode
    os.link(path, held)
    path.unlink()
    project.snapshot()
    _prune_to_newest(project)
    held.chmod(0o644)
    # The same object for git, in other bytes: a zlib stream notes its level, and nobody reads that.
    level = b"\x78\x9c" if held.read_bytes()[:2] == b"\x78\x01" else b"\x78\x01"
    held.write_bytes(level + held.read_bytes()[2:])
    os.utime(held, ns=(info.st_atime_ns, info.st_mtime_ns))
    held.rename(path)
    assert inode_id(path.stat()) == inode_id(info)
    project.snapshot()
    _verify(project)


@pytest.fixture
def tight(tmp_path: Path) -> Project:
    """A project whose store has room for two states and a little more."""
    made = Project(tmp_path)
    made.max_store_bytes = 1_500_000
    return made


def _rewrite(project: Project, files: int, size: int) -> None:
    for number in range(files):
        (project.root / f"f{number}").write_bytes(os.urandom(size))
    time.sleep(0.03)  # what is younger than the clock's grain is read again, and room made for it


def _left_out(report: SnapshotReport) -> list[str]:
    return [Path(skip.what).name for skip in report.snapshot.skipped if "quota" in skip.why]


@pytest.mark.parametrize("batch", [20_000, 2])
@pytest.mark.parametrize(("files", "size"), [(2, 300_000), (5, 120_000), (100, 5_000)])
def test_a_full_quota_makes_room_for_the_present(
    tight: Project, monkeypatch: pytest.MonkeyPatch, files: int, size: int, batch: int
) -> None:
    """Old snapshots go, as few as will do and the oldest first; nothing new is left out."""
    monkeypatch.setattr(capture, "Walker", partial(Walker, batch=batch))
    gone: list[int] = []
    for number in range(1, 5):
        _rewrite(tight, files, size)
        before = manifest(tight.root)
        report = tight.snapshot()
        assert not _left_out(report)
        removed = [snapshot.seq for snapshot in report.removed]
        assert len(removed) <= 2, "more went than a state, and what its rollback displaced"
        gone += removed
        _rewrite(tight, files, 10)
        tight.rollback(report.snapshot)
        assert_back(before, manifest(tight.root))
        with tight.engine() as engine:
            assert engine.status().bytes <= tight.max_store_bytes
            assert engine.verify(repair=False).ok
        assert number < 3 or gone
    assert gone == sorted(gone)


def test_nothing_goes_for_what_does_not_fit_anyway(tight: Project) -> None:
    """A file larger than the store is named, and the history stays."""
    for _ in range(3):
        _rewrite(tight, 1, 200_000)
        tight.snapshot()
    (tight.root / "large").write_bytes(os.urandom(2_500_000))
    report = tight.snapshot()
    assert _left_out(report) == ["large"]
    assert report.removed == ()
    (tight.root / "small").write_bytes(os.urandom(1_000_000))
    report = tight.snapshot()
    assert _left_out(report) == ["large"]
    assert [snapshot.seq for snapshot in report.removed] == [1]


def _weight(project: Project) -> int:
    """Return what the files of content in the store take on the disk, those of nobody else's."""
    found = [
        p
        for name in ("packs", "loose", "links", "aside")
        for p in (project.store / name).rglob("*")
    ]
    infos = [path.stat() for path in found if path.is_file()]
    return sum(info.st_size for info in infos if info.st_nlink == 1)


def _used(project: Project) -> int:
    with project.engine() as engine:
        return engine.status().bytes


def test_what_rollbacks_displaced_counts_and_goes_with_their_undos(tmp_path: Path) -> None:
    """The quota sees it, the newest undo stays, and what is said to be freed is free."""
    project = Project(tmp_path.resolve())
    (project.root / "file").write_text("before")
    taken = project.snapshot().snapshot
    for number in range(3):
        (project.root / "result").write_bytes(os.urandom(1 << 20))
        (project.root / "file").write_text(f"run {number}")
        spoilt = manifest(project.root)
        project.rollback(taken)
    used = _used(project)
    assert used >= 3 << 20
    assert abs(used - _weight(project)) < 10_000
    with project.engine() as engine:
        assert engine.prune(max_bytes=1, dry_run=True).freed_bytes >= 2 << 20
        freed = engine.prune(max_bytes=1).freed_bytes
    assert abs(used - freed - _weight(project)) < 10_000
    assert _used(project) < 2 << 20
    project.undo()
    assert_back(spoilt, manifest(project.root))


def test_what_an_undo_made_a_file_of_the_project_again_costs_nothing(tmp_path: Path) -> None:
    """Linked from both sides it is the project's: objects that came back with an undo."""
    with project_in(STATE) as project:
        STATE.make(project)
        taken = project.snapshot().snapshot
        shutil.rmtree(project.root / ".git")
        project.rollback(taken)
        assert abs(_used(project) - _weight(project)) < 10_000
        project.undo()
        assert abs(_used(project) - _weight(project)) < 10_000
        project.redo()
        assert abs(_used(project) - _weight(project)) < 10_000


def test_what_was_put_aside_counts_and_goes_with_its_undo(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An editor saves in the middle of a rollback; what no undo belongs to any more goes, too."""
    project = Project(tmp_path.resolve())
    (project.root / "file").write_text("before")
    taken = project.snapshot().snapshot
    todo = [partial((project.root / "file").write_bytes, b"x" * (1 << 20))]

    def reached(name: str) -> None:
        if name == "restore.replace" and todo:
            todo.pop()()

    monkeypatch.setattr(atomic, "reach", reached)
    for asides in (1, 0):
        (project.root / "file").write_text("the run's")
        assert len(project.rollback(taken).kept_aside) == asides
    orphan = project.store / "aside" / f"{taken.seq:08d}"
    orphan.mkdir()
    (orphan / "left").write_bytes(b"y" * 5000)
    used = _used(project)
    assert used >= (1 << 20) + 5000
    with project.engine() as engine:
        engine.prune(keep_last=1)
    assert not orphan.exists()
    with project.engine() as engine:
        engine.prune(max_bytes=1)
    assert list((project.store / "aside").iterdir()) == []
    assert _used(project) < 1 << 20


def _write_sparse(path: Path, content: bytes) -> None:
    """Write a file of 8 MiB of which all but `content` is a hole."""
    with path.open("wb") as file:
        file.truncate(8 << 20)
        file.seek(4 << 20)
        file.write(content)


def test_holes_take_nothing_of_the_quota(tight: Project) -> None:
    """A sparse file larger than the store displaces nothing, neither new content nor old states."""
    other = tight.root / "later"
    reports = []
    for number in range(3):
        _write_sparse(tight.root / "grid", b"%d" % number * 8192)
        other.write_bytes(os.urandom(100_000))
        time.sleep(0.03)
        reports.append(tight.snapshot())
    assert not any(_left_out(report) or report.removed for report in reports)
    with tight.engine() as engine:
        assert engine.status().bytes < 500_000
        pruned = engine.prune(keep_last=1)
        assert len(pruned.removed) == 2
        assert pruned.freed_bytes < 500_000
        used = engine.store.used()
    (tight.store / "catalog.db").unlink()
    assert tight.repair()[0].ok
    with tight.engine() as engine:
        assert engine.store.used() == used


def test_a_repair_keeps_holes(tight: Project) -> None:
    """What is mended from the file on disk takes no more room than before."""
    _write_sparse(tight.root / "grid", b"x" * 8192)
    before = manifest(tight.root)
    snapshot = tight.snapshot().snapshot
    blob = next((tight.store / "loose").glob("??/*"))
    blocks = blob.stat().st_blocks
    with blob.open("r+b") as file:
        file.write(b"damage")
    with tight.engine() as engine:
        assert engine.verify(repair=True).damage[0].repaired
    assert next((tight.store / "loose").glob("??/*")).stat().st_blocks <= blocks
    (tight.root / "grid").unlink()
    tight.rollback(snapshot)
    assert_back(before, manifest(tight.root))
