"""Roots that are something else now, mounts, other users' folders, locked files."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from driving import Project
from manifest import assert_back, manifest
from rollback import failpoints
from rollback.errors import RollbackError
from rollback.model import Category
from rollback.reports import RestoreOutcome, Selection
from small_disk import mounted
from unprivileged import IS_ROOT, as_nobody, give_away


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A project with a repository."""
    made = Project(tmp_path.resolve())
    git = made.root / ".git"
    for name in ("objects", "refs/heads"):
        (git / name).mkdir(parents=True)
    (git / "HEAD").write_text("ref: refs/heads/main\n")
    (git / "config").write_text("[core]\n\trepositoryformatversion = 0\n")
    (made.root / "data/s").mkdir(parents=True)
    (made.root / "data/s/x").write_text("x")
    (made.root / "data/d").write_text("d")
    (made.root / "a").write_text("a")
    return made


def _to_file(git: Path) -> None:
    shutil.rmtree(git)
    git.write_text("a file now")


def _to_link(git: Path) -> None:
    git.rename(git.parent.parent / "moved")
    git.symlink_to("../moved")


@pytest.mark.parametrize("turn", [_to_file, _to_link])
def test_the_folder_of_a_root_that_is_something_else_now_comes_back(
    project: Project, turn: Callable[[Path], None]
) -> None:
    """What took its place is kept like all that is displaced, and nothing is written through it."""
    before = manifest(project.root)
    taken = project.snapshot().snapshot
    assert any(state.location == str(project.root / ".git") for state in taken.states)
    turn(project.root / ".git")
    (project.root / "a").write_text("changed")
    spoilt = manifest(project.root)
    moved = project.base / "moved"
    theirs = manifest(moved) if moved.exists() else {}
    assert project.rollback(taken).skipped == ()
    assert_back(before, manifest(project.root))
    project.undo()
    assert_back(spoilt, manifest(project.root))
    project.redo()
    assert_back(before, manifest(project.root))
    assert_back(theirs, manifest(moved) if moved.exists() else {})


@pytest.mark.parametrize("turn", [_to_file, _to_link])
def test_such_a_root_does_not_concern_other_parts(
    project: Project, turn: Callable[[Path], None]
) -> None:
    """Another file is put back; the category of the root takes what stands there away."""
    taken = project.snapshot().snapshot
    turn(project.root / ".git")
    (project.root / "a").write_text("changed")
    spoilt = manifest(project.root)
    assert project.rollback(taken, Selection((os.fsencode(project.root / "a"),))).skipped == ()
    assert (project.root / "a").read_text() == "a"
    project.undo()
    assert_back(spoilt, manifest(project.root))
    assert project.rollback(taken, Selection((), frozenset({Category.CODE}))).skipped == ()
    assert (project.root / ".git/HEAD").is_file()
    project.undo()
    assert_back(spoilt, manifest(project.root))


def test_what_is_mounted_in_the_project_is_put_back(tmp_path: Path) -> None:
    """A rename leads from no file system into another: each has its own staging folder."""
    project = Project(tmp_path.resolve())
    with mounted(project.root / "data", 20) as data:
        (data / "s").mkdir()
        (data / "s/x").write_text("x")
        (data / "d").write_text("d")
        os.link(data / "d", data / "d2")
        (project.root / "a").write_text("a")
        before = manifest(project.root)
        taken = project.snapshot().snapshot
        shutil.rmtree(data / "s")
        (data / "d").unlink()
        (data / "d").write_text("changed")
        (data / "new").write_text("new")
        (project.root / "a").write_text("changed")
        spoilt = manifest(project.root)
        assert project.rollback(taken).skipped == ()
        assert_back(before, manifest(project.root))
        project.undo()
        assert_back(spoilt, manifest(project.root))
        assert not list(data.glob(".guard*"))


def test_what_the_run_mounted_is_named(project: Project) -> None:
    """It cannot be removed, which stops nothing else."""
    taken = project.snapshot().snapshot
    (project.root / "a").write_text("changed")
    with mounted(project.root / "m", 1) as folder:
        (folder / "theirs").write_text("theirs")
        outcome = project.rollback(taken)
        assert (project.root / "a").read_text() == "a"
        assert [skip.what for skip in outcome.skipped] == [str(folder)]
        assert (folder / "theirs").read_text() == "theirs"
        project.snapshot()


