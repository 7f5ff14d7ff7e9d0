"""Worker processes: their answers, their ends, and that nothing of them is left."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from driving import Project
from manifest import assert_back, manifest
from rollback import build, smallfiles
from rollback.errors import CaptureFailed
from rollback.parallel import Forked, Workers

LARGE = 3 << 20


class _Deadly:
    """Kills whoever writes it down."""

    def __reduce__(self) -> tuple[type[_Deadly], tuple[()]]:
        os.kill(os.getpid(), signal.SIGKILL)
        return _Deadly, ()


def _double(number: int, job: int) -> int:
    return number + 2 * job


@contextmanager
def _nothing_left() -> Iterator[None]:
    before = sorted(os.listdir("/proc/self/fd"))
    yield
    assert sorted(os.listdir("/proc/self/fd")) == before
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def test_answers_come_in_the_order_of_the_jobs() -> None:
    """And the processes are gone then, with all that led to them."""
    with _nothing_left():
        assert Workers(_double, [5, 6, 7], apart=True).results() == [10, 13, 16]


@pytest.mark.parametrize("refusal", [errno.EPERM, errno.ENOSYS, errno.EACCES])
def test_answers_come_where_the_system_refuses_memory(
    refusal: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sandboxes do, and hardened kernels: `vm.memfd_noexec`."""

    def refuse(*_: object) -> int:
        raise OSError(refusal, os.strerror(refusal))

    monkeypatch.setattr(os, "memfd_create", refuse)
    with _nothing_left():
        assert Workers(_double, [5, 6], apart=True).results() == [10, 13]


def test_half_an_answer_is_none() -> None:
    """Whoever dies while it writes has said nothing."""
    with _nothing_left():
        worker = Forked(lambda _number, _job: [bytes(LARGE), _Deadly()], 0, None)
        with pytest.raises(CaptureFailed, match="died"):
            worker.result()
        worker.abandon()


def test_an_answer_that_nobody_asks_for_keeps_nobody_waiting() -> None:
    """It is larger than a pipe holds."""
    with _nothing_left():
        Forked(lambda _number, _job: bytes(LARGE), 0, None).abandon()


def _pid_and(number: int, job: int) -> tuple[int, int]:
    return os.getpid(), number + 2 * job


@pytest.mark.parametrize("granted", [0, 1, 2])
@pytest.mark.parametrize("refusal", [errno.EAGAIN, errno.ENOMEM])
def test_work_is_done_here_where_the_system_has_no_process(
    granted: int, refusal: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A container has a limit of processes (pids.max): slower is better than not at all."""
    fork, left = os.fork, [granted]

    def refuse() -> int:
        if not left[0]:
            raise OSError(refusal, os.strerror(refusal))
        left[0] -= 1
        return fork()

    monkeypatch.setattr(os, "fork", refuse)
    with _nothing_left():
        workers = Workers(_pid_and, [5, 6, 7], apart=True, here=lambda n, job: (0, n + 2 * job))
        answers = workers.results()
    assert [value for _, value in answers] == [10, 13, 16]
    assert [pid != 0 for pid, _ in answers] == [n < granted for n in range(3)]


def test_another_failure_to_start_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """And those that had started are gone."""
    fork, calls = os.fork, iter((True, False))

    def fail() -> int:
        if next(calls):
            return fork()
        raise OSError(errno.EIO, "broken")

    monkeypatch.setattr(os, "fork", fail)
    with _nothing_left(), pytest.raises(OSError, match="broken"):
        Workers(_double, [5, 6], apart=True)


def test_a_project_comes_back_without_any_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reading, building, reading again: every place that would have forked."""
    project = Project(tmp_path.resolve())
    for number in range(40):
        (project.root / f"{number}").write_text(f"{number}")
    for place in (smallfiles, build):
        monkeypatch.setattr(place, "FORK_FILES", 5)
        monkeypatch.setattr(place, "cores", lambda: 2)
    before = manifest(project.root)

    def refuse() -> int:
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setattr(os, "fork", refuse)
    taken = project.snapshot().snapshot
    for number in range(40):
        (project.root / f"{number}").unlink()
    project.rollback(taken)
    assert_back(before, manifest(project.root))
    with project.engine() as engine:
        assert engine.drill(taken, mode="full", budget_s=300).passed
