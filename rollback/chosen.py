"""Paths as people type them: what they name, and that they name something of the project."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path


def whole_path(typed: str, here: Path, roots: Iterable[Path]) -> str | None:
    """Return the absolute path that a typed one names, None where it is in none of the roots.

    Args:
        typed: As typed; the empty one names nothing.
        here: Where it starts: the current folder, where that is in the project; else that.
        roots: The project, and what else is captured.
    """
    if not typed:
        return None
    whole = os.path.normpath(here / typed)
    # The folder may be a link (or lie behind one); what the path itself names is left as it is.
    parent = os.path.realpath(os.path.dirname(whole))
    resolved = os.path.join(parent, os.path.basename(whole))
    # A link that leads away may stand where a folder of the project was: then it is that one.
    for path in (resolved, whole):
        if any(root in (Path(path), *Path(path).parents) for root in roots):
            return path
    return None
