"""What rots in the store is found by `verify`; with `--repair` the project works again."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from driving import Project
from gitrepo import repository
from manifest import assert_back, manifest
from rollback.errors import CatalogCorrupt, NothingToDo, StoreCorrupt, StoreUnusable
from rollback.mending import Mender
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
    report, said = project.repair()
    assert any("00000001.json cannot be read" in sentence for sentence in said)
    assert [damage.repaired for damage in report.damage] == [False]
    with project.engine() as engine:
        engine.prune(keep_last=1)
    assert _damage(project) == []
    before = manifest(project.root)
    (project.root / "a/b/f1").unlink()
    (project.root / "params").unlink()
    project.rollback(taken)
    assert_back(before, manifest(project.root))


def test_an_older_catalog_is_noticed_before_it_gives_a_number_again(project: Project) -> None:
    """Put back from a backup alone: what was taken since would be lost, and overwritten."""
    project.snapshot()
    old = project.base / "catalog.old"
    shutil.copy2(project.store / "catalog.db", old)
    (project.root / "params").write_text("lr: 0.2\n")
    before = manifest(project.root)
    taken = project.snapshot().snapshot
    (project.root / "params").write_text("lr: 0.3\n")
    (project.root / "a/b/f1").write_text("mine")
    spoilt = manifest(project.root)
    project.rollback(taken)
    shutil.copy2(old, project.store / "catalog.db")
    with pytest.raises(CatalogCorrupt, match="older than the snapshots") as raised:
        project.snapshot()
    assert raised.value.hint == "guard verify --repair"
    report, said = project.repair()
    assert report.ok, report.damage
    assert "it has 3 snapshots" in said[0]
    project.undo()
    assert_back(spoilt, manifest(project.root))
    project.rollback(taken)
    assert_back(before, manifest(project.root))
    assert _damage(project) == []


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


def _places(project: Project) -> Iterator[tuple[Path, int]]:
    """Yield every kind of place in the store where a bit may flip."""
    with project.engine() as engine:
        rows = engine.store.catalog.db.execute(
            "SELECT name, place, blob.length FROM blob JOIN pack ON pack.id = blob.pack"
        ).fetchall()
    for name, place, length in rows:
        pack = project.store / f"packs/{name}.pack"
        yield from ((pack, place - at) for at in (41, 40, 36, 33, 32, 1))
        yield from ((pack, place + at) for at in {0, length // 2, length - 1} if length)
    for pack in {project.store / f"packs/{row[0]}.pack" for row in rows}:
        yield pack, 1
    dice = random.Random(3)
    whole = [project.store / "rescue.pyz", *(project.store / "snapshots").iterdir()]
    for path in (*whole, *(p for p in (project.store / "loose").rglob("*") if p.is_file())):
        yield from ((path, dice.randrange(path.stat().st_size)) for _ in range(4))


def test_each_flipped_bit_is_found_and_mended(project: Project) -> None:
    """Heads, content, trees, documents, the rescue program: each has a second source."""
    before = manifest(project.root)
    taken = project.snapshot().snapshot
    dice = random.Random(5)
    count = len(list(_places(project)))
    assert count > 60
    for number in range(count):
        # A pack with a damaged head is written anew under another name.
        path, at = list(_places(project))[number]
        _flip(path, at, 1 << dice.randrange(8))
        where = f"{path.relative_to(project.store)} at {at}"
        assert _damage(project), f"not found: {where}"
        report, _ = project.repair()
        assert report.ok, f"not mended: {where}: {report.damage}"
        assert not _damage(project), f"damaged still: {where}"
    _wipe(project)
    project.rollback(taken)
    assert_back(before, manifest(project.root))


def _wipe(project: Project) -> None:
    shutil.rmtree(project.root)
    project.root.mkdir()


@pytest.mark.parametrize("at", [41, 40, 36, 33, 32, 10, 1])
def test_a_pack_with_a_damaged_head_is_written_anew(project: Project, at: int) -> None:
    """Every blob in it is proven and moved; nothing else of it is lost."""
    before = manifest(project.root)
    taken = project.snapshot().snapshot
    with project.engine() as engine:
        name, place = engine.store.catalog.db.execute(
            "SELECT name, place FROM blob JOIN pack ON pack.id = blob.pack"
            " ORDER BY pack, place LIMIT 1 OFFSET 2"
        ).fetchone()
    _flip(project.store / f"packs/{name}.pack", place - at)
    assert len(_damage(project)) == 1
    report, _ = project.repair()
    assert report.ok, report.damage
    assert _damage(project) == []
    _wipe(project)
    project.rollback(taken)
    assert_back(before, manifest(project.root))


@pytest.mark.parametrize("loss", [Path.unlink, _half], ids=["gone", "cut in half"])
def test_lost_packs_are_mended_from_the_present_at_once(
    project: Project, loss: Callable[[Path], object]
) -> None:
    """All of it is in the project still: the first repair says that the store is whole, rightly."""
    before = manifest(project.root)
    taken = project.snapshot().snapshot
    for pack in (project.store / "packs").iterdir():
        loss(pack)
    report, _ = project.repair()
    assert report.ok, [damage for damage in report.damage if not damage.repaired]
    assert _damage(project) == []
    _wipe(project)
    project.rollback(taken)
    assert_back(before, manifest(project.root))


@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_lost_packs_of_a_database_are_mended_from_it(project: Project, mode: str) -> None:
    """Its pages, the lists of them, and the list of these; what differs by now is lost."""
    path = project.root / "runs.db"
    db = sqlite3.connect(path, isolation_level=None)
    db.execute(f"PRAGMA journal_mode = {mode}")
    db.execute("CREATE TABLE t (a)")
    with db:
        db.execute("BEGIN")
        db.executemany("INSERT INTO t VALUES (?)", [(os.urandom(1000),) for _ in range(2500)])
    db.close()
    before = manifest(project.root)
    taken = project.snapshot().snapshot
    for pack in (project.store / "packs").iterdir():
        pack.unlink()
    report, _ = project.repair()
    assert report.ok, [damage for damage in report.damage if not damage.repaired]
    assert _damage(project) == []
    _wipe(project)
    project.rollback(taken)
    assert_back(before, manifest(project.root))

    for pack in (project.store / "packs").iterdir():
        pack.unlink()
    info = path.stat()
    with path.open("r+b") as file:
        file.seek(1_500_000)
        file.write(b"another")
    os.utime(path, ns=(info.st_atime_ns, info.st_mtime_ns))
    report, _ = project.repair()
    left = [d for d in report.damage if taken.id in d.snapshots and not d.repaired]
    assert {path for damage in left for path in damage.paths} == {str(path)}


@pytest.mark.parametrize("loss", [Path.unlink, _half], ids=["gone", "cut in half"])
def test_what_is_lost_with_a_pack_is_never_called_mended(
    project: Project, loss: Callable[[Path], object]
) -> None:
    """It is named by each repair, with the snapshot that needs it, and no rollback begins."""
    taken = project.snapshot().snapshot
    (project.root / "a/b/f1").write_text("another")
    (project.root / "a/c/x").unlink()
    for pack in (project.store / "packs").iterdir():
        loss(pack)
    for _ in range(2):
        report, _ = project.repair()
        left = [damage for damage in report.damage if not damage.repaired]
        # The folders that lead to what is lost are lost themselves.
        assert [damage.snapshots for damage in left if str(project.root) in damage.paths]
        assert {name for damage in left for name in damage.snapshots} == {taken.id}
    with pytest.raises(StoreCorrupt):
        project.rollback(taken)


def test_a_pack_behind_a_link_is_not_called_mended(project: Project) -> None:
    """The reader follows no link in a store, so what lies behind one mends nothing."""
    taken = project.snapshot().snapshot
    before = manifest(project.root)
    for pack in (project.store / "packs").iterdir():
        pack.rename(project.base / pack.name)
        pack.symlink_to(project.base / pack.name)
    file = project.root / "a/b/f1"
    held, info = file.read_text(), file.stat()
    file.write_text("lost")
    report, _ = project.repair()
    left = {damage.what for damage in report.damage if not damage.repaired}
    assert left == set(_damage(project)) != set()
    file.write_text(held)
    os.utime(file, ns=(info.st_atime_ns, info.st_mtime_ns))
    report, _ = project.repair()
    assert (report.ok, _damage(project)) == (True, [])
    assert list(project.base.glob("*.pack"))
    _wipe(project)
    project.rollback(taken)
    assert_back(before, manifest(project.root))


def test_what_was_mended_is_read_again(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing counts as mended because something was done about it."""
    project.snapshot()
    _shatter(*_tree(project, "a"))

    def believe(self: Mender) -> None:
        for found in self.bad.values():
            found.repaired = True

    monkeypatch.setattr(Mender, "mend", believe)
    assert not project.repair()[0].ok
    monkeypatch.undo()
    assert project.repair()[0].ok


