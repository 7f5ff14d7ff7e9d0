"""A project with packages of guard's own names, first on PYTHONPATH, is guarded like any other."""

from __future__ import annotations

import pytest

from e2e.guard_command import Guard
from e2e.projects import make_small_project
from manifest import assert_back, manifest

_NAMES = ("checks", "rollback", "safeguards", "click", "yaml", "sqlite3", "git")


@pytest.mark.parametrize("path", [".", "absolute", "empty"])
def test_a_project_with_packages_of_the_same_names(
    path: str, guard: Guard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The child imports the project's packages, guard its own."""
    make_small_project(guard.project)
    for name in _NAMES:
        folder = guard.project / name
        folder.mkdir()
        (folder / "__init__.py").write_text("WHOSE = 'the project'\n")
        (folder / "main.py").write_text("raise SystemExit('guard ran code of the project')\n")
    for name in ("tomllib", "model", "errors"):
        (guard.project / f"{name}.py").write_text("raise SystemExit('guard ran this')\n")
    value = {".": ".", "absolute": str(guard.project), "empty": ""}[path]
    monkeypatch.setenv("PYTHONPATH", value)
    before = manifest(guard.project)

    program = (
        "import os, sys; sys.path.insert(0, '.'); import checks, rollback, safeguards;"
        "assert {checks.WHOSE, rollback.WHOSE, safeguards.WHOSE} == {'the project'};"
        "print(os.environ['PYTHONPATH'])"
    )
    run = guard("run", "--", "python3", "-B", "-c", program)
    assert run.status == 0, run.said
    assert run.out == f"{value}\n", "PYTHONPATH did not reach the child as it was"
    for arguments in (("status",), ("log",), ("diff",), ("check",)):
        result = guard(*arguments)
        assert result.status in {0, 1}, f"{arguments}: {result.said}"
    spoil = guard.shell("rm -rf checks rollback safeguards params.yaml")
    assert spoil.status == 0, spoil.said
    assert_back(before, guard.roll_back())


def test_a_project_without_pythonpath_does_not_shadow_either(guard: Guard) -> None:
    """Started in a folder of such packages with no PYTHONPATH, guard imports its own."""
    make_small_project(guard.project)
    (guard.project / "rollback").mkdir()
    (guard.project / "rollback" / "__init__.py").write_text("raise SystemExit('wrong one')\n")
    before = manifest(guard.project)
    assert guard.shell("rm -r rollback").status == 0
    assert_back(before, guard.roll_back())
