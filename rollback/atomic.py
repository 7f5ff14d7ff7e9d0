"""The one writer in place: every change to a user's files goes through here.

Each call is one step that is atomic by itself (a rename, an unlink) and may be repeated; what
it displaces is in the store before. Paths are walked by folder handles, no link is followed.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterable, Iterator, Mapping

from rollback.errors import RestoreIncomplete
from rollback.failpoints import reach
from rollback.folders import FolderCache, cached, join, split
from rollback.metadata import set_metadata, set_special_metadata
from rollback.model import Entry, Kind
from rollback.removal import remove_tree
from rollback.sqlitefiles import SIDE_SUFFIXES
from rollback.walk import bare, open_root, read_xattrs
from rollback.writing import write_all

DISPOSABLE = frozenset({b"__pycache__", b".pytest_cache", b".mypy_cache", b".ruff_cache"})
"""Caches that may go with the folder that held them: their tools make them again. Not
`.ipynb_checkpoints`, whose drafts nothing makes again."""
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
_CHUNK = 1 << 20
_OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class LiveWriter:
    """Changes one root, step by step.

    Args:
        root: Absolute path of the root, as it was when it was captured.
        stages: Where staged content lies: the top of each file system in the root (relative, empty
            for the root itself) → absolute path of a folder on it.
        aside: Absolute path of a folder in the store, made where it is needed: what changed
            after it was kept for the undo is put there.

    Raises:
        RestoreIncomplete: The root is reached through a link that was not there before.
    """

    def __init__(self, root: bytes, stages: Mapping[bytes, bytes], aside: bytes) -> None:
        if os.path.realpath(root) != root:
            raise RestoreIncomplete(
                f"{os.fsdecode(root)} is now reached through a link; nothing was written",
                hint="remove the link, then run the same rollback again",
            )
        self.root = root
        self.fd = open_root(root)
        self._stages = {top: open_root(stage) for top, stage in stages.items()}
        self.folders = FolderCache(self.fd)
        self.notes: list[tuple[bytes, str]] = []
        self.aside = aside
        self.set_aside: list[tuple[bytes, bytes]] = []

    def close(self) -> None:
        """Close the handles."""
        self.folders.forget()
        os.close(self.fd)
        for stage in self._stages.values():
            os.close(stage)

    def stage_fd(self, path: bytes) -> int:
        """Return the handle of the staging folder for a path: it can be renamed from there."""
        return self._stages[top_of(path, self._stages)]

    def has_staged(self, path: bytes, staged: bytes) -> bool:
        """Return whether something is staged for a path."""
        try:
            os.stat(staged, dir_fd=self.stage_fd(path), follow_symlinks=False)
        except FileNotFoundError:
            return False
        return True

    def replace(self, path: bytes, staged: bytes, kept: Entry | None) -> None:
        """Put a staged file in place of whatever file is there; atomic.

        Args:
            path: Where it goes.
            staged: Its name in the staging folder.
            kept: What the undo has of this path; None where nothing was there.
        """
        with self._parent(path) as (parent, name):
            reach("restore.replace")
            self._save_if_new(parent, path, kept)
            os.rename(staged, name, src_dir_fd=self.stage_fd(path), dst_dir_fd=parent)
            reach("restore.replaced")

    def move_folder(self, path: bytes, staged: bytes) -> None:
        """Move a staged folder to a path where nothing is; atomic."""
        stage = self.stage_fd(path)
        with self._parent(path) as (parent, name):
            reach("restore.folder")
            mode = os.stat(staged, dir_fd=stage).st_mode
            if not mode & stat.S_IWUSR:
                os.chmod(staged, stat.S_IMODE(mode) | stat.S_IWUSR, dir_fd=stage)
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                self._dispose(parent, name)
            try:
                os.rename(staged, name, src_dir_fd=stage, dst_dir_fd=parent)
            except NotADirectoryError:
                if not self._take_side(parent, path):
                    raise
                os.rename(staged, name, src_dir_fd=stage, dst_dir_fd=parent)
            if not mode & stat.S_IWUSR:
                os.chmod(name, stat.S_IMODE(mode), dir_fd=parent)

    def make_folder(self, path: bytes) -> None:
        """Create an empty folder; one that is there already will do."""
        with self._parent(path) as (parent, name), contextlib.suppress(FileExistsError):
            if not _is_folder(parent, name):
                self._take_side(parent, path)
            os.mkdir(name, 0o700, dir_fd=parent)

    def _take_side(self, parent: int, path: bytes) -> bool:
        """Put a database's side file aside, which no tree knows; say whether there was one.

        With its database it is in the undo as well, but that may stay while only this goes.
        """
        name = split(path)[1]
        if not name.endswith(SIDE_SUFFIXES):
            return False
        self._save_if_new(parent, path, None)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=parent)
        return True

    def remove_file(self, path: bytes, kept: Entry) -> None:
        """Remove a file, link or special file; one that is gone already will do.

        Args:
            path: What goes.
            kept: What the undo has of it.
        """
        with self._parent(path) as (parent, name), contextlib.suppress(FileNotFoundError):
            reach("restore.remove")
            self._save_if_new(parent, path, kept)
            os.unlink(name, dir_fd=parent)

    def remove_folder(self, path: bytes, *, give_way: bool = False) -> None:
        """Remove a folder that the snapshot does not have.

        Caches in it go with it; whatever else was left out of snapshots keeps it, or is moved
        into the store with it.

        Args:
            path: What goes.
            give_way: Whether its place is needed.
        """
        self.folders.forget()
        with self._parent(path) as (parent, name):
            reach("restore.remove_folder")
            try:
                self._dispose(parent, name)
            except FileNotFoundError:
                return
            except OSError as error:
                if error.errno not in {errno.ENOTEMPTY, errno.EEXIST}:
                    raise
                if give_way:
                    # No undo snapshot has what is left: it keeps its names and is told.
                    place = self._place_aside()
                    os.rename(name, place, src_dir_fd=parent)
                    self.set_aside.append((path, place))

    def vanish(self, *, give_way: bool = False) -> None:
        """Remove the root's own folder where nothing is left in it.

        Args:
            give_way: Whether its place is needed: what is left is moved into the store then.
        """
        reach("restore.remove_folder")
        self.folders.forget()
        try:
            os.rmdir(self.root)
        except OSError:
            if give_way:
                place = self._place_aside()
                with naming(self.root):
                    os.rename(self.root, place)
                self.set_aside.append((b"", place))

    def set_metadata(self, path: bytes, entry: Entry) -> None:
        """Give a file or folder the metadata of its entry."""
        reach("restore.metadata")
        if not path:
            with naming(self.root):
                self.notes += [(path, why) for why in set_metadata(self.fd, entry, fresh=False)]
            return
        with self._parent(path) as (parent, name):
            if entry.kind not in (Kind.FILE, Kind.DIRECTORY, Kind.DATABASE):
                notes = set_special_metadata(parent, name, entry)
                self.notes += [(path, why) for why in notes]
                return
            try:
                fd = os.open(name, _OPEN, dir_fd=parent)
            except PermissionError:
                os.chmod(name, entry.mode | stat.S_IRUSR, dir_fd=parent)
                fd = os.open(name, _OPEN, dir_fd=parent)
            try:
                self.notes += [(path, why) for why in set_metadata(fd, entry, fresh=False)]
            finally:
                os.close(fd)

    def relink(self, leader: bytes, path: bytes, spare: bytes) -> None:
        """Make `path` the same file as `leader`; atomic.

        Args:
            leader: Path of the file that stays.
            path: Path that becomes another name of it.
            spare: A free name in the staging folder.
        """
        stage = self.stage_fd(leader)
        with self._parent(leader) as (source, name):
            os.link(name, spare, src_dir_fd=source, dst_dir_fd=stage, follow_symlinks=False)
        with self._parent(path) as (parent, target):
            os.rename(spare, target, src_dir_fd=stage, dst_dir_fd=parent)
        # Renaming one name of a file over another name of it does nothing and leaves both.
        with contextlib.suppress(FileNotFoundError):
            os.unlink(spare, dir_fd=stage)

    def part(self, path: bytes, spare: bytes) -> None:
        """Make `path` a file of its own, with the content it shares with other names; atomic.

        Args:
            path: One name of a file.
            spare: A free name in the staging folder.
        """
        stage = self.stage_fd(path)
        with self._parent(path) as (parent, name):
            source = os.open(name, _OPEN, dir_fd=parent)
            target = os.open(spare, _CREATE, 0o600, dir_fd=stage)
            try:
                while chunk := os.read(source, _CHUNK):
                    write_all(target, chunk)
                info = os.fstat(source)
                xattrs = read_xattrs(source)
                set_metadata(target, bare(name, Kind.FILE, info, xattrs=xattrs))
                os.fsync(target)
            finally:
                os.close(source)
                os.close(target)
            reach("restore.replace")
            os.rename(spare, name, src_dir_fd=stage, dst_dir_fd=parent)

    def remove_bytecode(self, paths: Iterable[bytes]) -> None:
        """Remove the compiled forms of Python sources that are about to be put back.

        They are held against a source by whole seconds and size only, so one of the run could
        pass for one of the restored source. It is done before: after a crash in between, the
        sources still differ, and this is done again.
        """
        from rollback.resources.python.bytecode import compiled  # noqa: PLC0415 - a plug

        stems: dict[bytes, set[bytes]] = {}
        for path in paths:
            if path.endswith(b".py"):
                folder, name = split(path)
                stems.setdefault(join(folder, b"__pycache__"), set()).add(name[:-3])
        for folder, wanted in stems.items():
            try:
                cache = self.folders.open(folder)
            except OSError:
                continue  # there is none, or it is a link: what that leads to is not ours
            for found in compiled(map(os.fsencode, os.listdir(cache)), wanted):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(found, dir_fd=cache)

    @contextlib.contextmanager
    def _parent(self, path: bytes) -> Iterator[tuple[int, bytes]]:
        """Give the handle of a path's folder; a folder that forbids writing is opened for it.

        Raises:
            OSError: As the block raises; it names the whole path.
        """
        folder, name = split(path)
        with naming(os.path.join(self.root, path)):
            parent = self.folders.open(folder)
            if os.geteuid() != 0:
                info = os.fstat(parent)
                if not info.st_mode & stat.S_IWUSR:
                    os.chmod(parent, stat.S_IMODE(info.st_mode) | stat.S_IRWXU)
            yield parent, name

    def _save_if_new(self, parent: int, path: bytes, kept: Entry | None) -> None:
        """Give what is about to go a name in the store, unless the undo has it."""
        name = split(path)[1]
        try:
            info = os.stat(name, dir_fd=parent, follow_symlinks=False)
        except FileNotFoundError:
            return
        if stat.S_ISDIR(info.st_mode) or (kept is not None and _is_still(parent, name, info, kept)):
            return
        place = self._place_aside()
        try:
            os.link(name, place, src_dir_fd=parent, follow_symlinks=False)
        except OSError as error:
            if error.errno not in {errno.EXDEV, errno.EMLINK, errno.EPERM}:
                raise
            if not stat.S_ISREG(info.st_mode):
                return
            _copy(parent, name, place)
        self.set_aside.append((path, place))

    def _place_aside(self) -> bytes:
        os.makedirs(self.aside, mode=0o700, exist_ok=True)
        return os.path.join(self.aside, os.urandom(8).hex().encode())

    def _dispose(self, parent: int, name: bytes) -> None:
        try:
            os.rmdir(name, dir_fd=parent)
        except OSError as error:
            if error.errno not in {errno.ENOTEMPTY, errno.EEXIST}:
                raise
        else:
            return
        with cached(parent) as folders:
            found = [os.fsencode(n) for n in os.listdir(folders.open(name))]
            if all(n in DISPOSABLE for n in found):
                for cache in found:
                    remove_tree(folders.open(name), cache)
        os.rmdir(name, dir_fd=parent)


@contextlib.contextmanager
def naming(path: bytes) -> Iterator[None]:
    """Let errors of the system name a whole path: calls below a folder handle know only a name."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, os.fsdecode(path)) from error