@pytest.mark.parametrize("name", ["packs", "loose", "links", "snapshots", "work", "log"])
def test_a_file_in_the_place_of_a_folder_of_the_store_is_named(project: Project, name: str) -> None:
    """Which one, and what to do; where it is away, all is as it was, or named as damaged."""
    before = manifest(project.root)
    taken = project.snapshot().snapshot
    folder = project.store / name
    folder.rename(project.base / "aside")
    folder.write_text("in the way")
    with pytest.raises(StoreUnusable, match=f"{folder} is no folder") as raised:
        project.repair()
    assert raised.value.hint == "move it away, then: guard verify --repair"
    folder.unlink()
    (project.base / "aside").rename(folder)
    assert project.repair()[0].ok
    _wipe(project)
    project.rollback(taken)
    assert_back(before, manifest(project.root))


def test_links_that_are_gone_are_made_again(tmp_path: Path) -> None:
    """Of files that are in the project still, the very same; what went or came anew is lost."""
    made = Project(tmp_path.resolve())
    repository(made.root)
    before = manifest(made.root)
    taken = made.snapshot().snapshot
    linked = [path for path in (made.store / "links").glob("*/*") if path.stat().st_nlink > 1]
    assert linked
    for path in linked:
        path.unlink()
    report, _ = made.repair()
    assert report.ok, [damage for damage in report.damage if not damage.repaired]
    assert {path for path in linked if path.stat().st_nlink == 2} == set(linked)
    shutil.rmtree(made.root / ".git")
    made.rollback(taken)
    assert_back(before, manifest(made.root))


