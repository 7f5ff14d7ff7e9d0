"""The states in which the sweeps let guard die: a project, and what a bad run makes of it."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from driving import Project, scratch_project
from rollback import build, smallfiles
from rollback.store.reserve import Reserve
from unprivileged import IS_ROOT, give_away


@dataclass(frozen=True, slots=True)
class State:
    """A kind of project.

    Attributes:
        name: For people.
        make: Fills the project.
        spoil: What the bad run does.
        unprivileged: Whether everything runs as a user without rights, where we may switch.
        apart: Whether the store is on another file system.
        prepare: What is set in the process that runs guard.
    """

    name: str
    make: Callable[[Project], None]
    spoil: Callable[[Project], None]
    unprivileged: bool = False
    apart: bool = False
    prepare: Callable[[], None] = field(default=lambda: None)


@contextlib.contextmanager
def project_in(state: State) -> Iterator[Project]:
    """Give an empty project for a state; gone afterwards."""
    with scratch_project() as project, contextlib.ExitStack() as stack:
        if state.apart:
            project.store = stack.enter_context(_elsewhere(project)) / "store"
        if state.unprivileged and IS_ROOT:
            give_away((project.base, project.root, project.store.parent))
        yield project


@contextlib.contextmanager
def _elsewhere(project: Project) -> Iterator[Path]:
    here = os.stat(project.base).st_dev
    for place in ("/dev/shm", os.environ.get("TMPDIR", "/tmp"), os.getcwd()):
        if os.path.isdir(place) and os.stat(place).st_dev != here:
            folder = Path(place) / f"guard-apart-{os.getpid()}-{project.base.name}"
            folder.mkdir(mode=0o700)
            try:
                yield folder
            finally:
                shutil.rmtree(folder)
            return
    raise FileNotFoundError("there is no second file system to write to")


def has_second_file_system() -> bool:
    """Return whether a store can lie apart from its project here."""
    try:
        with scratch_project() as project, _elsewhere(project):
            return True
    except FileNotFoundError:
        return False


def write(project: Project, **files: str | bytes) -> None:
    """Write files; two underscores stand for a slash, one at the end for a dot."""
    for name, content in files.items():
        path = project.root / name.replace("__", "/").replace("_dot_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())


def _plain(project: Project) -> None:
    write(
        project, train_dot_py="one\n", data__a_dot_csv="1,2\n", models__m="weights", _dot_env="S=1"
    )
    (project.root / "empty").mkdir()
    (project.root / ".env").chmod(0o600)


def _spoil_plain(project: Project) -> None:
    write(project, train_dot_py="two, and longer\n", new__file="extra", models__m="WEIGHTS")
    shutil.rmtree(project.root / "data")
    (project.root / "empty").rmdir()
    (project.root / ".env").chmod(0o644)


def _git(project: Project, *words: str) -> None:
    author = ["-c", "user.name=x", "-c", "user.email=x@y", "-c", "gc.auto=0"]
    subprocess.run(["git", *author, *words], cwd=project.root, check=True, capture_output=True)


def _repository(project: Project) -> None:
    _git(project, "init", "-q", "-b", "main", ".")
    _plain(project)
    _git(project, "add", "-A")
    _git(project, "commit", "-q", "-m", "one")
    write(project, staged="staged", untracked="u")
    _git(project, "add", "staged")


def _spoil_repository(project: Project) -> None:
    _spoil_plain(project)
    _git(project, "add", "-A")
    _git(project, "commit", "-q", "-m", "two")
    _git(project, "branch", "other")
    (project.root / ".git" / "config").write_text("")


def _environment(project: Project) -> None:
    _plain(project)
    site = project.root / ".venv/lib/python3.11/site-packages"
    (project.root / ".venv/bin").mkdir(parents=True)
    (site / "pkg-1.dist-info").mkdir(parents=True)
    (project.root / ".venv/pyvenv.cfg").write_text("home = /usr/bin\nversion = 3.11.2\n")
    (project.root / ".venv/bin/python").symlink_to("/usr/bin/python3")
    (site / "pkg.py").write_text("x = 1\n")
    (site / "pkg-1.dist-info/METADATA").write_text("Name: pkg\nVersion: 1\n")
    (site / "pkg-1.dist-info/RECORD").write_text("pkg.py,,\npkg-1.dist-info/METADATA,,\n")
    (site / "own.pth").write_text("/nowhere\n")


def _spoil_environment(project: Project) -> None:
    site = project.root / ".venv/lib/python3.11/site-packages"
    (site / "pkg.py").unlink()
    (site / "pkg.py").write_text("x = 22\n")
    shutil.rmtree(site / "pkg-1.dist-info")
    (site / "own.pth").write_text("/elsewhere/now\n")
    write(project, train_dot_py="changed")


def _rows(path: Path, mode: str, count: int) -> None:
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute(f"PRAGMA journal_mode = {mode}")
        db.execute("CREATE TABLE IF NOT EXISTS t (a)")
        db.executemany("INSERT INTO t VALUES (?)", [("x" * 300,)] * count)
        db.commit()


def _database(mode: str) -> Callable[[Project], None]:
    def make(project: Project) -> None:
        write(project, train_dot_py="one")
        _rows(project.root / "mlflow.db", mode, 40)
        (project.root / "sub").mkdir()
        _rows(project.root / "sub" / "kept.db", mode, 3)

    return make


def _spoil_database(mode: str) -> Callable[[Project], None]:
    def spoil(project: Project) -> None:
        _rows(project.root / "mlflow.db", mode, 60)
        _rows(project.root / "new.db", mode, 5)
        write(project, train_dot_py="two")

    return spoil


def _links(project: Project) -> None:
    write(project, a__one="same", b__other="other", c="c")
    os.link(project.root / "a/one", project.root / "b/one")
    os.link(project.root / "a/one", project.root / "three")
    (project.root / "s").symlink_to("a/one")
    (project.root / "t").symlink_to("/nowhere")
    os.mkfifo(project.root / "pipe", 0o640)
    (project.root / os.fsdecode(b"\xff\n-x")).write_text("odd")
    with contextlib.suppress(OSError):
        os.setxattr(project.root / "c", "user.k", b"v")


def _spoil_links(project: Project) -> None:
    (project.root / "b/one").unlink()
    (project.root / "b/one").write_text("alone")
    os.link(project.root / "c", project.root / "b/c")
    (project.root / "s").unlink()
    (project.root / "s").symlink_to("b/one")
    (project.root / "pipe").unlink()
    (project.root / os.fsdecode(b"\xff\n-x")).unlink()
    with contextlib.suppress(OSError):
        os.setxattr(project.root / "c", "user.k", b"w")


def _large(project: Project) -> None:
    write(project, big=os.urandom(2_500_000), small="s", models__w=os.urandom(1_200_000))
    with (project.root / "sparse").open("wb") as file:
        file.truncate(9_000_000)
        file.seek(4_000_000)
        file.write(b"island")


def _spoil_large(project: Project) -> None:
    with (project.root / "big").open("r+b") as file:
        file.write(b"overwritten in place")
    (project.root / "sparse").unlink()
    (project.root / "models/w").write_bytes(os.urandom(1_300_000))


def _types(project: Project) -> None:
    write(project, file="f", folder__in__deep="d", folder__b="b", last="l")
    (project.root / "link").symlink_to("file")


def _spoil_types(project: Project) -> None:
    (project.root / "file").unlink()
    write(project, file__now__a__folder="x")
    shutil.rmtree(project.root / "folder")
    write(project, folder="a file now")
    (project.root / "link").unlink()
    write(project, link__folder="x")
    (project.root / "last").unlink()
    (project.root / "last").symlink_to("/etc/hostname")


def _wipe(project: Project) -> None:
    shutil.rmtree(project.root)


def _many(project: Project) -> None:
    for number in range(30):
        write(project, **{f"d{number % 4}__f{number}": f"content {number}" * (1 + number)})


def _spoil_many(project: Project) -> None:
    for number in range(0, 30, 2):
        write(project, **{f"d{number % 4}__f{number}": f"changed {number}"})
    shutil.rmtree(project.root / "d1")
    write(project, e__new="n")


def _few_files_fork() -> None:
    smallfiles.FORK_FILES = 4
    build.FORK_FILES = 4


def _read_only(project: Project) -> None:
    _plain(project)
    write(project, locked__in__file="f", locked__top="t")
    (project.root / "locked/in/file").chmod(0o444)
    (project.root / "locked/in").chmod(0o555)
    (project.root / "locked").chmod(0o555)


def _spoil_read_only(project: Project) -> None:
    _spoil_plain(project)
    (project.root / "locked").chmod(0o755)
    (project.root / "locked/in").chmod(0o755)
    (project.root / "locked/in/file").unlink()
    (project.root / "locked/top").write_text("changed")
    write(project, locked__in__more="m")
    (project.root / "locked/in").chmod(0o555)
    (project.root / "locked/top").chmod(0o400)
    (project.root / "locked").chmod(0o511)


def _nearly_full() -> None:
    free = Reserve.free
    Reserve.free = lambda self: min(free(self), 14 << 20)  # type: ignore[method-assign]


def _more(make: Callable[[Project], None]) -> Callable[[Project], None]:
    """Add what every state has, so that most places are reached in all of them."""

    def made(project: Project) -> None:
        make(project)
        write(project, more__large=b"large " * 200_000, more__gone__file="f")

    return made


def _less(spoil: Callable[[Project], None]) -> Callable[[Project], None]:
    """Spoil that, too, unless nothing is left."""

    def spoilt(project: Project) -> None:
        spoil(project)
        if project.root.exists():
            write(project, more__large=b"other " * 200_000, more__new__file="n")
            shutil.rmtree(project.root / "more" / "gone")

    return spoilt


_STATES = (
    State("plain files", _plain, _spoil_plain),
    State("git repository", _repository, _spoil_repository),
    State("Python environment", _environment, _spoil_environment),
    State("SQLite, rollback journal", _database("delete"), _spoil_database("delete")),
    State("SQLite, write-ahead log", _database("wal"), _spoil_database("wal")),
    State("links of all kinds", _links, _spoil_links),
    State("large and sparse files", _large, _spoil_large),
    State("types changed", _types, _spoil_types),
    State("project removed", _plain, _wipe),
    State("worker processes", _many, _spoil_many, prepare=_few_files_fork),
    State("store on another file system", _plain, _spoil_plain, apart=True),
    State("read-only folders, no rights", _read_only, _spoil_read_only, unprivileged=True),
    State("disk nearly full", _large, _spoil_large, prepare=_nearly_full),
)
STATES = tuple(
    replace(state, make=_more(state.make), spoil=_less(state.spoil)) for state in _STATES
)
"""Thirteen."""
