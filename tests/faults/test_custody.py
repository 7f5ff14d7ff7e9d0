"""Nothing goes that the undo does not hold: whatever kind of file it is, wherever the store lies.

The oracle looks from outside: each file that was there before a rollback is there after it, or
comes back with the undo; and what is not as the snapshot has it was named.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from driving import Project
from manifest import assert_back, differences, manifest
from rollback import obstacles, restore
from rollback.engine import Engine
from rollback.errors import NoSpace, NothingToDo, RestoreIncomplete
from rollback.inventory import EngineSettings
from rollback.model import Snapshot
from rollback.reports import RestoreOutcome, Selection
from rollback.store.reserve import Reserve
from unprivileged import IS_ROOT, NOBODY, as_nobody, give_away

MEMORY = Path("/dev/shm")
Do = Callable[[Path], None]


class Watching(Project):
    """A project whose folder ``raw`` is watched, and whose store may lie elsewhere."""

    def engine(self, *, create: bool = True) -> Engine:
        """Open an engine."""
        environ = {"HOME": str(self.base), "PATH": str(self.base / "bin")}
        chosen = EngineSettings(self.root, store=self.store, environ=environ, watch=("raw/",))
        return Engine(chosen, create=create)


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of file that a rollback meets.

    Attributes:
        name: What it is.
        spoil: What the run does, as the project's user.
        foreign: What somebody else does after it, as root.
        stays: Whether the rollback has to leave something as it is, and to name it.
        owner: Whether the undo can give back the owner, too; else it says so.
    """

    name: str
    spoil: Do = lambda _: None
    foreign: Do | None = None
    stays: bool = False
    owner: bool = True


def _shut(path: Path, mode: int) -> None:
    path.write_text(f"shut {path.name}")
    path.chmod(mode)


def _linked(root: Path, *names: str) -> None:
    (root / names[0]).write_text("one file\n" * 50)
    for name in names[1:]:
        (root / name).hardlink_to(root / names[0])


def _replace(path: Path, text: str, mode: int) -> None:
    path.unlink()
    path.write_text(text)
    path.chmod(mode)


def _become_folder(path: Path, mode: int) -> None:
    path.unlink()
    path.mkdir()
    (path / "inside").write_text("theirs")
    (path / "inside").chmod(mode)


def _become_file(path: Path) -> None:
    shutil.rmtree(path)
    path.write_text("a file now")


def _watched(root: Path) -> None:
    (root / "raw/new").write_text("not kept")
    (root / "raw/deep").mkdir()
    (root / "raw/deep/new").write_text("not kept either")


def _large(path: Path) -> None:
    path.write_bytes(os.urandom(3 << 20))


def _shut_and_linked(root: Path) -> None:
    _shut(root / "shut", 0o200)
    (root / "again").hardlink_to(root / "shut")


def _public(path: Path) -> None:
    path.write_text("theirs")


def _own_folder(path: Path) -> None:
    _become_folder(path, 0o600)
    os.chown(path, NOBODY, NOBODY)


def _secret(path: Path) -> None:
    path.write_text("theirs")
    path.chmod(0o600)


KINDS = (
    Kind("new", lambda root: _linked(root, "new")),
    Kind("replaced", lambda root: _replace(root / "file", "the run's", 0o644)),
    Kind("large", lambda root: _large(root / "big")),
    Kind("hard links", lambda root: _linked(root, "best", "last", "sub/third")),
    Kind("own, 0000", lambda root: _shut(root / "shut", 0o000)),
    Kind("own, 0200 and linked", _shut_and_linked),
    Kind("own, replaced by 0000", lambda root: _replace(root / "file", "precious", 0o000)),
    Kind("watched, new", _watched, stays=True),
    Kind("watched, became a file", lambda root: _become_file(root / "raw"), stays=True),
    Kind("theirs, new", foreign=lambda root: _secret(root / "secret"), stays=True),
    Kind("theirs, readable", foreign=lambda root: _public(root / "new"), owner=False),
    Kind(
        "theirs, in place of a file",
        foreign=lambda root: _replace(root / "file", "theirs", 0o600),
        stays=True,
    ),
    Kind(
        "theirs, in a folder in place of a file",
        foreign=lambda root: _own_folder(root / "file"),
        stays=True,
    ),
)


