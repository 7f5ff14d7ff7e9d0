"""Files written through a mapping of memory, of which no time tells."""

from __future__ import annotations

import mmap
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import driving
from driving import Project
from manifest import assert_back, manifest
from rollback import unseen
from rollback.inventory import is_tree, target_from
from rollback.present import Present
from rollback.unseen import Unseen, find_unseen, mapped_by

MEMORY = Path("/dev/shm")
WRITER = """\
import mmap, sys
with open(sys.argv[1], "r+b") as file:
    array = mmap.mmap(file.fileno(), 0)
array[0] = ord("b")
for line in sys.stdin:
    array[1] = ord(line[0])
    print("written", flush=True)
"""


class Writer:
    """A process that has a file mapped, and wrote to it once."""

    def __init__(self, path: Path) -> None:
        words = [sys.executable, "-c", WRITER, str(path)]
        self.process = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )
        self.write("1")

    def write(self, text: str) -> None:
        """Write one more byte; its time does not tell, where the page was not yet on the disk."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(text + "\n")
        assert self.process.stdout.readline() == "written\n"

    def end(self) -> None:
        """Let it end."""
        self.process.communicate(timeout=20)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A project with an array, on whatever file system the tests use."""
    made = Project(tmp_path.resolve())
    (made.root / "array.npy").write_bytes(b"a" * 8192)
    return made


@pytest.fixture
def in_memory(monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    """A project in memory, seen as one."""
    if not os.access(MEMORY, os.W_OK):
        pytest.skip("there are no files in memory")
    monkeypatch.setattr(unseen, "IN_MEMORY", driving.IN_MEMORY)
    with tempfile.TemporaryDirectory(prefix="guard-", dir=MEMORY) as base:
        made = Project(Path(base).resolve())
        (made.root / "array.npy").write_bytes(b"a" * 8192)
        yield made


@pytest.fixture(params=["memory", "disk"])
def overlaid(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Project, bool]]:
    """A project that lies in an overlay, and whether that keeps in memory what is written."""
    top, seen = tmp_path.resolve() / "top", tmp_path.resolve() / "seen"
    in_memory = request.param == "memory"
    mounted: list[Path] = []
    try:
        for folder in (top, seen):
            folder.mkdir()
        if in_memory:
            _mount(mounted, top, "-t", "tmpfs", "none")
        for name in ("lower", "upper", "work"):
            (top / name).mkdir()
        options = f"lowerdir={top}/lower,upperdir={top}/upper,workdir={top}/work"
        _mount(mounted, seen, "-t", "overlay", "-o", options, "none")
        made = Project(seen)
        (made.root / "array.npy").write_bytes(b"a" * 8192)
        yield made, in_memory or top.stat().st_dev in unseen._devices(driving.IN_MEMORY)
    finally:
        for folder in reversed(mounted):
            subprocess.run(["umount", folder], check=True)


def _mount(mounted: list[Path], folder: Path, *words: str) -> None:
    run = subprocess.run(["mount", *words, folder], check=False, capture_output=True)
    if run.returncode or not os.path.ismount(folder):
        pytest.skip("nothing can be mounted here: run as root")
    mounted.append(folder)


def _grown_old() -> None:
    time.sleep(0.1)  # older than the tick of the clock, within which everything is read again


def _find(project: Project) -> Unseen:
    fd = os.open(project.root, os.O_RDONLY)
    try:
        return find_unseen(fd)
    finally:
        os.close(fd)


def test_a_write_through_a_mapping_that_was_open_before_is_put_back(project: Project) -> None:
    """As of an array in a notebook that goes on: the time of the file stays as it was."""
    array = project.root / "array.npy"
    writer = Writer(array)
    _grown_old()
    before = manifest(project.root)
    taken = project.snapshot().snapshot
    writer.write("2")
    writer.end()
    assert array.read_bytes()[:2] == b"b2"
    project.rollback(taken)
    assert_back(before, manifest(project.root))


def test_the_next_snapshot_has_what_was_written_through_a_mapping(project: Project) -> None:
    """Each of them what was there, though neither size nor time differ."""
    writer = Writer(project.root / "array.npy")
    _grown_old()
    project.snapshot()
    writer.write("2")
    before = manifest(project.root)
    second = project.snapshot().snapshot
    writer.write("3")
    writer.end()
    project.snapshot()
    project.rollback(second)
    assert_back(before, manifest(project.root))


