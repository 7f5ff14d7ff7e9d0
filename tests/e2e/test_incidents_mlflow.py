"""Incidents of MLflow's own doing: migrated, killed while migrating, runs deleted and collected."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
from pathlib import Path
from typing import Any

import pytest

from e2e.guard_command import Guard
from e2e.projects import make_small_project
from manifest import assert_back, differences, manifest

pytestmark = pytest.mark.timeout(400)

_LOG = """
import mlflow
mlflow.set_tracking_uri("sqlite:///mlflow.db")
with mlflow.start_run() as run:
    mlflow.log_param("depth", 3)
    mlflow.log_metric("accuracy", 0.5)
    mlflow.log_text("kept", "note.txt")
print(run.info.run_id)
"""

_READ = """
import json, mlflow
mlflow.set_tracking_uri("sqlite:///mlflow.db")
found = mlflow.MlflowClient().search_runs(["0"])
print(json.dumps([[r.info.run_id, r.data.params, r.data.metrics] for r in found]))
"""

# Upgrades the schema and is killed before the statement whose number is given.
_UPGRADE = """
import os, signal, sys
from sqlalchemy import event
from sqlalchemy.engine import Engine
from mlflow.store.db import utils
left = int(sys.argv[1])
def count(*_):
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
event.listen(Engine, "before_cursor_execute", count)
utils._upgrade_db(utils.create_sqlalchemy_engine_with_retry("sqlite:///mlflow.db"))
"""

_COLLECT = """
import os, subprocess, sys, mlflow
os.environ["MLFLOW_TRACKING_URI"] = "sqlite:///mlflow.db"
mlflow.MlflowClient(tracking_uri="sqlite:///mlflow.db").delete_run(sys.argv[1])
subprocess.run([sys.executable, "-m", "mlflow", "gc", "--backend-store-uri",
                "sqlite:///mlflow.db", "--run-ids", sys.argv[1]], check=True)
"""


@pytest.fixture(scope="module")
def old_database(old_mlflow_python: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a database with one run, as MLflow 2.9.2 makes it."""
    folder = tmp_path_factory.mktemp("old")
    _python(old_mlflow_python, folder, _LOG)
    return folder / "mlflow.db"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder whose project and snapshots the tests share, for the environment's sake."""
    return tmp_path_factory.mktemp("tracked")


@pytest.fixture
def tracked(place: Path, isolated_home: Path) -> Guard:
    """Return guard for a new project in that folder."""
    shutil.rmtree(place / "project", ignore_errors=True)
    make_small_project(place / "project")
    return Guard(place / "project", env={"GUARD_STORE": str(place / "store")})


@pytest.fixture
def old_project(tracked: Guard, old_database: Path) -> Guard:
    """Return guard for a project with the old database."""
    (tracked.project / "mlflow.db").write_bytes(old_database.read_bytes())
    return tracked


def test_2_a_newer_mlflow_migrates_the_database_by_reading(
    old_project: Guard, old_mlflow_python: Path, mlflow_python: Path
) -> None:
    """After the rollback the older client reads its runs again."""
    runs = json.loads(_python(old_mlflow_python, old_project.project, _READ))
    assert len(runs) == 1
    before = manifest(old_project.project)
    version = _schema_version(old_project.project)

    run = old_project("run", "--", mlflow_python, "-c", _READ)
    assert run.status == 0, run.said
    assert json.loads(run.out.splitlines()[-1]) == runs, "guard has changed what the child said"
    assert _schema_version(old_project.project) != version, "nothing was migrated"

    assert_back(before, old_project.roll_back())
    assert json.loads(_python(old_mlflow_python, old_project.project, _READ)) == runs


def test_3_an_upgrade_is_killed_at_many_points(old_project: Guard, mlflow_python: Path) -> None:
    """The schema is back each time, wherever `mlflow db upgrade` was killed."""
    before = manifest(old_project.project)
    for statement in (1, 60, 300, 700, 1200):
        run = old_project("run", "--", mlflow_python, "-c", _UPGRADE, str(statement))
        assert run.status == 137, run.said
        if statement > 1:
            assert differences(before, manifest(old_project.project))
        assert_back(before, old_project.roll_back())


def test_4_a_run_is_deleted_and_collected(tracked: Guard, mlflow_python: Path) -> None:
    """The same run id, its row and its artifact are back after `mlflow gc`."""
    run_id = _python(mlflow_python, tracked.project, _LOG).splitlines()[-1]
    (artifact,) = (tracked.project / "mlruns").glob(f"**/{run_id}/artifacts/note.txt")
    before = manifest(tracked.project)

    run = tracked("run", "--", mlflow_python, "-c", _COLLECT, run_id)
    assert run.status == 0, run.said
    assert not artifact.exists()
    assert not _rows(tracked.project, run_id)

    assert_back(before, tracked.roll_back())
    assert artifact.read_text() == "kept"
    assert len(_rows(tracked.project, run_id)) == 1
    (found,) = json.loads(_python(mlflow_python, tracked.project, _READ))
    assert found[0] == run_id


def _python(python: Path, folder: Path, program: str, *arguments: str) -> str:
    done = subprocess.run(
        [python, "-c", program, *arguments],
        cwd=folder,
        env=os.environ | {"GIT_PYTHON_REFRESH": "quiet"},
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip().splitlines()[-1]


def _schema_version(project: Path) -> str:
    database = sqlite3.connect(project / "mlflow.db")
    (version,) = database.execute("SELECT version_num FROM alembic_version").fetchone()
    database.close()
    return str(version)


def _rows(project: Path, run_id: str) -> list[Any]:
    database = sqlite3.connect(project / "mlflow.db")
    rows = database.execute("SELECT * FROM runs WHERE run_uuid = ?", (run_id,)).fetchall()
    database.close()
    return rows
