"""The far half of a large root, walked by a second process while the first walks the near half.

A walk of what did not change is bound by the interpreter, not by the disk, so it gains from a
second core. The scout reports which folders are as the index knows them; of the others it reports
what has to be looked into, which is little unless most has changed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Generic, TypeVar

from rollback.errors import RollbackError
from rollback.parallel import Forked

WORTH_BYTES = 1_500_000
"""Signatures of about 30,000 entries: below that a fork gains nothing."""
NEAR_PERCENT = 55
"""So much of the work stays here: to fork, and to hand over what was found, takes time."""
_Found = TypeVar("_Found")


def far_half(weights: dict[bytes, int]) -> list[bytes]:
    """Return the folders that make up about the second half of a walk in the order of names.

    Args:
        weights: Folder → cost of looking at what is directly in it; the root is the empty path.

    Returns:
        Folders with all that is below them, disjoint; none where there is too little to share.
    """
    total = sum(weights.values())
    if total < WORTH_BYTES:
        return []
    order = sorted((path.split(b"/") if path else []) for path in weights)
    done, last = 0, 0
    while done * 100 < NEAR_PERCENT * total:
        done += weights[b"/".join(order[last])]
        last += 1
    boundary = order[last - 1]
    return [b"/".join(path) for path in order[last:] if path[:-1] == boundary[: len(path) - 1]]


class Scout(Generic[_Found]):
    """A forked process that looks at some folders; nothing depends on its success.

    Args:
        look: Called in the child with `fd` and `paths`; its result has to be picklable.
        fd: Handle of the root.
        paths: Where it is sent.
    """

    def __init__(
        self, look: Callable[[int, list[bytes]], _Found], fd: int, paths: list[bytes]
    ) -> None:
        self.paths = frozenset(paths)
        self._asked = False
        self._found: _Found | None = None
        self._child: Forked[_Found] | None = None
        # A limit of processes or of handles is no reason to give up what one process can do.
        with contextlib.suppress(OSError):
            self._child = Forked(look, fd, paths)

    def survey(self) -> tuple[_Found | None, bool]:
        """Return what it found, None where it failed, and whether that is asked for the first time.

        Waits for it then.
        """
        news = not self._asked
        if news and self._child is not None:
            try:
                self._found = self._child.result()
            except (RollbackError, OSError):
                # Whatever stopped it stops the walk here too, where it is reported.
                self._found = None
        self._asked = True
        return self._found, news

    def abandon(self) -> None:
        """End it where nobody asked."""
        if self._child is not None:
            self._child.abandon()
