"""Named places where a test makes guard die or an operation fail.

``GUARD_FAILPOINT=name:action[@K][+]`` arms a place: `action` is ``kill``, ``sleep``, or an
error (``enospc``, ``eio``, ``eacces``, ``emfile``); ``@K`` waits for the K-th time, ``+`` makes
an error permanent from then on. The name ``*`` counts every place. Unarmed, a place costs one
comparison.
"""

from __future__ import annotations

import errno
import os
import signal
import time

FAILPOINTS: dict[str, str] = {
    "operation.begin": "before an operation's intent is committed",
    "operation.begun": "after an operation's intent was committed",
    "operation.finish": "before an operation's end is committed",
    "pack.write": "before bytes are appended to a pack",
    "pack.sync": "before a pack is synced",
    "pack.rename": "between a pack's sync and its rename",
    "loose.write": "while a large blob is being copied",
    "loose.sync": "before a large blob is synced",
    "loose.rename": "between a large blob's sync and its rename",
    "link.create": "before a file is linked into the store",
    "folders.sync": "before the store's folders are synced",
    "snapshot.document": "before the snapshot's document is written",
    "snapshot.rename": "between the document's sync and its rename",
    "snapshot.commit": "before the snapshot is committed to the catalog",
    "snapshot.committed": "after the snapshot was committed to the catalog",
    "catalog.commit": "before any transaction of the catalog is committed",
    "worker.start": "in a worker process before its first file",
    "worker.end": "in a worker process before it reports",
    "drill.scratch": "before a drill creates its scratch folder",
    "drill.build": "after a drill rebuilt a tree",
    "drill.clean": "before a drill removes its scratch folder",
    "stage.file": "before a file is staged",
    "stage.sync": "before the staged files are synced",
    "stage.done": "after everything was staged and verified",
    "undo.link": "before a displaced file is linked into the store",
    "undo.commit": "before the undo snapshot is committed",
    "restore.applying": "after the intent to change the project was committed",
    "restore.replace": "before a staged file replaces a live one",
    "restore.replaced": "after a staged file replaced a live one",
    "restore.remove": "before a live file is removed",
    "restore.remove_folder": "before a live folder is removed",
    "restore.folder": "before a staged folder is moved into place",
    "restore.metadata": "before metadata is set on a live file or folder",
    "restore.database": "before a live database is put back",
    "restore.databases_done": "after the live databases were put back",
    "sqlite.stage": "before a database is staged beside the live one",
    "sqlite.swap": "before a staged database, or a side file of it, takes its place",
    "sqlite.online": "before a database is put back into the file that others have open",
    "sqlite.checkpoint": "after that, before its log is written into the file",
    "git.branch": "before a branch of another work tree gets a file of its own",
    "reclaim.file": "before a file that a cache still had is staged",
    "restore.folders": "before the metadata of folders is set",
    "restore.sync": "before the changed file system is synced",
    "restore.verify": "before the result is read again",
    "restore.index": "before the index of the live state is updated",
    "restore.finish": "before the rollback is committed as done",
    "recover.start": "before an unfinished operation is looked at",
    "recover.clean": "before the leftovers of a dead operation are removed",
    "recover.cleaned": "after they were removed, before the note of them goes",
    "prune.mark": "before snapshots are deleted from the catalog",
    "prune.marked": "after snapshots were deleted from the catalog",
    "prune.unlink": "before a blob's file is removed",
    "prune.repack": "before the live blobs of a pack are moved",
    "prune.repacked": "after the new place of the blobs was committed",
    "repair.blob": "before a damaged blob is mended",
    "repair.fault": "before something else of the store is mended",
    "repair.catalog": "before a rebuilt catalog replaces the damaged one",
    "reserve.release": "before the reserve is released",
    "rescue.write": "before the rescue program is written",
}
"""Every place, with what it stands before or after."""

_ERRORS = {
    "enospc": errno.ENOSPC,
    "eio": errno.EIO,
    "eacces": errno.EACCES,
    "emfile": errno.EMFILE,
}
ACTIONS = ("kill", "sleep", *_ERRORS)
"""What an armed place can do."""


class _Armed:
    """One armed place; counts its own hits in this process."""

    def __init__(self, text: str) -> None:
        self.name, _, action = text.partition(":")
        self.sticky = action.endswith("+")
        self.action, _, number = action.rstrip("+").partition("@")
        self.at = int(number or 1)
        self.hits = 0

    def hit(self, name: str) -> None:
        if self.name not in {name, "*"}:
            return
        self.hits += 1
        if self.hits == self.at or (self.sticky and self.hits > self.at):
            self.fire(name)

    def fire(self, name: str) -> None:
        if self.action == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        elif self.action == "sleep":
            time.sleep(60)
        else:
            number = _ERRORS[self.action]
            raise OSError(number, os.strerror(number), f"failpoint {name}")


def _arm(text: str) -> list[_Armed]:
    """Return what a variable arms; one that would never fire is refused."""
    armed = [_Armed(part) for part in text.split(",") if part]
    for one in armed:
        if one.name not in FAILPOINTS or one.action not in ACTIONS:
            raise ValueError(f"GUARD_FAILPOINT: there is no {one.name}:{one.action}")
    return armed


_armed = _arm(os.environ.get("GUARD_FAILPOINT", ""))


def reach(name: str) -> None:
    """Say that the place `name` is reached; does what a test armed there.

    Raises:
        OSError: As armed.
    """
    if _armed:
        if name not in FAILPOINTS:
            raise AssertionError(f"unlisted failpoint {name}")
        for armed in _armed:
            armed.hit(name)
