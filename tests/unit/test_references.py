"""How snapshots and operations are named: numbers first, then the beginning of an id."""

from __future__ import annotations

import secrets
from pathlib import Path

import pytest

from driving import Project
from rollback.engine import Engine
from rollback.errors import NothingToDo

IDS = ("2aaaaaaaaaaaaaaa", "12bbbbbbbbbbbbbb", "12cccccccccccccc", "9999999999999999")


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Engine:
    """Return an engine with snapshots 1, 2, 3 and 4, whose ids begin like numbers."""
    project = Project(tmp_path)
    for identity in IDS:
        real = secrets.token_hex

        def chosen(size: int | None = None, known: str = identity) -> str:
            return known if size == 8 else secrets.token_bytes(size or 8).hex()

        monkeypatch.setattr(secrets, "token_hex", chosen)
        project.snapshot()
        monkeypatch.setattr(secrets, "token_hex", real)
    return project.engine()


@pytest.mark.parametrize(
    ("reference", "number"),
    [("1", 1), ("2", 2), ("3", 3), ("2a", 1), ("12b", 2), ("9", 4), (IDS[3], 4), ("999", 4)],
)
def test_numbers_come_first(engine: Engine, reference: str, number: int) -> None:
    """A number that there is, is one, whatever ids begin with; every id can be told in full."""
    with engine:
        assert engine.find_snapshot(reference).seq == number
        assert engine.find_operation(reference).seq == number


@pytest.mark.parametrize("reference", ["12", "0", "7", "9" * 40, "²", "*", "[12]*", "zz", "2a'"])
def test_what_fits_nothing_or_too_much_is_said(engine: Engine, reference: str) -> None:
    """Neither a pattern nor a number that no database holds is an accident."""
    with engine:
        with pytest.raises(NothingToDo):
            engine.find_snapshot(reference)
        with pytest.raises(NothingToDo):
            engine.find_operation(reference)


def test_an_operation_without_a_snapshot_names_none(engine: Engine) -> None:
    """The number is the operation's: no snapshot is guessed from an id that begins like it."""
    with engine:
        operation = engine.begin("prune", {})
        engine.finish(operation, "done", {})
        assert operation.seq == 5
        with pytest.raises(NothingToDo):
            engine.find_snapshot("5")
