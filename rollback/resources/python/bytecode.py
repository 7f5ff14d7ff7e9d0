"""Compiled files that may outlive the source they were made from.

Python recompiles where the source's time and size differ from those in the `.pyc` (PEP 552). A
source that is put back with its older time can agree in both and still differ in content; and
an unchecked `.pyc` is never compared at all.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator


def compiled(names: Iterable[bytes], stems: Container[bytes]) -> Iterator[bytes]:
    """Yield the names in a `__pycache__` that belong to sources with one of the stems.

    Args:
        names: What lies in the folder.
        stems: Names of sources without ``.py``; they may have dots in them.
    """
    for name in names:
        if b".pyc" not in name:
            continue
        parts = name.split(b".")
        if any(b".".join(parts[:count]) in stems for count in range(1, len(parts))):
            yield name
