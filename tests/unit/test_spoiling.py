"""Linked files that were written in place, and whose time was put back."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path

import pytest

from driving import Project
from faults.states import STATES, project_in
from manifest import assert_back, manifest
from rollback.resources.git import git_intact, roots

_TICK_S = 0.03
"""A file younger than the clock's grain is read again in any case, and what befalls one in the tick
in which guard linked it has the same ctime."""
STATE = next(state for state in STATES if state.name == "git repository")


@pytest.fixture
def project() -> Iterator[Project]:
    """A repository, whose objects are kept by their inodes."""
    with project_in(STATE) as made:
        STATE.make(made)
        time.sleep(_TICK_S)
        yield made


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The paths of the files that were read to be held against their owner's hash."""
    paths: list[bytes] = []

    def ask(path: bytes, file: BufferedReader) -> bool | None:
        paths.append(path)
        return git_intact(path, file)

    monkeypatch.setattr(roots, "git_intact", ask)
    monkeypatch.setattr("rollback.inventory.git_intact", ask)
    return paths


def _objects(project: Project) -> list[Path]:
    return sorted((project.root / ".git" / "objects").glob("??/*"))


@contextmanager
def _time_kept(path: Path) -> Iterator[None]:
    time.sleep(_TICK_S)
    info = path.stat()
    path.chmod(0o644)
    yield
    path.chmod(info.st_mode & 0o777)
    os.utime(path, ns=(info.st_atime_ns, info.st_mtime_ns))


def _spoil(path: Path) -> None:
    with _time_kept(path), path.open("r+b") as file:
        file.seek(3)
        byte = file.read(1)
        file.seek(3)
        file.write(bytes([byte[0] ^ 0xFF]))


def _drill(project: Project, mode: str) -> None:
    with project.engine() as engine:
        assert engine.drill(engine.find_snapshot("last"), mode=mode).passed


def _changed(project: Project) -> list[str]:
    with project.engine() as engine:
        return [change.path for change in engine.diff(engine.find_snapshot("1"), None).changes]


@pytest.mark.parametrize("mode", ["full", "auto", "sample"])
def test_links_that_guard_made_are_no_reason_to_read(
    project: Project, asked: list[bytes], mode: str
) -> None:
    """After a snapshot and its rehearsal nothing is read, although both changed the ctimes."""
    project.snapshot()
    for _ in range(2):
        before = [path.stat().st_ctime_ns for path in _objects(project)]
        _drill(project, mode)
        assert before != [path.stat().st_ctime_ns for path in _objects(project)]
        assert _changed(project) == []
        assert project.snapshot().new_bytes == 0
    assert asked == []


def test_a_rollback_reads_no_link_that_it_made(project: Project, asked: list[bytes]) -> None:
    """All objects are gone and come back as links, and the next snapshot believes them."""
    before = manifest(project.root)
    taken = project.snapshot().snapshot
    STATE.spoil(project)
    for path in _objects(project):
        path.unlink(missing_ok=True)
    project.rollback(taken)
    assert_back(before, manifest(project.root))
    asked.clear()
    assert project.snapshot().new_bytes == 0
    assert asked == []
    assert _changed(project) == []


def test_a_link_of_somebody_elses_is_read_once(project: Project, asked: list[bytes]) -> None:
    """`git clone` links objects: what changed its ctime is read, the rest is not."""
    project.snapshot()
    path = _objects(project)[0]
    time.sleep(_TICK_S)
    os.link(path, project.base / "elsewhere")
    project.snapshot()
    assert [os.path.basename(name) for name in asked] == [os.fsencode(path.name)]
    assert _changed(project) == []
    project.snapshot()
    assert len(asked) == 1


@pytest.mark.parametrize("drilled", [True, False])
@pytest.mark.parametrize("again", [True, False])
def test_a_write_in_place_is_no_secret(project: Project, drilled: bool, again: bool) -> None:  # noqa: FBT001
    """It is a change, it is not called back, `verify` knows of it, and its content is undone."""
    taken = project.snapshot().snapshot
    if drilled:
        _drill(project, "full")
    path = _objects(project)[0]
    _spoil(path)
    shown = str(path.relative_to(project.root))
    assert _changed(project) == [shown]
    spoilt = manifest(project.root)
    if again:
        later = project.snapshot().snapshot
        with project.engine() as engine:
            assert not engine.verify(repair=False).ok
    outcome = project.rollback(taken)
    assert [skip.what for skip in outcome.skipped] == [str(path)]
    assert _changed(project) == [shown]
    with project.engine() as engine:
        assert not engine.verify(repair=False).ok
        report = engine.drill(engine.find_snapshot("1"), mode="full")
    assert str(path) in [skip.what for skip in report.skips]
    path.unlink(missing_ok=True)
    if again:
        project.rollback(later)
    else:
        project.undo()
    assert_back(spoilt, manifest(project.root))


def test_a_package_is_held_against_what_was_read(tmp_path: Path) -> None:
    """Once `verify` has read it; before that nobody can tell a write from a patch."""
    project = Project(tmp_path)
    site = project.root / ".venv/lib/python3.11/site-packages"
    info = site / "foo-1.0.dist-info"
    info.mkdir(parents=True)
    (project.root / ".venv/bin").mkdir()
    (project.root / ".venv/bin/python").symlink_to("/usr/bin/python3")
    (project.root / ".venv/pyvenv.cfg").write_text("home = /usr/bin\nversion = 3.11.7\n")
    module, patched = site / "foo.py", site / "patched.py"
    for path in (module, patched):
        path.write_text("x = 1\n")
    (info / "METADATA").write_text("Name: foo\nVersion: 1.0\n")
    lines = [f"{path.name},sha256={'A' * 43},6\n" for path in (module, patched)]
    (info / "RECORD").write_text("".join([*lines, "foo-1.0.dist-info/RECORD,,\n"]))
    before = manifest(project.root)
    taken = project.snapshot().snapshot
    os.link(patched, tmp_path / "elsewhere")
    assert _changed(project) == []
    patched.unlink()
    (tmp_path / "elsewhere").unlink()
    project.rollback(taken)
    assert_back(before, manifest(project.root))
    with project.engine() as engine:
        assert engine.verify(repair=True).ok
    os.link(patched, tmp_path / "again")
    assert _changed(project) == []
    _spoil(module)
    assert _changed(project) == [str(module.relative_to(project.root))]
    assert [skip.what for skip in project.rollback(taken).skipped] == [str(module)]
