"""A sample of the sweep over power cuts, and the proof that it sees a sync that is missing."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator

import pytest

from faults.powercut import END, Disk, all_cuts, inserted, judge_cut, why_not
from faults.scenarios import SCENARIOS
from faults.states import STATES
from faults.sweep import Planned, sample
from rollback import durable

_COUNT = int(os.environ.get("GUARD_POWERCUTS", "24"))


@pytest.fixture
def disk() -> Iterator[Disk]:
    """A disk whose power can be cut, where one can be mounted."""
    if why := _why_not():
        pytest.skip(why)
    with inserted() as made:
        yield made


@functools.cache
def _why_not() -> str:
    return why_not()


def _end_of(scenario: str, state: str) -> Planned:
    """Return the cut after guard said that an operation was done."""
    (found,) = (one for one in SCENARIOS if one.name == scenario)
    (kind,) = (one for one in STATES if one.name == state)
    return Planned("end", found, kind, END)


@pytest.mark.timeout(300)
def test_no_cut_loses_anything(disk: Disk) -> None:
    """A fixed sample; the long version is a command."""
    states = [one for one in STATES if one.name in {"plain files", "SQLite, rollback journal"}]
    cases = sample(list(all_cuts(states)), _COUNT)
    found = {case: judge_cut(case, disk) for case in cases}
    wrong = [f"{case}: {what}" for case, told in found.items() for what in told or ()]
    assert not wrong, "\n".join(wrong)
    assert sum(told is not None for told in found.values()) > len(cases) * 3 // 4


@pytest.mark.parametrize("scenario", ["first snapshot", "rollback", "undo"])
def test_what_is_done_is_on_the_disk(disk: Disk, scenario: str) -> None:
    """Said to be done means that no power cut takes it away."""
    assert judge_cut(_end_of(scenario, "plain files"), disk) == []


@pytest.mark.parametrize("scenario", ["first snapshot", "rollback"])
def test_a_missing_sync_is_seen(disk: Disk, scenario: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without its own syncs guard would lose what it said was done: this sweep can fail."""
    for module, name in ((os, "fsync"), (os, "fdatasync"), (durable, "_sync")):
        monkeypatch.setattr(module, name, lambda *_: None)
    assert judge_cut(_end_of(scenario, "plain files"), disk)
