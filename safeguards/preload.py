"""guard inside the environment that it guards: what is needed afterwards is loaded before.

The command may delete or change that environment, and a rollback replaces its files; what has
not been imported by then may be gone, or be another version's.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import pkgutil
import sys
from collections.abc import Iterable

_PACKAGES = ("rollback", "safeguards")
_OTHERS = (
    "ctypes", "fcntl", "importlib.metadata", "json", "psutil", "shlex", "tempfile", "textwrap",
    "threading", "tomllib", "traceback", "urllib.error", "urllib.request", "yaml",
)  # fmt: skip
"""What these packages import late, besides each other; a test compares."""


def preload(folders: Iterable[str | os.PathLike[str]]) -> bool:
    """Import all that guard may still need, where guard lies in one of these folders.

    Args:
        folders: What is about to be changed by the command, or by a rollback.

    Returns:
        Whether guard lies there.
    """
    roots = [os.path.realpath(folder) for folder in folders]
    own = {os.path.dirname(os.path.dirname(os.path.realpath(__file__))), _prefix()}
    if not any(os.path.commonpath([root, place]) == root for root in roots for place in own):
        return False
    for name in _PACKAGES:
        package = importlib.import_module(name)
        for found in pkgutil.walk_packages(package.__path__, f"{name}."):
            if not found.name.endswith(".__main__"):
                importlib.import_module(found.name)
    for name in _OTHERS:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    return True


def _prefix() -> str:
    return os.path.realpath(sys.prefix)
