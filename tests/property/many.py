"""Round trips of generated trees, as many as one likes: ``python -m tests.property.many --long``.

Any tree → snapshot → any damage → rollback → undo → redo. hypothesis generates and shrinks; each
batch has a seed of its own, which is named where something differs.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from hypothesis import HealthCheck, given, seed, settings

from driving import scratch_project
from manifest import assert_back, manifest
from rollback.errors import NothingToDo
from trees import Step, carry_out, damage, owners, trees
from unprivileged import prepare_once

LONG = 10_000
_BATCH = 250


def round_trip(tree: list[Step], spoiling: list[Step]) -> None:
    """Raise unless a tree survives damage: rollback, undo and redo give back what was there."""
    with scratch_project() as project:
        carry_out(project.path, tree)
        before, owned = manifest(project.root), owners(project.path)
        taken = project.snapshot().snapshot
        assert_back(before, manifest(project.root))
        carry_out(project.path, spoiling)
        spoilt, spoilt_owners = manifest(project.root), owners(project.path)
        outcome = project.rollback(taken)
        assert outcome.verified
        assert not outcome.skipped
        assert_back(before, manifest(project.root))
        assert owners(project.path) == owned
        try:
            project.undo()
        except NothingToDo:
            assert_back(before, spoilt)  # the rollback had found everything in place
            assert spoilt_owners == owned
            return
        assert_back(spoilt, manifest(project.root))
        assert owners(project.path) == spoilt_owners
        project.redo()
        assert_back(before, manifest(project.root))
        assert owners(project.path) == owned


def batch(number: int, most: int) -> int:
    """Make a batch of round trips and return how many; raises the smallest that differs."""
    made = 0

    @seed(number)
    @settings(
        max_examples=most, deadline=None, suppress_health_check=list(HealthCheck), database=None
    )
    @given(tree=trees(), spoiling=damage())
    def attempt(tree: list[Step], spoiling: list[Step]) -> None:
        nonlocal made
        made += 1
        round_trip(tree, spoiling)

    attempt()
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Make as many round trips as the command line asks for; 1 where any differed."""
    parser = argparse.ArgumentParser(prog="python -m tests.property.many", description=__doc__)
    parser.add_argument("--long", action="store_true", help=f"{LONG:,} trees")
    parser.add_argument("--count", type=int, default=_BATCH, help="how many trees otherwise")
    parser.add_argument("--seed", type=int, default=1, help="of the first batch")
    asked = parser.parse_args(arguments)
    prepare_once()
    wanted = LONG if asked.long else asked.count
    started = time.monotonic()
    made, wrong, number = 0, 0, asked.seed
    while made < wanted:
        try:
            made += batch(number, min(_BATCH, wanted - made))
        except Exception as error:  # noqa: BLE001 - whatever it is, the others go on
            wrong += 1
            made += 1
            sys.stderr.write(f"WRONG seed {number}: {error!r}\n{_notes(error)}\n")
        number += 1
        elapsed_s = time.monotonic() - started
        sys.stderr.write(f"{made} round trips, {wrong} wrong, {elapsed_s:.0f} s\n")
    return 1 if wrong else 0


def _notes(error: BaseException) -> str:
    """Return what hypothesis says of an error: the example, of each where there are several."""
    several = error.exceptions if isinstance(error, BaseExceptionGroup) else ()
    return "\n".join([*getattr(error, "__notes__", []), *map(_notes, several)])


if __name__ == "__main__":
    raise SystemExit(main())
