"""Writes down what happened when guard itself fails; people see the file's name, no traceback."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Mapping

_PRIVATE_FOLDER = 0o700


def record(error: BaseException, verb: str, environ: Mapping[str, str]) -> str | None:
    """Write an error with its traceback into a private file and return the file's path.

    Neither arguments nor variables are written: they may hold secrets.

    Args:
        error: What happened.
        verb: The guard command that was running.
        environ: For ``XDG_STATE_HOME`` and ``HOME``.

    Returns:
        The path, or None where no place could be written to.
    """
    text = "".join(
        [
            f"{time.strftime('%Y-%m-%dT%H:%M:%S%z')} guard {verb}\n",
            f"Python {sys.version}\n",
            *traceback.format_exception(error),
        ]
    )
    moment = f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}-"
    state = environ.get("XDG_STATE_HOME") or os.path.join(
        environ.get("HOME") or os.path.expanduser("~"), ".local", "state"
    )
    for folder in (os.path.join(state, "guard", "log"), None):
        with contextlib.suppress(OSError):
            if folder is not None:
                os.makedirs(folder, _PRIVATE_FOLDER, exist_ok=True)
            # A name of its own for each: one process may fail twice in a second.
            prefix = "guard-" if folder is None else moment
            fd, path = tempfile.mkstemp(prefix=prefix, suffix=".log", dir=folder)
            with os.fdopen(fd, "w", encoding="utf-8", errors="backslashreplace") as file:
                file.write(text)
            return path
    return None
