"""What is begun is ended in the log, also where it is interrupted at once."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from driving import Project
from rollback.engine import Engine
from rollback.errors import NothingToDo, StoreBusy
from rollback.model import Operation
from safeguards.undertaking import undertaken


class Interrupting(Engine):
    """An engine that is interrupted when an operation has just been begun."""

    def begin(self, kind: str, data: Mapping[str, Any]) -> Operation:
        """Begin an operation, and get a Ctrl-C before anybody knows of it."""
        operation = super().begin(kind, data)
        signal.raise_signal(signal.SIGINT)
        return operation


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A project."""
    return Project(tmp_path.resolve())


def test_an_interrupt_at_the_beginning_finds_an_operation_to_end(project: Project) -> None:
    """It waits for that, and not for the block."""
    with Interrupting(project.settings) as engine:
        with pytest.raises(KeyboardInterrupt), undertaken(engine, "drill", {}):
            pytest.fail("the interrupt was lost")
        (operation,) = engine.operations(5)
        assert operation.state == "interrupted"
        assert not engine.store.lock.held
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize(
    ("error", "state"), [(NothingToDo("x", hint="y"), "failed"), (SystemExit(3), "interrupted")]
)
def test_what_ends_a_block_is_written_down(
    project: Project, error: BaseException, state: str
) -> None:
    """And goes on to whoever called."""
    with project.engine() as engine:
        with pytest.raises(type(error)), undertaken(engine, "snapshot", {"label": "x"}):
            raise error
        (operation,) = engine.operations(5)
    assert (operation.state, operation.data["error"]) == (state, type(error).__name__)


def test_what_cannot_be_begun_is_not_ended(project: Project) -> None:
    """The error is the caller's, and signals are as before."""
    project.snapshot()
    with project.engine() as engine, project.engine() as other:
        running = other.begin("run", {})
        with pytest.raises(StoreBusy), undertaken(engine, "drill", {}):
            pytest.fail("it was begun")
        other.finish(running, "done", {})
        assert [operation.kind for operation in engine.operations(5)] == ["run", "snapshot"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
