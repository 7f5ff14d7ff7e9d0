"""Waiting for a line that somebody types, so that no signal goes unnoticed meanwhile."""

from __future__ import annotations

import contextlib
import os
import select
import signal
from collections.abc import Iterator
from typing import TextIO


def read_line(stream: TextIO) -> str:
    """Return the next line of a terminal; in the main thread.

    The interpreter looks for signals between its steps, and in a call only for those that come
    while it waits. One that comes just before the call that reads would wait for the line, so
    this waits for both.
    """
    typed = stream.fileno()
    with _woken_by_signals() as woken:
        while typed not in select.select([typed, woken], [], [])[0]:
            os.read(woken, 4096)
        return stream.readline()


@contextlib.contextmanager
def _woken_by_signals() -> Iterator[int]:
    """Give a descriptor that can be read once a signal has come; its handler runs as ever."""
    reading, writing = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        try:
            yield reading
        finally:
            signal.set_wakeup_fd(before)
    finally:
        os.close(reading)
        os.close(writing)
