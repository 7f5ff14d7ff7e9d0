"""Worker processes: a fork, one result through a pipe, gone.

Reading many small files is bound by the interpreter, so a second process helps where a second
thread does not. Nothing is shared but the file system.
"""

from __future__ import annotations

import contextlib
import gc
import os
import pickle
import signal
from collections.abc import Callable, Sequence
from typing import TypeVar

from rollback.errors import CaptureFailed, RollbackError
from rollback.failpoints import reach

_PDEATHSIG = 1
_Job = TypeVar("_Job")
_Result = TypeVar("_Result")


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0))


def fork_map(
    work: Callable[[int, _Job], _Result], jobs: Sequence[_Job], meanwhile: Callable[[], None]
) -> list[_Result]:
    """Run `work(number, job)` for each job in a process of its own and return the results.

    Args:
        work: Runs in the child; its result has to be picklable.
        jobs: One a process.
        meanwhile: Runs in this process while the children work.

    Raises:
        CaptureFailed: A child died without a result.
        RollbackError: As raised in a child.
        OSError: As raised in a child.
    """
    children: list[tuple[int, int]] = []
    results: list[_Result] = []
    try:
        for number, job in enumerate(jobs):
            children.append(_start(work, number, job))
        meanwhile()
        while children:
            pid, fd = children[0]
            with os.fdopen(fd, "rb") as pipe:
                content = pipe.read()
            children.pop(0)
            os.waitpid(pid, 0)
            if not content:
                raise CaptureFailed(
                    f"a worker process (pid {pid}) died",
                    hint="run the same command again; if it was killed for memory, free some",
                )
            failed, result = pickle.loads(content)  # noqa: S301 - written by our own child
            if failed:
                raise result
            results.append(result)
    finally:
        for pid, fd in children:
            with contextlib.suppress(OSError):
                os.close(fd)
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
    return results


def _start(work: Callable[[int, _Job], _Result], number: int, job: _Job) -> tuple[int, int]:
    read_end, write_end = os.pipe2(os.O_CLOEXEC)
    parent, die_with_parent = os.getpid(), _dying_with_parent()
    pid = os.fork()
    if pid:
        os.close(write_end)
        return pid, read_end
    status = 1
    try:
        die_with_parent()
        if os.getppid() != parent:
            os._exit(status)
        os.close(read_end)
        gc.disable()
        answer: tuple[bool, object]
        try:
            reach("worker.start")
            answer = (False, work(number, job))
            reach("worker.end")
        except (RollbackError, OSError) as error:
            answer = (True, _portable(error))
        with os.fdopen(write_end, "wb") as pipe:
            pickle.dump(answer, pipe, protocol=pickle.HIGHEST_PROTOCOL)
        status = 0
    finally:
        # A child never returns into the caller's code, whatever happened to it.
        os._exit(status)


def _dying_with_parent() -> Callable[[], None]:
    """Return what lets a child be killed when its parent dies (prctl(2), PR_SET_PDEATHSIG).

    A worker that outlives its guard would keep the store locked and write into it.
    """
    import ctypes  # noqa: PLC0415 - only where there is much to do

    prctl = ctypes.CDLL(None).prctl
    return lambda: prctl(_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def _portable(error: RollbackError | OSError) -> Exception:
    if isinstance(error, OSError):
        return OSError(error.errno, error.strerror, error.filename)
    return error


def share_out(sizes: Sequence[int], parts: int, cost: int) -> list[range]:
    """Cut a sequence into runs of about equal work.

    Args:
        sizes: Bytes of each item.
        parts: Number of runs.
        cost: What an item costs besides its bytes, in bytes.
    """
    total = sum(sizes) + cost * len(sizes)
    runs: list[range] = []
    start, done = 0, 0
    for index, size in enumerate(sizes):
        done += size + cost
        if len(runs) < parts - 1 and done * parts >= total * (len(runs) + 1):
            runs.append(range(start, index + 1))
            start = index + 1
    runs.append(range(start, len(sizes)))
    return [run for run in runs if run]
