"""Damage in the store: whatever rots, it is noticed before any file of the user changes.

``python -m tests.faults.damage --long`` goes on until a thousand flipped bits, a thousand cut
files and a thousand deleted files were caught, each by a rollback that needed what they hit.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from driving import Project, scratch_project
from faults.states import STATES
from manifest import Entry, differences, manifest
from rollback.errors import RollbackError
from rollback.model import Snapshot
from unprivileged import prepare_once

LONG = 1_000
_MIXED = (
    "Python environment", "large and sparse files", "links of all kinds",
    "SQLite, rollback journal",
)  # fmt: skip
Mend = Callable[[], None]
Damage = Callable[[Path, random.Random], Mend]


@contextlib.contextmanager
def stored_project() -> Iterator[tuple[Project, Snapshot]]:
    """Give a project with content of every kind in one snapshot."""
    with scratch_project() as project:
        for state in STATES:
            if state.name in _MIXED:
                state.make(project)
        yield project, project.snapshot().snapshot


def flip(path: Path, dice: random.Random) -> Mend:
    """Flip one bit of a file."""
    at = dice.randrange(path.stat().st_size)
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ (1 << dice.randrange(8))]))

    def mend() -> None:
        with path.open("r+b") as file:
            file.seek(at)
            file.write(bytes([byte]))

    return mend


def cut(path: Path, dice: random.Random) -> Mend:
    """Cut a file short."""
    content = path.read_bytes()
    os.truncate(path, dice.randrange(len(content)))

    def mend() -> None:
        path.write_bytes(content)

    return mend


def delete(path: Path, dice: random.Random) -> Mend:
    """Take a file away."""
    aside = path.with_name(path.name + ".aside")
    path.rename(aside)

    def mend() -> None:
        aside.rename(path)

    return mend


KINDS: dict[str, Damage] = {"flip": flip, "cut": cut, "delete": delete}


@dataclass(slots=True)
class Found:
    """What came of damage of one kind.

    Attributes:
        caught: How often the rollback refused, and nothing had changed.
        harmless: How often it hit what the rollback did not need, and all came back.
        wrong: Everything else, as sentences.
    """

    caught: int = 0
    harmless: int = 0
    wrong: list[str] = field(default_factory=list)


def hurt(project: Project, snapshot: Snapshot, kind: str, *, until: int, seed: int = 1) -> Found:
    """Damage the store again and again until so many were caught; the project is whole then.

    Args:
        project: From `stored_project`.
        snapshot: Its only one.
        kind: One of `KINDS`.
        until: How many have to be caught.
        seed: Of the places.
    """
    found = Found()
    dice = random.Random(f"{kind} {seed}")
    built = manifest(project.root)
    targets = _content(project, links=kind == "delete")
    while found.caught < until and found.harmless <= until + 50 and len(found.wrong) < 10:
        target = dice.choice(targets)
        wipe(project)
        wiped = manifest(project.root)
        mend = KINDS[kind](target, dice)
        try:
            _attempt(project, snapshot, (built, wiped), found, f"{kind} {target.name}")
        finally:
            mend()
    project.rollback(snapshot)
    if lines := differences(built, manifest(project.root)):
        found.wrong.append(f"{kind}: mended, and it does not come back: {lines[:3]}")
    return found


def _attempt(
    project: Project,
    snapshot: Snapshot,
    states: tuple[dict[bytes, Entry], dict[bytes, Entry]],
    found: Found,
    what: str,
) -> None:
    """Roll back and judge what came of it."""
    built, wiped = states
    try:
        project.rollback(snapshot)
    except RollbackError as error:
        if "guard verify" not in error.hint:
            found.wrong.append(f"{what}: {error} | {error.hint}")
        elif lines := differences(wiped, manifest(project.root)):
            found.wrong.append(f"{what}: refused, and yet changed: {lines[:3]}")
        else:
            found.caught += 1
    else:
        if lines := differences(built, manifest(project.root)):
            found.wrong.append(f"{what}: put back, and it differs: {lines[:3]}")
        else:
            found.harmless += 1


def _content(project: Project, *, links: bool) -> list[Path]:
    """Return the files that hold content; damage to a link would hit the user's file, too."""
    packs = [p for p in (project.store / "packs").iterdir() if p.stat().st_size > 60]
    folders = ("loose", "links") if links else ("loose",)
    files = (p for folder in folders for p in (project.store / folder).rglob("*") if p.is_file())
    return sorted(packs) + sorted(files)


def wipe(project: Project) -> None:
    """Remove everything in the project."""
    for path in project.root.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def main(arguments: Sequence[str] | None = None) -> int:
    """Damage what the command line asks for; 1 where any was not caught in time."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.damage", description=__doc__)
    parser.add_argument("--long", action="store_true", help=f"{LONG:,} of each kind")
    parser.add_argument("--count", type=int, default=25, help="how many of each otherwise")
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args(arguments)
    prepare_once()
    wrong = 0
    for kind in KINDS:
        started = time.monotonic()
        with stored_project() as (project, snapshot):
            until = LONG if asked.long else asked.count
            found = hurt(project, snapshot, kind, until=until, seed=asked.seed)
        wrong += len(found.wrong)
        for line in found.wrong:
            sys.stderr.write(f"WRONG {line}\n")
        sys.stderr.write(
            f"{kind}: {found.caught} caught, {found.harmless} not needed, {len(found.wrong)} wrong,"
            f" {time.monotonic() - started:.0f} s\n"
        )
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