@pytest.fixture(params=["beside", "elsewhere"])
def project(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Project]:
    """A project of an unprivileged user's, whose store shares its file system or does not."""
    base = Path(tempfile.mkdtemp(prefix="guard-custody-", dir=tmp_path.parents[2])).resolve()
    other = Path(tempfile.mkdtemp(prefix="guard-custody-", dir=MEMORY if MEMORY.is_dir() else None))
    made = Watching(base)
    if request.param == "elsewhere":
        if other.stat().st_dev == base.stat().st_dev:
            pytest.skip("there is one file system only")
        made.store = other / "store"
    (made.root / "file").write_text("before")
    (made.root / "sub").mkdir()
    (made.root / "sub/other").write_text("other")
    (made.root / "raw").mkdir()
    (made.root / "raw/old").write_text("input")
    if IS_ROOT:
        give_away((base, other, made.root, *made.root.rglob("*")))
    yield made
    for folder in (base, other):
        shutil.rmtree(folder)


def told(outcome: RestoreOutcome) -> str:
    """Return what an outcome names as not put back."""
    return json.dumps([skip.what for skip in outcome.skipped])


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_what_goes_comes_back_with_the_undo(project: Project, kind: Kind) -> None:
    """And what could not be kept stays, and is named."""
    if kind.foreign is not None and os.geteuid() != 0:
        pytest.skip("only root can make files of another user")
    before = manifest(project.root)
    snapshot = as_nobody(lambda: project.snapshot().snapshot.id)

    def find() -> Snapshot:
        with project.engine() as engine:
            return engine.find_snapshot(snapshot)

    as_nobody(lambda: kind.spoil(project.root))
    if kind.foreign is not None:
        kind.foreign(project.root)
    (project.root / "sub/other").write_text("spoilt")
    spoilt = manifest(project.root)
    named = json.loads(as_nobody(lambda: told(project.rollback(find()))))
    after = manifest(project.root)
    left = [line for line in differences(before, after) if "mtime" not in line]
    assert (project.root / "sub/other").read_text() == "other"
    assert bool(named) is kind.stays
    assert bool(left) is kind.stays, "\n".join(left)
    again = json.loads(as_nobody(lambda: told(project.undo())))
    assert bool(again) is not kind.owner
    assert_back(spoilt, manifest(project.root))