def test_links_that_are_gone_are_not_made_to_what_is_another_file(tmp_path: Path) -> None:
    """A copy is no proof of what the size and time of a file stood for, nor is what git denies."""
    made = Project(tmp_path.resolve())
    repository(made.root)
    made.snapshot()
    shutil.rmtree(made.store / "links")
    (made.store / "links").mkdir()
    copied, spoilt, *_ = (made.root / ".git/objects").glob("??/*")
    content = copied.read_bytes()
    copied.rename(made.base / "elsewhere")
    copied.write_bytes(content)
    info = spoilt.stat()
    spoilt.chmod(0o644)
    with spoilt.open("r+b") as file:
        file.write(b"spoilt")
    spoilt.chmod(0o444)
    os.utime(spoilt, ns=(info.st_atime_ns, info.st_mtime_ns))
    report, _ = made.repair()
    left = {path for damage in report.damage if not damage.repaired for path in damage.paths}
    assert {str(copied), str(spoilt)} == left


def _tree(project: Project, path: str) -> tuple[Path, int]:
    """Return where the tree of a folder lies that the newest snapshot has."""
    with project.engine() as engine:
        snapshot = engine.find_snapshot("last")
        tree = bytes.fromhex(snapshot.states[0].data["tree"])
        for name in filter(None, path.encode().split(b"/")):
            tree = next(e.ref for e in engine.store.reader.tree(tree) if e.name == name)
    return _packed(project, tree)


def _packed(project: Project, blob: bytes) -> tuple[Path, int]:
    with project.engine() as engine:
        place = engine.store.reader.place(blob)
        found = engine.store.catalog.db.execute(
            "SELECT name FROM pack WHERE id = ?", (place.pack,)
        ).fetchone()
    return project.store / f"packs/{found[0]}.pack", place.offset


def _shatter(path: Path, at: int) -> None:
    """Damage more than one bit, so that only the present can mend it."""
    for offset in range(4):
        _flip(path, at + offset, 0xFF)


