"""The compiled helper and the Python that stands for it say the same of any folder."""

from __future__ import annotations

import functools
import importlib.util
import os
import shutil
import stat
import subprocess
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings

import rollback
from driving import Project
from manifest import assert_back, manifest
from rollback import listing
from rollback.listing import HelpedLister, Lister, PureLister
from trees import Step, carry_out, paths, trees
from unprivileged import as_nobody, give_away

_SOURCE = Path(rollback.__file__).with_name("listing.c")


_FIELDS = frozenset(key for key in dir(os.stat_result) if key.startswith("st_"))
_UNSETTLED = {"st_blocks", "st_atime", "st_atime_ns"}
"""What the kernel changes by itself some time after a write or a look."""


@functools.cache
def _helped() -> HelpedLister:
    """Return a lister by the helper as its source is now: what is installed may be older."""
    compiler = shutil.which("cc")
    include = Path(sysconfig.get_path("include"))
    if compiler is None or not (include / "Python.h").exists():
        pytest.skip("no C compiler, or no header files of Python: guard walks by Python alone")
    with tempfile.TemporaryDirectory() as folder:
        built = Path(folder, "mlguard_listing.abi3.so")
        subprocess.run(
            [compiler, "-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror", f"-I{include}",
             _SOURCE, "-o", built],
            check=True,
        )  # fmt: skip
        spec = importlib.util.spec_from_file_location("mlguard_listing", built)
        assert spec is not None
        assert spec.loader is not None
        helper = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(helper)
    return HelpedLister(helper)


@pytest.fixture(params=["helped", "pure"])
def lister(request: pytest.FixtureRequest) -> Lister:
    """Each of the two."""
    return _helped() if request.param == "helped" else PureLister()


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[int]:
    """A handle on an empty folder."""
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    yield fd
    os.close(fd)


@settings(
    max_examples=80,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    database=None,
    phases=(Phase.explicit, Phase.generate),
)
@given(tree=trees(20))
def test_both_say_the_same_of_any_folder(tree: list[Step]) -> None:
    """Names in order, signatures, times, folders, hard links, and every field of a stat result."""
    with tempfile.TemporaryDirectory() as top:
        root = os.fsencode(top)
        carry_out(root, tree)
        for path in [root, *paths(root, kinds=stat.S_ISDIR)]:
            fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
            try:
                _compare(_helped(), PureLister(), fd)
            finally:
                os.close(fd)


def _compare(one: Lister, other: Lister, fd: int) -> None:
    names = other.names_in(fd)
    assert one.names_in(fd) == one.names_in(fd) == names
    assert sorted(names) == names
    asked = [*names[::2], b"is not there", *names[1::2]]
    got, wanted = one.look(fd, asked), other.look(fd, asked)
    assert got.names == wanted.names == [*names[::2], *names[1::2]]
    xattrs = dict.fromkeys(wanted.folders[::2], ((b"user.a", b"1"),))
    for each in (got, wanted):
        each.settle(xattrs)
    assert got.parts == wanted.parts
    assert got.ctimes == wanted.ctimes
    assert got.folders == wanted.folders
    assert got.shared == wanted.shared
    for n, name in enumerate(got.names):
        info = os.stat(name, dir_fd=fd, follow_symlinks=False)
        for key in _FIELDS - _UNSETTLED:
            assert getattr(got.info(n), key) == getattr(info, key), key


def test_every_field_of_a_stat_result_is_there(folder: int, tmp_path: Path) -> None:
    """Also what changes by itself: of a file that has come to rest."""
    (tmp_path / "file").write_bytes(b"a" * 70_000)
    os.utime(tmp_path / "file", ns=(-1_500_000_001, 1_700_000_000_123_456_789))
    os.sync()
    info = os.lstat(tmp_path / "file")
    told = _helped().look(folder, [b"file"]).info(0)
    for key in _FIELDS:
        assert getattr(told, key) == pytest.approx(getattr(info, key), rel=1e-15), key


