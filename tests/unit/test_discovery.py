"""Discovery: what is in use outside the project, and what is in it, without running anything."""

from __future__ import annotations

import os
import socket
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from safeguards.config import Config
from safeguards.discovery import outside
from safeguards.discovery.servers import find
from safeguards.discovery.surveying import find_databases, survey
from safeguards.discovery.tracking import artifact_locations, is_sqlite
from safeguards.discovery.variables import (
    dotenv,
    is_remote,
    local_folder,
    shown,
    sqlite_path,
)


def make_tracking(file: Path, *locations: str, wal: bool = False) -> Path:
    """Make a database with MLflow's artifact columns."""
    database = sqlite3.connect(file)
    if wal:
        database.execute("PRAGMA journal_mode=WAL")
    with database:
        database.execute("CREATE TABLE experiments (experiment_id INTEGER, artifact_location TEXT)")
        database.execute("CREATE TABLE runs (experiment_id INTEGER, artifact_uri TEXT)")
        for number, location in enumerate(locations):
            database.execute("INSERT INTO experiments VALUES (?, ?)", (number, location))
            database.execute("INSERT INTO runs VALUES (?, ?)", (number, f"{location}/r/artifacts"))
    database.close()
    return file


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("sqlite:///x.db", "/p/x.db"),
        ("sqlite:////abs/x.db", "/abs/x.db"),
        ("sqlite:///../x.db?timeout=5", "/x.db"),
        ("sqlite+pysqlite:///x.db", "/p/x.db"),
        ("sqlite://", None),
        ("sqlite:///:memory:", None),
        ("postgresql://u:p@h/x", None),
        ("x.db", None),
    ],
)
def test_sqlite_urls(url: str, path: str | None) -> None:
    """SQLAlchemy's form, relative to the project."""
    assert sqlite_path(url, Path("/p")) == (None if path is None else Path(path))


@pytest.mark.parametrize(
    ("uri", "path"),
    [
        ("mlruns", "/p/mlruns"),
        ("file:///a/b%20c", "/a/b c"),
        ("file://localhost/a", "/a"),
        ("file://elsewhere/a", None),
        ("s3://bucket/a", None),
        ("mlflow-artifacts:/1", None),
        ("", None),
    ],
)
def test_artifact_uris(uri: str, path: str | None) -> None:
    """Only what is a folder of this machine is one."""
    found = local_folder(uri, Path("/p"))
    if uri == "mlflow-artifacts:/1":
        assert found is None or not found.exists()
    else:
        assert found == (None if path is None else Path(path))


def test_what_is_remote() -> None:
    """Loopback and files are not; passwords and queries are never shown."""
    assert is_remote("s3://bucket/x")
    assert is_remote("https://tracking.example")
    assert not is_remote("http://127.0.0.1:5000")
    assert not is_remote("sqlite:///x.db")
    assert not is_remote("models:/m/1")
    assert shown("https://u:secret@h/x?token=secret") == "https://h/x"


def test_dotenv_is_read_and_never_run(tmp_path: Path) -> None:
    """Quotes, exports and comments; nothing is expanded."""
    text = "export A='x y'\nB=\"$(touch ran)\" # no\nC=1 # two\n# D=4\nbroken line\nE=\n"
    (tmp_path / ".env").write_text(text)
    assert dotenv(tmp_path) == {"A": "x y", "B": "$(touch ran)", "C": "1", "E": ""}
    (tmp_path / ".env").write_bytes(b"A=\xff\n")
    assert dotenv(tmp_path)["A"] == "\udcff"
    (tmp_path / ".env").unlink()
    (tmp_path / ".env").mkdir()
    assert dotenv(tmp_path) == {}


def test_databases_and_folders_outside_are_found(tmp_path: Path) -> None:
    """By configuration, environment, .env, and the columns of the database itself."""
    project = tmp_path / "work" / "project"
    project.mkdir(parents=True)
    for name in ("one", "two", "art", "more", "inside"):
        (tmp_path / "work" / name).mkdir()
    (project / "inside").mkdir()
    make_tracking(tmp_path / "work" / "one" / "a.db", str(tmp_path / "work" / "more"))
    make_tracking(project / "mlflow.db", f"file://{tmp_path}/work/art", str(project / "inside"))
    make_tracking(tmp_path / "work" / "two" / "b.db", "s3://bucket/x")
    config = Config(project, databases=(f"sqlite:///{tmp_path}/work/two/b.db",))
    (project / ".env").write_text("MLFLOW_TRACKING_URI=sqlite:///../one/a.db\n")
    found = outside(config, {"HOME": str(tmp_path / "home")})
    assert set(found.databases) == {
        tmp_path / "work" / "one" / "a.db",
        tmp_path / "work" / "two" / "b.db",
    }
    assert set(found.folders) == {tmp_path / "work" / "art", tmp_path / "work" / "more"}
    assert [skip.what for skip in found.skips] == ["artifacts in s3://bucket/x"]


