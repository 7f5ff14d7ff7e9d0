"""Environments that `python -m venv` and `uv venv` made, with wheels that pip and uv installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from rollback.model import Policy
from rollback.resources.python import (
    Distribution,
    Environment,
    environment_roots,
    find_environments,
    installed,
)
from rollback.resources.python.reinstall import prove_cache, reinstall
from rollback.resources.python.verify import verify_environment
from wheels import wheel

UV = shutil.which("uv")
needs_uv = pytest.mark.skipif(UV is None, reason="uv is not installed")


def run(*command: str | Path, **variables: str) -> str:
    """Run a command that has to succeed, and return what it writes."""
    done = subprocess.run(
        [str(word) for word in command],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def with_pip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with pip, made once: it takes seconds."""
    base = tmp_path_factory.mktemp("pip")
    subprocess.run([sys.executable, "-m", "venv", str(base / "env")], check=True)
    return base / "env"


@pytest.fixture
def environment(tmp_path: Path, with_pip: Path) -> Iterator[Environment]:
    """That environment with one wheel installed by pip, found through its own script."""
    path = wheel(tmp_path / "wheels", "tiny", "1.0")
    pip = with_pip / "bin" / "pip"
    run(pip, "install", "--quiet", "--no-index", "--force-reinstall", path)
    command = [str(with_pip / "bin" / "tiny")]
    (found,) = find_environments(command, os.environ, tmp_path / "project", cwd=tmp_path)
    yield found
    run(pip, "uninstall", "--quiet", "--yes", "tiny")


def _package(environment: Environment) -> Path:
    return Path(environment.site_packages[0]) / "tiny" / "__init__.py"


def test_pip_installed(environment: Environment, with_pip: Path) -> None:
    """Found by the first line of its script; each file of the wheel is where RECORD says."""
    assert environment.prefix == str(with_pip.resolve())
    assert environment.version == ".".join(map(str, sys.version_info[:3]))
    found = installed(environment.site_packages)
    assert found["tiny"]["version"] == "1.0"
    assert "pip" in found
    (root,) = environment_roots(environment)
    site = os.path.relpath(environment.site_packages[0], environment.prefix)
    assert root.policy(os.fsencode(f"{site}/tiny/__init__.py")) is Policy.LINK
    assert root.policy(b"share/tiny/note.txt") is Policy.LINK
    assert root.policy(b"bin/tiny") is Policy.COPY


def test_it_works(environment: Environment) -> None:
    """The interpreter starts, and every recorded hash agrees."""
    verdict = verify_environment(environment, sample=None)
    assert (verdict.problems, verdict.edited, verdict.missing) == ((), (), ())
    assert verdict.checked == verdict.listed > 100
    sampled = verify_environment(environment, sample=20)
    assert 10 < sampled.checked < verdict.checked


def test_edited_and_missing_files_are_told_apart(environment: Environment) -> None:
    """Neither keeps the interpreter from starting; both are named."""
    intact = environment_roots(environment)[0].intact
    relative = os.fsencode(os.path.relpath(_package(environment), environment.prefix))
    with _package(environment).open("rb") as file:
        assert intact(relative, file) is True
        assert intact(b"bin/activate", file) is None
    with _package(environment).open("a") as file:
        file.write("# debugging\n")
    (Path(environment.prefix) / "share" / "tiny" / "note.txt").unlink()
    with _package(environment).open("rb") as file:
        assert intact(relative, file) is False
    verdict = verify_environment(environment, sample=None)
    assert verdict.ok
    assert verdict.edited == (str(_package(environment)),)
    assert verdict.missing == (f"{environment.prefix}/share/tiny/note.txt",)


def test_what_breaks_an_interpreter(tmp_path: Path) -> None:
    """A home that went, a python that went, a broken python, another version: each is said."""
    run(sys.executable, "-m", "venv", "--without-pip", tmp_path / "env")
    (found,) = find_environments(
        [f"{tmp_path}/env/bin/python"], os.environ, tmp_path / "p", cwd=tmp_path
    )
    assert verify_environment(found).ok
    assert (
        "its packages are for 3.9"
        in verify_environment(replace(found, version="3.9.1")).problems[0]
    )
    python = tmp_path / "env" / "bin" / "python"
    python.unlink()
    assert "does not start" in verify_environment(found).problems[0]
    python.write_text("#!/bin/sh\necho no library >&2\nexit 3\n")
    python.chmod(0o755)
    assert verify_environment(found).problems[0].endswith("no library")
    (tmp_path / "env" / "pyvenv.cfg").write_text("home = /gone/bin\n")
    assert "/gone/bin" in verify_environment(found).problems[0]
    (tmp_path / "env" / "pyvenv.cfg").unlink()
    assert "is missing" in verify_environment(found).problems[0]


