"""Expanding patterns, also where folders link to one another in circles.

`glob` follows links to folders below ``**``: two links to the own folder keep it busy for ever.
"""

from __future__ import annotations

import fnmatch
import functools
import glob
import os
import re
from collections.abc import Sequence

_SIGNS = "*?["
_ESCAPED = re.compile(r"\[([*?[])\]")


def is_pattern(text: str) -> bool:
    """Return whether a path has a sign that stands for others."""
    return any(sign in text for sign in _SIGNS)


def expand(pattern: str, *, hidden: bool = True) -> list[str]:
    """Return the files and folders that a pattern names, sorted.

    Args:
        pattern: An absolute path; ``**`` stands for any number of folders, and does not enter
            links to folders. What `glob.escape` has escaped stands for itself.
        hidden: Whether a sign stands for names that begin with a dot, too.
    """
    if "**" not in pattern:
        return sorted(glob.glob(pattern, include_hidden=hidden))
    parts = pattern.split(os.sep)
    fixed = next(n for n, part in enumerate(parts) if is_pattern(_ESCAPED.sub("", part)))
    root = _ESCAPED.sub(r"\1", os.sep.join(parts[:fixed])) or os.sep
    wanted = [part for part in parts[fixed:] if part]
    enter_hidden = hidden or any(part.startswith(".") for part in wanted)
    matches = functools.partial(_matches, hidden=hidden)
    found: list[str] = []
    for folder, folders, names in os.walk(root):
        if not enter_hidden:
            folders[:] = [name for name in folders if not name.startswith(".")]
        inside = os.path.relpath(folder, root).split(os.sep) if folder != root else []
        every = [*folders, *names]
        found += [os.path.join(folder, n) for n in every if matches([*inside, n], wanted)]
    return sorted(found)


def _matches(parts: Sequence[str], wanted: Sequence[str], *, hidden: bool) -> bool:
    if not wanted:
        return not parts
    if wanted[0] == "**":
        if _matches(parts, wanted[1:], hidden=hidden):
            return True
        swallow = bool(parts) and (hidden or not parts[0].startswith("."))
        return swallow and _matches(parts[1:], wanted, hidden=hidden)
    return (
        bool(parts)
        and (hidden or not parts[0].startswith(".") or wanted[0].startswith("."))
        and fnmatch.fnmatchcase(parts[0], wanted[0])
        and _matches(parts[1:], wanted[1:], hidden=hidden)
    )
