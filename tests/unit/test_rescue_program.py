"""The program in the store is made whole, or what stopped it is said."""

from __future__ import annotations

import inspect
import io
import shlex
import subprocess
import sys
import time
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from driving import Project
from rollback import rescue
from rollback.engine import Engine


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A project whose command changed two files, with the snapshot from before."""
    made = Project(tmp_path.resolve())
    (made.root / "src").mkdir()
    (made.root / "src/a.py").write_text("one")
    (made.root / "raw").mkdir()
    (made.root / "raw/in.csv").write_text("1,2")
    made.snapshot()
    (made.root / "src/a.py").write_text("spoilt")
    return made


def _rescue(project: Project, *words: str, cwd: Path | None = None) -> tuple[int, str]:
    program = [sys.executable, "-I", "-S", str(project.store / "rescue.pyz"), *words]
    done = subprocess.run(
        program, cwd=cwd or project.base, stdin=subprocess.DEVNULL, capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stdout + done.stderr


def test_paths_are_held_as_guard_holds_them(project: Project) -> None:
    """A misspelt one is 10, one outside is 2; both start where guard lets them start."""
    to = ("rollback", "--to", "1", "--yes")
    assert _rescue(project, *to, "src/typo.py")[0] == 10
    assert _rescue(project, *to, "../../etc")[0] == 2
    assert _rescue(project, *to, "")[0] == 2
    assert (project.root / "src/a.py").read_text() == "spoilt"
    assert _rescue(project, *to, "src/a.py")[0] == 0
    assert (project.root / "src/a.py").read_text() == "one"
    assert _rescue(project, "undo", "--yes")[0] == 0
    assert (project.root / "src/a.py").read_text() == "spoilt"
    assert _rescue(project, *to, "a.py", cwd=project.root / "src")[0] == 0
    assert (project.root / "src/a.py").read_text() == "one"


def test_redo(project: Project) -> None:
    """What was taken back can be done again."""
    assert _rescue(project, "rollback", "--to", "1", "--yes")[0] == 0
    assert _rescue(project, "undo", "--yes")[0] == 0
    assert _rescue(project, "redo", "--yes")[0] == 0
    assert (project.root / "src/a.py").read_text() == "one"
    assert _rescue(project, "redo", "--yes")[0] == 10


def test_what_cannot_be_put_back_is_123(tmp_path: Path) -> None:
    """Named, and no success."""
    made = Project(tmp_path.resolve())
    (made.root / "raw").mkdir()
    (made.root / "raw/in.csv").write_text("1,2")
    settings = replace(made.settings, watch=("raw/",))
    with Engine(settings) as engine:
        operation = engine.begin("snapshot", {})
        engine.snapshot(operation, kind="manual", label="")
        engine.finish(operation, "done", {})
    (made.root / "raw/in.csv").write_text("other")
    status, said = _rescue(made, "rollback", "--to", "1", "--yes")
    assert status == 123, said
    assert "raw/in.csv" in said


def test_a_lost_catalog_is_made_again_with_nothing_installed(project: Project) -> None:
    """The documents say whose store it is."""
    (project.store / "catalog.db").unlink()
    assert _rescue(project, "log")[0] == 12
    status, said = _rescue(project, "verify", "--repair")
    assert status == 0, said
    assert "made again" in said
    assert _rescue(project, "rollback", "--to", "1", "--yes")[0] == 0
    assert (project.root / "src/a.py").read_text() == "one"


def test_a_store_of_several_projects_asks_for_one(project: Project) -> None:
    """Whose newest snapshot it is says nothing of what is meant."""
    other = Project(project.base, b"other")
    (other.root / "b").write_text("1")
    other.snapshot()
    to = ("rollback", "--to", "1", "--yes")
    status, said = _rescue(project, *to)
    assert status == 2, said
    assert str(other.root) in said
    assert _rescue(project, "--project", str(other.root), *to)[0] == 10
    assert _rescue(project, *to, cwd=project.root)[0] == 0
    assert (project.root / "src/a.py").read_text() == "one"


PACKAGE = Path(rescue.__file__).resolve().parent.parent
BUILD = inspect.unwrap(rescue.build)
"""The sweeps of faults pack it once for all their cases."""


def test_equal_sources_give_equal_bytes() -> None:
    """So that the program is written again only where the engine changed."""
    made = BUILD(PACKAGE)
    assert made == BUILD(PACKAGE)
    with zipfile.ZipFile(io.BytesIO(made)) as archive:
        assert archive.testzip() is None
        assert "rollback/engine.py" in archive.namelist()


@pytest.mark.parametrize("member", [1, 2, 9])
def test_an_interrupt_stays_an_interrupt(member: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Inside a member, where closing the archive would raise an error of its own."""
    write, calls = zipfile._ZipWriteFile.write, 0  # type: ignore[attr-defined]

    def interrupted(self: object, data: bytes) -> int:
        nonlocal calls
        calls += 1
        if calls == member:
            raise KeyboardInterrupt
        return int(write(self, data))

    monkeypatch.setattr(zipfile._ZipWriteFile, "write", interrupted)  # type: ignore[attr-defined]
    with pytest.raises(KeyboardInterrupt):
        BUILD(PACKAGE)


def test_what_to_type_next_needs_no_guard(project: Project) -> None:
    """Who runs this program has none to type; the command it names works."""
    status, said = _rescue(project, "rollback", "--to", "99")
    assert status == 10
    program = project.store / "rescue.pyz"
    hint = said.partition("next: ")[2].partition(" lists")[0]
    assert hint == shlex.join([sys.executable, str(program), "log"])
    listed = subprocess.run(hint, shell=True, check=True, capture_output=True, text=True)  # noqa: S602
    assert listed.stdout.split()[0] == "1"


def test_an_operation_is_listed_with_its_time_and_what_it_was(project: Project) -> None:
    """By that a snapshot is chosen."""
    with project.engine() as engine:
        operation = engine.begin("run", {"command": ["python", "a\x1b[31m\n.py"], "label": ""})
        engine.finish(operation, "failed", {})
    listed = _rescue(project, "log")[1].splitlines()[0]
    assert time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(operation.started_at)) in listed
    assert listed.endswith("failed       python a\\x1b[31m\\n.py")


@pytest.mark.parametrize("version", [(2, 7, 18), (3, 6, 15), (3, 10, 13)])
def test_an_older_python_is_told_so(version: tuple[int, int, int]) -> None:
    """Not by a traceback: what `python3` is on a machine nobody chooses."""
    package = Path(inspect.getfile(rescue)).parent.parent
    with zipfile.ZipFile(io.BytesIO(rescue.build(package))) as archive:
        main = archive.read("__main__.py").decode()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "version_info", version)
        with pytest.raises(SystemExit) as end:
            exec(main, {"__name__": "__main__"})  # noqa: S102
    assert (
        end.value.code == f"rescue: needs Python 3.11 or newer, this is {version[0]}.{version[1]}"
    )


def test_no_line_of_a_plan_ends_in_a_blank(project: Project) -> None:
    """Steps without a detail are steps, too."""
    _, said = _rescue(project, "rollback", "--to", "1", "--dry-run")
    assert said.splitlines() == [line.rstrip() for line in said.splitlines()] != []
