"""Sweeps over system calls: the kernel kills guard at the K-th of a kind, or refuses it.

Where a failpoint was forgotten, this still looks. ``python -m tests.faults.syscalls --long``.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from faults.cases import Case, Ended
from faults.judging import conclude
from faults.scenarios import SCENARIOS, Scenario
from faults.states import STATES, State, project_in
from faults.sweep import say
from faults.traced import inject, trace, why_not

KILLED = (
    "fsync", "fdatasync", "rename", "renameat", "pwrite64", "write", "unlink", "unlinkat", "link",
    "linkat", "openat", "mkdirat", "ftruncate", "syncfs", "utimensat", "fchmod",
)  # fmt: skip
REFUSED = (
    "fsync", "fdatasync", "rename", "renameat", "pwrite64", "unlinkat", "linkat", "mkdirat",
    "ftruncate", "syncfs", "fchmod", "utimensat",
)  # fmt: skip
_STATES = {
    "plain files", "git repository", "SQLite, rollback journal", "SQLite, write-ahead log",
    "links of all kinds", "large and sparse files", "types changed", "project removed",
}  # fmt: skip
_SCENARIOS = {"first snapshot", "snapshot again", "drill", "rollback", "undo", "prune"}
_DONE, _CLEAR, _UNCLEAR = 0, 3, 4


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault in an operation: ``fsync:signal=SIGKILL:when=3``."""

    scenario: Scenario
    state: State
    text: str

    def __str__(self) -> str:
        return f"{self.scenario.name} | {self.state.name} | {self.text}"


def counts(scenario: Scenario, state: State) -> Counter[str]:
    """Return how many calls of each kind an operation makes, the interpreter's included."""
    with project_in(state) as project:
        case = Case(project, state)
        scenario.before(case)
        kinds = ",".join(sorted({*KILLED, *REFUSED}))
        calls = trace(scenario.name, project.base, kinds)
        if case.wrong:
            raise AssertionError(f"{scenario.name}, {state.name}: {case.wrong}")
        return Counter(call.name for call in calls)


def all_faults(*, kills: int, errors: int, seed: int = 1, only: str = "") -> Iterator[Fault]:
    """Yield faults, so many kills and so many errors for each kind of call, at random places.

    Args:
        kills: Of each call, operation and state; where there are fewer calls, each of them.
        errors: As above.
        seed: Of the places.
        only: What has to be in a state's name.
    """
    dice = random.Random(seed)
    for state in (state for state in STATES if only in state.name):
        for scenario in SCENARIOS:
            if state.name not in _STATES or scenario.name not in _SCENARIOS:
                continue
            number = counts(scenario, state)
            for call in KILLED:
                # Half of the opens are the interpreter's own; they come first and hurt nobody.
                first = number[call] // 2 if call == "openat" else 1
                for k in _some(dice, first, number[call], kills):
                    yield Fault(scenario, state, f"{call}:signal=SIGKILL:when={k}")
            for call in REFUSED:
                for k in _some(dice, 1, number[call], errors):
                    error = dice.choice(("ENOSPC", "EIO"))
                    mark = dice.choice(("", "+"))
                    yield Fault(scenario, state, f"{call}:error={error}:when={k}{mark}")


def _some(dice: random.Random, first: int, last: int, most: int) -> list[int]:
    places = range(first, last + 1)
    return sorted(dice.sample(places, min(most, len(places))))


def judge_fault(fault: Fault) -> list[str] | None:
    """Run an operation with a fault, recover, and return what is wrong then.

    Returns:
        None where the operation did not come to that call: nothing was injected.
    """
    with project_in(fault.state) as project:
        case = Case(project, fault.state, armed=fault.text)
        fault.scenario.before(case)
        started = time.monotonic()
        done = inject(fault.scenario.name, project.base, fault.text)
        elapsed_s = time.monotonic() - started
        killed = -done.returncode if done.returncode < 0 else 0
        code = done.returncode if done.returncode in {_DONE, _CLEAR} else _UNCLEAR
        ended = Ended(killed, 0 if killed else code, done.stderr, elapsed_s, done.fired)
        return conclude(case, fault.scenario, ended)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the command line asks for; 1 where anything was lost."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.syscalls", description=__doc__)
    parser.add_argument("--long", action="store_true", help="thousands instead of hundreds")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--state", default="", help="only states with this in their name")
    asked = parser.parse_args(arguments)
    if why_not():
        say(f"SKIPPED: {why_not()}")
        return 0
    started = time.monotonic()
    kills, errors = (7, 4) if asked.long else (1, 1)
    wrong: list[str] = []
    done: Counter[str] = Counter()
    for fault in all_faults(kills=kills, errors=errors, seed=asked.seed, only=asked.state):
        found = judge_fault(fault)
        kind = "kills" if "SIGKILL" in fault.text else "errors"
        done["not reached" if found is None else kind] += 1
        for what in found or ():
            wrong.append(f"{fault}: {what}")
            say(f"WRONG {wrong[-1]}")
        if done.total() % 100 == 0:
            counted = ", ".join(f"{count} {kind}" for kind, count in sorted(done.items()))
            say(f"{counted}, {len(wrong)} wrong, {time.monotonic() - started:.0f} s")
    say(
        f"{done['kills']} kills, {done['errors']} errors, {done['not reached']} not reached,"
        f" {len(wrong)} wrong, {time.monotonic() - started:.0f} s"
    )
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
