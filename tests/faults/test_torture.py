"""Exactness at the edges of what a file system holds, and of real trees."""

from __future__ import annotations

import contextlib
import os
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from driving import Project, scratch_project
from gitrepo import git, repository
from manifest import assert_back, manifest

_SPARSE = int(os.environ.get("GUARD_SPARSE_GB", "1")) << 30
_BYTES = [bytes([number]) for number in range(1, 256) if bytes([number]) not in b"/."]


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """An empty project on the disk of the tests."""
    return Project(tmp_path.resolve())


def _there_and_back(project: Project) -> None:
    """Snapshot, remove everything, roll back, undo, redo; the drill passes too."""
    before = manifest(project.root)
    taken = project.snapshot().snapshot
    with project.engine() as engine:
        report = engine.drill(taken, mode="full")
    assert report.passed, report.failures
    assert_back(before, manifest(project.root))
    _remove_all(project)
    empty = manifest(project.root)
    outcome = project.rollback(taken)
    assert outcome.verified
    assert not outcome.skipped
    assert_back(before, manifest(project.root))
    project.undo()
    assert_back(empty, manifest(project.root))
    project.redo()
    assert_back(before, manifest(project.root))


def _remove_all(project: Project) -> None:
    for path in project.root.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def test_names_of_every_byte(project: Project) -> None:
    """As a file, as a folder, in the middle of a name, and upper case beside lower case."""
    for byte in _BYTES:
        (project.root / os.fsdecode(b"file-" + byte)).write_bytes(byte)
        folder = project.root / os.fsdecode(b"folder-" + byte)
        folder.mkdir()
        (folder / os.fsdecode(b"in" + byte + b"side")).write_bytes(byte * 2)
    for name in ("README", "readme", "ReadMe"):
        (project.root / name).write_text(name)
    _there_and_back(project)


def test_ten_thousand_entries_in_a_folder(project: Project) -> None:
    """Wide folders, the workers that they need included."""
    folder = project.root / "wide"
    folder.mkdir()
    for number in range(10_000):
        (folder / f"{number:05}").write_bytes(b"%d" % (number % 50))
    _there_and_back(project)


@pytest.mark.parametrize(("depth", "length"), [(200, 1), (200, 12), (40, 250), (15, 255)])
def test_deep_paths_near_and_beyond_path_max(project: Project, depth: int, length: int) -> None:
    """200 levels, and paths of 10,000 bytes that no system call takes whole."""
    before = os.open(project.root, os.O_RDONLY | os.O_DIRECTORY)
    name = "d" * length
    try:
        for level in range(depth):
            os.mkdir(name, dir_fd=before)
            below = os.open(name, os.O_RDONLY | os.O_DIRECTORY, dir_fd=before)
            os.close(before)
            before = below
            fd = os.open("file", os.O_WRONLY | os.O_CREAT, 0o640, dir_fd=before)
            os.write(fd, b"%d" % level)
            os.close(fd)
        digest = _digest(project)
        taken = project.snapshot().snapshot
        with project.engine() as engine:
            report = engine.drill(taken, mode="full")
        assert report.passed, report.failures
        os.unlink("file", dir_fd=before)
        os.mkdir("extra", dir_fd=before)
        assert _digest(project) != digest
        project.rollback(taken)
        assert _digest(project) == digest
        shutil.rmtree(project.root / name)
        project.rollback(taken)
        assert _digest(project) == digest
    finally:
        os.close(before)
        shutil.rmtree(project.root)


def _digest(project: Project) -> list[tuple[object, ...]]:
    """Return names, modes, times and contents, by folder handles alone."""
    found: list[tuple[object, ...]] = []
    for folder, folders, files, fd in os.fwalk(project.root):
        for name in sorted(folders + files):
            info = os.stat(name, dir_fd=fd, follow_symlinks=False)
            content = b""
            if name in files:
                file = os.open(name, os.O_RDONLY, dir_fd=fd)
                content = os.read(file, 100)
                os.close(file)
            found.append((len(folder), name, info.st_mode, info.st_mtime_ns, content))
    return found


