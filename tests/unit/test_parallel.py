"""Worker processes: their answers, their ends, and that nothing of them is left."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

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
