"""Keeps what polars' threads print when they panic off the terminal: it becomes a finding."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import tempfile
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_STDERR = 2
_PANIC = re.compile(rb"^\n?thread '[^\n]*panicked at", re.MULTILINE)
_KEPT_BYTES = 1 << 20


@contextlib.contextmanager
def panics_unseen() -> Iterator[None]:
    """Hold back standard error, and hand on at the end what is no report of a panic.

    The report (a message and a stack of Rust functions) is written by the thread itself before
    Python sees an exception, so nothing but the file descriptor can hold it back.
    """
    with contextlib.ExitStack() as stack:
        try:
            sys.stderr.flush()
            saved = os.dup(_STDERR)
            stack.callback(os.close, saved)
            kept = _open_scratch()
            stack.callback(os.close, kept)
        except (OSError, ValueError, AttributeError):  # closed, or no room to hold anything
            yield
            return
        os.dup2(kept, _STDERR)
        try:
            yield
        finally:
            with contextlib.suppress(OSError, ValueError):
                sys.stderr.flush()
            os.dup2(saved, _STDERR)
            _hand_on(kept)


def _open_scratch() -> int:
    """Return a descriptor in memory where the system has such, else of a file without a name."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("guard")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def _hand_on(descriptor: int) -> None:
    text = os.pread(descriptor, _KEPT_BYTES, 0)
    panic = _PANIC.search(text)
    plain = text if panic is None else text[: panic.start()]
    with contextlib.suppress(OSError):
        while plain:
            plain = plain[os.write(_STDERR, plain) :]
