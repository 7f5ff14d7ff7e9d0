"""Incident 1: the Python environment is broken, and put back with the network off."""

from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from e2e.guard_command import Guard
from e2e.projects import make_small_project
from e2e.wheels import make_wheel
from manifest import assert_back, differences, manifest

_PIP = ".venv/bin/python -m pip --disable-pip-version-check -q"
_OFFLINE = {"PIP_NO_INDEX": "1", "UV_OFFLINE": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a small virtual environment with pip and `brittle` 1.0, to copy from."""
    base = tmp_path_factory.mktemp("environment")
    make_wheel(base / "wheels", "brittle", "1.0", "ANSWER = 42\n")
    make_wheel(base / "wheels", "brittle", "2.0", "raise ImportError('2.0 is broken')\n")
    make_wheel(base / "wheels", "extra", "1.0", "HERE = True\n")
    subprocess.run([sys.executable, "-m", "venv", base / ".venv"], check=True)
    pip = [str(base / ".venv/bin/python"), "-m", "pip", "install", "-q", "--no-index"]
    subprocess.run([*pip, "--find-links", base / "wheels", "brittle==1.0"], check=True)
    return base


@pytest.fixture
def broken_soon(guard: Guard, environment: Path, monkeypatch: pytest.MonkeyPatch) -> Guard:
    """Return guard for a project with an environment of its own, and the network off."""
    monkeypatch.delenv("VIRTUAL_ENV")
    make_small_project(guard.project)
    shutil.copytree(environment / ".venv", guard.project / ".venv", symlinks=True)
    shutil.copytree(environment / "wheels", guard.project.parent / "wheels")
    return dataclasses.replace(guard, wrapper=_no_network(), env=_OFFLINE)


_DAMAGE = {
    "pip install -U": f"{_PIP} install --no-index --find-links ../wheels -U brittle",
    "pip uninstall": f"{_PIP} uninstall -y brittle pip",
    "another package": f"{_PIP} install --no-index --find-links ../wheels extra",
    "a .pth file": "for d in .venv/lib/python3.*; do"
    " echo 'import os' > $d/site-packages/more.pth; done",
    "all of it": "rm -rf .venv",
    "made again": f"{sys.executable} -m venv --clear --without-pip .venv",
}


@pytest.mark.parametrize("kind", _DAMAGE)
def test_1_the_environment_is_back_offline(kind: str, broken_soon: Guard) -> None:
    """`pip freeze` is identical, imports work, and every file is what it was."""
    before, frozen = manifest(broken_soon.project), _freeze(broken_soon.project)
    assert frozen == "brittle==1.0"
    run = broken_soon.shell(f"{_DAMAGE[kind]} ; exit 1")
    assert run.status == 1, run.said
    assert differences(before, manifest(broken_soon.project)), f"no damage done: {run.said}"

    assert_back(before, broken_soon.roll_back())
    assert _freeze(broken_soon.project) == frozen
    done = _python(broken_soon.project, "-c", "import brittle; print(brittle.ANSWER)")
    assert done == "42"
    assert _python(broken_soon.project, "-m", "pip", "check") == "No broken requirements found."


def test_1_an_environment_outside_the_project_is_back(
    guard: Guard, environment: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The activated environment is protected where it lies outside the project."""
    make_small_project(guard.project)
    outside = guard.project.parent / "outside"
    shutil.copytree(environment / ".venv", outside, symlinks=True)
    monkeypatch.setenv("VIRTUAL_ENV", str(outside))
    monkeypatch.setenv("PATH", f"{outside}/bin{os.pathsep}{os.environ['PATH']}")
    before, project = manifest(outside), manifest(guard.project)
    wheels = environment / "wheels"
    run = guard(
        *("run", "--", "python", "-m", "pip", "install", "-q", "--no-index"),
        *("--find-links", str(wheels), "-U", "brittle", "extra"),
    )
    assert run.status == 0, run.said
    assert differences(before, manifest(outside)), "pip has changed nothing"
    assert_back(project, guard.roll_back())
    assert_back(before, manifest(outside))


def test_a_package_edited_in_place_stops_only_itself(broken_soon: Guard) -> None:
    """What is kept by link and was written in place is named; the rest can be put back.

    Installers replace files, so guard keeps packages by link; an editor that writes through
    the link is the documented limit of that.
    """
    before = manifest(broken_soon.project)
    (module,) = broken_soon.project.glob(".venv/lib/*/site-packages/brittle.py")
    broken_soon.shell(f"echo 'ANSWER = 0' >> '{module}' ; echo spoilt > params.yaml ; rm train.py")
    result = broken_soon("rollback", "--last", "--yes")
    assert "brittle.py" in result.out + result.err, result.said
    assert result.status in {1, 12, 123}, f"not all is back, yet it says done: {result.said}"
    lines = differences(before, manifest(broken_soon.project))
    assert lines, "the edited file cannot be back: the test is wrong"
    assert all("brittle.py" in line for line in lines), lines


def _no_network() -> tuple[str, ...]:
    for wrapper in (("unshare", "-n"), ("unshare", "-rn")):
        if (
            shutil.which("unshare")
            and not subprocess.run([*wrapper, "true"], check=False).returncode
        ):
            return wrapper
    return ()  # pip and uv are told to stay offline either way


def _freeze(project: Path) -> str:
    return _python(project, "-m", "pip", "freeze")


def _python(project: Path, *arguments: str) -> str:
    done = subprocess.run(
        [project / ".venv/bin/python", *arguments],
        check=True,
        capture_output=True,
        text=True,
        env=os.environ | _OFFLINE | {"PYTHONDONTWRITEBYTECODE": "1"},
    )
    return done.stdout.strip()
