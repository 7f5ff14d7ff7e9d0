"""The installed command in a small project with a small Python environment."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from e2e.guard_command import Guard


@pytest.fixture(scope="session")
def small_environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a virtual environment with nothing in it, so that snapshots take no time."""
    folder = tmp_path_factory.mktemp("environment") / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    return folder


@pytest.fixture
def guard(tmp_path: Path, small_environment: Path, monkeypatch: pytest.MonkeyPatch) -> Guard:
    """Return guard for a project with code, parameters, data and a model."""
    own = os.path.join(sys.prefix, "bin")
    path = [folder for folder in os.environ["PATH"].split(os.pathsep) if folder != own]
    monkeypatch.setenv("PATH", os.pathsep.join([str(small_environment / "bin"), *path]))
    monkeypatch.setenv("VIRTUAL_ENV", str(small_environment))
    monkeypatch.setenv("GUARD_STORE", str(tmp_path / "store"))
    project = tmp_path / "project"
    (project / "models").mkdir(parents=True)
    (project / "models" / "best.bin").write_bytes(bytes(range(256)))
    (project / "train.py").write_text("print('training')\n")
    (project / "params.yaml").write_text("lr: 0.1\n")
    (project / "data.csv").write_text("a,b\n" + "".join(f"{n},{n % 7}\n" for n in range(100)))
    return Guard(project)
