"""Real repositories for the tests: the states that people's working copies are in."""

from __future__ import annotations

import subprocess
from pathlib import Path


def git(path: Path, *arguments: str, check: bool = True) -> str:
    """Run git in `path` and return what it writes, stripped."""
    done = subprocess.run(
        ["git", *arguments], cwd=path, check=False, capture_output=True, text=True
    )
    if check and done.returncode != 0:
        raise AssertionError(f"git {' '.join(arguments)}: {done.stderr}")
    return done.stdout.strip()


def commit(path: Path, name: str, text: str, *, message: str | None = None) -> str:
    """Write a file, commit it and return the hash of the commit."""
    (path / name).write_text(text)
    git(path, "add", "--", name)
    git(path, "commit", "--quiet", "-m", message or f"{name} says {text.strip()}")
    return git(path, "rev-parse", "HEAD")


def repository(path: Path, *options: str) -> Path:
    """Make a repository with one commit."""
    path.mkdir(parents=True, exist_ok=True)
    git(path, "init", "--quiet", "--initial-branch=main", *options)
    commit(path, "train.py", "one\n", message="first")
    return path