def test_what_links_lead_to_is_named(tmp_path: Path) -> None:
    """Data and checkpoints on another disk: nobody else says that they are not put back."""
    project, disk = tmp_path / "project", tmp_path / "disk"
    for folder in (project / "models", project / "src", disk / "data", disk / "env", disk / "runs"):
        folder.mkdir(parents=True)
    (disk / "env/pyvenv.cfg").touch()
    (disk / "best.ckpt").touch()
    (project / "data").symlink_to("../disk/data")
    (project / "models/best").symlink_to(disk / "best.ckpt")
    (project / "models/runs").symlink_to(disk / "runs")
    (project / ".venv").symlink_to(disk / "env")
    (project / "inner").symlink_to("src")
    (project / "dangling").symlink_to("nothing")
    environ = {"HOME": str(tmp_path / "home")}

    def named(config: Config) -> list[str]:
        return [skip.what for skip in outside(config, environ).skips]

    data, best, runs = (
        f"{disk}/data (data)", f"{disk}/best.ckpt (models/best)", f"{disk}/runs (models/runs)"
    )  # fmt: skip
    assert named(Config(project)) == [data, best, runs]
    assert f'also = ["{disk}/data"]' in outside(Config(project), environ).skips[0].fix
    assert named(Config(project, also=(disk / "data",))) == [best, runs]
    assert named(Config(project, exclude=("models/",))) == [data]
    assert named(Config(project, watch=("data",))) == [best, runs]
    assert named(Config(project, also=(disk,))) == []
    for number in range(4):
        (project / f"models/{number}").symlink_to(disk / "best.ckpt")
    assert named(Config(project))[1:] == [
        f"{disk}/best.ckpt (models/0)",
        f"{disk}/best.ckpt (models/1)",
        "what 4 more links lead to (models/2)",
    ]


@pytest.mark.parametrize("place", ["local", "project", "user"])
def test_a_dvc_cache_outside_is_named(tmp_path: Path, place: str) -> None:
    """Nobody knows how large it is, so it is said and not copied; until the configuration does."""
    project, cache = tmp_path / "project", tmp_path / "shared cache"
    for folder in (project / ".dvc", cache, tmp_path / "home/.config/dvc"):
        folder.mkdir(parents=True)
    files = {
        "local": project / ".dvc/config.local",
        "project": project / ".dvc/config",
        "user": tmp_path / "home/.config/dvc/config",
    }
    shown = "../../shared cache" if place == "project" else str(cache)
    files[place].write_text(f"[core]\n    analytics = false\n[cache]\n    dir = {shown}\n")
    environ = {"HOME": str(tmp_path / "home")}
    (skip,) = outside(Config(project), environ).skips
    assert skip.what == f"the DVC cache {cache}"
    assert f'also = ["{cache}"]' in skip.fix
    assert outside(Config(project, also=(tmp_path,)), environ).skips == ()
    (project / ".dvc/config.local").write_text("[cache]\ndir = cache\n")
    assert outside(Config(project), environ).skips == ()
    (project / ".dvc/config.local").write_bytes(b"\xff[[[broken\x00")
    assert len(outside(Config(project), environ).skips) == int(place != "local")


def test_without_dvc_its_cache_is_nothing_to_speak_of(tmp_path: Path) -> None:
    """The user's own configuration concerns the projects that use it."""
    (tmp_path / "home/.config/dvc").mkdir(parents=True)
    (tmp_path / "cache").mkdir()
    text = f"[cache]\ndir = {tmp_path / 'cache'}\n"
    (tmp_path / "home/.config/dvc/config").write_text(text)
    (tmp_path / "project").mkdir()
    found = outside(Config(tmp_path / "project"), {"HOME": str(tmp_path / "home")})
    assert found.skips == ()


def test_what_cannot_be_kept_is_said_without_its_password(tmp_path: Path) -> None:
    """PostgreSQL is named as a skip; the password is not."""
    config = Config(tmp_path, databases=("postgresql+psycopg2://me:canary@localhost/mlflow",))
    (skip,) = outside(config, {}).skips
    assert "localhost/mlflow" in skip.what
    assert "canary" not in f"{skip.what}{skip.why}{skip.fix}"


@pytest.mark.parametrize("name", ["DATABASE_URL", "MLFLOW_TRACKING_URI"])
def test_a_database_server_in_the_environment_is_named(tmp_path: Path, name: str) -> None:
    """A loud skip with the command that makes a dump; the driver is none of libpq's business."""
    url = "postgresql+psycopg2://u:canary@localhost:5432/my db"
    (skip,) = outside(Config(tmp_path), {name: url}).skips
    assert "postgresql" in skip.why
    assert skip.fix.startswith("pg_dump ")
    assert skip.fix.endswith("'postgresql://localhost:5432/my db'")
    assert "canary" not in f"{skip.what}{skip.why}{skip.fix}"