def test_many_names_come_sorted(lister: Lister, folder: int, tmp_path: Path) -> None:
    """More than one reading of the folder brings, and of every length."""
    names = {b"%x" % (n * 7919 % 65_537) * (1 + n % 40) for n in range(3_000)}
    for name in names:
        os.close(os.open(name[:255], os.O_CREAT | os.O_WRONLY, dir_fd=folder))
    found = lister.names_in(folder)
    assert found == sorted({name[:255] for name in names})
    assert lister.names_in(folder) == found
    assert len(lister.look(folder, found).parts) == len(os.listdir(tmp_path))


def test_an_empty_folder_has_nothing(lister: Lister, folder: int) -> None:
    """Nor has a question without names an answer."""
    assert lister.names_in(folder) == []
    assert lister.look(folder, []).names == []


def test_a_wrong_handle_is_an_error(lister: Lister) -> None:
    """Never an empty folder."""
    with pytest.raises(OSError, match="Bad file descriptor"):
        lister.names_in(1_000_000)
    with pytest.raises(OSError, match="Bad file descriptor"):
        lister.look(1_000_000, [b"a"])


def test_a_file_is_no_folder(lister: Lister, tmp_path: Path) -> None:
    """As the system says it."""
    (tmp_path / "file").touch()
    fd = os.open(tmp_path / "file", os.O_RDONLY)
    try:
        with pytest.raises(NotADirectoryError):
            lister.names_in(fd)
        with pytest.raises(NotADirectoryError):
            lister.look(fd, [b"a"])
    finally:
        os.close(fd)


def test_names_that_cannot_be(lister: Lister, folder: int) -> None:
    """A NUL would cut a name short and tell of another file."""
    with pytest.raises(ValueError, match="null"):
        lister.look(folder, [b"a\0b"])
    with pytest.raises(OSError, match="too long"):
        lister.look(folder, [b"n" * 300])


def test_a_folder_that_may_only_be_listed(lister: Lister, tmp_path: Path) -> None:
    """Its names are known; to ask for more is an error that says so, not an empty folder."""
    shut = tmp_path / "shut"
    shut.mkdir()
    (shut / "file").touch()
    give_away([tmp_path, shut, shut / "file"])
    shut.chmod(0o444)

    def look() -> str:
        fd = os.open(shut.name, os.O_RDONLY | os.O_DIRECTORY)
        try:
            lister.look(fd, lister.names_in(fd))
        except PermissionError:
            return "refused"
        return "told"

    here = os.getcwd()
    os.chdir(tmp_path)
    try:
        assert as_nobody(look) == "refused"
    finally:
        os.chdir(here)
        shut.chmod(0o755)


def test_what_one_wrote_the_other_knows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rescue program has no helper: the index has to mean the same to both."""
    project = Project(tmp_path.resolve())
    (project.root / "models").mkdir()
    (project.root / "models/a.bin").write_bytes(b"a" * 5_000)
    (project.root / "b").write_text("b")
    os.utime(project.root / "b", (13_569_465_600, 13_569_465_600))
    before = manifest(project.root)
    order: list[Lister] = [PureLister(), _helped()]
    taken = project.snapshot().snapshot
    for one in order:
        monkeypatch.setattr("rollback.walk.find_lister", lambda one=one: one)
        settled = project.root / "models"
        os.utime(settled, ns=(0, settled.stat().st_mtime_ns))
        taken = project.snapshot().snapshot
    (project.root / "b").unlink()
    (project.root / "models/a.bin").write_bytes(b"b" * 5_000)
    monkeypatch.setattr("rollback.walk.find_lister", PureLister)
    project.rollback(taken)
    assert_back(before, manifest(project.root))


def test_the_helper_can_be_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """`GUARD_PURE=1`: whatever is installed, Python alone."""
    listing.find_lister.cache_clear()
    monkeypatch.setenv("GUARD_PURE", "1")
    assert isinstance(listing.find_lister(), PureLister)
    listing.find_lister.cache_clear()
