"""What rots in the store is noticed before any file of the user changes."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from driving import Project, scratch_project
from faults.states import STATES
from manifest import assert_back, manifest
from rollback.errors import RollbackError
from rollback.model import Snapshot

TRIES = int(os.environ.get("GUARD_DAMAGES", "25"))
"""How many of each kind; the long run asks for a thousand."""
_MIXED = ("plain files", "large and sparse files", "links of all kinds", "SQLite, rollback journal")
pytestmark = pytest.mark.timeout(120 + TRIES)


@pytest.fixture(scope="module")
def stored() -> Iterator[tuple[Project, Snapshot]]:
    """A project with content of every kind in one snapshot."""
    with scratch_project() as project:
        for state in STATES:
            if state.name in _MIXED:
                state.make(project)
        yield project, project.snapshot().snapshot


def _flip(path: Path, dice: random.Random) -> Callable[[], None]:
    at = dice.randrange(path.stat().st_size)
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ (1 << dice.randrange(8))]))

    def mend() -> None:
        with path.open("r+b") as file:
            file.seek(at)
            file.write(bytes([byte]))

    return mend


def _cut(path: Path, dice: random.Random) -> Callable[[], None]:
    content = path.read_bytes()
    os.truncate(path, dice.randrange(len(content)))

    def mend() -> None:
        path.write_bytes(content)

    return mend


def _delete(path: Path, dice: random.Random) -> Callable[[], None]:
    aside = path.with_name(path.name + ".aside")
    path.rename(aside)

    def mend() -> None:
        aside.rename(path)

    return mend


@pytest.mark.parametrize("damage", [_flip, _cut, _delete])
def test_damage_is_caught_before_anything_changes(
    stored: tuple[Project, Snapshot], damage: Callable[[Path, random.Random], Callable[[], None]]
) -> None:
    """Either nothing changed and the damage is named, or it was not needed and all is back."""
    project, snapshot = stored
    built = manifest(project.root)
    dice = random.Random(damage.__name__)
    caught = 0
    for _ in range(TRIES):
        target = dice.choice(_content(project))
        mend = damage(target, dice)
        try:
            _wipe(project)
            wiped = manifest(project.root)
            try:
                project.rollback(snapshot)
            except RollbackError as error:
                caught += 1
                assert "guard verify" in error.hint, error.hint
                assert_back(wiped, manifest(project.root))
            else:
                assert_back(built, manifest(project.root))
        finally:
            mend()
    project.rollback(snapshot)
    assert_back(built, manifest(project.root))
    assert caught > TRIES // 2


def test_a_damaged_catalog_never_restores_something_else(
    stored: tuple[Project, Snapshot],
) -> None:
    """A flipped bit of the catalog: an error of the engine's own, or exactly what was."""
    project, snapshot = stored
    built = manifest(project.root)
    dice = random.Random(7)
    kept = (project.store / "catalog.db").read_bytes()
    for _ in range(TRIES):
        _flip(project.store / "catalog.db", dice)
        _wipe(project)
        wiped = manifest(project.root)
        try:
            with project.engine() as engine:
                found = engine.find_snapshot(snapshot.id)
            project.rollback(found)
        except RollbackError:
            assert_back(wiped, manifest(project.root))
        else:
            assert_back(built, manifest(project.root))
        finally:
            (project.store / "catalog.db").write_bytes(kept)
            shutil.rmtree(project.store / "work")
    project.rollback(snapshot)
    assert_back(built, manifest(project.root))


def _content(project: Project) -> list[Path]:
    packs = [p for p in (project.store / "packs").iterdir() if p.stat().st_size > 60]
    return sorted(packs) + sorted(p for p in (project.store / "loose").rglob("*") if p.is_file())


def _wipe(project: Project) -> None:
    for path in project.root.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
