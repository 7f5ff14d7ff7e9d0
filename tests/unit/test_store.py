"""The store by itself: packs, pages, transactions, and what a failed one leaves behind."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import os
import random
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from driving import Project
from rollback.errors import NothingToDo, StoreCorrupt, StoreUnusable
from rollback.store import catalog
from rollback.store.catalog import VERSION, BlobKind, Place
from rollback.store.packs import PackWriter, salvage
from rollback.store.pages import PAGE, PageReader, PageWriter
from rollback.store.store import Store
from rollback.store.writer import BlobWriter


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """A new store."""
    made = Store(tmp_path / "store", create=True)
    yield made
    made.close()


def _kept(store: Store, stem: str, content: bytes) -> bytes:
    blob = hashlib.sha256(content).digest()
    with store.catalog.transaction():
        writer = BlobWriter(store.reader, stem)
        writer.add_packed(BlobKind.PACKED, blob, content)
        writer.refer(blob)
        writer.finish()
    return blob


def _paged(
    store: Store, stem: str, content: bytes, before: bytes | None = None
) -> tuple[bytes, int]:
    with store.catalog.transaction():
        writer = BlobWriter(store.reader, stem)
        blob = PageWriter(writer).add(io.BytesIO(content), before)
        writer.refer(blob)
        writer.finish()
    return blob, writer.new_bytes


def test_a_packed_blob_comes_back(store: Store) -> None:
    """Written in one transaction, read in the next."""
    blob = _kept(store, "00000001", b"content")
    assert store.reader.read(blob) == b"content"


@pytest.mark.parametrize("size", [0, 1, PAGE - 1, PAGE, PAGE + 1, 3 << 20, (1 << 20) + 5])
def test_pages_come_back(store: Store, size: int) -> None:
    """Streams of any length, whole pages or not."""
    content = (os.urandom(997) * (size // 997 + 1))[:size]
    blob, _ = _paged(store, "00000001", content)
    target = io.BytesIO()
    store.reader.copy_to(blob, target)
    assert target.getvalue() == content


def test_a_changed_page_costs_little_more_than_itself(store: Store) -> None:
    """The reason for pages: one of 2,048 changed."""
    content = bytearray(os.urandom(8 << 20))
    before, first = _paged(store, "00000001", bytes(content))
    content[5 << 20] ^= 1
    after, second = _paged(store, "00000002", bytes(content), before)
    assert first >= 8 << 20
    assert second < 32 * 1024
    target = io.BytesIO()
    store.reader.copy_to(after, target)
    assert target.getvalue() == bytes(content)


def _flip(content: bytearray, pages: Iterable[int]) -> None:
    for page in pages:
        content[page * PAGE] ^= 1


def test_scattered_pages_cost_little_more_than_themselves(store: Store) -> None:
    """Ten of each chunk's 256, time and again: a list of all pages would add a fifth."""
    content = bytearray(os.urandom(8 << 20))
    blob, _ = _paged(store, "00000001", bytes(content))
    for turn in range(2, 5):
        changed = [chunk * 256 + number for chunk in range(8) for number in range(turn, 250, 26)]
        _flip(content, changed)
        blob, added = _paged(store, f"{turn:08}", bytes(content), blob)
        assert added < 1.05 * len(changed) * PAGE
        target = io.BytesIO()
        store.reader.copy_to(blob, target)
        assert target.getvalue() == bytes(content)


@pytest.mark.parametrize("tail", [0, 5])
@pytest.mark.parametrize("each", [1, 7, 40, 256])
def test_what_differs_from_what_differs_comes_back(each: int, tail: int, store: Store) -> None:
    """Deltas never stand on deltas, and a chunk that comes back is the one from before."""
    content = bytearray(os.urandom((1 << 20) + tail))
    dice = random.Random(each)
    states: list[tuple[bytes, bytes]] = []
    before: bytes | None = None
    for turn in range(1, 9):
        before, _ = _paged(store, f"{turn:08}", bytes(content), before)
        states.append((before, bytes(content)))
        _flip(content, dice.sample(range(256), each))
    again, added = _paged(store, "00000009", states[0][1], before)
    assert again == states[0][0]
    assert added == 0
    reader = PageReader(store.reader)
    for blob, expected in states:
        target = io.BytesIO()
        store.reader.copy_to(blob, target)
        assert target.getvalue() == expected
        for _, segment in reader.recipe(blob)[1]:
            base, _ = reader.segment(segment)
            assert reader.segment(base)[0] == base


