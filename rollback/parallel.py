"""Worker processes: a fork, one result in a file that both have open, gone.

Reading many small files is bound by the interpreter, so a second process helps where a second
thread does not. Nothing is shared but the file system.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import pickle
import signal
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from rollback.errors import CaptureFailed, RollbackError
from rollback.failpoints import reach

_PDEATHSIG = 1
_WHOLE = b"."
_NO_PROCESS = {errno.EAGAIN, errno.ENOMEM}
"""What fork(2) answers where a limit is reached, of the user or of the container."""
_Job = TypeVar("_Job")
_Result = TypeVar("_Result")


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0))


class Workers(Generic[_Job, _Result]):
    """Work that has begun: `work(number, job)` for each job.

    Args:
        work: Its result has to be picklable where it runs apart.
        jobs: One a process.
        apart: Whether each runs in a process of its own, at once; else all run here, when the
            results are asked for. So do those for which the system has no process.
        here: What is done in this process in place of `work`, where that is another thing.
    """

    def __init__(
        self,
        work: Callable[[int, _Job], _Result],
        jobs: Sequence[_Job],
        *,
        apart: bool,
        here: Callable[[int, _Job], _Result] | None = None,
    ) -> None:
        self._here = here or work
        self._rest = list(enumerate(jobs))
        self._children: list[Forked[_Result]] = []
        try:
            while apart and self._rest:
                self._children.append(Forked(work, *self._rest[0]))
                self._rest.pop(0)
        except OSError as error:
            if error.errno not in _NO_PROCESS:
                self.abandon()
                raise
        except BaseException:
            self.abandon()
            raise

    def results(self) -> list[_Result]:
        """Return the results in the order of the jobs; waits for them.

        Raises:
            CaptureFailed: A child died without a result.
            RollbackError: As raised in a child.
            OSError: As raised in a child.
        """
        try:
            apart = [child.result() for child in self._children]
        finally:
            self.abandon()
        return apart + [self._here(number, job) for number, job in self._rest]

    def abandon(self) -> None:
        """End what still runs; nothing is asked of it any more."""
        for child in self._children:
            child.abandon()


class Forked(Generic[_Result]):
    """One worker process: it runs `work(number, job)`, and its result is asked for once.

    The result comes in a file in memory: through a pipe the child would have to wait until
    somebody reads it, and could not end before.

    Args:
        work: Runs in the child; its result has to be picklable.
        number: Tells the workers of one task apart.
        job: What to do.
    """

    def __init__(self, work: Callable[[int, _Job], _Result], number: int, job: _Job) -> None:
        self._pid, self._end, self._answer = _start(work, number, job)

    def result(self) -> _Result:
        """Wait for the end and return what came of it; the process itself is left to `abandon`.

        Raises:
            CaptureFailed: The child died without a result.
            RollbackError: As raised in the child.
            OSError: As raised in the child.
        """
        whole = os.read(self._end, 1) == _WHOLE
        with os.fdopen(os.dup(self._answer), "rb") as answer:
            answer.seek(0)
            if not whole:
                raise CaptureFailed(
                    f"a worker process (pid {self._pid}) died",
                    hint="run the same command again; if it was killed for memory, free some",
                )
            failed, result = pickle.load(answer)  # noqa: S301 - written by our own child
        if failed:
            raise result
        return result  # type: ignore[no-any-return]

    def abandon(self) -> None:
        """End the child where it still runs; nothing is asked of it any more."""
        if self._pid:
            pid, self._pid = self._pid, 0
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
            for fd in (self._end, self._answer):
                os.close(fd)
            with contextlib.suppress(OSError):
                os.waitpid(pid, 0)


def _start(work: Callable[[int, _Job], _Result], number: int, job: _Job) -> tuple[int, int, int]:
    """Fork; return the child, a pipe that tells its end, and the file of its answer."""
    answer = _memory()
    try:
        read_end, write_end = os.pipe2(os.O_CLOEXEC)
    except OSError:
        os.close(answer)
        raise
    parent, die_with_parent = os.getpid(), _dying_with_parent()
    try:
        pid = os.fork()
    except OSError:
        for fd in (answer, read_end, write_end):
            os.close(fd)
        raise
    if pid:
        os.close(write_end)
        return pid, read_end, answer
    try:
        die_with_parent()
        if os.getppid() != parent:
            os._exit(1)
        os.close(read_end)
        gc.disable()
        with os.fdopen(answer, "wb") as file:
            pickle.dump(_outcome(work, number, job), file, protocol=pickle.HIGHEST_PROTOCOL)
        os.write(write_end, _WHOLE)
    finally:
        # A child never returns into the caller's code, whatever happened to it.
        os._exit(1)


def _memory() -> int:
    """Return a new file in memory; where the system refuses one, on disk and without a name."""
    try:
        return os.memfd_create("guard", os.MFD_CLOEXEC)
    except (AttributeError, OSError):
        import tempfile  # noqa: PLC0415 - sandboxes and old systems alone

        with tempfile.TemporaryFile() as file:
            return os.dup(file.fileno())


def _outcome(
    work: Callable[[int, _Job], _Result], number: int, job: _Job
) -> tuple[bool, _Result | Exception]:
    """Return whether work failed, and with what; else its result."""
    try:
        reach("worker.start")
        result = work(number, job)
        reach("worker.end")
    except (RollbackError, OSError) as error:
        return True, _portable(error)
    return False, result


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
