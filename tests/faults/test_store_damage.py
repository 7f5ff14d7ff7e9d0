"""What rots in the store is noticed before any file of the user changes."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Iterator

import pytest

from driving import Project
from faults.damage import KINDS, flip, hurt, stored_project, wipe
from manifest import assert_back, manifest
from rollback.errors import RollbackError
from rollback.model import Snapshot

TRIES = int(os.environ.get("GUARD_DAMAGES", "25"))
"""How many of each kind; `python -m tests.faults.damage --long` asks for a thousand."""
pytestmark = pytest.mark.timeout(120 + TRIES)


@pytest.fixture(scope="module")
def stored() -> Iterator[tuple[Project, Snapshot]]:
    """A project with content of every kind in one snapshot."""
    with stored_project() as made:
        yield made


@pytest.mark.parametrize("kind", KINDS)
def test_damage_is_caught_before_anything_changes(
    stored: tuple[Project, Snapshot], kind: str
) -> None:
    """Either nothing changed and the damage is named, or it was not needed and all is back."""
    found = hurt(*stored, kind, until=TRIES)
    assert not found.wrong, "\n".join(found.wrong)
    assert found.caught == TRIES


def test_a_damaged_catalog_never_restores_something_else(
    stored: tuple[Project, Snapshot],
) -> None:
    """A flipped bit of the catalog: an error of the engine's own, or exactly what was."""
    project, snapshot = stored
    built = manifest(project.root)
    dice = random.Random(7)
    kept = (project.store / "catalog.db").read_bytes()
    documents = set((project.store / "snapshots").iterdir())
    for _ in range(TRIES):
        flip(project.store / "catalog.db", dice)
        wipe(project)
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
            for newer in set((project.store / "snapshots").iterdir()) - documents:
                newer.unlink()  # else the catalog were an older one, which is refused
            shutil.rmtree(project.store / "work")
    project.rollback(snapshot)
    assert_back(built, manifest(project.root))