def test_a_lost_base_is_damage_that_is_named(store: Store) -> None:
    """Never wrong pages."""
    content = bytearray(os.urandom(1 << 20))
    before, _ = _paged(store, "00000001", bytes(content))
    base = PageReader(store.reader).recipe(before)[1][0][1]
    _flip(content, [3])
    after, _ = _paged(store, "00000002", bytes(content), before)
    store.catalog.db.execute("DELETE FROM blob WHERE id = ?", (base,))
    with pytest.raises(StoreCorrupt, match=base.hex()[:16]):
        store.reader.copy_to(after, io.BytesIO())
    again, _ = _paged(store, "00000003", bytes(content)[:-1] + b"!", after)
    target = io.BytesIO()
    store.reader.copy_to(again, target)
    assert target.getvalue() == bytes(content)[:-1] + b"!"


def _fail_in_the_middle(store: Store, blob: bytes, content: bytes) -> None:
    with store.catalog.transaction():
        writer = BlobWriter(store.reader, "00000001")
        writer.add_packed(BlobKind.PACKED, blob, content)
        writer.settle()
        assert store.reader.read(blob) == content
        writer.abandon()
        raise ZeroDivisionError


def test_a_failed_transaction_leaves_nothing_that_is_read_later(store: Store) -> None:
    """Its pack numbers are given again: what was open under one of them must not be read."""
    first = b"first content"
    lost = hashlib.sha256(first).digest()

    with pytest.raises(ZeroDivisionError):
        _fail_in_the_middle(store, lost, first)
    kept = _kept(store, "00000002", b"OTHER content, and longer than the first one was")
    assert store.reader.read(kept).startswith(b"OTHER")
    with pytest.raises(StoreCorrupt):
        store.reader.read(lost)


def _filled(pack: PackWriter) -> dict[int, bytes]:
    """Add blobs, more than one write has, and return where each was said to be."""
    contents = [bytes([n]) * 50_000 for n in range(6)]
    found: dict[int, bytes] = {}
    for content in contents:
        with contextlib.suppress(OSError):
            found[pack.append(1, content[:32], content)] = content
    return found


def test_a_pack_that_met_a_full_disk_is_whole_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A write that took a part is gone on with where it stopped, a name that failed given again."""
    write, rename = os.write, os.rename
    full = [True]

    def little(fd: int, view: memoryview) -> int:
        if not full[0]:
            return write(fd, view)
        if len(view) < 60_000:
            raise OSError(errno.ENOSPC, "no space")
        return write(fd, view[:1_000])

    def refused(old: bytes, new: bytes) -> None:
        if full[0]:
            raise OSError(errno.ENOSPC, "no space")
        rename(old, new)

    monkeypatch.setattr(os, "write", little)
    monkeypatch.setattr(os, "rename", refused)
    pack = PackWriter(os.fsencode(tmp_path), "p")
    found = _filled(pack)
    with pytest.raises(OSError, match="no space"):
        pack.close()
    monkeypatch.setattr(os, "write", write)
    with pytest.raises(OSError, match="no space"):
        pack.close()
    full[0] = False
    pack.close()
    content = (tmp_path / "p.pack").read_bytes()
    assert 1 < len(found) <= 6
    for offset, expected in found.items():
        assert content[offset : offset + len(expected)] == expected
    assert len(content) == pack.length


def test_a_pack_whose_sync_failed_is_never_taken_for_durable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel tells of lost pages once; a second sync that succeeds says nothing."""
    pack = PackWriter(os.fsencode(tmp_path), "p")
    pack.append(1, bytes(32), b"content")
    with monkeypatch.context() as broken:
        broken.setattr(os, "fsync", _failing_sync)
        with pytest.raises(OSError, match="quota"):
            pack.close()
    with pytest.raises(OSError, match="quota"):
        pack.close()
    pack.abandon()
    assert not list(tmp_path.iterdir())


