"""What did this command change: files once, databases with their tables, packages with versions."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from driving import Project
from gitrepo import git, repository
from rollback.model import TableChange
from rollback.reports import Change, Difference, DistributionChange


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A project with a database and an environment of two distributions."""
    made = Project(tmp_path.resolve())
    (made.root / "train.py").write_text("one")
    with closing(sqlite3.connect(made.root / "mlflow.db")) as db, db:
        db.execute("CREATE TABLE runs (id INTEGER PRIMARY KEY)")
        db.executemany("INSERT INTO runs VALUES (?)", [(n,) for n in range(12)])
        db.execute("CREATE TABLE params (id INTEGER PRIMARY KEY)")
    db.close()
    env = made.root / ".venv"
    site = env / "lib/python3.11/site-packages"
    site.mkdir(parents=True)
    (env / "bin").mkdir()
    (env / "bin" / "python").symlink_to("/usr/bin/python3")
    (env / "pyvenv.cfg").write_text("home = /usr/bin\nversion = 3.11.7\n")
    install(site, "idna", "3.7")
    install(site, "six", "1.16")
    return made


def install(site: Path, name: str, version: str) -> None:
    """Install a distribution of one module, as an installer writes it down."""
    (site / name).mkdir(exist_ok=True)
    (site / name / "core.py").write_text(f"version = {version!r}\n")
    info = site / f"{name}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Name: {name}\nVersion: {version}\n")
    record = f"{name}/core.py,,\n{info.name}/METADATA,,\n{info.name}/RECORD,,\n"
    (info / "RECORD").write_text(record)


def remove(site: Path, name: str, version: str) -> None:
    """Uninstall a distribution."""
    shutil.rmtree(site / name)
    shutil.rmtree(site / f"{name}-{version}.dist-info")


def spoil(project: Project) -> None:
    """Do what a bad run does to code, database and environment."""
    (project.root / "train.py").write_text("two")
    with closing(sqlite3.connect(project.root / "mlflow.db")) as db, db:
        db.execute("DELETE FROM runs WHERE id >= 10")
        db.execute("DROP TABLE params")
        db.execute("CREATE TABLE evil (x)")
    db.close()
    site = project.root / ".venv/lib/python3.11/site-packages"
    remove(site, "six", "1.16")
    remove(site, "idna", "3.7")
    install(site, "idna", "3.10")
    install(site, "rich", "13.9")
    (site / "sitecustomize.py").write_text("import evil\n")


def both(project: Project, *, live: bool) -> Difference:
    """Return what the bad run changed, seen now or by a second snapshot."""
    before = project.snapshot().snapshot
    spoil(project)
    after = None if live else project.snapshot().snapshot
    with project.engine() as engine:
        return engine.diff(before, after)


@pytest.mark.parametrize("live", [True, False])
def test_tables_rows_and_versions_are_named(project: Project, live: bool) -> None:  # noqa: FBT001
    """Between two snapshots as between a snapshot and now."""
    found = both(project, live=live)
    (database,) = [c for c in found.changes if c.path == "mlflow.db"]
    assert database.action == "modified"
    assert database.tables == (
        TableChange("added", "evil", None, 0),
        TableChange("deleted", "params", 0, None),
        TableChange("modified", "runs", 12, 10),
    )
    env = str(project.root / ".venv")
    assert found.distributions == (
        DistributionChange("modified", env, "idna", "3.7", "3.10"),
        DistributionChange("added", env, "rich", None, "13.9"),
        DistributionChange("deleted", env, "six", "1.16", None),
    )


@pytest.mark.parametrize("live", [True, False])
def test_files_say_which_package_they_came_with(project: Project, live: bool) -> None:  # noqa: FBT001
    """What no installer wrote is not hidden behind a package."""
    found = both(project, live=live)
    site = ".venv/lib/python3.11/site-packages"
    owners = {c.path: c.owner for c in found.changes}
    assert owners[f"{site}/six/core.py"] == "six"
    assert owners[f"{site}/idna/core.py"] == "idna"
    assert owners[f"{site}/rich-13.9.dist-info/RECORD"] == "rich"
    assert owners[f"{site}/idna-3.7.dist-info/METADATA"] == "idna"
    assert owners[f"{site}/sitecustomize.py"] == ""
    assert owners["train.py"] == ""


def _databases(found: Difference) -> list[Change]:
    return [c for c in found.changes if str(c.category) == "databases"]