@pytest.mark.parametrize("depth", [600, 1500])
def test_absurdly_deep_trees_are_kept_or_refused_clearly(project: Project, depth: int) -> None:
    """Deeper than an interpreter's stack: never a traceback, and the project stays as it is."""
    before = os.open(project.root, os.O_RDONLY | os.O_DIRECTORY)
    for _ in range(depth):
        os.mkdir("d", dir_fd=before)
        below = os.open("d", os.O_RDONLY | os.O_DIRECTORY, dir_fd=before)
        os.close(before)
        before = below
    os.close(before)
    report = project.snapshot()
    assert project.rollback(report.snapshot).verified
    subprocess.run(["rm", "-rf", str(project.root)], check=True)


def test_a_large_sparse_file(project: Project) -> None:
    """Holes stay holes, in the store and back in the project; ten gigabytes in the long run."""
    path = project.root / "sparse"
    with path.open("wb") as file:
        file.truncate(_SPARSE)
        for at in (0, _SPARSE // 2, _SPARSE - 5):
            file.seek(at)
            file.write(b"data!")
    blocks = path.stat().st_blocks
    if blocks * 512 > 1 << 20:
        pytest.skip("the file system of the tests keeps no holes")
    taken = project.snapshot().snapshot
    used = sum(p.lstat().st_blocks for p in (project.store / "loose").rglob("*") if p.is_file())
    assert used * 512 < 1 << 20
    path.unlink()
    project.rollback(taken)
    info = path.stat()
    assert info.st_size == _SPARSE
    assert info.st_blocks * 512 < 1 << 20
    with path.open("rb") as file:
        for at in (0, _SPARSE // 2, _SPARSE - 5):
            file.seek(at)
            assert file.read(5) == b"data!"


def test_access_control_lists(project: Project) -> None:
    """ACLs of a file and the default ones of a folder, which new files must not inherit."""
    entry = struct.Struct("<HHI")
    anyone = 0xFFFFFFFF
    acl = struct.pack("<I", 2) + b"".join(
        entry.pack(*fields)
        for fields in [
            (1, 6, anyone),
            (2, 7, 1234),
            (4, 4, anyone),
            (16, 7, anyone),
            (32, 0, anyone),
        ]
    )
    (project.root / "file").write_text("x")
    (project.root / "folder").mkdir()
    (project.root / "folder/plain").write_text("made before the default")
    try:
        os.setxattr(project.root / "file", "system.posix_acl_access", acl)
        os.setxattr(project.root / "folder", "system.posix_acl_default", acl)
    except OSError as error:
        pytest.skip(f"the file system of the tests has no ACLs: {error.strerror}")
    (project.root / "folder/inherits").write_text("made after it")
    taken = project.snapshot().snapshot
    before = manifest(project.root)
    os.removexattr(project.root / "file", "system.posix_acl_access")
    os.removexattr(project.root / "folder", "system.posix_acl_default")
    (project.root / "folder/plain").unlink()
    (project.root / "folder/inherits").unlink()
    project.rollback(taken)
    assert_back(before, manifest(project.root))
    _there_and_back(project)


def test_every_mode_of_files_and_folders(project: Project) -> None:
    """0000 to 7777, the sticky and set-id bits included."""
    if os.geteuid() != 0:
        pytest.skip("only root reads files without read permission")
    for mode in range(0, 0o10000, 7):
        path = project.root / f"m{mode:04o}"
        path.write_text("x")
        path.chmod(mode)
    for mode in range(0, 0o10000, 61):
        path = project.root / f"d{mode:04o}"
        path.mkdir()
        (path / "in").write_text("x")
        path.chmod(mode)
    _there_and_back(project)


@pytest.mark.skipif(os.geteuid() == 0 and not os.path.isdir("/dev/shm"), reason="no place")
def test_folders_that_can_be_listed_but_not_entered() -> None:
    """Without root's rights, r without x is no reason to stop: it is named and left alone."""
    from faults.cases import Case  # noqa: PLC0415
    from faults.states import State, project_in  # noqa: PLC0415

    def make(project: Project) -> None:
        (project.root / "shut").mkdir()
        (project.root / "shut/file").write_text("x")
        (project.root / "none").mkdir()
        (project.root / "plain").write_text("x")
        (project.root / "unreadable").write_text("x")
        (project.root / "unreadable").chmod(0)
        (project.root / "shut").chmod(0o600)
        (project.root / "none").chmod(0)

    def check(project: Project) -> None:
        report = project.snapshot()
        named = " ".join(skip.what for skip in report.snapshot.skipped)
        for name in ("shut", "none", "unreadable"):
            assert name in named, named
        (project.root / "plain").write_text("spoilt")
        project.rollback(report.snapshot)
        assert (project.root / "plain").read_text() == "x"
        for name in ("shut", "none"):
            (project.root / name).chmod(0o700)

    state = State("shut folders", make, make, unprivileged=True)
    with project_in(state) as project:
        case = Case(project, state)
        case.must("making", make)
        case.must("snapshot and rollback", check)
        assert not case.wrong


def test_a_file_that_a_run_made_unreadable_is_back() -> None:
    """``chmod 000`` by the owner: the rollback opens it again, the undo shuts it again."""
    from faults.cases import Case  # noqa: PLC0415
    from faults.states import State, project_in  # noqa: PLC0415

    def make(project: Project) -> None:
        (project.root / "alone").write_text("y")
        (project.root / "other").write_text("z")

    def spoil(project: Project) -> None:
        (project.root / "alone").chmod(0)
        (project.root / "other").write_text("changed, then shut")
        (project.root / "other").chmod(0)

    def back(project: Project) -> None:
        with project.engine() as engine:
            snapshot = engine.find_snapshot("last")
        outcome = project.rollback(snapshot)
        assert not outcome.skipped, outcome.skipped

    state = State("made unreadable", make, spoil, unprivileged=True)
    with project_in(state) as project:
        case = Case(project, state)
        case.must("making", make)
        case.built = case.now()
        case.must("the snapshot", lambda p: p.snapshot())
        case.must("spoiling", spoil)
        case.spoilt = case.now()
        case.must("the rollback", back)
        case.expect("after the rollback", case.built)
        case.must("the undo", lambda p: p.undo())
        case.expect("after the undo", case.spoilt)
        assert not case.wrong, case.wrong


@pytest.mark.parametrize("name", [b"p\xff\n", b"-rf", b" ", b"a'b\"c", b"*", b"p" * 200])
def test_projects_of_any_name(name: bytes) -> None:
    """The project's own path may be of any bytes too; databases and other roots in it as well."""
    import sqlite3  # noqa: PLC0415

    with scratch_project(name) as project:
        (project.root / "file").write_text("x")
        with contextlib.closing(sqlite3.connect(os.path.join(project.path, b"d\xfe.db"))) as db:
            db.execute("CREATE TABLE t (a)")
            db.commit()
        _there_and_back(project)


def test_a_real_virtual_environment(project: Project) -> None:
    """Made by the interpreter itself; recognised as an environment, and back to the byte."""
    made = [sys.executable, "-m", "venv", "--without-pip", str(project.root / ".venv")]
    subprocess.run(made, check=True)
    site = next((project.root / ".venv/lib").glob("python3*/site-packages"))
    source = Path(contextlib.__file__).parent / "json"
    shutil.copytree(source, site / "json_copy", ignore=shutil.ignore_patterns("__pycache__"))
    before = manifest(project.root)
    taken = project.snapshot().snapshot
    shutil.rmtree(site / "json_copy")
    (project.root / ".venv/pyvenv.cfg").write_text("")
    (project.root / ".venv/bin/python").unlink()
    project.rollback(taken)
    assert_back(before, manifest(project.root))
    _there_and_back(project)


def test_a_real_repository_with_worktree_and_submodule(project: Project, tmp_path: Path) -> None:
    """HEAD, index, worktrees, modules: git finds everything as it was."""
    other = repository(tmp_path / "other")
    shutil.rmtree(project.root)
    repository(project.root)
    allow = ("-c", "protocol.file.allow=always")
    git(project.root, *allow, "submodule", "--quiet", "add", str(other), "sub")
    git(project.root, "commit", "--quiet", "-m", "sub")
    git(project.root, "worktree", "add", "--quiet", "tree", "-b", "side")
    (project.root / "tree/work").write_text("unstaged")
    (project.root / "staged").write_text("staged")
    git(project.root, "add", "staged")
    status = git(project.root, "status", "--porcelain=v2", "--branch")
    before = manifest(project.root)
    taken = project.snapshot().snapshot
    git(project.root, "reset", "--quiet", "--hard", "HEAD~1")
    git(project.root, "worktree", "remove", "--force", "tree")
    git(project.root, "branch", "-D", "side")
    shutil.rmtree(project.root / ".git/modules")
    project.rollback(taken)
    assert_back(before, manifest(project.root))
    assert git(project.root, "status", "--porcelain=v2", "--branch") == status
    git(project.root, "fsck", "--strict")
    git(project.root / "sub", "fsck", "--strict")
