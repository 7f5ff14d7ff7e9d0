"""One undo after a killed and finished rollback: databases with what a crash left beside them.

SQLite brings the log or the journal into the file before the restore replaces it. So a rollback
that dies there leaves other bytes than it found, and nobody edited anything.
"""

from __future__ import annotations

import signal
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from database_processes import crash, serving
from driving import Project
from faults.cases import Case
from faults.judging import judge, places
from faults.scenarios import SCENARIOS, Scenario
from faults.states import State, project_in

_ROLLBACK = next(scenario for scenario in SCENARIOS if scenario.name == "rollback")
_UNDO = next(scenario for scenario in SCENARIOS if scenario.name == "undo")
_NAME = "mlflow.db"


def _make(mode: str, *, crashed: bool) -> Callable[[Project], None]:
    def make(project: Project) -> None:
        path = project.root / _NAME
        db = sqlite3.connect(path, isolation_level=None)
        db.execute(f"PRAGMA journal_mode = {mode}")
        db.execute("CREATE TABLE runs (id INTEGER PRIMARY KEY, note BLOB)")
        db.execute("CREATE TABLE pages AS SELECT 1 AS id, zeroblob(900) AS page")
        rows = [(b"old" * 100,)] * 200
        db.executemany("INSERT INTO runs (note) VALUES (?)", rows)
        db.close()
        if crashed:
            _crash(path, mode, "made")

    return make


def _crash(path: Path, mode: str, note: str) -> None:
    """Die with what a log or a journal tells and the file does not, or the other way round."""
    if mode == "wal":
        crash(path, f"UPDATE runs SET note = '{note}'", "PRAGMA user_version = 7")
    else:
        db = sqlite3.connect(path, isolation_level=None)
        db.execute("INSERT INTO pages SELECT id, zeroblob(900) FROM runs")
        db.close()
        # The second statement drives what the first one wrote out of a cache of five pages.
        evict = "UPDATE pages SET page = randomblob(900)"
        crash(path, "BEGIN", f"UPDATE runs SET note = '{note}'", evict)


def _spoil(mode: str) -> Callable[[Project], None]:
    def spoil(project: Project) -> None:
        path = project.root / _NAME
        db = sqlite3.connect(path, isolation_level=None)
        db.execute("DELETE FROM runs WHERE id > 50")
        db.execute("UPDATE runs SET note = 'half way'")
        db.close()
        _crash(path, mode, "spoilt")

    return spoil


def _garble(project: Project) -> None:
    """Make something of it that SQLite does not read, beside a log that it would not take."""
    (project.root / _NAME).write_bytes(b"no database at all " * 100)
    (project.root / f"{_NAME}-wal").write_bytes(b"no log either " * 100)


def _state(mode: str, *, crashed: bool) -> State:
    return State(mode, _make(mode, crashed=crashed), _spoil(mode))


@pytest.mark.parametrize("scenario", [_ROLLBACK, _UNDO], ids=["rollback", "undo"])
@pytest.mark.parametrize("then", ["rest", "crashed"])
@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_one_undo_brings_back_the_very_files(mode: str, then: str, scenario: Scenario) -> None:
    """Wherever it died between two renames: file, log and journal, byte for byte."""
    state = _state(mode, crashed=then == "crashed")
    swaps = places(scenario, state).count("sqlite.swap")
    assert swaps >= (3 if then == "crashed" or scenario is _UNDO else 1)
    for number in range(1, swaps + 1):
        assert judge(scenario, state, f"sqlite.swap:kill@{number}") == []


@pytest.mark.parametrize("scenario", [_ROLLBACK, _UNDO], ids=["rollback", "undo"])
def test_one_undo_brings_back_what_was_no_database(scenario: Scenario) -> None:
    """SQLite brings nothing into such a file; what lay beside it goes before it."""
    state = State("garbled", _make("wal", crashed=True), _garble)
    for number in range(1, places(scenario, state).count("sqlite.swap") + 1):
        assert judge(scenario, state, f"sqlite.swap:kill@{number}") == []


@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_one_undo_after_somebody_looked_into_the_database(mode: str) -> None:
    """Whoever opens it brings log and journal into it, as the restore would have."""
    with _killed(mode, "restore.database:kill") as case:
        db = sqlite3.connect(case.project.root / _NAME)
        db.execute("SELECT count(*) FROM runs").fetchone()
        db.close()
        assert not case.same(case.spoilt)
        case.must("the recovery", lambda p: p.recover())
        case.expect("the rollback", case.built)
        case.must("the undo", lambda p: p.undo())
        case.expect("the undo", case.spoilt)
        assert case.wrong == []


@pytest.mark.parametrize("change", ["row", "mode"])
@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_what_somebody_did_to_it_meanwhile_is_an_undo_of_its_own(mode: str, change: str) -> None:
    """One undo brings the edit back, the second one the state before the rollback."""
    with _killed(mode, "sqlite.swap:kill@1") as case:
        path = case.project.root / _NAME
        if change == "row":
            db = sqlite3.connect(path, isolation_level=None)
            db.execute("UPDATE runs SET note = 'edited' WHERE id = 3")
            db.close()
        else:
            path.chmod(0o604)
        case.must("the recovery", lambda p: p.recover())
        case.expect("the rollback", case.built)
        case.must("the undo", lambda p: p.undo())
        if change == "row":
            db = sqlite3.connect(path)
            assert db.execute("SELECT note FROM runs WHERE id = 3").fetchone() == ("edited",)
            db.close()
        else:
            assert path.stat().st_mode & 0o777 == 0o604
        case.must("the second undo", lambda p: p.undo())
        case.expect("the second undo", case.spoilt)
        assert case.wrong == []


@pytest.mark.parametrize("place", ["sqlite.online", "sqlite.checkpoint"])
@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_one_undo_where_a_server_has_it_open(mode: str, place: str) -> None:
    """What a transaction of SQLite's own left half way means the one state or the other."""
    state = _state(mode, crashed=False)
    with project_in(state) as project:
        case = Case(project, state)
        case.must("making", state.make)
        case.must("the snapshot", lambda p: p.snapshot())
        with serving(project.root / _NAME) as server:
            server.run("DELETE FROM runs WHERE id > 5")
            assert case.run(_ROLLBACK.verb, f"{place}:kill").signal == signal.SIGKILL
            case.must("the recovery", lambda p: p.recover())
            assert server.run("SELECT count(*) FROM runs") == "[(200,)]"
            case.must("the undo", lambda p: p.undo())
            assert server.run("SELECT count(*) FROM runs") == "[(5,)]"
        assert case.run(lambda p: p.undo()).text.startswith("NothingToDo")
        assert case.wrong == []


@contextmanager
def _killed(mode: str, armed: str) -> Iterator[Case]:
    """Give a rollback that died at a place."""
    state = _state(mode, crashed=True)
    with project_in(state) as project:
        case = Case(project, state)
        _ROLLBACK.before(case)
        assert case.run(_ROLLBACK.verb, armed).signal == signal.SIGKILL
        yield case
