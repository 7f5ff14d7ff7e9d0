"""A restore writes where it captured and nowhere else, whatever was planted meanwhile."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from driving import Project
from manifest import assert_back, manifest
from rollback import atomic, failpoints, restore
from rollback.errors import RollbackError, StoreCorrupt, StoreUnusable
from rollback.folders import FolderCache
from rollback.model import Entry, Kind, Snapshot
from rollback.snapshots import dump, load
from rollback.store.blobs import BlobReader
from rollback.store.codec import decode_tree, encode_tree


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A project with a file in a folder."""
    made = Project(tmp_path.resolve())
    (made.root / "sub").mkdir()
    (made.root / "sub/file").write_text("before")
    (made.root / "top").write_text("top")
    return made


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    """A folder outside, which nobody may write to."""
    folder = tmp_path.resolve() / "victim"
    folder.mkdir()
    (folder / "file").write_text("theirs")
    return folder


def _at(monkeypatch: pytest.MonkeyPatch, place: str, act: Callable[[], None]) -> None:
    """Do something once, when guard reaches a failpoint."""
    todo = [act]

    def reached(name: str) -> None:
        if name == place and todo:
            todo.pop()()

    monkeypatch.setattr(atomic, "reach", reached)
    assert place in failpoints.FAILPOINTS


def test_a_link_planted_at_a_file_is_replaced(project: Project, victim: Path) -> None:
    """The link goes, what it points to stays."""
    before = manifest(project.root)
    taken = project.snapshot().snapshot
    (project.root / "sub/file").unlink()
    (project.root / "sub/file").symlink_to(victim / "file")
    theirs = manifest(victim)
    project.rollback(taken)
    assert_back(before, manifest(project.root))
    assert_back(theirs, manifest(victim))


def test_a_link_planted_at_a_folder_is_replaced(project: Project, victim: Path) -> None:
    """Nothing is written through a folder that became a link."""
    before = manifest(project.root)
    taken = project.snapshot().snapshot
    shutil.rmtree(project.root / "sub")
    (project.root / "sub").symlink_to(victim)
    theirs = manifest(victim)
    project.rollback(taken)
    assert_back(before, manifest(project.root))
    assert_back(theirs, manifest(victim))
    project.undo()
    assert os.readlink(project.root / "sub") == str(victim)


def test_a_root_that_became_a_link_is_refused(project: Project, victim: Path) -> None:
    """A project that is reached through a new link is not written to, nor where it leads."""
    taken = project.snapshot().snapshot
    project.root.rename(project.base / "moved")
    project.root.symlink_to(victim)
    theirs, moved = manifest(victim), manifest(project.base / "moved")
    with pytest.raises(RollbackError, match=f"{project.root} was a folder and is a link to"):
        project.rollback(taken)
    assert_back(theirs, manifest(victim))
    assert_back(moved, manifest(project.base / "moved"))


@pytest.mark.parametrize("name", [b"project", b"my project"])
@pytest.mark.parametrize("what", ["moved and linked", "a file", "its parent linked"])
def test_the_commands_that_clear_the_place_of_a_project(
    tmp_path: Path, what: str, name: bytes
) -> None:
    """As they are named, typed as they are; nothing of the user's goes by them."""
    base = tmp_path.resolve() / "base"
    base.mkdir()
    project = Project(base, name)
    project.store = tmp_path.resolve() / "store"
    (project.root / "file").write_text("kept")
    taken = project.snapshot().snapshot
    before = manifest(project.root)
    place = base if what == "its parent linked" else project.root
    away = tmp_path / "elsewhere"
    if what == "a file":
        shutil.rmtree(project.root)
        project.root.write_text("not a folder")
    else:
        place.rename(away)
        place.symlink_to(away)
    with pytest.raises(RollbackError) as raised:
        project.rollback(taken)
    assert str(place) in str(raised.value)
    commands = raised.value.hint.removesuffix(", then run the same rollback again")
    if what != "a file":
        assert commands.startswith(f"rm {shlex.quote(str(place))} removes the link alone (")
        commands = commands[commands.index(": ") + 2 :].removesuffix(")")
    subprocess.run(commands, shell=True, check=True)  # noqa: S602 - as it is typed
    assert project.rollback(taken).skipped == ()
    assert_back(before, manifest(project.root))
    if what == "a file":
        (aside,) = project.root.parent.glob("*.aside")
        assert aside.read_text() == "not a folder"


def test_a_snapshot_where_a_file_is_in_place_of_the_project_says_so(project: Project) -> None:
    """It keeps nothing of the project, which must not look like a good one."""
    shutil.rmtree(project.root)
    project.root.write_text("not a folder")
    skip = project.snapshot().snapshot.skipped[0]
    assert (skip.what, skip.why) == (str(project.root), "it was a folder and is a file now")
    assert skip.fix == f"mv {project.root} {project.root}.aside"


