"""What stands where a folder was, or on the way to it: named, with the commands that clear it.

A link is never followed: what it leads to may be anybody's. A file is never removed.
"""

from __future__ import annotations

import os
import shlex
import stat
from dataclasses import dataclass

from rollback.errors import RestoreRefused


@dataclass(frozen=True, slots=True)
class Replaced:
    """Something that is no folder of the project's and is in its place.

    Attributes:
        place: Absolute path of it.
        what: What it is, as the rest of a sentence about it.
        fix: The command that takes it away, and keeps it.
    """

    place: bytes
    what: str
    fix: str

    @property
    def why(self) -> str:
        """What it is, as a sentence."""
        return f"{os.fsdecode(self.place)} {self.what}"

    def why_of(self, root: bytes) -> str:
        """Return the same as the reason why a root is left alone, which is named already."""
        return f"it {self.what}" if self.place == root else self.why


def find_replaced(root: bytes) -> Replaced | None:
    """Return what stands in the place of a root's folder; None where it is a folder, or gone.

    Args:
        root: Absolute path of a root, links resolved when it was captured.
    """
    if os.path.realpath(root) != root:
        return _link(root)
    if os.path.lexists(root) and not os.path.isdir(root):
        kind = "file" if stat.S_ISREG(os.lstat(root).st_mode) else "special file"
        return Replaced(
            root,
            f"was a folder and is a {kind} now",
            f"mv {_quoted(root)} {_quoted(_free(root))}",
        )
    return None


def refuse_replaced(root: bytes) -> None:
    """Refuse a root that is no folder any more, or is reached through a link that is new.

    Args:
        root: Absolute path of a root, links resolved when it was captured.

    Raises:
        RestoreRefused: It is; nothing was written.
    """
    found = find_replaced(root)
    if found is not None:
        raise RestoreRefused(
            f"{found.why}; nothing was written",
            hint=f"{found.fix}, then run the same rollback again",
        )


def way_back(here: str | os.PathLike[str], old: str) -> str:
    """Return the command that brings a folder to where it was, and the shell along.

    Args:
        here: Absolute path where it is.
        old: Absolute path where it was; a link or a file there makes way.
    """
    was = os.fsencode(old)
    found = find_replaced(was)
    if found is not None and found.place != was:
        return found.fix
    steps = [f"mv {_quoted(os.fsencode(here))} {_quoted(was)}", f"cd {_quoted(was)}"]
    if os.path.islink(was):
        steps.insert(0, f"rm {_quoted(was)}")
    elif found is not None:
        steps.insert(0, found.fix)
    elif not os.path.isdir(os.path.dirname(was)):
        steps.insert(0, f"mkdir -p {_quoted(os.path.dirname(was))}")
    return " && ".join(steps)


def _link(root: bytes) -> Replaced:
    link = root
    for at in (at for at in range(1, len(root)) if root[at : at + 1] == b"/"):
        if os.path.islink(root[:at]):
            link = root[:at]
            break
    behind = os.path.realpath(link)
    was = "was a folder and is a link" if link == root else "is on the way and is a link"
    fix = f"rm {_quoted(link)} removes the link alone"
    if os.path.isdir(behind):
        moved = f"mv {_quoted(behind)} {_quoted(link)}"
        fix += f" (where the folder was moved there: rm {_quoted(link)} && {moved})"
    return Replaced(link, f"{was} to {os.fsdecode(behind)} now", fix)


def _free(root: bytes) -> bytes:
    """Return a name beside a root that nothing has."""
    number, free = 1, root + b".aside"
    while os.path.lexists(free):
        number, free = number + 1, root + b".aside-%d" % (number + 1)
    return free


def _quoted(path: bytes) -> str:
    return shlex.quote(os.fsdecode(path))