@pytest.mark.parametrize("folder", ["a/b", "a", ""])
def test_a_damaged_tree_is_mended_from_the_present(project: Project, folder: str) -> None:
    """Read anew, for where nothing changed it is what it was."""
    before = manifest(project.root)
    taken = project.snapshot().snapshot
    _shatter(*_tree(project, folder))
    report, _ = project.repair()
    assert report.ok, report.damage
    assert _damage(project) == []
    _wipe(project)
    project.rollback(taken)
    assert_back(before, manifest(project.root))


@pytest.mark.parametrize("folder", ["a/b", "a", ""])
def test_a_damaged_tree_that_is_lost_stops_nothing_else(project: Project, folder: str) -> None:
    """The snapshot that needs it stays damaged; the next one is whole."""
    project.snapshot()
    _shatter(*_tree(project, folder))
    (project.root / "a/b/f1").write_text("changed since")
    (project.root / "more").write_text("so that each folder is another")
    report, _ = project.repair()
    assert not report.ok
    before = manifest(project.root)
    taken = project.snapshot().snapshot
    _wipe(project)
    project.rollback(taken)
    assert_back(before, manifest(project.root))
    with project.engine() as engine:
        engine.prune(keep_last=1, keep_days=0)
        engine.prune(keep_last=0, keep_days=0)
    project.snapshot()
    with project.engine() as engine:
        engine.prune(keep_last=0, keep_days=0)
    assert _damage(project) == []


def test_a_store_without_its_marker_is_no_new_one(project: Project) -> None:
    """Nothing says that there was no snapshot, and `--repair` makes the marker again."""
    snapshot = project.snapshot().snapshot
    built = manifest(project.root)
    (project.store / "STORE").unlink()
    for create in (False, True):
        with pytest.raises(StoreCorrupt, match="marker of the store is gone") as caught:
            project.engine(create=create)
        assert caught.value.hint == "guard verify --repair"
    report, said = project.repair()
    assert report.ok
    assert said == ["the marker of the store was made again"]
    shutil.rmtree(project.root)
    project.rollback(snapshot)
    assert_back(built, manifest(project.root))


def test_a_folder_that_is_no_store_is_called_so(project: Project) -> None:
    """It does exist, and nothing is made in it."""
    project.store.mkdir()
    (project.store / "catalog.db").write_text("somebody's own")
    with pytest.raises(NothingToDo, match="is not a guard store"):
        project.engine(create=False)
    with pytest.raises(StoreUnusable, match="not empty"):
        project.engine()
    assert sorted(os.listdir(project.store)) == ["catalog.db"]


def test_a_flipped_bit_in_the_marker_or_the_key(project: Project) -> None:
    """The one locks everybody out, the other lets every variable look changed."""
    project.snapshot()
    key = (project.store / "key").read_bytes()
    _flip(project.store / "key", 7, 4)
    assert _damage(project) == ["the key is not what was made"]
    assert project.repair()[0].ok
    assert (project.store / "key").read_bytes() == key
    (project.store / "key").write_bytes(bytes(32))
    assert project.repair()[0].ok
    assert _damage(project) == []
    project.snapshot()
    assert (project.store / "key").read_bytes() not in (key, bytes(32))
    _flip(project.store / "STORE", 3)
    with pytest.raises(StoreUnusable), project.engine():
        pass
    report, said = project.repair()
    assert report.ok
    assert said == ["the marker of the store was made again"]
    assert _damage(project) == []
    (project.store / "STORE").write_bytes(b"guard store 9\n")  # no damage: a later version's
    with pytest.raises(StoreUnusable):
        project.repair()


@pytest.mark.parametrize("path", ["a/b/f1", "a/b", "big"])
def test_what_is_lost_and_comes_again_is_kept_again(project: Project, path: str) -> None:
    """And with it the older snapshot is whole; nobody takes the damaged bytes for known."""
    before = manifest(project.root)
    taken = project.snapshot().snapshot
    _shatter(*(_loose(project) if path == "big" else _tree(project, path)))
    held = project.base / "held"
    shutil.copytree(project.root, held)
    _wipe(project)
    assert not project.repair()[0].ok
    project.root.rmdir()
    shutil.copytree(held, project.root)
    for name in ("a/b", "a/c", "a", "."):
        shutil.copystat(held / name, project.root / name)
    again = project.snapshot().snapshot
    assert _damage(project) == []
    for snapshot in (taken, again):
        _wipe(project)
        project.rollback(snapshot)
        assert_back(before, manifest(project.root))
    with project.engine() as engine:
        engine.prune(keep_last=0, keep_days=0)
    assert _damage(project) == []


