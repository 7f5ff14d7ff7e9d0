"""The operations of a sweep: how each is brought about, and what has to hold afterwards."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

from driving import Project
from faults.cases import Case, Ended
from faults.unkept import unkept_files
from faults.verbs import drill, prune, redo, repair, rollback, rot, snapshot, undo
from rollback.engine import Engine


def _make(case: Case) -> None:
    case.must("making", case.state.make)
    case.built = case.now()


def _make_and_snapshot(case: Case) -> None:
    _make(case)
    case.must("the snapshot before", snapshot)


def _make_and_spoil(case: Case) -> None:
    _make_and_snapshot(case)
    case.must("spoiling", case.state.spoil)
    case.spoilt = case.now()


def _roll_back_first(case: Case) -> None:
    _make_and_spoil(case)
    case.must("the rollback before", rollback)


def _two_snapshots(case: Case) -> None:
    _make_and_spoil(case)
    case.must("the second snapshot", snapshot)


def _make_and_rot(case: Case) -> None:
    _make_and_snapshot(case)
    case.must("rotting", rot)


def _after_first(case: Case, ended: Ended) -> None:
    case.expect("the project after the first snapshot", case.built)
    if not _kinds(case):
        if ended.done:
            case.wrong.append("it said done, and there is no snapshot")
        case.must("the next snapshot", snapshot)
    elif "enospc" in case.armed:
        case.unkept = frozenset(_told(case, unkept_files))
    case.must("spoiling", case.state.spoil)
    case.must("a rollback", functools.partial(rollback, unkept=case.unkept))
    case.expect("the first snapshot", case.built)


def _after_again(case: Case, ended: Ended) -> None:
    case.expect("the project after a snapshot", case.spoilt)
    if len(_kinds(case)) < 2:
        if ended.done:
            case.wrong.append("it said done, and there is no second snapshot")
        case.must("the next snapshot", snapshot)
    unkept = _told(case, unkept_files) if "enospc" in case.armed else []
    case.must("a rollback", rollback)
    case.expect("the first snapshot", case.built)
    case.unkept = frozenset(unkept)
    case.must("a rollback to the second", _rollback_to_newest)
    case.expect("the second snapshot", case.spoilt)


def _rollback_to_newest(project: Project) -> None:
    with project.engine() as engine:
        snapshot = engine.find_snapshot("last")
    project.rollback(snapshot)


def _after_drill(case: Case, ended: Ended) -> None:
    case.expect("the project after a drill", case.built)
    case.must("the next drill", drill)


def _after_rollback(case: Case, ended: Ended) -> None:
    if case.same(case.spoilt) and not case.same(case.built):
        if ended.done:
            case.wrong.append("it said done, and nothing is back")
        case.must("the next rollback", rollback)
    case.expect("the project after the rollback", case.built)
    case.must("the undo", undo)
    case.expect("what the undo brings back", case.spoilt)


def _after_undo(case: Case, ended: Ended) -> None:
    if case.same(case.built) and not case.same(case.spoilt):
        if ended.done:
            case.wrong.append("it said done, and nothing is undone")
        case.must("the next undo", undo)
    case.expect("the project after the undo", case.spoilt)
    case.must("the redo", redo)
    case.expect("what the redo brings back", case.built)


def _after_prune(case: Case, ended: Ended) -> None:
    case.expect("the project after a prune", case.spoilt)
    case.must("the next prune", prune)
    case.must("making something of it", case.state.make if not case.spoilt else _nothing)
    case.must("a rollback to the newest", _rollback_to_newest)
    case.expect("the newest snapshot", case.spoilt)


def _nothing(_project: Project) -> None:
    return


def _after_repair(case: Case, ended: Ended) -> None:
    case.expect("the project after a repair", case.built)
    case.must("the next repair", repair)
    case.must("spoiling", case.state.spoil)
    case.must("a rollback", rollback)
    case.expect("the mended snapshot", case.built)


def _kinds(case: Case) -> list[str]:
    """Return the kinds of snapshots that are announced; looked up by the store's owner."""
    return [kind.decode() for kind in _told(case, _kinds_of)]


def _kinds_of(engine: Engine) -> list[bytes]:
    return [snapshot.kind.encode() for snapshot in engine.snapshots()]


def _told(case: Case, look: Callable[[Engine], list[bytes]]) -> list[bytes]:
    """Return what the store's owner is told of it."""
    path = case.project.base / "told"

    def ask(project: Project) -> None:
        with project.engine() as engine:
            path.write_bytes(b"\0".join(look(engine)))

    case.must("looking up", ask)
    found = path.read_bytes() if path.exists() else b""
    path.unlink(missing_ok=True)
    return found.split(b"\0") if found else []


@dataclass(frozen=True, slots=True)
class Scenario:
    """An operation: how its beginning is brought about, the verb, and what has to hold then."""

    name: str
    before: Callable[[Case], None]
    verb: Callable[[Project], object]
    after: Callable[[Case, Ended], None]


SCENARIOS = (
    Scenario("first snapshot", _make, snapshot, _after_first),
    Scenario("snapshot again", _make_and_spoil, snapshot, _after_again),
    Scenario("drill", _make_and_snapshot, drill, _after_drill),
    Scenario("rollback", _make_and_spoil, rollback, _after_rollback),
    Scenario("undo", _roll_back_first, undo, _after_undo),
    Scenario("prune", _two_snapshots, prune, _after_prune),
    Scenario("verify --repair", _make_and_rot, repair, _after_repair),
)