def test_databases_of_a_project_are_found_by_name_and_magic(tmp_path: Path) -> None:
    """What has the name alone is none; what environments bring is nobody's data."""
    for place in ("mlflow.db", "optuna/study.sqlite3", ".venv/lib/x.db"):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        make_tracking(tmp_path / place)
    (tmp_path / "registry.db").write_text("no database")
    (tmp_path / "link.db").symlink_to("mlflow.db")
    assert find_databases(tmp_path) == ["mlflow.db", "optuna/study.sqlite3"]


def test_absurd_folders_are_left_alone(tmp_path: Path) -> None:
    """Neither the system, nor a home, nor what holds the project."""
    project = tmp_path / "project"
    project.mkdir()
    for place in ("/", "/tmp", "/usr", str(tmp_path), str(tmp_path / "no"), "/etc/../"):
        environ = {"HOME": str(tmp_path / "home"), "MLFLOW_DEFAULT_ARTIFACT_ROOT": place}
        assert outside(Config(project), environ).folders == (), place


def test_reading_a_database_changes_nothing(tmp_path: Path) -> None:
    """No side file is made, in neither journal mode; what is no database is none."""
    for wal in (False, True):
        file = make_tracking(tmp_path / f"{wal}.db", "/somewhere", wal=wal)
        before = sorted(os.listdir(tmp_path))
        stamp = file.stat().st_mtime_ns
        assert artifact_locations(file) == ["/somewhere"]
        assert sorted(os.listdir(tmp_path)) == before
        assert file.stat().st_mtime_ns == stamp
    (tmp_path / "text.db").write_text("SQLite format 4")
    os.mkfifo(tmp_path / "pipe.db")
    for name in ("text.db", "pipe.db", "missing.db", "."):
        assert not is_sqlite(tmp_path / name)
        assert artifact_locations(tmp_path / name) == []
    truncated = tmp_path / "False.db"
    os.truncate(truncated, 5000)
    artifact_locations(truncated)


def test_a_server_of_this_machine_is_asked_through_proc(tmp_path: Path) -> None:
    """Its stores come from its environment, relative to its folder."""
    make_tracking(tmp_path / "served.db", str(tmp_path / "served-artifacts"))
    (tmp_path / "served-artifacts").mkdir()
    program = (
        "import socket, sys; s = socket.create_server(('127.0.0.1', 0));"
        "print(s.getsockname()[1], flush=True); sys.stdin.read()"
    )
    server = subprocess.Popen(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env={**os.environ, "_MLFLOW_SERVER_FILE_STORE": "sqlite:///served.db"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        assert server.stdout is not None
        port = int(server.stdout.readline())
        found = find(port)
        assert found is not None
        assert found.pid == server.pid
        project = tmp_path / "project"
        project.mkdir()
        environ = {
            "MLFLOW_TRACKING_URI": f"http://localhost:{port}",
            "HOME": str(tmp_path / "home"),
        }
        state = outside(Config(project), environ)
        assert state.databases == (tmp_path / "served.db",)
        assert state.folders == (tmp_path / "served-artifacts",)
    finally:
        server.communicate(b"")
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
    assert find(port) is None
    environ["MLFLOW_TRACKING_URI"] = f"http://localhost:{port}"
    assert "tracking server" in outside(Config(project), environ).skips[0].what


def test_the_survey_names_what_it_finds(tmp_path: Path) -> None:
    """Tools, trackers, data, models and parameters; caches and links are not followed."""
    (tmp_path / ".venv" / "lib").mkdir(parents=True)
    (tmp_path / ".venv" / "lib" / "x.csv").touch()
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "train.csv").write_text("a\n1\n")
    (tmp_path / "model.onnx").write_text("x")
    make_tracking(tmp_path / "mlflow.db")
    (tmp_path / "notes.db").write_text("no database")
    (tmp_path / "params.yaml").write_text("a: 1\n")
    (tmp_path / "dvc.yaml").touch()
    (tmp_path / "train.py").write_text(
        "import optuna\nmlflow.set_tracking_uri('http://u:canary@h')\nraise SystemExit('ran')\n"
    )
    (tmp_path / "study.py").write_bytes(b"x = 'sqlite:///study.db'\n\xff\n")
    (tmp_path / "n.ipynb").touch()
    found = survey(tmp_path, {})
    assert found.tools == {"mlflow", "dvc", "optuna"}
    assert found.databases == ["mlflow.db"]
    assert found.data == ["data/train.csv"]
    assert found.models == ["model.onnx"]
    assert found.parameters == ["params.yaml"]
    assert found.trackers == {"train.py": "http://h", "study.py": "sqlite:///study.db"}
    assert found.notebooks == 1
    assert found.complete


def test_a_large_project_is_not_looked_through_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The survey stops, and says so."""
    monkeypatch.setattr("safeguards.discovery.surveying.MOST_ENTRIES", 10)
    for number in range(30):
        (tmp_path / f"{number:02}.csv").touch()
    found = survey(tmp_path, {})
    assert not found.complete
    assert len(found.data) <= 12