def test_an_interpreter_that_merely_lies_in_the_project_is_not_started(tmp_path: Path) -> None:
    """A cloned repository may bring an environment; its python is a program of strangers."""
    folder = tmp_path / "project" / "venv"
    run(sys.executable, "-m", "venv", "--without-pip", folder)
    python = folder / "bin" / "python"
    python.unlink()
    python.write_text(f"#!/bin/sh\n: > {tmp_path}/fired\n")
    python.chmod(0o755)
    found = find_environments(["true"], {"PATH": "/bin"}, tmp_path / "project", cwd=tmp_path)
    inside = next(one for one in found if one.prefix == str(folder))
    verify_environment(inside, sample=None)
    assert not (tmp_path / "fired").exists()


@needs_uv
@pytest.mark.parametrize("options", [(), ("--relocatable",)])
def test_uv_environment(tmp_path: Path, options: tuple[str, ...]) -> None:
    """Its layout, its scripts, and its RECORDs are understood."""
    wheel(tmp_path / "wheels", "tiny", "1.0")
    run("uv", "venv", "--quiet", "--python", sys.executable, *options, tmp_path / "e")
    variables = {"UV_FIND_LINKS": str(tmp_path / "wheels"), "UV_NO_INDEX": "1"}
    python = str(tmp_path / "e" / "bin" / "python")
    run("uv", "pip", "install", "--quiet", "--python", python, "tiny", **variables)
    command = [f"{tmp_path}/e/bin/tiny"]
    (found,) = find_environments(command, os.environ, tmp_path / "p", cwd=tmp_path)
    assert found.prefix == str(tmp_path / "e")
    assert found.version == ".".join(map(str, sys.version_info[:3]))
    verdict = verify_environment(found, sample=None)
    assert (verdict.problems, verdict.edited, verdict.missing) == ((), (), ())
    (root,) = environment_roots(found)
    site = os.path.relpath(found.site_packages[0], found.prefix)
    assert root.policy(os.fsencode(f"{site}/tiny/__init__.py")) is Policy.LINK


@needs_uv
def test_the_cache_is_proven_before_it_is_needed(tmp_path: Path) -> None:
    """What uv has cached comes back offline; what it has not is said before the run."""
    wheel(tmp_path / "wheels", "tiny", "1.0")
    run("uv", "venv", "--quiet", "--python", sys.executable, tmp_path / "e")
    environ = {
        **os.environ,
        "UV_FIND_LINKS": str(tmp_path / "wheels"),
        "UV_NO_INDEX": "1",
        "UV_CACHE_DIR": str(tmp_path / "cache"),
    }
    command = [f"{tmp_path}/e/bin/python"]
    (found,) = find_environments(command, environ, tmp_path / "p", cwd=tmp_path)
    wanted: dict[str, Distribution] = {"tiny": {"version": "1.0"}}
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    proof = prove_cache(found, wanted, str(scratch), environ)
    assert (proof.ok, proof.tool, os.listdir(scratch)) == (True, "uv", [])
    assert installed(found.site_packages) == {}
    assert reinstall(found, wanted, environ).ok
    package = Path(found.site_packages[0]) / "tiny" / "__init__.py"
    content = package.read_bytes()
    package.unlink()
    assert reinstall(found, wanted, environ).ok
    assert package.read_bytes() == content
    with package.open("a") as file:  # through the hard link, into uv's cache
        file.write("# edited in place\n")
    for poisoned in (
        prove_cache(found, wanted, str(scratch), environ),
        reinstall(found, wanted, environ),
    ):
        assert not poisoned.ok
        assert poisoned.edited[0].endswith("tiny/__init__.py")
    assert reinstall(found, wanted, environ, offline=False).ok
    assert package.read_bytes() == content
    lacking = prove_cache(found, {"huge": {"version": "9"}}, str(scratch), environ)
    assert not lacking.ok
    assert "huge" in lacking.said


def test_pip_needs_a_folder_of_wheels(environment: Environment, tmp_path: Path) -> None:
    """Pip has no way to install from its cache alone: said before the run, with the mend."""
    wanted: dict[str, Distribution] = {"tiny": {"version": "1.0"}}
    lacking = prove_cache(environment, wanted, str(tmp_path), {"PATH": "/nowhere"})
    assert (lacking.ok, lacking.tool) == (False, "pip")
    assert "tiny" in lacking.said
    assert lacking.skips[-1].fix == "install uv: pip install uv"
    environ = {"PATH": "/nowhere", "PIP_FIND_LINKS": str(tmp_path / "wheels")}
    assert prove_cache(environment, wanted, str(tmp_path), environ).ok
    _package(environment).write_text("spoilt")
    assert verify_environment(environment, sample=None).edited
    done = reinstall(environment, wanted, environ)
    assert (done.ok, done.tool, done.skips) == (True, "pip", ())
    assert verify_environment(environment, sample=None).edited == ()


def test_what_cannot_be_pinned_is_said(environment: Environment, tmp_path: Path) -> None:
    """Two versions at once, or none, are no pin; editable ones are kept as copies anyway."""
    wanted: dict[str, Distribution] = {
        "a": {"version": "1 and 2"},
        "b": {"version": ""},
        "c": {"version": "1", "origin": "editable file:///src"},
    }
    proof = prove_cache(environment, wanted, str(tmp_path), {"PATH": "/nowhere"})
    assert proof.ok
    assert [skip.what for skip in proof.skips] == ["reinstallation of a", "reinstallation of b"]
