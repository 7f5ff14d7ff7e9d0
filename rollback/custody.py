"""Taking the content of live files into the store before a restore displaces them.

A file whose every name goes is linked and costs nothing; one that stays in use elsewhere, or on
another file system, is copied. What can be taken neither way is refused with the reason: whoever
asked has to leave it where it is.
"""

from __future__ import annotations

import contextlib
import os
import stat
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from rollback.capture import Job
from rollback.errors import NoSpace
from rollback.failpoints import reach
from rollback.folders import FolderCache, cached, split
from rollback.index import Folder
from rollback.keeping import Allowance, KeepingResolver, stored_size
from rollback.model import Kind, Policy
from rollback.present import hash_file
from rollback.reading import Kept, keep_link, keep_shut
from rollback.resources.base import Root
from rollback.store.blobs import file_path
from rollback.store.catalog import MOVED, TAKEN, BlobKind
from rollback.store.codec import inode_id
from rollback.store.store import Store
from rollback.store.writer import BlobWriter

_Inode = tuple[int, int]


class Custody:
    """Takes files of one root.

    Args:
        store: Its lock is held, and the caller's transaction is open.
        writer: Where blobs go.
        work: A private folder on the store's file system.
        root: Where the files are.
        infos: Path → what the plan saw of each file.

    Attributes:
        kept: What became of each file that was taken.
        gone: Files that are no more.
        refused: Path → why the content cannot be taken.
    """

    def __init__(
        self,
        store: Store,
        writer: BlobWriter,
        work: bytes,
        root: Root,
        infos: dict[bytes, os.stat_result],
    ) -> None:
        self.store = store
        self.writer = writer
        self.work = work
        self.root = root
        self.infos = infos
        self.kept: dict[bytes, Kept] = {}
        self.gone: set[bytes] = set()
        self.refused: dict[bytes, str] = {}
        self._device = os.stat(store.folder).st_dev
        self._names: Counter[_Inode] = Counter()
        self._shared: set[_Inode] = set()

    def take(self, fd: int, paths: Sequence[bytes]) -> None:
        """Take files that will be displaced.

        Args:
            fd: Handle of the root.
            paths: Sorted, relative to it.

        Raises:
            NoSpace: What has to be copied does not fit.
        """
        for path in paths:
            if self.infos[path].st_nlink > 1:
                inode = _inode(self.infos[path])
                self._names[inode] += 1
                if self.root.policy(path) is Policy.LINK:
                    self._shared.add(inode)
        self._link(fd, paths)
        rest = [path for path in paths if path not in self.kept and path not in self.gone]
        self._make_room(rest)
        self._copy(fd, rest, _unlimited)  # a disk that fills up all the same ends the rollback
        self.refused |= self._check(rest)

    def take_along(self, fd: int, paths: Sequence[bytes]) -> None:
        """Take files that stay in use, where that is free or there is room for it."""
        self._link(fd, [path for path in paths if self.root.policy(path) is Policy.LINK])
        rest = [path for path in paths if path not in self.kept and path not in self.gone]
        self._copy(fd, rest, lambda *_: self.store.reserve.free() - 2 * self.store.reserve.size())
        self._check(rest)

    def _check(self, paths: Sequence[bytes]) -> dict[bytes, str]:
        """Return which of the files that were to be copied are not in the store, and why."""
        refused: dict[bytes, str] = {}
        for path in paths:
            kept = self.kept.get(path)
            if kept is not None and kept.kind is Kind.FILE and kept.ref:
                continue
            self.kept.pop(path, None)
            if os.path.lexists(os.path.join(self.root.path, path)):
                refused[path] = _why(kept)
            else:
                self.gone.add(path)
        return refused

    def _link(self, fd: int, paths: Sequence[bytes]) -> None:
        with cached(fd) as folders:
            for path in paths:
                reach("undo.link")
                try:
                    linked = self._link_one(folders, path)
                except FileNotFoundError:
                    self.gone.add(path)
                    continue
                if linked is not None:
                    self.kept[path] = linked

    def _link_one(self, folders: FolderCache, path: bytes) -> Kept | None:
        folder, name = split(path)
        parent = folders.open(folder)
        if os.fstat(parent).st_dev != self._device:
            return None
        info = os.stat(name, dir_fd=parent, follow_symlinks=False)
        if self.store.catalog.is_spoiled(inode_id(info)):
            return None  # that name stands for the content from before
        policy = self.root.policy(path)
        if policy is not Policy.LINK and info.st_nlink > 1 and not self._goes_whole(info):
            # Another name of this file stays in use and may be written to: a link would follow.
            return None
        with cached(parent) as here:
            kept = keep_link(here, name, self.store.folder)
        if kept is None or kept.place is None:
            return None
        shared = policy is Policy.LINK or _inode(info) in self._shared
        place = kept.place._replace(offset=TAKEN if shared else MOVED)
        self.writer.add_row(kept.ref, place)
        self.writer.touch(kept.ref)
        return kept._replace(place=place)

    def _goes_whole(self, info: os.stat_result) -> bool:
        """Return whether all names of a file are displaced, but for one in the store."""
        own = 0
        with contextlib.suppress(FileNotFoundError):
            path = file_path(self.store.folder, BlobKind.INODE, inode_id(info))
            own = os.lstat(path).st_ino == info.st_ino
        return info.st_nlink - own <= self._names[_inode(info)]

    def _make_room(self, paths: Sequence[bytes]) -> None:
        """Hold what has to be copied against what is free; the project is as it was.

        Raises:
            NoSpace: It does not fit.
        """
        sizes = {_inode(self.infos[path]): (stored_size(self.infos[path]), path) for path in paths}
        needed = sum(size for size, _ in sizes.values())
        self.store.reserve.release(needed)
        free = self.store.reserve.free()
        if needed <= free:
            return
        # Few rollbacks come here: what the store has already is worth a look by now.
        for size, path in sizes.values():
            digest = hash_file(self.root.path, path)
            needed -= size if digest is not None and self.writer.knows(digest) else 0
        if needed > free:
            raise NoSpace(
                f"what the rollback displaces needs {needed:,} bytes in the store, its disk has "
                f"{free:,}: {needed - free:,} are missing; nothing was changed",
                hint="free some space (move new results elsewhere), or roll back a part: "
                "guard rollback --last PATH",
                missing_bytes=needed - free,
            )

    def _copy(self, fd: int, paths: Sequence[bytes], allowance: Allowance) -> None:
        """Copy files, one of several names of a file once."""
        leaders: dict[_Inode, bytes] = {}
        for path in paths:
            leaders.setdefault(_inode(self.infos[path]), path)
        chosen = list(leaders.values())
        shut = [path for path in chosen if _is_shut(self.infos[path])]
        rest = [path for path in chosen if not _is_shut(self.infos[path])]
        copier = replace(self.root, policy=_copied, find_databases=False)
        resolver = KeepingResolver(copier, self.writer, self.work, allowance)
        jobs = [_job(path, self.infos[path]) for path in rest]
        self.kept.update(zip(rest, resolver.resolve(fd, jobs) if jobs else (), strict=True))
        with cached(fd) as folders:
            for path in shut:
                kept = keep_shut(folders, path, self.store.folder, self.work, self.writer.knows)
                if kept.place is not None:
                    self.writer.add_row(kept.ref, kept.place)
                self.kept[path] = kept
        for path in paths:
            leader = leaders[_inode(self.infos[path])]
            if leader in self.kept:
                self.kept[path] = self.kept[leader]


def _inode(info: os.stat_result) -> _Inode:
    return info.st_dev, info.st_ino


def _is_shut(info: os.stat_result) -> bool:
    """Return whether a file of this user's has a mode that forbids to read it."""
    own = info.st_uid == os.geteuid() != 0
    return own and not info.st_mode & stat.S_IRUSR


def _why(kept: Kept | None) -> str:
    why = "" if kept is None or not kept.note else f": {kept.note}"
    return f"what is there now cannot be kept for an undo, so it stays{why}"


def _unlimited(*_: object) -> int:
    return sys.maxsize


def _copied(_path: bytes) -> Policy:
    return Policy.COPY


def _job(path: bytes, info: os.stat_result) -> Job:
    folder, name = split(path)
    return Job(Folder(folder, [name], {0: info}), 0, path)
