"""Building trees from the store: the one way in which content becomes files again.

A drill builds whole trees in scratch; a rollback builds missing folders and single files in a
staging folder. What is written is read again and held against the manifest.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Self

from rollback.durable import sync_beside
from rollback.errors import damaged
from rollback.folders import cached, join, open_folder, split
from rollback.metadata import make_special, set_metadata
from rollback.model import Entry, Kind
from rollback.parallel import Workers, cores, share_out
from rollback.reading import SMALL
from rollback.store.blobs import BlobReader
from rollback.store.catalog import BlobKind
from rollback.walk import open_root
from rollback.writing import Built, FileJob, Linking, write_files, write_large

FORK_FILES = 600
FORK_BYTES = 48 << 20
_FILE_COST = 60_000
_BATCH = 20_000
_FIRST_BATCH = 4_000
"""Until then only one process works: that shall not be long."""
_WORTH_A_SYNC = 64 << 20


Choose = Callable[[bytes, Entry], bool]


class TreeBuilder:
    """Writes trees and files below a folder that is guard's own.

    Args:
        reader: The store.
        target: Absolute path of the folder.
        linking: What is known of linked files.
        prove: Whether content is hashed before it is written; else the caller reads all again.

    Attributes:
        shared: Large blobs whose inode was given away, for want of space.
        linked: Paths of files that share their inode with the store, as far as links go.
    """

    def __init__(
        self, reader: BlobReader, target: bytes, linking: Linking, *, prove: bool = True
    ) -> None:
        self.reader = reader
        self.target = target
        self.linking = linking
        self.prove = prove
        self.shared: set[bytes] = set()
        self._moved: dict[bytes, bytes] = {}
        self.linked: list[bytes] = []
        self.built = Built()
        self._jobs: list[FileJob] = []
        self._folders: list[tuple[bytes, Entry]] = []
        self._writing: tuple[Workers[list[FileJob], Built], list[FileJob]] | None = None
        self._behind: Future[None] | None = None
        self._synced = 0
        self._room = _FIRST_BATCH
        self._fd = open_root(target)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._writing is not None:
            self._writing[0].abandon()
        os.close(self._fd)

    def add_tree(self, tree: bytes, path: bytes, choose: Choose | None = None) -> None:
        """Create the folders of a tree below `path` and plan its files.

        Args:
            tree: Its id.
            path: Relative to the target; the folder itself has to exist.
            choose: Which files to write; all where None.
        """
        for entry in self.reader.looking_ahead(self.reader.tree(tree), lambda entry: entry.ref):
            here = join(path, entry.name)
            if entry.kind is Kind.DIRECTORY:
                self._make_folder(here)
                self._folders.append((here, entry))
                self.add_tree(entry.ref, here, choose)
            elif choose is None or choose(here, entry):
                self.add_file(here, entry)

    def add_file(self, path: bytes, entry: Entry) -> None:
        """Plan one file, or make what has no content at once."""
        if entry.kind is Kind.FILE:
            place = self.reader.place(entry.ref)
            linkable = place.kind is BlobKind.INODE and self.linking.may(path)
            if linkable:
                self._prove_link(entry)
                self.linked.append(path)
            if place.moved and self.linking.share_large:
                # It was one file with all its names, and no other may become one with it.
                first = self._moved.setdefault(entry.ref, path)
                linkable = linkable or path == first or self.linking.one_file(path, first)
            elif place.kind is BlobKind.LOOSE and self.linking.share_large:
                # A second link would make two files one: only the first may share.
                linkable = entry.ref not in self.shared
                self.shared.add(entry.ref)
            self._jobs.append(FileJob(path, entry, place, linkable))
            if len(self._jobs) >= self._room:
                self._begin()
        elif entry.kind not in (Kind.DATABASE, Kind.WATCHED, Kind.UNPROTECTED, Kind.SOCKET):
            self._make_special(path, entry)

    def _prove_link(self, entry: Entry) -> None:
        if self.reader.catalog.is_spoiled(entry.ref):
            raise damaged(entry.ref, "the linked file was written in place")

    def add_folder(self, path: bytes, entry: Entry, choose: Choose | None = None) -> None:
        """Create a folder whose metadata `finish` will set, and plan what is in it.

        Args:
            path: Relative to the target.
            entry: The folder.
            choose: Which files to write; all where None.
        """
        self._make_folder(path)
        self._folders.append((path, entry))
        self.add_tree(entry.ref, path, choose)

    def write(self) -> None:
        """Write the planned files, and wait for all that was begun."""
        self._begin()
        self._wait()

    def _begin(self) -> None:
        """Begin to write the planned files; many are written by processes of their own."""
        jobs, self._jobs = self._jobs, []
        large = [job for job in jobs if job.entry.size >= SMALL and not job.link]
        small = [job for job in jobs if job.entry.size < SMALL or job.link]
        sizes = [0 if job.link else job.entry.size for job in small]
        many = len(small) > FORK_FILES or sum(sizes) > FORK_BYTES
        runs = share_out(sizes, cores() if many else 1, _FILE_COST) if small else []
        parts = [[small[i] for i in run] for run in runs]
        # All of that while those before are still being written.
        self._wait()
        if jobs and self.built.size - self._synced >= _WORTH_A_SYNC:
            self._sync_behind()
        apart = len(parts) > 1
        self._writing = Workers(self._write_apart, parts, apart=apart, here=self._write), large
        self._room = _BATCH

    def _wait(self) -> None:
        """Wait for what was begun."""
        if self._writing is None:
            return
        workers, large = self._writing
        for built in self._write_large(large):
            self.built.add(built)
        for built in workers.results():
            self.built.add(built)
        self._writing = None

    def _sync_behind(self) -> None:
        """Let the disk write what is there while more is added: the sync at the end is shorter."""
        self._wait_for_disk()
        self._synced = self.built.size
        self._behind = sync_beside([self.target])

    def _wait_for_disk(self) -> None:
        """Wait for the sync that was begun: whoever syncs later may not be told of its errors."""
        behind, self._behind = self._behind, None
        if behind is not None:
            behind.result()

    def _write(self, _number: int, jobs: list[FileJob]) -> Built:
        return write_files(self.reader, self.target, jobs, self.linking, prove=self.prove)

    def _write_apart(self, _number: int, jobs: list[FileJob]) -> Built:
        """Write files in a process of its own, with its own handles on the store."""
        # Files get their mode when they are created: nobody else runs in this process.
        os.umask(0)
        reader = self.reader.reopened()
        try:
            return write_files(reader, self.target, jobs, self.linking, prove=self.prove)
        finally:
            reader.close()
            reader.catalog.close()

    def link_groups(self, groups: Iterable[list[bytes]]) -> None:
        """Make each group of paths one file again; the first that exists leads."""
        for group in groups:
            leader = None
            for path in group:
                if leader is None:
                    leader = path if self._exists(path) else None
                elif self._exists(path):
                    self._unlink(path)
                    self._link(leader, path)

    def finish(self) -> None:
        """Write what is still planned, then set the metadata of folders, deepest first."""
        self.write()
        self._wait_for_disk()
        with cached(self._fd) as folders:
            for path, entry in reversed(self._folders):
                folder, name = split(path)
                fd = open_folder(folders.open(folder), name)
                try:
                    self.built.notes += [(path, why) for why in set_metadata(fd, entry)]
                finally:
                    os.close(fd)
        self._folders.clear()

    def _write_large(self, large: list[FileJob]) -> Iterator[Built]:
        """Write large files on all cores; copying and hashing free the interpreter."""
        if not large:
            return iter(())
        loose = [job for job in large if job.place.kind in (BlobKind.LOOSE, BlobKind.INODE)]

        def write(job: FileJob) -> Built:
            with cached(self._fd) as folders:
                return write_large(self.reader.folder, folders, job, self.linking, prove=self.prove)

        with ThreadPoolExecutor(max_workers=cores()) as pool:
            answers = list(pool.map(write, loose))
        rest = [job for job in large if job.place.kind not in (BlobKind.LOOSE, BlobKind.INODE)]
        return iter([*answers, self._write(0, rest)])

    def _make_folder(self, path: bytes) -> None:
        folder, name = split(path)
        with cached(self._fd) as folders:
            os.mkdir(name, 0o700, dir_fd=folders.open(folder))

    def _make_special(self, path: bytes, entry: Entry) -> None:
        folder, name = split(path)
        with cached(self._fd) as folders:
            parent = folders.open(folder)
            try:
                notes = make_special(parent, name, entry)
            except PermissionError as error:
                self.built.notes.append((path, f"it cannot be made: {error.strerror}"))
            else:
                self.built.notes += [(path, why) for why in notes]

    def _exists(self, path: bytes) -> bool:
        folder, name = split(path)
        try:
            with cached(self._fd) as folders:
                os.stat(name, dir_fd=folders.open(folder), follow_symlinks=False)
        except FileNotFoundError:
            return False
        return True

    def _unlink(self, path: bytes) -> None:
        folder, name = split(path)
        with cached(self._fd) as folders:
            os.unlink(name, dir_fd=folders.open(folder))

    def _link(self, leader: bytes, path: bytes) -> None:
        with cached(self._fd) as sources, cached(self._fd) as folders:
            folder, name = split(path)
            source_folder, source = split(leader)
            os.link(
                source, name, src_dir_fd=sources.open(source_folder),
                dst_dir_fd=folders.open(folder), follow_symlinks=False,
            )  # fmt: skip
