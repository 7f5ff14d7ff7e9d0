"""What rots in the store is found by `verify`; with `--repair` the project works again."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from driving import Project
from manifest import assert_back, manifest
from rollback.errors import CatalogCorrupt
from rollback.reports import Selection


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A project with small files in folders, and a large one."""
    made = Project(tmp_path.resolve())
    (made.root / "a/b").mkdir(parents=True)
    for number in range(5):
        (made.root / f"a/b/f{number}").write_text(f"file {number}\n")
    (made.root / "a/c").mkdir()
    (made.root / "a/c/x").write_text("another")
    (made.root / "big").write_bytes(os.urandom(1_200_000))
    (made.root / "params").write_text("lr: 0.1\n")
    return made


def _damage(project: Project) -> list[str]:
    with project.engine() as engine:
        return [damage.what for damage in engine.verify(repair=False).damage]


def _flip(path: Path, at: int, bit: int = 1) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= bit
    path.write_bytes(bytes(content))


def _half(catalog: Path) -> None:
    os.truncate(catalog, catalog.stat().st_size // 2)


def _shot(catalog: Path) -> None:
    """Overwrite a page in the middle."""
    content = bytearray(catalog.read_bytes())
    content[8192 : 8192 + 4096] = os.urandom(4096)
    catalog.write_bytes(bytes(content))


LOSSES: dict[str, Callable[[Path], object]] = {
    "gone": Path.unlink,
    "empty": lambda catalog: catalog.write_bytes(b""),
    "garbage": lambda catalog: catalog.write_bytes(os.urandom(20_000)),
    "cut in half": _half,
    "a page overwritten": _shot,
}


@pytest.mark.parametrize("loss", LOSSES)
def test_a_lost_catalog_is_made_again(project: Project, loss: str) -> None:
    """Rollback, undo and the next snapshot go on as if nothing had happened."""
    before = manifest(project.root)
    taken = project.snapshot().snapshot
    (project.root / "a/b/f1").write_text("spoilt")
    spoilt = manifest(project.root)
    project.rollback(taken)
    LOSSES[loss](project.store / "catalog.db")
    with pytest.raises(CatalogCorrupt), project.engine() as engine:
        engine.verify(repair=False)

    report, said = project.repair()
    assert report.ok, report.damage
    assert "the catalog was made again" in said[0]
    project.undo()
    assert_back(spoilt, manifest(project.root))
    project.rollback(taken)
    assert_back(before, manifest(project.root))
    assert project.snapshot().snapshot.seq > taken.seq + 2
    assert _damage(project) == []


def test_an_undo_of_a_part_stays_in_its_part_without_the_log(project: Project) -> None:
    """What was selected, and whether it was an undo, is told by the undo snapshot itself."""
    taken = project.snapshot().snapshot
    (project.root / "a/b/f1").write_text("spoilt")
    (project.root / "params").write_text("mine")
    chosen = Selection(paths=(os.fsencode(project.root / "a"),))
    project.rollback(taken, chosen)
    project.undo()
    (project.store / "catalog.db").unlink()
    project.repair()
    (project.root / "params").write_text("later")
    project.redo()
    assert (project.root / "a/b/f1").read_text() == "file 1\n"
    assert (project.root / "params").read_text() == "later"


def test_what_of_the_log_can_be_read_is_taken_over(project: Project) -> None:
    """A line that is none any more is left out; all others are as they were."""
    project.snapshot()
    project.snapshot()
    with project.engine() as engine:
        operation = engine.begin("drill", {"why": "to be told"})
        engine.finish(operation, "done", {"drill": {"passed": True}})
        engine.store.catalog.db.execute("UPDATE operation SET data = '{' WHERE seq = 1")
    with pytest.raises(CatalogCorrupt), project.engine() as engine:
        engine.operations()
    project.repair()
    with project.engine() as engine:
        drill, *older = engine.operations()
    assert drill.data["drill"] == {"passed": True}
    assert [operation.seq for operation in older] == [2, 1]


def test_a_lost_catalog_and_a_lost_document_cost_one_snapshot(project: Project) -> None:
    """What only the lost one needed goes with the next prune, and nothing that others need."""
    project.snapshot()
    (project.root / "params").write_text("lr: 0.2\n")
    taken = project.snapshot().snapshot
    _flip(project.store / "snapshots/00000001.json", 40)
    (project.store / "catalog.db").unlink()
    _, said = project.repair()
    assert any("00000001.json cannot be read" in sentence for sentence in said)
    with project.engine() as engine:
        engine.prune(keep_last=1)
    assert _damage(project) == []
    before = manifest(project.root)
    (project.root / "a/b/f1").unlink()
    (project.root / "params").unlink()
    project.rollback(taken)
    assert_back(before, manifest(project.root))


def test_numbers_are_not_given_again(project: Project) -> None:
    """Files in the store are named by the operation: a number used twice would overwrite one."""
    project.snapshot()
    (project.root / "params").write_text("lr: 0.2\n")
    project.snapshot()
    for document in (project.store / "snapshots").iterdir():
        document.unlink()
    (project.store / "catalog.db").write_bytes(os.urandom(9000))
    project.repair()
    packs = {path.name for path in (project.store / "packs").iterdir()}
    assert project.snapshot().snapshot.seq == 3
    assert packs <= {path.name for path in (project.store / "packs").iterdir()}


@pytest.mark.parametrize("at", [0, 2, 8, 12, 40])
def test_a_damaged_head_loses_nothing_with_the_catalog(project: Project, at: int) -> None:
    """Each blob is found again by its content, whatever bit of a head was flipped."""
    before = manifest(project.root)
    taken = project.snapshot().snapshot
    with project.engine() as engine:
        name, place = engine.store.catalog.db.execute(
            "SELECT name, place FROM blob JOIN pack ON pack.id = blob.pack"
            " WHERE kind = 1 ORDER BY place LIMIT 1 OFFSET 1"
        ).fetchone()
    _flip(project.store / f"packs/{name}.pack", place - 41 + at, 1 if at else 0x40)
    (project.store / "catalog.db").unlink()
    report, _ = project.repair()
    assert report.ok, report.damage
    for path in (project.root / "a/b").iterdir():
        path.unlink()
    project.rollback(taken)
    assert_back(before, manifest(project.root))
