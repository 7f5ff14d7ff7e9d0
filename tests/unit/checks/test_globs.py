"""Patterns: what `glob` finds, and an end where `glob` has none."""

from __future__ import annotations

import glob
import os
from pathlib import Path

import pytest

from checks.globs import expand


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A few files on several levels."""
    for name in ("a.pkl", "b.txt", "x/a.pkl", "x/y/a.pkl", "x/y/.h.pkl", "z/q[1].pkl"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


@pytest.mark.parametrize(
    "pattern",
    ["*.pkl", "**/*.pkl", "x/**", "**", "x/**/a.pkl", "**/y/*", "*/*.pkl", "?.pkl", "no*"],
)
def test_the_same_as_glob(tree: Path, pattern: str) -> None:
    """Every pattern names the files that `glob` names."""
    whole = os.path.join(tree, pattern)
    theirs = glob.glob(whole, recursive=True, include_hidden=True)
    ours = [path for path in expand(whole) if os.path.isfile(path)]
    assert ours == sorted({path for path in theirs if os.path.isfile(path)})


@pytest.mark.parametrize("pattern", ["**/*.pkl", "x/**", "**", "x/**/.h.pkl", ".c/**/*.pkl", "*"])
def test_hidden_names_as_glob_treats_them(tree: Path, pattern: str) -> None:
    """Without hidden names, a sign stands for what `glob` lets it stand for by default."""
    (tree / ".c" / ".d").mkdir(parents=True)
    for name in (".c/a.pkl", ".c/.d/a.pkl", "x/.e.pkl"):
        (tree / name).touch()
    whole = os.path.join(tree, pattern)
    theirs = glob.glob(whole, recursive=True)
    ours = [path for path in expand(whole, hidden=False) if os.path.isfile(path)]
    assert ours == sorted({path for path in theirs if os.path.isfile(path)})


def test_escaped_signs_stand_for_themselves(tmp_path: Path) -> None:
    """A folder with signs in its name is found, and only that one."""
    for name in ("[a]", "a"):
        (tmp_path / name / "sub").mkdir(parents=True)
        (tmp_path / name / "sub" / "x.pkl").touch()
    start = glob.escape(str(tmp_path / "[a]"))
    assert expand(f"{start}/**/*.pkl") == [str(tmp_path / "[a]" / "sub" / "x.pkl")]


def test_links_in_circles_end(tree: Path) -> None:
    """Two links to their own folder do not multiply for ever."""
    os.symlink(".", tree / "x" / "one")
    os.symlink(".", tree / "x" / "two")
    found = expand(os.path.join(tree, "**", "*.pkl"))
    assert len(found) == 5
