"""What guard imports late is there before its own environment may be changed."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import safeguards
from safeguards import preload

_HERE = Path(safeguards.__file__).parent


def _late_imports(file: Path) -> set[str]:
    """Return the modules that functions of a file import, relative to nothing."""
    found: set[str] = set()
    functions = [
        node
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    ]
    for function in functions:
        for node in ast.walk(function):
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                found.add(node.module)
    return found


def test_nothing_that_is_imported_late_is_forgotten() -> None:
    """Browsers, checks and git commands are no part of an outcome or a rollback."""
    late = {
        name
        for package in ("safeguards", "rollback")
        for file in (_HERE.parent / package).rglob("*.py")
        for name in _late_imports(file)
    }
    outside = {name for name in late if name.split(".")[0] not in {"safeguards", "rollback"}}
    apart = {name for name in outside if name.split(".")[0] in {"checks", "git", "webbrowser"}}
    loaded_by = """
import sys, safeguards.main, safeguards.preload as preload
assert preload.preload([preload._prefix()])
print(*sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-c", loaded_by], capture_output=True, text=True, check=True
    )
    missing = outside - apart - set(done.stdout.split())
    assert missing == set()
    assert "git" not in done.stdout.split()  # it starts git twice


@pytest.mark.parametrize("place", ["elsewhere", "elsewhere/deeper"])
def test_a_guard_of_its_own_loads_nothing_more(place: str, tmp_path: Path) -> None:
    """Most people's guard lies outside of the project: it starts no slower."""
    before = set(sys.modules)
    assert not preload.preload([tmp_path / place])
    assert set(sys.modules) == before