@pytest.fixture
def tight(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    """A project whose store lies on a disk of which nearly nothing is free."""
    other = Path(tempfile.mkdtemp(prefix="guard-custody-", dir=MEMORY if MEMORY.is_dir() else None))
    made = Watching(tmp_path.resolve())
    made.store = other / "store"
    (made.root / "file").write_text("before")
    yield made
    monkeypatch.undo()
    shutil.rmtree(other)


def test_what_does_not_fit_stops_the_rollback_before_it_writes(
    tight: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """How much is missing is said, and the operation did not begin to apply."""
    if tight.base.stat().st_dev == tight.store.parent.stat().st_dev:
        pytest.skip("there is one file system only")
    taken = tight.snapshot().snapshot
    (tight.root / "file").write_text("spoilt")
    (tight.root / "result").write_bytes(os.urandom(2 << 20))
    spoilt = manifest(tight.root)
    monkeypatch.setattr(Reserve, "free", lambda _: 1 << 20)
    with pytest.raises(NoSpace) as caught:
        tight.rollback(taken)
    assert caught.value.missing_bytes >= 1 << 20
    assert_back(spoilt, manifest(tight.root))
    with tight.engine() as engine:
        assert engine.operations(1)[0].state == "failed"
    monkeypatch.undo()
    tight.rollback(taken)
    tight.undo()
    assert_back(spoilt, manifest(tight.root))


def test_what_the_store_has_already_needs_no_room(
    tight: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A copy of content that a snapshot has is no reason to stop."""
    (tight.root / "big").write_bytes(os.urandom(2 << 20))
    taken = tight.snapshot().snapshot
    shutil.copyfile(tight.root / "big", tight.root / "copy")
    spoilt = manifest(tight.root)
    monkeypatch.setattr(Reserve, "free", lambda _: 1 << 20)
    assert tight.rollback(taken).skipped == ()
    monkeypatch.undo()
    tight.undo()
    assert_back(spoilt, manifest(tight.root))


def test_names_of_one_file_that_all_go_need_no_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are linked, and the undo puts the same file back; a third one stays apart."""
    project = Project(tmp_path.resolve())
    (project.root / "file").write_text("before")
    taken = project.snapshot().snapshot
    (project.root / "last").write_bytes(os.urandom(2 << 20))
    (project.root / "best").hardlink_to(project.root / "last")
    spoilt = manifest(project.root)
    inode = (project.root / "best").stat().st_ino
    monkeypatch.setattr(Reserve, "free", lambda _: 1 << 20)
    project.rollback(taken)
    assert project.undo().skipped == ()
    assert_back(spoilt, manifest(project.root))
    assert (project.root / "best").stat().st_ino == inode
    project.redo()
    assert project.undo().skipped == ()
    assert_back(spoilt, manifest(project.root))


def test_files_that_only_look_the_same_stay_two(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was moved is put back itself for want of room, but under no name that it never had."""
    project = Project(tmp_path.resolve())
    (project.root / "file").write_text("before")
    taken = project.snapshot().snapshot
    (project.root / "one").write_bytes(os.urandom(1 << 10))
    (project.root / "other").hardlink_to(project.root / "one")
    project.rollback(taken)
    with project.engine() as engine:
        moved = engine.undo_target()
    project.undo()
    shutil.copy2(project.root / "one", project.root / "copy")
    (project.root / "copy").rename(project.root / "other")
    spoilt = manifest(project.root)
    monkeypatch.setattr(Reserve, "free", lambda _: 1 << 9)
    project.rollback(moved)  # they become one file again, which the next undo parts
    for name in ("one", "other"):
        (project.root / name).unlink()
    project.undo()
    assert not (project.root / "one").samefile(project.root / "other")
    assert_back(spoilt, manifest(project.root))


def test_a_name_outside_that_is_written_to_later_changes_no_undo(tmp_path: Path) -> None:
    """A file that stays in use under another name is copied, not linked."""
    project = Project(tmp_path.resolve())
    (project.root / "file").write_text("before")
    taken = project.snapshot().snapshot
    (project.root / "new").write_text("as it was")
    outside = tmp_path / "outside"
    outside.hardlink_to(project.root / "new")
    project.rollback(taken)
    outside.write_text("written to later")
    project.undo()
    assert (project.root / "new").read_text() == "as it was"


class Limited(Project):
    """A project whose store has a quota."""

    quota = 1 << 20

    def engine(self, *, create: bool = True) -> Engine:
        """Open an engine."""
        environ = {"HOME": str(self.base), "PATH": str(self.base / "bin")}
        chosen = EngineSettings(self.root, self.store, environ=environ, max_store_bytes=self.quota)
        return Engine(chosen, create=create)


def test_reading_again_keeps_nothing_past_the_quota(tmp_path: Path) -> None:
    """What no snapshot could keep is not kept by a rollback either, and leaves room for others."""
    project = Limited(tmp_path.resolve())
    (project.root / "big").write_bytes(os.urandom(3 << 20))
    (project.root / "file").write_text("before")
    taken = project.snapshot().snapshot
    (project.root / "file").write_text("after")
    project.rollback(taken)
    with project.engine() as engine:
        assert engine.status().bytes < project.quota
    (project.root / "small").write_text("of two bytes")
    named = [skip.what for skip in project.snapshot().snapshot.skipped]
    assert [what for what in named if what.startswith(str(project.root))] == [
        str(project.root / "big")
    ]


def test_what_is_put_back_is_proven_where_nothing_more_may_be_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store that is full reads all again: a file that differs is no file that could not be read.

    The file is changed behind the rollback's back, once it is in its place.
    """
    project = Limited(tmp_path.resolve())
    (project.root / "file").write_text("before")
    taken = project.snapshot().snapshot
    (project.root / "file").write_text("spoilt")
    project.quota = 0

    def reached(name: str) -> None:
        if name == "restore.verify":
            (project.root / "file").write_text("behind")

    monkeypatch.setattr(restore, "reach", reached)
    with pytest.raises(RestoreIncomplete, match="file"):
        project.rollback(taken)
    monkeypatch.undo()
    project.rollback(taken)
    assert (project.root / "file").read_text() == "before"


def test_an_undo_that_left_something_out_can_be_made_again_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it named may have been mended by then; the one after that goes further back."""
    project = Project(tmp_path.resolve())
    (project.root / "file").write_text("before")
    taken = project.snapshot().snapshot
    states = []
    for text in ("first", "second"):
        (project.root / "file").write_text(text)
        (project.root / "new").write_text(text)
        states.append(manifest(project.root))
        project.rollback(taken)

    def lock(_parent: int, path: bytes, _whole: bytes) -> tuple[str, str] | None:
        return ("it is locked", "unlock it") if path == b"file" else None

    with monkeypatch.context() as patch:
        patch.setattr(obstacles, "_why_locked", lock)
        assert [skip.what for skip in project.undo().skipped] == [str(project.root / "file")]
    assert (project.root / "new").read_text() == "second"
    assert project.undo().skipped == ()
    assert_back(states[1], manifest(project.root))
    with monkeypatch.context() as patch:
        patch.setattr(obstacles, "_why_locked", lock)
        for _ in range(2):
            assert len(project.undo().skipped) == 1
        with pytest.raises(NothingToDo):
            project.undo()
    for _ in range(4):
        project.redo()
    assert (project.root / "file").read_text() == "before"
    assert not (project.root / "new").exists()


def test_a_long_run_of_one_reason_is_named_once(tmp_path: Path) -> None:
    """With the number, and one of the files by its name."""
    project = Watching(tmp_path.resolve())
    (project.root / "raw").mkdir()
    taken = project.snapshot().snapshot
    for number in range(100):
        (project.root / "raw" / f"{number:03d}").write_text("new")
    with project.engine() as engine:
        planned = engine.plan(taken, Selection()).unrestorable
    done = project.rollback(taken).skipped
    assert [skip.what for skip in planned] == [skip.what for skip in done]
    assert len(done) == 1
    assert "100 files" in done[0].what
    assert str(project.root / "raw/000") in done[0].what


def test_a_copy_of_what_is_still_written_to_is_a_file_of_its_own(tmp_path: Path) -> None:
    """An undo gives back what was there, not what a process makes of a file that once equalled it.

    The process still has the file that the first rollback moved away.
    """
    project = Project(tmp_path.resolve())
    (project.root / "file").write_text("before")
    taken = project.snapshot().snapshot
    with (project.root / "log").open("w") as log:
        log.write("one")
        log.flush()
        project.rollback(taken)
        with project.engine() as engine:
            moved = engine.undo_target()
        project.undo()
        (project.root / "copy").write_bytes((project.root / "log").read_bytes())
        (project.root / "copy").rename(project.root / "log")
        (project.root / "file").write_text("spoilt")
        project.rollback(moved)
        log.write(" and two")
    project.undo()
    assert (project.root / "file").read_text() == "spoilt"
    assert (project.root / "log").read_text() == "one"