def _failing_sync(_: int) -> None:
    raise OSError(errno.EDQUOT, "quota")


def test_a_pack_can_be_read_without_the_catalog(tmp_path: Path) -> None:
    """Its heads are enough; of a pack cut short, what precedes the cut is there."""
    pack = PackWriter(os.fsencode(tmp_path), "p")
    contents = [b"one", b"", b"three" * 1000]
    offsets = [pack.append(1, hashlib.sha256(c).digest(), c) for c in contents]
    pack.close()
    path = tmp_path / "p.pack"
    expected = list(zip(offsets, map(len, contents), strict=True))
    with path.open("rb") as file:
        found = list(salvage(file.fileno(), list(BlobKind)))
    assert [(record.offset, record.length) for record in found] == expected
    assert all(record.sound for record in found)
    os.truncate(path, path.stat().st_size - 1)
    with path.open("rb") as file:
        cut = list(salvage(file.fileno(), list(BlobKind)))
    assert cut[:2] == found[:2]
    assert found[2].blob not in {record.blob for record in cut}


def test_an_abandoned_pack_is_gone(tmp_path: Path) -> None:
    """Neither its name nor its partial file stays."""
    pack = PackWriter(os.fsencode(tmp_path), "p")
    pack.append(1, b"\0" * 32, b"x")
    pack.abandon()
    assert list(tmp_path.iterdir()) == []


def test_values_of_any_name(store: Store) -> None:
    """Keys and values that hold bytes of a path in no encoding."""
    store.catalog.set_value("drill:\udcff", "a\udc80")
    assert store.catalog.value("drill:\udcff") == "a\\udc80"
    assert store.catalog.value("absent", "default") == "default"


def test_a_transaction_is_all_or_nothing(store: Store) -> None:
    """An error in it takes everything back."""

    def change() -> None:
        with store.catalog.transaction():
            store.catalog.set_value("a", "1")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        change()
    assert store.catalog.value("a") == ""


