"""Fills a small file system of its own to every degree and lets guard work on it.

``python full_disk.py FOLDER size|nr_inodes snapshot|rollback``, where mounting is allowed.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

_TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(_TESTS), str(_TESTS.parent)]

from driving import Project
from faults.states import STATES
from manifest import assert_back, manifest
from rollback.errors import RollbackError

_STATES = ("large and sparse files", "SQLite, rollback journal", "plain files")


def main(folder: Path, limit: str, verb: str) -> int:
    """Fill the disk more and more until nothing works, and check each time."""
    steps = [3_000, 1_000, 300, 100, 40, 20, 10, 5, 2, 1, 0]
    refused = 0
    for left in steps:
        for name in _STATES:
            refused += _try(folder, limit, verb, (name, left))
    sys.stdout.write(f"{len(steps) * len(_STATES)} tries, {refused} refused\n")
    return 0


def _try(folder: Path, limit: str, verb: str, case: tuple[str, int]) -> int:
    name, left = case
    state = next(state for state in STATES if state.name == name)
    size = "size=80m" if limit == "size" else "nr_inodes=400,size=200m"
    subprocess.run(["mount", "-t", "tmpfs", "-o", size, "none", str(folder)], check=True)
    try:
        project = Project(folder.resolve())
        state.make(project)
        before = manifest(project.root)
        spoilt = before
        if verb == "rollback":
            taken = project.snapshot().snapshot
            state.spoil(project)
            spoilt = manifest(project.root)
        fillers = _fill(folder, limit, left)
        refused = 0
        try:
            if verb == "snapshot":
                project.snapshot()
            else:
                project.rollback(taken)
                assert_back(before, manifest(project.root))
        except RollbackError as error:
            refused = 1
            assert error.hint
            if type(error).__name__ != "RestoreIncomplete":
                assert_back(spoilt, manifest(project.root))
        for filler in fillers:
            filler.unlink()
        project.recover()
        if verb == "snapshot":
            assert_back(before, manifest(project.root))
            taken = project.snapshot().snapshot
            state.spoil(project)
            spoilt = manifest(project.root)
        project.rollback(taken)
        assert_back(before, manifest(project.root))
        if verb == "rollback" and refused:
            project.undo()
            assert_back(spoilt, manifest(project.root))
        return refused
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def _fill(folder: Path, limit: str, left: int) -> list[Path]:
    """Leave so many pages, or inodes, free."""
    made: list[Path] = []
    if limit == "size":
        free = os.statvfs(folder)
        size = max(0, free.f_bavail - left) * free.f_frsize
        path = folder / "filler"
        with path.open("wb") as file:
            file.write(b"x" * size)
        return [path]
    while os.statvfs(folder).f_favail > left:
        path = folder / f"filler{len(made)}"
        path.touch()
        made.append(path)
    return made


if __name__ == "__main__":
    raise SystemExit(main(Path(sys.argv[1]), sys.argv[2], sys.argv[3]))