def test_a_mount_keeps_the_folder_that_it_lies_in(project: Project) -> None:
    """A file that was where the folder is now stays away, is named, and nothing else."""
    taken = project.snapshot().snapshot
    (project.root / "a").unlink()
    (project.root / "a").mkdir()
    (project.root / "data/d").write_text("changed")
    with mounted(project.root / "a/m", 1):
        outcome = project.rollback(taken)
        assert str(project.root / "a") in [skip.what for skip in outcome.skipped]
        assert (project.root / "data/d").read_text() == "d"
        project.snapshot()


def test_a_locked_file_is_named(project: Project) -> None:
    """With the command that unlocks it."""
    taken = project.snapshot().snapshot
    (project.root / "data/d").write_text("changed")
    with _locked(project.root / "a"):
        outcome = project.rollback(taken)
        assert (project.root / "data/d").read_text() == "d"
        (skip,) = outcome.skipped
        assert skip.what == str(project.root / "a")
        again = f"guard rollback --to {taken.seq} {project.root / 'a'}"
        assert skip.fix == f"chattr -ia {project.root / 'a'}, then: {again}"
        assert project.recover() == []
    assert project.rollback(taken).skipped == ()
    assert (project.root / "a").read_text() == "a"


@contextmanager
def _locked(path: Path, content: bytes = b"changed") -> Iterator[None]:
    path.write_bytes(content)
    lock = ["chattr", "+i", str(path)]
    if not shutil.which("chattr") or subprocess.run(lock, check=False, stderr=-3).returncode:
        pytest.skip("files cannot be locked here")
    try:
        yield
    finally:
        subprocess.run(["chattr", "-i", str(path)], check=True)


def _remount(place: Path, how: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{how}", str(place)], check=True)


def _same_size(folder: Path) -> None:
    (folder / "sub/x").write_text("y")


def _came_and_went(folder: Path) -> None:
    (folder / "sub/x").unlink()
    (folder / "sub/new").write_text("new")


def _later(folder: Path) -> None:
    os.utime(folder)


def _fill_table(folder: Path) -> None:
    with contextlib.closing(sqlite3.connect(folder / "runs.db")) as db:
        db.executescript("PRAGMA journal_mode=OFF; INSERT INTO t VALUES (1)")


def _new_database(folder: Path) -> None:
    with contextlib.closing(sqlite3.connect(folder / "new.db")) as db:
        db.execute("CREATE TABLE t (a)")


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (_same_size, "sub/x"),
        (_came_and_went, "sub"),
        (_later, ""),
        (_fill_table, "runs.db"),
        (_new_database, ""),
    ],
)
def test_what_changed_where_nobody_may_write_is_named(
    project: Project, change: Callable[[Path], None], named: str
) -> None:
    """Data that is mounted read-only, and changes where it comes from, keeps nothing else."""
    place = project.root / "data-mount"
    with mounted(place, 4):
        (place / "sub").mkdir()
        (place / "sub/x").write_text("x")
        with contextlib.closing(sqlite3.connect(place / "runs.db")) as db:
            db.execute("CREATE TABLE t (a)")
        _remount(place, "ro")
        taken = project.snapshot().snapshot
        _remount(place, "rw")
        change(place)
        _remount(place, "ro")
        spoilt = manifest(place)
        (project.root / "data/d").write_text("changed")
        (skip,) = project.rollback(taken).skipped
        assert (skip.what, skip.why) == (
            str(place / named), "its file system is mounted read-only"
        )  # fmt: skip
        assert (project.root / "data/d").read_text() == "d"
        assert_back(spoilt, manifest(place))
        assert project.recover() == []
        project.undo()
        assert (project.root / "data/d").read_text() == "changed"


@pytest.mark.parametrize("new", [False, True])
def test_a_locked_database_is_named(project: Project, *, new: bool) -> None:
    """One that has to go, too; everything else is put back."""
    path = project.root / "runs.db"
    if new:
        taken = project.snapshot().snapshot
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.executescript("CREATE TABLE t (a); INSERT INTO t VALUES (1)")
    if not new:
        taken = project.snapshot().snapshot
        with contextlib.closing(sqlite3.connect(path)) as db:
            db.executescript("INSERT INTO t VALUES (2)")
    (project.root / "data/d").write_text("changed")
    content = path.read_bytes()
    with _locked(path, content):
        assert [skip.what for skip in project.rollback(taken).skipped] == [str(path)]
        assert (project.root / "data/d").read_text() == "d"
        assert path.read_bytes() == content
        assert project.recover() == []
    assert project.rollback(taken).skipped == ()


def _give_away(project: Project) -> None:
    if not IS_ROOT:
        pytest.skip("only root can become somebody else")
    give_away((project.base, project.root, *project.root.rglob("*")))


