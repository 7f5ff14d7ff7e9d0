"""Environments that a run broke, put back by the engine without a network."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from manifest import assert_back, manifest
from rollback.engine import Engine
from rollback.inventory import EngineSettings
from rollback.reports import Selection
from rollback.resources.python import changed_distributions, find_environments, installed
from rollback.resources.python.verify import verify_environment
from wheels import wheel


def _run(*command: str | Path) -> str:
    done = subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def _upgrade(prefix: Path, wheels: Path) -> None:
    new = wheel(wheels, "tiny", "2.0")
    other = wheel(wheels, "other", "3.0")
    _run(prefix / "bin" / "pip", "install", "--quiet", "--no-index", new, other)


def _uninstall(prefix: Path, _wheels: Path) -> None:
    _run(prefix / "bin" / "pip", "uninstall", "--quiet", "--yes", "tiny", "pip")


def _remake(prefix: Path, _wheels: Path) -> None:
    _run(sys.executable, "-m", "venv", "--clear", "--without-pip", prefix)


def _remove(prefix: Path, _wheels: Path) -> None:
    shutil.rmtree(prefix)


def _litter(prefix: Path, _wheels: Path) -> None:
    site = next(prefix.glob("lib/python3*/site-packages"))
    (site / "evil.pth").write_text("import sys\n")
    (site / "sitecustomize.py").write_text("raise SystemExit(3)\n")
    (prefix / "bin" / "python").unlink()
    with (prefix / "pyvenv.cfg").open("a") as file:
        file.write("home = /gone\n")
    with (prefix / "bin" / "activate").open("a") as file:
        file.write("exit 1\n")


@pytest.fixture(scope="module", params=["inside", "outside"])
def prefix(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with pip and one wheel, in a project or beside it; each test leaves it so."""
    base = tmp_path_factory.mktemp(request.param)
    (base / "project").mkdir()
    prefix = (base / "project" if request.param == "inside" else base) / ".venv"
    subprocess.run([sys.executable, "-m", "venv", str(prefix)], check=True)
    path = wheel(base / "wheels", "tiny", "1.0")
    _run(prefix / "bin" / "pip", "install", "--quiet", "--no-index", path)
    return prefix


@pytest.mark.parametrize("damage", [_upgrade, _uninstall, _remake, _remove, _litter])
def test_an_environment_is_back(
    tmp_path: Path, prefix: Path, damage: Callable[[Path, Path], None]
) -> None:
    """Upgraded, uninstalled, made again, removed, littered: exact, and it works."""
    inside = prefix.parent.name == "project"
    project = prefix.parent if inside else prefix.parent / "project"
    command = (str(prefix / "bin" / "tiny"),)
    environment = find_environments(command, os.environ, project, cwd=project)[0]
    assert environment.inside_project == inside
    settings = EngineSettings(
        project, tmp_path / "store", command=command, environ=dict(os.environ)
    )
    with Engine(settings) as engine:
        operation = engine.begin("run", {})
        snapshot = engine.snapshot(operation, kind="run", label="").snapshot
        engine.finish(operation, "done", {})
    before, had = manifest(prefix), installed(environment.site_packages)
    damage(prefix, tmp_path / "wheels")
    with Engine(settings) as engine:
        engine.restore(engine.plan(snapshot, Selection()))
    assert_back(before, manifest(prefix))
    assert changed_distributions(had, installed(environment.site_packages)) == []
    verdict = verify_environment(environment, sample=None)
    assert (verdict.problems, verdict.edited, verdict.missing) == ((), (), ())
    assert _run(*command) == "tiny\n"
    assert _run(prefix / "bin" / "pip", "--version").startswith("pip")
