"""The launcher: guard's own modules, whatever PYTHONPATH and the folder hold."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = Path(sys.executable).parent / "guard"
TRAP = "raise SystemExit('guard ran code of the project')\n"
NAMES = ("safeguards", "rollback", "checks", "click", "tomllib", "sqlite3", "json", "subprocess")


def make_traps(folder: Path) -> Path:
    """Make packages with the names of what guard imports, each a trap."""
    for name in NAMES:
        (folder / name).mkdir(parents=True)
        (folder / name / "__init__.py").write_text(TRAP)
    return folder


def guard(folder: Path, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the console script in a folder."""
    return subprocess.run(
        [SCRIPT, *words],
        cwd=folder,
        env={**os.environ, "VIRTUAL_ENV": str(folder / "none"), **variables},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("value", [".", "", ":", "{here}", "src:{here}", "/nowhere:."])
def test_what_pythonpath_brings_is_not_imported(value: str, tmp_path: Path) -> None:
    """Relative, empty and absolute entries alike; the child still has them."""
    make_traps(tmp_path)
    named = value.format(here=tmp_path)
    done = guard(tmp_path, "--json", "status", PYTHONPATH=named)
    assert done.returncode == 0, done.stderr
    shown = guard(tmp_path, "run", "--drill", "off", "printenv", "PYTHONPATH", PYTHONPATH=named)
    assert shown.stdout == f"{named}\n", shown.stderr


def test_what_a_start_up_hook_has_imported_is_forgotten(tmp_path: Path) -> None:
    """A sitecustomize on PYTHONPATH that imports the project's package does no harm."""
    for name in ("safeguards", "rollback", "checks"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("WHOSE = 'the project'\n")
    (tmp_path / "usercustomize.py").write_text("import safeguards, rollback, checks\n")
    (tmp_path / "sitecustomize.py").write_text("import safeguards, rollback, checks\n")
    done = guard(tmp_path, "--json", "status", PYTHONPATH=str(tmp_path))
    assert done.returncode == 0, done.stderr


def test_warnings_as_errors_are_the_childs(tmp_path: Path) -> None:
    """PYTHONWARNINGS=error does not turn a warning inside of guard into its failure."""
    program = "import mlguard_launcher, warnings; mlguard_launcher.isolate(); warnings.warn('x')"
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env={**os.environ, "PYTHONWARNINGS": "error"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_dependencies_that_only_pythonpath_has_are_kept(tmp_path: Path) -> None:
    """Where a module system provides click by PYTHONPATH, that folder stays, at the end."""
    (tmp_path / "click").mkdir()
    (tmp_path / "click" / "__init__.py").write_text("")
    program = "import sys, mlguard_launcher; mlguard_launcher.isolate(); print(sys.path[-1])"
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd="/",
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == str(tmp_path)


def test_started_as_a_module(tmp_path: Path) -> None:
    """`python -m mlguard_launcher` works in a folder of traps, which is first on its path."""
    make_traps(tmp_path)
    done = subprocess.run(
        [sys.executable, "-m", "mlguard_launcher", "--version"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("guard ")


def test_the_wheel_has_all_that_is_needed(tmp_path: Path) -> None:
    """Unpacked elsewhere, the launcher finds the packages beside itself."""
    for name in ("safeguards", "rollback", "checks", "mlguard_launcher.py"):
        (tmp_path / name).symlink_to(ROOT / name)
    program = (
        "import sys; sys.path.insert(0, sys.argv.pop(1)); import mlguard_launcher as l;"
        "l.isolate(); import safeguards; print(safeguards.__file__)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)],
        cwd="/",
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == str(tmp_path / "safeguards" / "__init__.py")
