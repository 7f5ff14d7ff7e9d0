"""The failpoints are all known and all reached; a sample of the sweep loses nothing."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import rollback
from faults import sweep
from faults.cases import SCENARIOS, judge, places
from faults.states import STATES
from rollback.failpoints import FAILPOINTS

_SOURCE = Path(rollback.__file__).parent
_REACHED = re.compile(r"reach\(\"([^\"]+)\"\)")
_APART = {
    *("recover.start", "recover.cleaned", "repair.catalog", "reclaim.file"),
    *("sqlite.online", "sqlite.checkpoint"),
}
"""Reached by a recovery, the repair of a lost catalog, an installation, a database that a server
has open: tested elsewhere."""


def test_the_source_and_the_list_agree() -> None:
    """Each place in the source is listed, and each listed one is in the source."""
    sources = [p.read_text() for p in _SOURCE.rglob("*.py") if p.name != "failpoints.py"]
    reached = {name for text in sources for name in _REACHED.findall(text)}
    assert reached <= set(FAILPOINTS)
    assert {name for name in FAILPOINTS if not any(f'"{name}"' in t for t in sources)} == set()


@pytest.mark.timeout(300)
def test_every_listed_place_is_reached_by_the_sweep() -> None:
    """What no scenario reaches would never be killed."""
    reached: set[str] = set()
    for state in sweep.available_states():
        for scenario in SCENARIOS:
            if set(FAILPOINTS) - _APART <= reached:
                return
            reached |= set(places(scenario, state))
    assert set(FAILPOINTS) - _APART - reached == set()


@pytest.mark.parametrize(
    "again", ["recover.clean:kill", "recover.cleaned:eio", "recover.clean:eio"]
)
def test_a_recovery_that_ends_while_it_cleans_leaves_nothing_behind(again: str) -> None:
    """The operation has ended by then, so the next recovery has to know of it otherwise."""
    undo = next(scenario for scenario in SCENARIOS if scenario.name == "undo")
    assert judge(undo, STATES[0], "restore.index:kill", again) == []


@pytest.mark.timeout(300)
@pytest.mark.parametrize("kind", sweep.KINDS)
def test_nothing_is_lost(kind: str) -> None:
    """A fixed sample of each kind of fault, over all operations."""
    states = [state for state in sweep.available_states() if state in STATES[::3]]
    chosen = sweep.sample(list(sweep.all_cases([kind], states)), 24)
    tally = sweep.run(chosen)
    assert not tally.wrong, "\n".join(tally.wrong)
    assert tally.cases.total() + tally.idle == 24
    assert tally.cases.total() > 16