@pytest.mark.parametrize("place", ["restore.replace", "restore.remove"])
def test_a_folder_swapped_in_the_middle_is_not_followed(
    project: Project, victim: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """Between two steps a folder turns into a link: the next step does not go through it."""
    (project.root / "sub/other").write_text("other")
    before = manifest(project.root)
    taken = project.snapshot().snapshot
    (project.root / "sub/file").write_text("after, longer")
    (project.root / "sub/other").write_text("after, longer")
    (project.root / "sub/extra").write_text("extra")
    theirs = manifest(victim)

    def swap() -> None:
        (project.root / "sub").rename(project.base / "away")
        (project.root / "sub").symlink_to(victim)

    _at(monkeypatch, place, swap)
    with pytest.raises(RollbackError):
        project.rollback(taken)
    assert_back(theirs, manifest(victim))
    monkeypatch.undo()
    project.rollback(taken)
    assert_back(before, manifest(project.root))
    assert_back(theirs, manifest(victim))


def test_a_folder_swapped_beforehand_is_named_whole(
    project: Project, victim: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last name alone does not say which folder to mend."""
    (project.root / "sub/deep").mkdir()
    (project.root / "sub/deep/file").write_text("before")
    taken = project.snapshot().snapshot
    (project.root / "sub/deep/file").write_text("after, longer")
    theirs = manifest(victim)

    def swap(place: str) -> None:
        if place == "stage.done":
            (project.root / "sub/deep").rename(project.base / "away")
            (project.root / "sub/deep").symlink_to(victim)

    monkeypatch.setattr(restore, "reach", swap)
    with pytest.raises(RollbackError, match=r"nothing was changed: sub/deep: Not a directory$"):
        project.rollback(taken)
    assert_back(theirs, manifest(victim))


@pytest.mark.parametrize("name", [b"..", b".", b"", b"a/b", b"/etc", b"a\0b"])
def test_names_that_leave_their_folder_are_refused(name: bytes) -> None:
    """A crafted directory record is no record, whatever its hash says."""
    crafted = encode_tree([Entry(name, Kind.FILE, 0o644, 0, 0, 0, 1, b"\0" * 32)])
    with pytest.raises(StoreCorrupt):
        decode_tree(crafted)


@pytest.mark.parametrize("path", [b"..", b"a/../b", b"a//b", b".", b"/etc"])
def test_paths_that_leave_their_root_are_refused(tmp_path: Path, path: bytes) -> None:
    """Every component is opened by itself, and none may go up."""
    (tmp_path / "a").mkdir()
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    cache = FolderCache(fd)
    try:
        with pytest.raises(OSError, match="may not leave its root"):
            cache.open(path)
    finally:
        cache.forget()
        os.close(fd)


def test_a_crafted_record_of_a_snapshot_is_refused(project: Project, victim: Path) -> None:
    """A record in the catalog that was changed names other paths: it is not believed."""
    taken = project.snapshot().snapshot
    document = dump(taken)
    text = json.dumps(document).replace(str(project.root), str(victim))
    with project.engine() as engine:
        engine.store.catalog.db.execute("UPDATE snapshot SET document = ?", (text,))
    theirs = manifest(victim)
    with pytest.raises(StoreCorrupt), project.engine() as engine:
        engine.find_snapshot(taken.id)
    assert_back(theirs, manifest(victim))


def test_the_record_of_a_snapshot_comes_back_as_it_was(project: Project) -> None:
    """The digest in it does not stand in the way of reading it."""
    taken = project.snapshot().snapshot
    again: Snapshot = load(json.dumps(dump(taken)))
    assert again.id == taken.id
    assert [s.name for s in again.states] == [s.name for s in taken.states]


def test_hostile_content_in_a_pack_is_refused(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A blob that is swapped for another one of the same length is noticed."""
    taken = project.snapshot().snapshot
    (project.root / "sub/file").write_text("spoilt")
    spoilt = manifest(project.root)
    read_at = BlobReader.read_at
    monkeypatch.setattr(
        BlobReader, "read_at", lambda s, p, b: read_at(s, p, b).replace(b"before", b"hostil")
    )
    with pytest.raises(StoreCorrupt):
        project.rollback(taken)
    assert_back(spoilt, manifest(project.root))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make files of another user")
def test_a_store_of_another_user_is_refused(project: Project) -> None:
    """Even root does not use a store that somebody else could have prepared."""
    project.snapshot()
    os.chown(project.store, 12345, 12345)
    with pytest.raises(StoreUnusable, match="belongs to another user"):
        project.snapshot()


@pytest.mark.parametrize("mask", [0o000, 0o077, 0o777])
def test_the_store_is_private_under_any_umask(project: Project, mask: int) -> None:
    """Folders 0700 and files 0600, and what is put back has its own modes."""
    before = manifest(project.root)
    old = os.umask(mask)
    try:
        taken = project.snapshot().snapshot
        shutil.rmtree(project.root / "sub")
        project.rollback(taken)
    finally:
        os.umask(old)
    assert_back(before, manifest(project.root))
    for path in [project.store, *project.store.rglob("*")]:
        mode = path.lstat().st_mode & 0o777
        assert mode & 0o077 == 0 or path.parent.parent.name == "links", f"{path}: {mode:o}"


def test_a_marker_that_was_not_written_whole_does_not_lock_people_out(project: Project) -> None:
    """A kill or a full disk between creating the marker and writing it is no foreign store."""
    project.store.mkdir(mode=0o700)
    (project.store / "STORE").touch(mode=0o600)
    project.snapshot()
