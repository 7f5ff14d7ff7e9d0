"""Where the store lives, and that it is the user's alone."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import stat
from array import array
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from rollback.errors import StoreUnusable

FORMAT = b"guard store 1\n"
PRIVATE = 0o700
_SQLITE = b"SQLite format 3\0"
_ANY_FORMAT = re.compile(rb"guard store \d+\n")
_GET_FLAGS, _SET_FLAGS, _TOP_OF_TREE = 0x80086601, 0x40086602, 0x00020000
"""FS_IOC_GETFLAGS, FS_IOC_SETFLAGS and FS_TOPDIR_FL of linux/fs.h, on machines of 64 bits."""
_SURVIVES = "in your state folder, which survives the project's removal"
FOLDERS = ("packs", "loose", "links", "snapshots", "work", "log")


@dataclass(frozen=True, slots=True)
class Placement:
    """A place for the store and the reason why it is there."""

    path: Path
    why: str


def choose(project: Path, asked: Path | None, environ: Mapping[str, str]) -> Placement:
    """Return where the store of a project is, or would be created.

    The user's state folder where that is on the project's file system and can be written to: it
    then survives the project's removal and can share blocks and links. One of another user's
    guard is chosen, to be refused: the past may be there. Else ``.guard`` in the project. Where one
    was made it stays, the one that no command in the project can have planted before the other.

    Args:
        project: Absolute path of the project; need not exist any more.
        asked: A place that the user named, else None.
        environ: For ``GUARD_STORE``, ``XDG_STATE_HOME`` and ``HOME``.
    """
    if asked is not None:
        return Placement(asked.absolute(), "named by --store or the configuration")
    if environ.get("GUARD_STORE"):
        named = project / os.path.expanduser(environ["GUARD_STORE"])
        return Placement(Path(os.path.normpath(named)), "named by GUARD_STORE")
    state, inside = usual_places(project, environ)
    if is_store(state):
        return Placement(state, _SURVIVES)
    if is_store(inside):
        return Placement(inside, "in the project, where it was made")
    return _place_new(project, state, inside)


def _place_new(project: Path, state: Path, inside: Path) -> Placement:
    """Return where a store is to be made."""
    if _device(state) != _device(project):
        return Placement(inside, "in the project: your state folder is on another file system")
    if _is_shut(state) and not _is_foreign(state.parent):
        return Placement(inside, f"in the project: nothing can be written to {state.parent}")
    return Placement(state, _SURVIVES)


def usual_places(project: Path, environ: Mapping[str, str]) -> tuple[Path, Path]:
    """Return where a store is that nobody placed: in the state folder, or in the project."""
    home = environ.get("XDG_STATE_HOME") or os.path.join(
        environ.get("HOME") or os.path.expanduser("~"), ".local", "state"
    )
    return Path(home) / "guard" / _name(project), project / ".guard"


def has_store(project: Path, environ: Mapping[str, str]) -> bool:
    """Return whether a store was made for this very folder, even where the folder is empty now."""
    return is_store(choose(project, None, {**environ, "GUARD_STORE": ""}).path)


def is_store(path: Path) -> bool:
    """Return whether a folder is marked as a store; one that cannot be looked into is none."""
    try:
        return (path / "STORE").exists()
    except OSError:
        return False


def refuse_unreachable(path: Path) -> None:
    """Refuse a place of which nobody can say what is there.

    Raises:
        StoreUnusable: A folder on the way to it is shut.
    """
    try:
        (path / "STORE").exists()
    except OSError as error:
        raise StoreUnusable(
            f"the store {path} cannot be looked into: {error.strerror}",
            hint="run guard as the user whose it is, or name another place with --store DIR",
        ) from error


def prepare(path: Path) -> None:
    """Create the store's folders (0700) where they are absent and refuse what is not ours.

    Raises:
        StoreUnusable: Another user owns it, it is open to others and cannot be closed, it is
            not a guard store, or it cannot be created.
    """
    try:
        fresh = not path.exists()
        os.makedirs(path, mode=PRIVATE, exist_ok=True)
        info = os.stat(path)
        if not fresh:
            _refuse_foreign(path, info)
        if stat.S_IMODE(info.st_mode) != PRIVATE:
            os.chmod(path, PRIVATE)
        _mark(path)
        for folder in FOLDERS:
            new = not (path / folder).exists()
            os.makedirs(path / folder, mode=PRIVATE, exist_ok=True)
            os.chmod(path / folder, PRIVATE)
            if new and folder == "work":
                _spread_out(path / folder)
    except (FileExistsError, NotADirectoryError) as error:
        if path.is_dir() and error.filename is not None:
            raise StoreUnusable(
                f"{os.fsdecode(error.filename)} is no folder, and the store needs one there",
                hint="move it away, then: guard verify --repair",
            ) from error
        raise _unusable(path, error) from error
    except OSError as error:
        raise _unusable(path, error) from error


def _unusable(path: Path, error: OSError) -> StoreUnusable:
    return StoreUnusable(
        f"the store {path} cannot be used: {error.strerror}",
        hint="name another place with --store DIR or GUARD_STORE",
    )


def mend_marker(path: Path) -> bool:
    """Write the marker of a store anew where it is gone or that of no version.

    Returns:
        Whether it was.
    """
    marker = path / "STORE"
    try:
        if not _has_past(path):
            return False
        if marker.exists():
            found = marker.read_bytes()
            if _fits(found) or _ANY_FORMAT.fullmatch(found):
                return False
        marker.unlink(missing_ok=True)
        _mark(path)
    except OSError:
        return False
    return True


def has_lost_marker(path: Path) -> bool:
    """Return whether a folder is a store whose marker is gone."""
    try:
        return not (path / "STORE").exists() and _has_past(path)
    except OSError:
        return False


def _has_past(path: Path) -> bool:
    """Return whether a folder has what only a store has: the marker comes before any of it."""
    documents = path / "snapshots"
    if documents.is_dir() and any(documents.glob("*.json")):
        return True
    catalog = path / "catalog.db"
    if not catalog.is_file() or not (path / "packs").is_dir():
        return False
    with open(catalog, "rb") as file:
        return file.read(len(_SQLITE)) == _SQLITE


def _spread_out(folder: Path) -> None:
    """Let ext4 put each folder that is made in here into another part of the disk (chattr +T).

    ext4 does not give an inode again for minutes after its file was removed, and looks at each
    such inode when it needs a new one nearby. What is rehearsed and thrown away again and again
    in one place made creating a file twenty times slower. Elsewhere this does nothing.
    """
    with contextlib.suppress(OSError):
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            flags = array("l", [0])
            fcntl.ioctl(fd, _GET_FLAGS, flags)
            flags[0] |= _TOP_OF_TREE
            fcntl.ioctl(fd, _SET_FLAGS, flags)
        finally:
            os.close(fd)


def _refuse_foreign(path: Path, info: os.stat_result) -> None:
    if info.st_uid != os.geteuid():
        raise StoreUnusable(
            f"the store {path} belongs to another user (uid {info.st_uid})",
            hint="run guard as that user, or name another place with --store DIR",
        )
    marker = path / "STORE"
    # Listed before it is looked for: another process may be making the store at this moment.
    names = os.listdir(path)
    if not marker.exists():
        ours = {".gitignore", *FOLDERS}
        if any(name not in ours and not name.endswith(".tmp") for name in names):
            raise StoreUnusable(
                f"{path} is not empty and not a guard store",
                hint="name an empty or new folder with --store DIR or GUARD_STORE",
            )
    elif not _fits(marker.read_bytes()):
        raise StoreUnusable(
            f"the store {path} has a format that this version does not know",
            hint="update guard, or name another place with --store DIR",
        )


def _mark(path: Path) -> None:
    for name, content in (("STORE", FORMAT), (".gitignore", b"*\n")):
        place = path / name
        if not place.exists() or (name == "STORE" and place.stat().st_size < len(FORMAT)):
            # Whole or not at all: a marker that a full disk cut short would lock people out.
            partial = path / f"{name}.{os.getpid()}.tmp"
            fd = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            try:
                os.write(fd, content)
                os.fsync(fd)
            finally:
                os.close(fd)
            os.rename(partial, place)


def _fits(marker: bytes) -> bool:
    """Return whether a marker is ours, be it one that was not written to its end."""
    return marker[: len(FORMAT)] == FORMAT or (
        len(marker) < len(FORMAT) and FORMAT.startswith(marker)
    )


def _name(project: Path) -> str:
    base = re.sub(r"[^A-Za-z0-9._-]", "_", project.name)[:40] or "root"
    return f"{base}-{hashlib.sha256(os.fsencode(project)).hexdigest()[:12]}"


def _is_shut(path: Path) -> bool:
    """Return whether a folder that is to be made there, or is, cannot be written to."""
    for candidate in (path, *path.parents):
        try:
            mode = os.stat(candidate).st_mode
        except FileNotFoundError:
            continue
        except OSError:
            return True
        may = os.access(candidate, os.W_OK | os.X_OK, effective_ids=True)
        return not (stat.S_ISDIR(mode) and may)
    return True


def _is_foreign(path: Path) -> bool:
    try:
        return os.lstat(path).st_uid != os.geteuid()
    except OSError:
        return False


def _device(path: Path) -> int:
    for candidate in (path, *path.parents):
        try:
            return os.stat(candidate).st_dev
        except OSError:
            continue
    return -1