def test_a_database_is_not_built_upon_what_is_lost_of_it(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Although nothing in it changed: the next snapshot keeps it again, and mends the older."""
    path = project.root / "runs.db"
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.executescript("CREATE TABLE t (a); INSERT INTO t VALUES (1)")
    os.utime(path, ns=(1, 1))
    time.sleep(0.03)
    before = manifest(project.root)
    taken = project.snapshot().snapshot
    for name in taken.states[-1].data["blobs"]:
        _shatter(*_packed(project, bytes.fromhex(name)))
    # The database was away, say, when the store was repaired: else it would have mended it.
    monkeypatch.setattr(Mender, "_mend_pages", lambda _self, _waiting: None)
    monkeypatch.setattr(Mender, "_lists", lambda _self, _bad: iter(()))
    assert not project.repair()[0].ok
    monkeypatch.undo()
    again = project.snapshot().snapshot
    assert _damage(project) == []
    for snapshot in (taken, again):
        path.unlink()
        project.rollback(snapshot)
        assert_back(before, manifest(project.root))


def _loose(project: Project) -> tuple[Path, int]:
    return next(p for p in (project.store / "loose").rglob("*") if p.is_file()), 0


def test_a_damaged_tree_is_not_known(project: Project) -> None:
    """Where a folder has to be looked into, it is read anew; the snapshot goes through."""
    project.snapshot()
    _shatter(*_tree(project, ""))
    (project.root / "params").write_text("changed since")
    before = manifest(project.root)
    taken = project.snapshot().snapshot
    _wipe(project)
    project.rollback(taken)
    assert_back(before, manifest(project.root))


def test_wrong_counts_are_set_right(project: Project) -> None:
    """One too few, and the next prune would delete what is needed."""
    project.snapshot()
    (project.root / "more").write_text("x")
    taken = project.snapshot().snapshot
    with project.engine() as engine:
        engine.store.catalog.db.execute("UPDATE blob SET refs = refs - 1 WHERE refs > 1")
    assert _damage(project)
    assert project.repair()[0].ok
    assert _damage(project) == []
    with project.engine() as engine:
        engine.prune(keep_last=1, keep_days=0)
    assert _damage(project) == []
    before = manifest(project.root)
    _wipe(project)
    project.rollback(taken)
    assert_back(before, manifest(project.root))


@pytest.mark.parametrize("column", ["tree", "signatures", "ctimes", "notes"])
def test_an_index_that_means_nothing_is_forgotten(project: Project, column: str) -> None:
    """A snapshot would take a tree over that there is not, or stumble."""
    project.snapshot()
    with project.engine() as engine:
        engine.store.catalog.db.execute(
            f"UPDATE live SET {column} = substr({column}, 1, length({column}) - 1)"
            " WHERE folder = ?",
            (b"a/b",),
        )
    assert _damage(project)
    assert project.repair()[0].ok
    before = manifest(project.root)
    taken = project.snapshot().snapshot
    _wipe(project)
    project.rollback(taken)
    assert_back(before, manifest(project.root))


_SPOIL = "UPDATE snapshot SET document = replace(document, 'f', 'g')"


def test_records_of_a_snapshot_mend_each_other(project: Project) -> None:
    """The catalog's and the document's; without both, the rest is read all the same."""
    taken = project.snapshot().snapshot
    document = project.store / "snapshots/00000001.json"
    with project.engine() as engine:
        engine.store.catalog.db.execute(
            "UPDATE snapshot SET document = replace(document, 'f', 'g')"
        )
    assert project.repair()[0].ok
    document.unlink()
    with project.engine() as engine:
        engine.store.catalog.db.execute("UPDATE snapshot SET label = 'another'")
    assert len(_damage(project)) == 2
    assert project.repair()[0].ok
    with project.engine() as engine:
        assert engine.find_snapshot("last") == taken
        engine.store.catalog.db.execute(
            "UPDATE snapshot SET document = replace(document, 'f', 'g')"
        )
    document.write_bytes(b"{}")
    report, _ = project.repair()
    assert not report.ok
    assert report.damage[0].snapshots == (taken.id,)


@pytest.mark.parametrize("wrong", ["place = place + 1", "length = length + 8", "kind = 3"])
def test_a_row_that_names_a_wrong_place_is_set_right(project: Project, wrong: str) -> None:
    """By the heads: the content itself is whole, and nothing on disk has to equal it."""
    before = manifest(project.root)
    taken = project.snapshot().snapshot
    _wipe(project)
    with project.engine() as engine:
        engine.store.catalog.db.execute(f"UPDATE blob SET {wrong} WHERE kind = 1")
    assert _damage(project)
    report, _ = project.repair()
    assert report.ok, report.damage
    assert _damage(project) == []
    project.rollback(taken)
    assert_back(before, manifest(project.root))


@pytest.mark.parametrize(("kind", "other"), [(5, 1), (5, 7), (1, 5), (1, 3)])
def test_a_row_of_a_wrong_kind_is_set_right(project: Project, kind: int, other: int) -> None:
    """A tree that is taken for a file refers to nothing, and the next prune would empty it."""
    taken = project.snapshot().snapshot
    before = manifest(project.root)
    with project.engine() as engine:
        kinds = engine.store.catalog.db.execute("SELECT id, kind FROM blob ORDER BY id").fetchall()
        engine.store.catalog.db.execute(
            "UPDATE blob SET kind = ? WHERE id = (SELECT id FROM blob WHERE kind = ? LIMIT 1)",
            (other, kind),
        )
    assert _damage(project)
    assert project.repair()[0].ok
    with project.engine() as engine:
        now = engine.store.catalog.db.execute("SELECT id, kind FROM blob ORDER BY id").fetchall()
    assert now == kinds
    _wipe(project)
    project.rollback(taken)
    assert_back(before, manifest(project.root))


def test_a_flipped_bit_in_what_git_wrote_is_found(tmp_path: Path) -> None:
    """A link has no hash of its own; size and time say nothing of it, its name does."""
    made = Project(tmp_path.resolve())
    repository(made.root)
    made.snapshot()
    assert _damage(made) == []
    path = next((made.root / ".git/objects").glob("??/*"))
    info = path.stat()
    path.chmod(0o644)
    with path.open("r+b") as file:
        file.seek(info.st_size // 2)
        byte = file.read(1)[0]
        file.seek(info.st_size // 2)
        file.write(bytes([byte ^ 1]))
    path.chmod(0o444)
    os.utime(path, ns=(info.st_atime_ns, info.st_mtime_ns))
    (damage,) = _damage(made)
    assert "git" in damage


def test_what_cannot_be_mended_is_left_out_after_a_repair_was_tried(project: Project) -> None:
    """One damaged file does not keep a whole folder lost: it is named, and all else comes back."""
    lost = project.root / "a/big"
    (project.root / "big").rename(lost)
    taken = project.snapshot().snapshot
    _shatter(*_loose(project))
    _wipe(project)
    spoilt = manifest(project.root)
    with pytest.raises(StoreCorrupt, match="a/big is damaged; nothing was changed") as told:
        project.rollback(taken)
    assert told.value.hint.startswith("guard verify --repair, then the same again")
    assert _damage(project)
    with pytest.raises(StoreCorrupt):
        project.rollback(taken)
    assert_back(spoilt, manifest(project.root))
    assert not project.repair()[0].ok
    outcome = project.rollback(taken)
    (skip,) = outcome.skipped
    assert (skip.what, skip.fix) == (str(lost), "bring it back from where it came from")
    assert not lost.exists()
    now = manifest(project.root)
    assert (project.root / "a/c/x").exists()
    project.undo()
    assert_back(spoilt, manifest(project.root))
    lost.parent.mkdir()
    lost.write_bytes(b"newer")
    project.rollback(taken)
    assert lost.read_bytes() == b"newer", "what is there is all that there is of it"
    assert set(manifest(project.root)) == {*now, b"a/big"}
