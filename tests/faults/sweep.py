"""Sweeps over every failpoint: guard dies or fails there, and nothing may be lost.

``python -m tests.faults.sweep --long`` runs all of them and prints the counts; without
``--long`` a sample. ``--kind``, ``--state`` and ``--minutes`` narrow it down. The order is random
but fixed, and begins with each place, operation, state and kind: it may be stopped at any time, and
``--after`` goes on where another run was stopped.
"""

from __future__ import annotations

import argparse
import math
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from faults.judging import judge, places
from faults.scenarios import SCENARIOS, Scenario
from faults.states import STATES, State, has_second_file_system

ERRORS = ("enospc", "eio", "eacces", "emfile")
KINDS = ("kill", "once", "sticky", "recovery")
_ONLY_WORKER = frozenset({"worker.start", "worker.end"})
_RECOVERY = ("rollback", "undo")


@dataclass(frozen=True, slots=True)
class Planned:
    """A case that will be run."""

    kind: str
    scenario: Scenario
    state: State
    armed: str
    again: str = ""

    def __str__(self) -> str:
        second = f" then {self.again}" if self.again else ""
        return f"{self.scenario.name} | {self.state.name} | {self.armed}{second}"


def available_states() -> list[State]:
    """Return the states that can be brought about here; says what is left out."""
    apart = has_second_file_system()
    if not apart:
        say("SKIPPED: a store on another file system: there is no second one to write to")
    return [state for state in STATES if apart or not state.apart]


def plan_cases(kind: str, scenario: Scenario, state: State, hits: Sequence[str]) -> list[Planned]:
    """Return the cases of one kind for what an operation reached in a state.

    Args:
        kind: One of `KINDS`.
        scenario: The operation.
        state: The kind of project.
        hits: The places that it reached, in order, with repeats.
    """
    cases: list[Planned] = []
    for name, count in Counter(hits).items():
        times = sorted({1, (count + 1) // 2, count})
        if kind == "kill":
            cases += [Planned(kind, scenario, state, f"{name}:kill@{k}") for k in times]
        elif kind == "recovery":
            if scenario.name in _RECOVERY and name.startswith(("restore.", "stage.done")):
                cases += [
                    Planned(kind, scenario, state, f"{name}:kill", f"{second}:kill@{k}")
                    for second, k in _SECOND
                ]
        else:
            mark = "+" if kind == "sticky" else ""
            cases += [Planned(kind, scenario, state, f"{name}:{e}{mark}") for e in ERRORS]
    return cases


_SECOND = (
    ("recover.start", 1), ("stage.file", 1), ("undo.commit", 1), ("restore.applying", 1),
    ("restore.replace", 1), ("restore.folders", 1), ("restore.verify", 1), ("restore.finish", 1),
    ("catalog.commit", 2), ("recover.clean", 1), ("recover.cleaned", 1),
)  # fmt: skip
"""Where a recovery is killed in turn; a place that it does not reach kills nothing."""


def all_cases(kinds: Sequence[str], states: Sequence[State]) -> Iterator[Planned]:
    """Yield every case, after finding out what each operation reaches in each state."""
    for state in states:
        for scenario in SCENARIOS:
            hits = places(scenario, state)
            for kind in kinds:
                yield from plan_cases(kind, scenario, state, hits)


@dataclass(slots=True)
class Tally:
    """What a sweep came to.

    Attributes:
        cases: How many of each kind in which the faults befell guard.
        idle: How many in which a fault did not: another process or an earlier end took it away.
        pairs: Places and states in which guard was hurt.
        wrong: What was lost, as sentences.
    """

    cases: Counter[str] = field(default_factory=Counter)
    idle: int = 0
    pairs: set[tuple[str, str]] = field(default_factory=set)
    wrong: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(self.cases.items()))
        places, states = ({pair[side] for pair in self.pairs} for side in (0, 1))
        return (
            f"{self.cases.total()} cases ({kinds}), {self.idle} without a fault, {len(places)}"
            f" places, {len(states)} states, {len(self.pairs)} pairs, {len(self.wrong)} wrong"
        )


def run(cases: Sequence[Planned], minutes: float = math.inf) -> Tally:
    """Run cases until the time is up; return how many of each kind, and what went wrong."""
    tally = Tally()
    started = time.monotonic()
    for number, case in enumerate(cases, 1):
        if time.monotonic() - started > minutes * 60:
            say(f"the time is up: {len(cases) - number + 1} cases were not run")
            break
        found = judge(case.scenario, case.state, case.armed, case.again)
        if found is None:
            tally.idle += 1
            continue
        tally.cases[case.kind] += 1
        tally.pairs.add((case.armed.partition(":")[0], case.state.name))
        for what in found:
            tally.wrong.append(f"{case}: {what}")
            say(f"WRONG {tally.wrong[-1]}")
        if number % 100 == 0:
            say(f"{number} of {len(cases)}: {tally}, {time.monotonic() - started:.0f} s")
    return tally


def sample(cases: Sequence[Planned], most: int, seed: int = 1) -> list[Planned]:
    """Return a fixed sample that has what there is at least once if it can.

    That is each operation, then each pair of a place and a state for each kind of fault.
    """
    dice = random.Random(seed)
    shuffled = dice.sample(list(cases), len(cases))
    seen: set[object] = set()
    ranks: list[list[Planned]] = [[], [], []]
    for case in shuffled:
        place = case.armed.partition(":")[0]
        some = {place, case.scenario.name, case.state.name}
        pair = (place, case.state.name, case.kind)
        ranks[0 if not some <= seen else 1 if pair not in seen else 2].append(case)
        seen |= {*some, pair}
    return [case for rank in ranks for case in rank][:most]


def say(line: str) -> None:
    """Write a line at once."""
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the command line asks for; 1 where anything was lost."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.sweep", description=__doc__)
    parser.add_argument("--long", action="store_true", help="every case instead of a sample")
    parser.add_argument("--kind", choices=KINDS, action="append", help="only this kind")
    parser.add_argument("--state", action="append", help="only states with this in their name")
    parser.add_argument("--most", type=int, default=60, help="size of the sample")
    parser.add_argument("--minutes", type=float, default=math.inf, help="stop after so long")
    parser.add_argument("--after", type=int, default=0, help="leave out so many cases")
    asked = parser.parse_args(arguments)
    os.environ.pop("GUARD_STORE", None)
    started = time.monotonic()
    states = [
        state
        for state in available_states()
        if not asked.state or any(part in state.name for part in asked.state)
    ]
    cases = list(all_cases(asked.kind or KINDS, states))
    chosen = sample(cases, len(cases) if asked.long else asked.most)
    tally = run(chosen[asked.after :], asked.minutes)
    say(f"{tally}, {time.monotonic() - started:.0f} s")
    return 1 if tally.wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
