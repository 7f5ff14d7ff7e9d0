"""Small files on their way into packs, or only hashed: read by worker processes where many are."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from rollback.capture import Job
from rollback.parallel import Workers, cores, share_out
from rollback.reading import SmallJobs, keep_small

FORK_FILES = 1_500
FORK_BYTES = 48 << 20
FILE_COST = 60_000
"""What opening a file costs, expressed in bytes of hashing."""

_Answer = tuple[list[tuple[str, int]], list[tuple[Any, ...]]]
"""Packs, and of each file what a `Kept` holds: plain tuples go over at a third of the cost."""


class SmallFiles:
    """Small files that are being read.

    Args:
        jobs: The files, in walk order.
        tell: Returns what a worker is told, from its share of the files and whether it works in a
            process of its own.
    """

    def __init__(self, jobs: list[Job], tell: Callable[[list[Job], bool], SmallJobs]) -> None:
        sizes = [job.info.st_size for job in jobs]
        many = len(jobs) > FORK_FILES or sum(sizes) > FORK_BYTES
        runs = share_out(sizes, cores() if many else 1, FILE_COST) if jobs else []
        apart = len(runs) > 1
        shares = [[jobs[i] for i in run] for run in runs]
        parts = [tell(share, apart) for share in shares]

        def here(number: int, _: SmallJobs) -> _Answer:
            return _work(number, tell(shares[number], False))

        self._workers = Workers(_work, parts, apart=apart, here=here if apart else None)

    def results(self) -> Iterator[_Answer]:
        """Yield what each worker did; their shares follow one another."""
        yield from self._workers.results()

    def abandon(self) -> None:
        """End what still runs."""
        self._workers.abandon()


def _work(number: int, jobs: SmallJobs) -> _Answer:
    packs, kept = keep_small(replace(jobs, stem=f"{jobs.stem}-{number}"))
    return packs, [(k[0], k[1], k[2] and tuple(k[2]), *k[3:]) for k in kept]
