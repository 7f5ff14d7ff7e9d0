"""guard lived in the environment that the run deleted: the store brings its own way back."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
import sysconfig
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

import mlguard_launcher
import safeguards
from e2e.projects import assert_repository_whole, make_small_project
from manifest import assert_back, manifest

_DESTROY = "rm -rf .venv .git train.py models; echo lr: 9 > params.yaml; rm app.db; exit 1"


@dataclass(frozen=True, slots=True)
class Rescued:
    """A project whose guard is installed in its own `.venv`, and a bare Python.

    Attributes:
        project: The project.
        store: Its store.
        python: An interpreter that sees the standard library alone.
    """

    project: Path
    store: Path
    python: tuple[str, ...]

    def guard(self, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Call the project's own guard."""
        done = _call([str(self.project / ".venv/bin/guard"), *words], self.project, variables)
        assert "Traceback" not in done.stderr, done.stderr
        return done

    def rescue(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Call what the store holds, from a folder that is not the project's."""
        program = str(self.store / "rescue.pyz")
        return _call([*self.python, program, *words], self.store.parent, {})


def _call(
    words: list[str], folder: Path, variables: dict[str, str]
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        words, cwd=folder, env=os.environ | variables, check=False, timeout=120,
        stdin=subprocess.DEVNULL, capture_output=True, text=True,
    )  # fmt: skip


def _install_guard(environment: Path) -> None:
    """Put guard's own files into an environment; what it depends on is found where it lies."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    python = f"python{sys.version_info.major}.{sys.version_info.minor}"
    site = environment / "lib" / python / "site-packages"
    installed = Path(safeguards.__file__).parents[1]
    for package in ("safeguards", "rollback", "checks"):
        shutil.copytree(
            installed / package, site / package, ignore=shutil.ignore_patterns("__pycache__")
        )
    shutil.copy(mlguard_launcher.__file__, site)
    # Python would make these while guard starts, which touches the folders that they lie in.
    subprocess.run([sys.executable, "-m", "compileall", "-q", site], check=True)
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    script = environment / "bin" / "guard"
    script.write_text(f"#!{environment}/bin/python\nfrom mlguard_launcher import main\n\nmain()\n")
    script.chmod(0o755)


@pytest.fixture
def rescued(
    tmp_path: Path, isolated_home: Path, plain_environment: Path, monkeypatch: pytest.MonkeyPatch
) -> Rescued:
    """A repository with an environment that holds guard, a model and a database."""
    store = tmp_path / "store"
    monkeypatch.setenv("GUARD_STORE", str(store))
    monkeypatch.delenv("VIRTUAL_ENV", raising=False)
    project = tmp_path / "project"
    make_small_project(project)
    _install_guard(project / ".venv")
    with closing(sqlite3.connect(project / "app.db")) as database, database:
        database.execute("CREATE TABLE runs (name TEXT)")
        database.execute("INSERT INTO runs VALUES ('first')")
    database.close()
    return Rescued(project, store, (str(plain_environment / "bin/python"), "-I", "-S"))


def _rows(project: Path) -> list[tuple[str]]:
    database = sqlite3.connect(project / "app.db")
    try:
        return database.execute("SELECT name FROM runs").fetchall()
    finally:
        database.close()


def _state(rescued: Rescued) -> dict[bytes, object]:
    return dict(manifest(rescued.project, live_databases=("app.db",)))


def test_everything_is_back_with_nothing_installed(rescued: Rescued) -> None:
    """Code, repository, model, configuration, database and the environment with guard in it."""
    before = manifest(rescued.project, live_databases=("app.db",))
    run = rescued.guard("run", "--", "sh", "-c", _DESTROY)
    assert run.returncode == 1, run.stderr
    assert not (rescued.project / ".venv").exists()

    back = rescued.rescue("rollback", "--last", "--yes")
    assert back.returncode == 0, back.stdout + back.stderr
    assert "verified" in back.stdout
    assert_back(before, manifest(rescued.project, live_databases=("app.db",)))
    assert _rows(rescued.project) == [("first",)]
    assert_repository_whole(rescued.project)
    log = rescued.guard("log")
    assert log.returncode == 0, log.stderr
    assert "rollback" in log.stdout


def test_a_rescue_is_taken_back_by_either(rescued: Rescued) -> None:
    """It keeps what it displaces as guard does, and goes on where guard stopped."""
    rescued.guard("run", "--", "sh", "-c", _DESTROY)
    (rescued.project / "later.txt").write_text("work done after the run")
    destroyed = _state(rescued)
    assert rescued.rescue("rollback", "--last", "--yes").returncode == 0
    whole = _state(rescued)
    assert not (rescued.project / "later.txt").exists()

    undone = rescued.guard("undo", "--yes")
    assert undone.returncode == 0, undone.stderr
    assert _state(rescued) == destroyed
    again = rescued.rescue("rollback", "--last", "--yes")
    assert again.returncode == 0, again.stderr
    assert _state(rescued) == whole
    assert rescued.rescue("undo", "--yes").returncode == 0
    assert _state(rescued) == destroyed


def test_a_rollback_that_was_killed_is_finished(rescued: Rescued) -> None:
    """Guard died half way, and took itself along."""
    before = _state(rescued)
    rescued.guard("run", "--", "sh", "-c", "rm -rf train.py models; exit 1")
    killed = rescued.guard("rollback", "--last", "--yes", GUARD_FAILPOINT="restore.applying:kill")
    assert killed.returncode == -9, killed.stderr
    shutil.rmtree(rescued.project / ".venv")

    back = rescued.rescue("rollback", "--last", "--yes")
    assert back.returncode == 0, back.stdout + back.stderr
    assert "had been interrupted" in back.stderr
    assert _state(rescued) == before


def test_it_asks_and_answers_as_guard_does(rescued: Rescued) -> None:
    """Nothing without `--yes` and a terminal; a plan; parts; documented statuses."""
    rescued.guard("run", "--", "sh", "-c", _DESTROY)
    destroyed = _state(rescued)
    refused = rescued.rescue("rollback", "--last")
    assert refused.returncode == 2
    assert "--yes" in refused.stderr
    planned = rescued.rescue("rollback", "--last", "--dry-run")
    assert planned.returncode == 0
    assert "create    train.py" in planned.stdout
    assert rescued.rescue("rollback", "--to", "77", "--yes").returncode == 10
    assert _state(rescued) == destroyed

    part = rescued.rescue("rollback", "--last", "--yes", str(rescued.project / "models"))
    assert part.returncode == 0, part.stderr
    assert (rescued.project / "models/best.ckpt").exists()
    assert not (rescued.project / "train.py").exists()


def test_damage_in_the_store_stops_it_before_anything_changes(rescued: Rescued) -> None:
    """Status 12, and `verify` names what is damaged."""
    rescued.guard("run", "--", "sh", "-c", _DESTROY)
    destroyed = _state(rescued)
    for pack in (rescued.store / "packs").glob("*.pack"):
        with pack.open("r+b") as file:
            file.seek(-20, os.SEEK_END)
            file.write(bytes(20))
    back = rescued.rescue("rollback", "--last", "--yes")
    assert back.returncode == 12, back.stdout + back.stderr
    assert f"{rescued.store}/rescue.pyz verify --repair" in back.stderr
    assert _state(rescued) == destroyed
    looked = rescued.rescue("verify")
    assert looked.returncode == 1
    assert "damaged" in looked.stdout
