"""How long a rollback will take, from how long it took to rebuild the same.

What a rollback does besides is added here, by figures that fit fifty states of all kinds best
(`benchmarks/drill_estimate.py`). They are small beside the rebuild itself; on a machine where they
are not, the bound is wide enough.
"""

from __future__ import annotations

import functools
import hashlib
import time

from rollback.parallel import cores
from rollback.rehearsing import Rebuilt

OVERHEAD_S = 0.013
"""To compare, to commit what is displaced, to write the log."""
FILE_S = 3e-6
"""To find out that a file is gone, and where its content lies."""
SAMPLED_FILE_S = 1e-5
"""To walk over a file that no sample rebuilt, and to find its place in the trees."""
DATABASE_S = 0.012
"""To wait for whoever has a database open, to put it in its place, durable."""
_DATABASE_READ_AGAIN = 0.5
"""A rollback reads what a database is made of once more: before anything changes."""
LINKED = 1.85
"""A link takes so many times as long: whether it leads to what was linked is looked at twice."""
_TRIAL = bytes(1 << 20)


def tree_s(rebuilt: Rebuilt) -> float:
    """Return the seconds that a rollback takes for a tree that was rebuilt and read again."""
    links = rebuilt.linked / max(1, rebuilt.files)
    proof_s = rebuilt.size / (_hash_pace() * cores())
    return rebuilt.elapsed_s * (1 + (LINKED - 1) * links) + proof_s + FILE_S * rebuilt.files


def database_s(rehearsed_s: float) -> float:
    """Return the seconds that a rollback takes for a database that was rehearsed."""
    return rehearsed_s * (1 + _DATABASE_READ_AGAIN) + DATABASE_S


@functools.cache
def _hash_pace() -> float:
    """Return how many bytes a second one core hashes: a rollback proves content as it is staged."""
    begun = time.perf_counter()
    hashlib.sha256(_TRIAL)
    return len(_TRIAL) / (time.perf_counter() - begun)