def test_places_are_looked_up_many_at_once(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """As one by one; those that nobody has are none, and no more than so many are remembered."""
    blobs = [bytes([n]) * 32 for n in range(9)]
    with store.catalog.transaction():
        for n, blob in enumerate(blobs[:6]):
            store.catalog.move(blob, Place(BlobKind.PACKED, 1, n, 10))
    found = store.catalog.places([*blobs, b"", b"short"])
    assert found == {blob: store.catalog.place(blob) for blob in blobs}
    assert [found[blob] is None for blob in blobs] == [False] * 6 + [True] * 3
    monkeypatch.setattr(catalog, "_PLACES", 4)
    with store.catalog.remembering():
        for at in (0, 3, 6):
            part = blobs[at : at + 3]
            known = store.catalog.places(part)
            assert {blob: known[blob] for blob in part} == {blob: found[blob] for blob in part}
            assert len(known) <= 4
        assert store.catalog.place(blobs[0]) == found[blobs[0]]


def test_what_was_remembered_is_forgotten_after_the_block(store: Store) -> None:
    """A blob that was moved since is found where it is."""
    blob = b"b" * 32
    with store.catalog.remembering():
        assert store.catalog.place(blob) is None
    with store.catalog.transaction():
        store.catalog.move(blob, Place(BlobKind.LOOSE, 0, 0, 7))
    moved = store.catalog.place(blob)
    assert moved is not None
    assert moved.kind is BlobKind.LOOSE


def test_strays_are_found_and_swept(store: Store) -> None:
    """What dead processes left; what is in use or of an open operation stays."""
    operation = store.begin("run", {})
    for name in ("00000099", "drill-999999999", f"drill-{os.getpid()}", "mend-x"):
        (store.path / "work" / name).mkdir()
    (store.path / "packs" / "00000001-0.pack.tmp").touch()
    (store.path / "snapshots" / "00000001.json.tmp").touch()
    store.litter.sweep()
    left = sorted(path.name for path in (store.path / "work").iterdir())
    assert left == sorted(
        [Path(os.fsdecode(store.work(operation.seq))).name, f"drill-{os.getpid()}"]
    )
    assert not list((store.path / "packs").iterdir())
    assert not list((store.path / "snapshots").iterdir())


def test_a_folder_of_something_else_is_no_store(tmp_path: Path) -> None:
    """Not even an empty-looking one of another program."""
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(StoreUnusable, match="not empty"):
        Store(tmp_path, create=True)
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_a_store_of_another_format_is_refused(tmp_path: Path) -> None:
    """Whatever a later version writes, this one does not touch."""
    Store(tmp_path / "s", create=True).close()
    (tmp_path / "s/STORE").write_bytes(b"guard store 2\n")
    with pytest.raises(StoreUnusable, match="format"):
        Store(tmp_path / "s", create=True)


def test_no_store_is_made_for_those_who_only_look(tmp_path: Path) -> None:
    """``guard log`` in a fresh project leaves nothing behind."""
    with pytest.raises(NothingToDo):
        Store(tmp_path / "s", create=False)
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize("content", [b"", b"x" * 5000, b"SQLite format 3\0" + b"\xff" * 4080])
def test_a_catalog_that_is_none_is_said(tmp_path: Path, content: bytes) -> None:
    """An empty one is made anew, any other is damaged, and never a traceback."""
    Store(tmp_path / "s", create=True).close()
    (tmp_path / "s/catalog.db").write_bytes(content)
    if not content:
        Store(tmp_path / "s", create=True).close()
        return
    with pytest.raises(StoreCorrupt, match="catalog"):
        Store(tmp_path / "s", create=True)


@pytest.mark.parametrize(("age_s", "stays"), [(0.01, False), (1.0, True)])
def test_what_no_row_names_goes_if_it_is_no_older_than_what_died(
    store: Store, age_s: float, *, stays: bool
) -> None:
    """A file's time is that of the kernel's last tick: it may be a little older than its maker."""
    folder = store.path / "links" / "ab"
    folder.mkdir(parents=True)
    unknown, foreign = folder / ("ab" * 32), folder / "notes.txt"
    unknown.touch()
    foreign.touch()
    with store.catalog.transaction():
        store.litter.note_unclean(unknown.stat().st_ctime + age_s)
    store.litter.sweep()
    assert unknown.exists() is stays
    assert foreign.exists()
    assert store.litter.unclean_since() is None


def test_a_store_of_an_earlier_version_learns_what_it_lacks(tmp_path: Path) -> None:
    """The first snapshot makes the index by which large files are added up; a full disk waits."""
    project = Project(tmp_path)
    (project.root / "large").write_bytes(os.urandom(2 << 20))
    project.snapshot()
    with project.engine() as engine:
        engine.store.catalog.db.execute("DROP INDEX large")
        engine.store.catalog.db.execute("PRAGMA user_version = 1")
        engine.store.catalog.db.execute("VACUUM")
        used = engine.store.used()
    with project.engine() as engine:
        catalog = engine.store.catalog
        catalog.db.execute("PRAGMA max_page_count = 1")  # less than there are: nothing can grow
        catalog.upgrade()
        assert catalog.db.execute("PRAGMA user_version").fetchone() == (1,)
        assert engine.store.used() == used
    project.snapshot()
    with project.engine() as engine:
        catalog = engine.store.catalog
        assert catalog.db.execute("PRAGMA user_version").fetchone() == (VERSION,)
        assert engine.store.used() >= used
        plan = catalog.db.execute(
            "EXPLAIN QUERY PLAN SELECT sum(length - place) FROM blob WHERE kind = 2"
        ).fetchone()[-1]
        assert "COVERING INDEX large" in plan
