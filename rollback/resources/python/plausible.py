"""Whether a command that names no Python may still change the shared one.

An interpreter that is installed for everybody serves other projects too. Capturing it costs
seconds, and a rollback would take back what others installed meanwhile. So it belongs to a
snapshot only where the command's own text or the project speaks of Python.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

from rollback.resources.python.command import text_of
from rollback.resources.python.model import Surroundings

_WORDS = re.compile(
    r"(?<![\w-])(?:python[\d.]*|pypy[\d.]*|pip[\d.]*|pipx|uvx?|conda|mamba|micromamba|poetry|pdm"
    r"|pipenv|pixi|hatch|rye|tox|nox|pytest|jupyter|ipython|dvc|mlflow|torchrun|accelerate)(?![\w-])"
)
_FILES = re.compile(
    r"(?:.*\.(?:py|pyi|pyx|ipynb)|pyproject\.toml|setup\.cfg|Pipfile|MLproject|dvc\.yaml"
    r"|environment\.ya?ml|.*requirements.*\.(?:txt|in|lock)|(?:uv|poetry|pdm)\.lock)\Z"
)
_ENTRIES = 2000
"""Names that are looked at: enough for the top of a project, nothing for a disk."""


def may_touch_shared_python(command: Sequence[str], around: Surroundings) -> bool:
    """Return whether the project or the command's own text speaks of Python.

    Args:
        command: The command and its arguments; may be empty.
        around: Its variables and folders.
    """
    if any(map(speaks_of_python, command)) or speaks_of_python(text_of(command, around)):
        return True
    return _has_python_files(around.project)


def speaks_of_python(text: str) -> bool:
    """Return whether a text names an interpreter, an installer or a runner of Python."""
    return _WORDS.search(text) is not None


def _has_python_files(project: str) -> bool:
    """Return whether the top of a project, or a folder in it, has files of Python's."""
    left = _ENTRIES
    folders = [project]
    for folder in folders:
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    left -= 1
                    if left < 0:
                        return True  # too large to tell: rather protected than not
                    if _FILES.match(entry.name):
                        return True
                    hidden = entry.name.startswith(".") or entry.name == "node_modules"
                    inside = folder == project and not hidden
                    if inside and entry.is_dir(follow_symlinks=False):
                        folders.append(entry.path)
        except OSError:
            continue
    return False