def _roll_back(project: Project) -> RestoreOutcome:
    with project.engine() as engine:
        snapshot = min(engine.snapshots(), key=lambda found: found.seq)
    return project.rollback(snapshot)


def test_the_folder_of_another_user_is_named(open_project: Project) -> None:
    """What is in it stays; all else is put back, and guard goes on working."""
    project = open_project
    as_nobody(project.snapshot)
    (project.root / "out").mkdir()
    (project.root / "out/r").write_text("theirs")
    (project.root / "a").write_text("changed")

    def roll_back() -> None:
        named = [skip.what for skip in _roll_back(project).skipped]
        assert named == [str(project.root / "out/r")]
        project.snapshot()

    as_nobody(roll_back)
    assert (project.root / "a").read_text() == "a"


def test_a_folder_that_became_another_users_is_named(open_project: Project) -> None:
    """Its owner and mode stay as they are; what is in it is put back where that can be done."""
    project = open_project
    as_nobody(project.snapshot)
    os.chown(project.root / "data", 0, 0)
    (project.root / "data/s/x").write_text("changed")

    def roll_back() -> None:
        named = {skip.what for skip in _roll_back(project).skipped}
        assert named == {str(project.root / "data")}
        project.snapshot()

    as_nobody(roll_back)
    assert (project.root / "data/s/x").read_text() == "x"


@pytest.mark.parametrize("mode", [0o000, 0o300, 0o400])
def test_a_folder_that_was_shut_is_opened_and_comes_back(open_project: Project, mode: int) -> None:
    """What is in it is put back, and an undo shuts it again as it was."""
    project = open_project
    before = manifest(project.root)

    def spoil() -> None:
        project.snapshot()
        (project.root / "data/s/x").write_text("changed")
        (project.root / "data/new/deep").mkdir(parents=True)
        (project.root / "data/new/deep/f").write_text("new")
        for name in ("data/new/deep", "data/new", "data/s", "data"):
            (project.root / name).chmod(mode)

    as_nobody(spoil)
    spoilt = manifest(project.root)

    def back() -> None:
        assert _roll_back(project).skipped == ()

    as_nobody(back)
    assert_back(before, manifest(project.root))
    as_nobody(project.undo)
    assert_back(spoilt, manifest(project.root))
    as_nobody(project.redo)
    assert_back(before, manifest(project.root))


@pytest.mark.parametrize("fault", ["stage.done:kill", "stage.done:eio"])
def test_a_rollback_that_ends_before_it_changed_anything_shuts_them_again(
    open_project: Project, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    """The folder is as it was once the next command has looked."""
    project = open_project

    def spoil() -> None:
        project.snapshot()
        (project.root / "data/d").write_text("changed")
        (project.root / "data").chmod(0)

    as_nobody(spoil)
    spoilt = manifest(project.root)

    def roll_back() -> None:
        monkeypatch.setattr(failpoints, "_armed", failpoints._arm(fault))
        with contextlib.suppress(RollbackError):
            _roll_back(project)

    with contextlib.suppress(AssertionError):
        as_nobody(roll_back)
    as_nobody(project.recover)
    assert_back(spoilt, manifest(project.root))


def test_a_project_that_forbids_writing_is_staged_beside_all_the_same(
    open_project: Project,
) -> None:
    """A store on another file system stages in the project; its mode is what it was after."""
    project = open_project
    apart = Path("/dev/shm")
    if not os.access(apart, os.W_OK) or os.stat(apart).st_dev == os.stat(project.base).st_dev:
        pytest.skip("there is one file system only")
    with tempfile.TemporaryDirectory(dir=apart) as folder:
        give_away([Path(folder)])
        project.store = Path(folder) / "store"
        project.root.chmod(0o555)
        before = manifest(project.root)
        as_nobody(project.snapshot)

        def spoil() -> None:
            project.root.chmod(0o755)
            (project.root / "a").unlink()
            (project.root / "new").write_text("new")
            project.root.chmod(0o555)
            assert _roll_back(project).skipped == ()

        as_nobody(spoil)
        assert_back(before, manifest(project.root))


@pytest.fixture
def open_project(project: Project) -> Iterator[Project]:
    """A project of a user without rights, who can reach it."""
    with tempfile.TemporaryDirectory(prefix="guard-", dir="/var/tmp") as base:
        theirs = Project(Path(base).resolve())
        shutil.copytree(project.root, theirs.root, symlinks=True, dirs_exist_ok=True)
        _give_away(theirs)
        yield theirs