def test_a_mapping_for_reading_costs_nothing(project: Project) -> None:
    """A data set that is mapped, as Arrow's are, is not read again."""
    with open(project.root / "array.npy", "rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    private = mmap.mmap(os.open(project.root / "array.npy", os.O_RDONLY), 0, mmap.MAP_PRIVATE)
    inode = (project.root / "array.npy").stat().st_ino
    assert inode not in _find(project).inodes
    assert mapped[0] == private[0]


def test_a_process_that_only_read_the_page_before_is_seen_in_memory(in_memory: Project) -> None:
    """Nothing there tells of a write to a page that is mapped already."""
    array = in_memory.root / "array.npy"
    _grown_old()
    before = manifest(in_memory.root)
    taken = in_memory.snapshot().snapshot
    with open(array, "r+b") as file, mmap.mmap(file.fileno(), 0) as mapped:
        assert mapped[0] == ord("a")
        mapped[1] = ord("c")
    assert array.read_bytes()[:2] == b"ac"
    in_memory.rollback(taken)
    assert_back(before, manifest(in_memory.root))


@pytest.mark.parametrize("apart", [True, False])
def test_what_is_never_rewritten_is_not_read_again_in_memory(
    in_memory: Project, tmp_path: Path, *, apart: bool
) -> None:
    """Objects of a repository, linked or not; all else is."""
    in_memory.store = tmp_path / "store" if apart else in_memory.store
    git = ["git", "-c", "user.name=x", "-c", "user.email=x@y"]
    for words in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "one"]):
        subprocess.run([*git, *words], cwd=in_memory.root, check=True)
    _grown_old()
    taken = in_memory.snapshot().snapshot
    again: list[bytes] = []
    with in_memory.engine() as engine:
        for state in filter(is_tree, taken.states):
            root = target_from(state, engine.store.reader).root
            changed = Present(root, engine.store.reader).changed
            again += [os.path.join(root.path, path) for path in changed]
    assert os.fsencode(in_memory.root / "array.npy") in again
    assert os.fsencode(in_memory.root / ".git/HEAD") in again
    assert not [path for path in again if b"/objects/" in path]


def test_an_overlay_in_memory_is_told_from_one_on_a_disk(
    overlaid: tuple[Project, bool],
) -> None:
    """Its own kind says nothing of what its files are kept in."""
    project, in_memory = overlaid
    array = project.root / "array.npy"
    _grown_old()
    before = manifest(project.root)
    taken = project.snapshot().snapshot
    assert _find(project).everything is in_memory
    assert_back(before, manifest(project.root))
    with open(array, "r+b") as file, mmap.mmap(file.fileno(), 0) as mapped:
        assert mapped[0] == ord("a")
        mapped[1] = ord("c")
    assert array.read_bytes()[:2] == b"ac"
    project.rollback(taken)
    assert_back(before, manifest(project.root))


@pytest.mark.parametrize("ask", [True, False])
def test_mappings_are_found_without_the_kernels_query(project: Project, *, ask: bool) -> None:
    """Linux before 6.11 has the text alone; the answers agree."""
    inode = (project.root / "array.npy").stat().st_ino
    with open(project.root / "array.npy", "r+b") as file:
        mapped = mmap.mmap(file.fileno(), 0)
    with open("/proc/self/maps", "rb") as maps:
        assert inode in mapped_by(maps.fileno(), ask=ask)
    mapped.close()
    with open("/proc/self/maps", "rb") as maps:
        assert inode not in mapped_by(maps.fileno(), ask=ask)


def test_a_process_that_hangs_stops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """As `ps` does, where one waits for a dead server with its memory locked."""
    end = threading.Event()

    def wait(_: int) -> set[int]:
        end.wait(20)
        return set()

    monkeypatch.setattr(unseen, "mapped_by", wait)
    monkeypatch.setattr(unseen, "_PATIENCE_S", 0.1)
    started = time.monotonic()
    fd = os.open("/", os.O_RDONLY)
    assert find_unseen(fd).inodes == frozenset()
    os.close(fd)
    end.set()
    assert time.monotonic() - started < 10


def test_without_proc_nothing_is_known(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """A container may have no /proc: then times alone decide."""

    def refuse(*_: object, **__: object) -> object:
        raise FileNotFoundError("/proc")

    monkeypatch.setattr(os, "listdir", refuse)
    monkeypatch.setattr(unseen, "_MOUNTS", "/nothing/here")
    assert _find(project) == unseen.Unseen()
