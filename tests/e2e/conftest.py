"""What the black-box tests share: the installed command, projects, and real environments."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from e2e.guard_command import Guard
from e2e.projects import make_messy_project

_EXAMPLE = Path(__file__).parents[2] / "examples" / "wine"
_OLD_MLFLOW = (
    "mlflow-skinny==2.9.2",
    "sqlalchemy<2.1",
    "alembic<2",
    "pandas<3",
    "numpy<2",
    "setuptools<70",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark all that lies here as `e2e`, with the time that real tools need."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.e2e)
            if item.get_closest_marker("timeout") is None:
                item.add_marker(pytest.mark.timeout(180))


@pytest.fixture(scope="session")
def plain_environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an environment with nothing but Python: what `python3` means in the tests.

    Without it guard would protect whatever site-packages this machine's own Python has.
    """
    folder = tmp_path_factory.mktemp("plain") / "environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    return folder


@pytest.fixture
def guard(
    tmp_path: Path, isolated_home: Path, plain_environment: Path, monkeypatch: pytest.MonkeyPatch
) -> Guard:
    """Return the installed `guard` for the project `tmp_path/project`, which is empty."""
    monkeypatch.setenv("GUARD_STORE", str(tmp_path / "store"))
    own = os.path.join(sys.prefix, "bin")
    path = [folder for folder in os.environ["PATH"].split(os.pathsep) if folder != own]
    monkeypatch.setenv("PATH", os.pathsep.join([str(plain_environment / "bin"), *path]))
    monkeypatch.setenv("VIRTUAL_ENV", str(plain_environment))
    project = tmp_path / "project"
    project.mkdir()
    return Guard(project)


@pytest.fixture
def messy(guard: Guard) -> Guard:
    """Return guard for a project that has some of everything and unfinished work."""
    make_messy_project(guard.project)
    return guard


@pytest.fixture(scope="session")
def mlflow_python(request: pytest.FixtureRequest) -> Path:
    """Return the interpreter of an environment with the example's locked packages.

    It is built once and kept below ``GUARD_E2E_ENVIRONMENTS`` (else in pytest's cache).
    """
    lock = _EXAMPLE / "requirements.lock"
    return _environment(request, "mlflow", ("-r", str(lock)), lock.read_text())


@pytest.fixture(scope="session")
def old_mlflow_python(request: pytest.FixtureRequest) -> Path:
    """Return the interpreter of an environment with MLflow 2.9.2."""
    return _environment(request, "mlflow-2.9.2", _OLD_MLFLOW, "\n".join(_OLD_MLFLOW))


def _environment(
    request: pytest.FixtureRequest, name: str, requirements: tuple[str, ...], key: str
) -> Path:
    digest = hashlib.sha256(f"{sys.version}\n{key}".encode()).hexdigest()[:12]
    kept = os.environ.get("GUARD_E2E_ENVIRONMENTS")
    if kept:
        base = Path(kept)
    else:
        cache = request.config.cache
        assert cache is not None, "run with pytest's cache, or set GUARD_E2E_ENVIRONMENTS"
        base = cache.mkdir("e2e-environments")
    folder = base.resolve() / f"{name}-{digest}"
    python = folder / "bin" / "python"
    if not (folder / "complete").exists():
        shutil.rmtree(folder, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        install = [str(python), "-m", "pip", "install", "-q"]
        if shutil.which("uv"):
            # Copies, not hard links: links would be shared with uv's cache and all its users.
            install = ["uv", "pip", "install", "-q", "--link-mode=copy", "--python", str(python)]
        subprocess.run([*install, *requirements], check=True)
        subprocess.run([python, "-m", "compileall", "-q", folder / "lib"], check=False)
        (folder / "complete").touch()
    return python