@pytest.mark.parametrize("live", [True, False])
def test_a_database_that_came_or_went_is_told_once(project: Project, live: bool) -> None:  # noqa: FBT001
    """With its tables; as a file among files it is not told again."""
    before = project.snapshot().snapshot
    (project.root / "mlflow.db").rename(project.root / "other.db")
    after = None if live else project.snapshot().snapshot
    with project.engine() as engine:
        found = engine.diff(before, after)
    assert sorted((c.action, c.path) for c in _databases(found)) == [
        ("added", "other.db"),
        ("deleted", "mlflow.db"),
    ]
    assert all({t.name for t in c.tables} == {"params", "runs"} for c in _databases(found))
    assert not [c for c in found.changes if c.path.endswith(".db") and c not in _databases(found)]


def test_a_database_that_was_emptied_is_told_once(project: Project) -> None:
    """Truncated to nothing, it is no database any more, and still the same thing."""
    before = project.snapshot().snapshot
    (project.root / "mlflow.db").write_bytes(b"")
    with project.engine() as engine:
        found = engine.diff(before, None)
    assert [(c.action, c.path) for c in found.changes] == [("modified", "mlflow.db")]


def test_a_touched_database_has_other_attributes_only(project: Project) -> None:
    """Its content is as it was."""
    before = project.snapshot().snapshot
    (project.root / "mlflow.db").chmod(0o600)
    with project.engine() as engine:
        found = engine.diff(before, None)
    assert [(c.action, c.tables) for c in found.changes] == [("metadata", ())]


def test_what_a_rollback_displaced_knows_its_packages(project: Project) -> None:
    """An exchanged version is no removal, seen from the snapshot or from the undo."""
    taken = project.snapshot().snapshot
    site = project.root / ".venv/lib/python3.11/site-packages"
    remove(site, "idna", "3.7")
    install(site, "idna", "3.8")
    project.rollback(taken)
    with project.engine() as engine:
        undo = engine.undo_target()
        there, back = engine.diff(taken, undo), engine.diff(undo, None)
    versions = [(d.action, d.name, d.old_version, d.new_version) for d in there.distributions]
    assert versions == [("modified", "idna", "3.7", "3.8")]
    assert [(d.old_version, d.new_version) for d in back.distributions] == [("3.8", "3.7")]


def test_a_rollback_that_found_nothing_to_do_hides_no_earlier_one(project: Project) -> None:
    """`undo` after a second, needless rollback takes the first one back."""
    before = project.snapshot().snapshot
    (project.root / "train.py").write_text("mine")
    project.rollback(before)
    project.rollback(before)
    assert (project.root / "train.py").read_text() == "one"
    project.undo()
    assert (project.root / "train.py").read_text() == "mine"
    project.redo()
    assert (project.root / "train.py").read_text() == "one"


def test_another_work_tree_of_the_repository_is_no_change(project: Project, tmp_path: Path) -> None:
    """A rollback leaves it to those who work there, so nothing of it has gone either."""
    repository(project.root)
    git(project.root, "worktree", "add", "--quiet", str(tmp_path / "apart"), "-b", "side")
    before = project.snapshot().snapshot
    with project.engine() as engine:
        assert engine.diff(before, None).changes == ()
    (project.root / "train.py").write_text("mine")
    with project.engine() as engine:
        assert [c.path for c in engine.diff(before, None).changes] == ["train.py"]


@pytest.mark.parametrize("live", [True, False])
def test_files_and_folders_that_take_each_others_place(tmp_path: Path, live: bool) -> None:  # noqa: FBT001
    """What went and what came are told apart, an empty folder too; nothing is a size of 0 B."""
    project = Project(tmp_path.resolve())
    root = project.root
    for name in ("emptied", "filled", "gone/deep/file", "flat/file", "linked"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("one")
    (root / "bare").mkdir()
    (root / "kept").mkdir()
    before = project.snapshot().snapshot
    for name in ("emptied", "filled", "linked"):
        (root / name).unlink()
        (root / name).mkdir()
    (root / "filled" / "inside").write_text("new")
    (root / "linked").rmdir()
    (root / "linked").symlink_to("kept")
    shutil.rmtree(root / "gone")
    shutil.rmtree(root / "flat")
    (root / "flat").write_text("two two")
    (root / "bare").rmdir()
    (root / "new" / "deep").mkdir(parents=True)
    after = None if live else project.snapshot().snapshot
    with project.engine() as engine:
        found = engine.diff(before, after)
    assert sorted((c.path, c.action, c.old_bytes, c.new_bytes) for c in found.changes) == [
        ("bare/", "deleted", None, None),
        ("emptied", "deleted", 3, None),
        ("emptied/", "added", None, None),
        ("filled", "deleted", 3, None),
        ("filled/inside", "added", None, 3),
        ("flat", "added", None, 7),
        ("flat/file", "deleted", 3, None),
        ("gone/deep/file", "deleted", 3, None),
        ("linked", "modified", 3, 4),
        ("new/deep/", "added", None, None),
    ]
