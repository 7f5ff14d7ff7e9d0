"""The failpoints are all known and all reached; a sample of the sweep loses nothing."""

from __future__ import annotations

import ast
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

import rollback
from driving import Project
from faults import sweep
from faults.cases import Case
from faults.judging import judge, places
from faults.scenarios import SCENARIOS
from faults.states import STATES, project_in
from rollback import failpoints
from rollback.failpoints import FAILPOINTS
from rollback.reports import Selection

_SOURCE = Path(rollback.__file__).parent
_NAMING = {"reach": 0, "write_durably": 2}
"""Functions that are given the name of a place, and as which argument."""
_APART = {
    *("recover.start", "recover.cleaned", "repair.catalog", "reclaim.file"),
    *("sqlite.online", "sqlite.checkpoint", "git.branch"),
}
"""Reached by a recovery, the repair of a lost catalog, an installation, a database that a server
has open, work trees elsewhere: tested elsewhere."""


def test_the_source_and_the_list_agree() -> None:
    """Each place in the source is listed, and each listed one is in the source."""
    sources = (p for p in _SOURCE.rglob("*.py") if p.name != "failpoints.py")
    assert {name for path in sources for name in _reached(path)} == set(FAILPOINTS)


def _reached(path: Path) -> Iterator[str]:
    """Yield the names of the places in a module, by its syntax."""
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            at = _NAMING.get(node.func.id)
            if at is not None and isinstance(name := node.args[at], ast.Constant):
                yield str(name.value)


@pytest.mark.parametrize("text", ["no.such:kill", "stage.file:explode", "stage.file"])
def test_a_fault_that_would_never_come_is_refused(text: str) -> None:
    """A test that misspells a place would pass for ever."""
    with pytest.raises(ValueError, match="GUARD_FAILPOINT"):
        failpoints._arm(text)
    assert [one.action for one in failpoints._arm("stage.file:kill@2,stage.sync:eio+")] == [
        "kill",
        "eio",
    ]


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


@pytest.mark.parametrize(
    ("verb", "kind", "armed"),
    [
        ("rollback", "read-only folders, no rights", "restore.replace:kill@3"),
        ("undo", "read-only folders, no rights", "restore.remove:kill@2"),
        ("rollback", "types changed", "restore.folder:kill"),
        ("rollback", "types changed", "restore.replaced:emfile+"),
    ],
)
def test_what_a_restore_had_begun_is_not_taken_for_somebodys_work(
    verb: str, kind: str, armed: str
) -> None:
    """One undo takes it all back: a folder that was opened, a kind that made way, is no edit."""
    scenario = next(scenario for scenario in SCENARIOS if scenario.name == verb)
    state = next(state for state in STATES if state.name == kind)
    assert judge(scenario, state, armed) == []


def test_nothing_stays_beside_a_database_that_somebody_else_put_back() -> None:
    """Nothing is left to restore then, and what the dead restore had staged goes all the same."""
    state = next(state for state in STATES if state.name == "SQLite, rollback journal")
    with project_in(state) as project:
        case = Case(project, state)
        case.must("making", state.make)
        case.must("the snapshot", lambda p: p.snapshot())
        case.must("spoiling", state.spoil)
        ended = case.run(_roll_one_database_back, "sqlite.swap:kill")
        assert ended.signal == signal.SIGKILL
        (staged,) = project.root.glob(".guard-*")
        shutil.copy2(staged, project.root / "mlflow.db")
        case.must("the recovery", lambda p: p.recover())
        assert not case.wrong
        assert not list(project.root.glob(".guard-*"))


def _roll_one_database_back(project: Project) -> None:
    with project.engine() as engine:
        snapshot = engine.find_snapshot("last")
    project.rollback(snapshot, Selection((os.fsencode(project.root / "mlflow.db"),)))


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
