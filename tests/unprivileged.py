"""Processes of a user without rights, forked by tests that run as root."""

from __future__ import annotations

import functools
import gc
import importlib
import os
import pkgutil
from collections.abc import Callable, Iterable
from pathlib import Path

import rollback
from rollback import rescue
from rollback.listing import find_lister
from rollback.store import reserve

NOBODY = 65_534
IS_ROOT = os.geteuid() == 0


def become_nobody() -> None:
    """Give this process's rights away for good."""
    os.setgroups([])
    os.setgid(NOBODY)
    os.setuid(NOBODY)


def give_away(places: Iterable[Path]) -> None:
    """Make the user without rights the owner of files and folders."""
    for place in places:
        os.chown(place, NOBODY, NOBODY, follow_symlinks=False)


def as_nobody(work: Callable[[], object]) -> str:
    """Do something as the user without rights, in a child; where the test has none, as itself.

    Returns:
        What it returned, as text.

    Raises:
        AssertionError: It failed; the message says how.
    """
    if not IS_ROOT:
        return str(work())
    prepare_once()
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            become_nobody()
            os.write(write_end, str(work()).encode())
            code = 0
        except BaseException as error:  # noqa: BLE001 - whatever it is, the test has to say it
            os.write(write_end, f"{type(error).__name__}: {error}".encode())
        finally:
            os._exit(code)
    os.close(write_end)
    with os.fdopen(read_end) as pipe:
        text = pipe.read()
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0, text
    return text


@functools.cache
def prepare_once() -> None:
    """Do what every child would do again: import what guard imports late, pack the rescue program.

    One of them may be a user who may not read where the interpreter lies.
    """
    for module in pkgutil.walk_packages(rollback.__path__, "rollback."):
        if module.name != "rollback.rescue.program":
            importlib.import_module(module.name)
    for name in ("encodings.ascii", "encodings.idna", "ctypes", "stringprep"):
        importlib.import_module(name)
    find_lister()
    packed = functools.cache(rescue.build)
    packed(Path(rollback.__file__).parent)
    rescue.build = packed
    reserve.RESERVE = 2 << 20  # to fill and to free 32 MB takes longer than a whole snapshot here
    gc.freeze()
