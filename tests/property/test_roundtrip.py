"""Snapshot → anything → rollback is the identity; undo gives the damage back; redo takes it."""

from __future__ import annotations

import os
import time

import pytest
from hypothesis import HealthCheck, Phase, example, given, settings

from driving import Project, scratch_project
from faults.cases import Case
from faults.states import State, project_in
from property.many import round_trip
from rollback.capture import Job, Resolving
from rollback.keeping import KeepingResolver
from trees import Act, Step, carry_out, damage, trees

EXAMPLES = int(os.environ.get("GUARD_EXAMPLES", "120"))
"""How many trees; `python -m tests.property.many --long` makes thousands."""

pytestmark = pytest.mark.timeout(120 + EXAMPLES)
# What fails is shown as it was found: to make it smaller takes longer than a test may.
_SETTINGS = settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    database=None,
    phases=(Phase.explicit, Phase.generate),
)
_FEWER = settings(_SETTINGS, max_examples=max(10, EXAMPLES // 4))


@_SETTINGS
@given(tree=trees(), spoiling=damage())
def test_rollback_is_the_identity(tree: list[Step], spoiling: list[Step]) -> None:
    """Whatever the tree and whatever befell it, it is back; and so are undo and redo."""
    round_trip(tree, spoiling)


def _step(act: Act, name: bytes, mode: int) -> Step:
    return Step(act, 0, 0, name, b"", mode, 0)


@_FEWER
@given(tree=trees(), spoiling=damage())
@example(
    tree=[_step(Act.FILE, b"a", 0o644)],
    spoiling=[_step(Act.XATTR, b"a", 0o644), _step(Act.CHMOD, b"a", 0o444)],
)
@example(
    tree=[_step(Act.FILE, b"a", 0o444), _step(Act.XATTR, b"a", 0o644)],
    spoiling=[_step(Act.DELETE, b"a", 0)],
)
def test_an_unprivileged_user_gets_everything_back(tree: list[Step], spoiling: list[Step]) -> None:
    """Without root's rights too, as long as nothing is made unreadable."""
    state = State("generated", lambda p: _readable(p, tree), lambda p: _readable(p, spoiling),
                  unprivileged=True)  # fmt: skip
    with project_in(state) as project:
        case = Case(project, state)
        case.must("making", state.make)
        case.built = case.now()
        case.must("the snapshot", lambda p: p.snapshot())
        case.must("spoiling", state.spoil)
        case.spoilt = case.now()
        case.must("the rollback", _to_the_newest)
        case.expect("after the rollback", case.built)
        if not case.same(case.spoilt):  # else there may be nothing to take back
            case.must("the undo", lambda p: p.undo())
            case.expect("after the undo", case.spoilt)
        assert not case.wrong


def _to_the_newest(project: Project) -> None:
    with project.engine() as engine:
        snapshot = engine.find_snapshot("last")
    project.rollback(snapshot)


def _readable(project: Project, todo: list[Step]) -> None:
    """Carry steps out that leave all files and folders readable to their owner."""
    carry_out(project.path, [_open_to_owner(s) for s in todo if s.act is not Act.CHOWN])


def _open_to_owner(step: Step) -> Step:
    return Step(
        step.act, step.one, step.two, step.name, step.content, step.mode | 0o500, step.mtime_ns
    )


@_FEWER
@given(tree=trees())
def test_a_second_snapshot_reads_nothing(tree: list[Step]) -> None:
    """What did not change is not read again, wherever its times lie."""
    with scratch_project() as project, pytest.MonkeyPatch.context() as patch:
        carry_out(project.path, tree)
        time.sleep(0.03)  # what is younger than the clock's grain is read again by design
        project.snapshot()
        read: list[bytes] = []
        begin = KeepingResolver.begin

        def counting(self: KeepingResolver, root_fd: int, jobs: list[Job]) -> Resolving:
            read.extend(job.path for job in jobs)
            return begin(self, root_fd, jobs)

        patch.setattr(KeepingResolver, "begin", counting)
        again = project.snapshot()
        assert read == []
        assert again.new_bytes == 0