def top_of(path: bytes, tops: Iterable[bytes]) -> bytes:
    """Return the innermost of some folders that a path lies in; the root itself is empty."""
    inside = [top for top in tops if not top or path.startswith(top + b"/")]
    return max(inside, key=len)


def _is_folder(parent: int, name: bytes) -> bool:
    with contextlib.suppress(FileNotFoundError):
        return stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode)
    return False


def _is_still(parent: int, name: bytes, info: os.stat_result, kept: Entry) -> bool:
    """Return whether a path holds what an entry says, as far as its metadata shows."""
    if stat.S_ISLNK(info.st_mode):
        target = os.fsencode(os.readlink(name, dir_fd=parent))
        return kept.kind is Kind.SYMLINK and target == kept.ref
    if stat.S_ISREG(info.st_mode):
        same = (info.st_size, info.st_mtime_ns) == (kept.size, kept.mtime_ns)
        return same or kept.kind is Kind.DATABASE
    return True


def _copy(parent: int, name: bytes, place: bytes) -> None:
    source = os.open(name, _OPEN, dir_fd=parent)
    try:
        target = os.open(place, _CREATE, 0o600)
        try:
            while chunk := os.read(source, _CHUNK):
                write_all(target, chunk)
            os.fsync(target)
        finally:
            os.close(target)
    finally:
        os.close(source)
