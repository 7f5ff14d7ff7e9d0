"""Files of other users in a project: what a container or sudo leaves there blocks nothing."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from driving import Project, scratch_project
from rollback.reports import DrillReport, Selection
from unprivileged import IS_ROOT, NOBODY, as_nobody, give_away

pytestmark = pytest.mark.skipif(not IS_ROOT, reason="needs files of two users")

_WHY = "where a rollback makes it again, its owner cannot be set to"


@pytest.fixture
def project() -> Iterator[Project]:
    """A project of the user without rights, in which another one has left things."""
    with scratch_project() as made:
        give_away([made.base, made.root])
        made.base.chmod(0o755)
        _leave(made.root)
        yield made


def _leave(root: Path) -> None:
    (root / "mine").write_text("mine")
    (root / "theirs").write_text("theirs")
    (root / "out").mkdir()
    (root / "out/epoch").write_text("1")
    (root / "latest").symlink_to("theirs")
    os.mkfifo(root / "pipe")
    (root / "group").write_text("of a group that the user is not in")
    give_away([root / "mine"])
    os.chown(root / "group", NOBODY, 0)


def _drill(project: Project) -> DrillReport:
    with project.engine() as engine:
        newest = engine.newest()
        assert newest is not None
        return engine.drill(newest, mode="full")


def test_a_drill_passes_where_other_users_have_files(project: Project) -> None:
    """What it cannot give an owner is named once, with how many more there are."""

    def rehearse() -> str:
        project.snapshot()
        report = _drill(project)
        assert report.failures == ()
        assert report.passed
        return "\n".join(f"{skip.what}: {skip.why}" for skip in report.skips)

    said = as_nobody(rehearse)
    assert sorted(said.split("\n")) == [
        f"{project.root}/group: {_WHY} {NOBODY}:0",
        f"{project.root}/latest and 4 more: {_WHY} 0:0",
    ]


def test_a_drill_still_sees_another_mode(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """That an owner cannot be set excuses the owner alone."""
    real = os.chmod

    def loose(target: int | bytes | Path, mode: int, *, dir_fd: int | None = None) -> None:
        real(target, mode | 0o002 if mode == 0o775 else mode, dir_fd=dir_fd)

    def rehearse() -> str:
        project.snapshot()
        monkeypatch.setattr(os, "chmod", loose)
        return "\n".join(_drill(project).failures)

    (project.root / "out").chmod(0o775)

    assert f"{project.root}/out has another" in as_nobody(rehearse)


def test_a_link_of_another_user_comes_back_as_ones_own_and_is_named(project: Project) -> None:
    """So is a FIFO; the rollback is done, and the next command has nothing to finish."""

    def spoil() -> None:
        taken = project.snapshot().snapshot
        (project.root / "latest").unlink()
        (project.root / "pipe").unlink()
        named = {skip.what for skip in project.rollback(taken).skipped}
        assert named == {str(project.root / "latest"), str(project.root / "pipe")}
        assert project.recover() == []

    as_nobody(spoil)
    assert os.readlink(project.root / "latest") == "theirs"


def test_a_file_of_another_user_that_was_written_in_place_is_named_by_the_undo_too(
    project: Project,
) -> None:
    """The undo copies what the rollback had moved, and the copy is the user's own."""
    (project.root / "theirs").chmod(0o666)

    def spoil() -> None:
        taken = project.snapshot().snapshot
        (project.root / "theirs").write_text("changed")
        named = [skip.what for skip in project.rollback(taken).skipped]
        assert named == [str(project.root / "theirs")]
        assert [skip.what for skip in project.undo().skipped] == named
        assert project.recover() == []

    as_nobody(spoil)
    assert (project.root / "theirs").read_text() == "changed"


@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_a_database_of_another_users_server_is_put_back_and_named(
    project: Project, mode: str
) -> None:
    """Its content is; what only its owner can set stays, and the rollback is done all the same."""
    path = project.root / "runs.db"
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as server:
        server.execute(f"PRAGMA journal_mode={mode}")
        server.execute("CREATE TABLE t (a)")
        for file in project.root.glob("runs.db*"):
            file.chmod(0o666)

        def spoil() -> str:
            taken = project.snapshot().snapshot
            with contextlib.closing(sqlite3.connect(path)) as db, db:
                db.execute("INSERT INTO t VALUES (1)")
            outcome = project.rollback(taken)
            assert outcome.skipped == ()
            assert project.recover() == []
            with contextlib.closing(sqlite3.connect(path)) as db:
                assert db.execute("SELECT * FROM t").fetchall() == []
            return "\n".join(f"{skip.what}: {skip.why}" for skip in outcome.unchecked)

        said = as_nobody(spoil)
        theirs = os.stat(path).st_uid == 0
        assert theirs == (mode == "wal")
        if theirs:
            assert said == ""
            assert server.execute("SELECT * FROM t").fetchall() == []
        else:
            assert said.startswith(f"{path}: its owner cannot be set to 0:0; who of other users")
            # It cannot be seen from there; what it reads is old, and what it writes is refused.
            assert server.execute("SELECT * FROM t").fetchall() == [(1,)]
            with pytest.raises(sqlite3.OperationalError, match="readonly"):
                server.execute("INSERT INTO t VALUES (2)")


@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_a_server_of_another_user_sees_what_is_put_back(project: Project, mode: str) -> None:
    """Without a log it has no lock while it is idle: that it can write is seen all the same."""
    path = project.root / "runs.db"
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as server:
        server.execute(f"PRAGMA journal_mode={mode}")
        server.execute("CREATE TABLE t (a)")
        for file in project.root.glob("runs.db*"):
            give_away([file])
            file.chmod(0o666)

        def spoil() -> str:
            taken = project.snapshot().snapshot
            with contextlib.closing(sqlite3.connect(path)) as db, db:
                db.execute("INSERT INTO t VALUES (1)")
            with project.engine() as engine:
                (step,) = engine.plan(taken, Selection()).steps
            shown = "a process of another user or container" if mode == "delete" else "pid"
            assert f"; open in {shown}" in step.detail
            outcome = project.rollback(taken)
            assert (outcome.skipped, outcome.unchecked) == ((), ())
            return ""

        as_nobody(spoil)
        assert server.execute("SELECT * FROM t").fetchall() == []
        server.execute("INSERT INTO t VALUES (2)")
    with contextlib.closing(sqlite3.connect(path)) as db:
        assert db.execute("SELECT * FROM t").fetchall() == [(2,)]
