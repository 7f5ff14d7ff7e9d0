"""One case of a sweep: a project in some state, in which guard dies or fails.

guard runs in a forked child, so that it can be killed; what it left is judged by a manifest of
the project that shares no code with it.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from driving import Project
from faults.states import State
from manifest import Entry, differences, manifest
from rollback import failpoints
from rollback.errors import RollbackError
from unprivileged import IS_ROOT, become_nobody, prepare_once

Manifest = dict[bytes, Entry]
PATIENCE_S = 60.0
UNCLEAR = 4
CLEAR = 3


@dataclass(frozen=True, slots=True)
class Ended:
    """How a child ended: signal, code, what it said, and whether a fault befell it."""

    signal: int
    code: int
    text: str
    elapsed_s: float
    fired: bool = True

    @property
    def done(self) -> bool:
        """Whether guard said that it had done what it was asked."""
        return self.signal == 0 and self.code == 0


@dataclass(slots=True)
class Case:
    """What is known while a case runs.

    Attributes:
        project: The project.
        state: Its kind.
        built: The project as it was made.
        spoilt: As the bad run left it.
        wrong: Violations, as sentences.
        armed: The fault.
        hits: Failpoints that were reached, where they are recorded.
        unkept: Files that a snapshot said it had no room for: that was announced, not lost.
    """

    project: Project
    state: State
    built: Manifest = field(default_factory=dict)
    spoilt: Manifest = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)
    armed: str = ""
    hits: list[str] = field(default_factory=list)
    unkept: frozenset[bytes] = frozenset()

    def run(self, verb: Callable[[Project], object], armed: str = "") -> Ended:
        """Run a verb in a child, with a fault; ``record`` writes down which places are reached."""
        log = self.project.base / "hits"
        ended = _in_child(self, verb, armed, log)
        if armed:
            hits = log.read_text().split()
            log.unlink()
            ended = replace(ended, fired=bool(hits))
            if armed == "record":
                self.hits = hits
        return ended

    def must(self, what: str, verb: Callable[[Project], object]) -> Ended:
        """Run a verb that has to succeed."""
        ended = self.run(verb)
        if not ended.done:
            self.wrong.append(f"{what} failed: signal {ended.signal}, {ended.text[-600:]}")
        return ended

    def now(self) -> Manifest:
        """Return the project as it is."""
        return manifest(self.project.root) if self.project.root.is_dir() else {}

    def same(self, wanted: Manifest) -> bool:
        """Return whether the project is in a state."""
        return not differences(wanted, self.now())

    def _without_unkept(self, found: Manifest) -> Manifest:
        return {path: entry for path, entry in found.items() if path not in self.unkept}

    def expect(self, what: str, wanted: Manifest) -> None:
        """Note how the project differs from a state that it has to be in."""
        then, now = (self._without_unkept(state) for state in (wanted, self.now()))
        lines = differences(then, now)
        if lines:
            self.wrong.append(f"{what}: {len(lines)} differences, such as {lines[:3]}")


def _in_child(case: Case, verb: Callable[[Project], object], armed: str, log: Path) -> Ended:
    prepare_once()
    read_end, write_end = os.pipe2(os.O_CLOEXEC)
    started = time.monotonic()
    pid = os.fork()
    if pid == 0:
        os.close(read_end)
        code, text = UNCLEAR, ""
        try:
            code, text = _child(case, verb, armed, log)
        finally:
            with contextlib.suppress(OSError):  # nobody listens any more
                os.write(write_end, text.encode("utf-8", "backslashreplace")[:60_000])
            os._exit(code)
    os.close(write_end)
    status = _wait(pid, started + PATIENCE_S)
    os.set_blocking(read_end, False)
    try:
        text = os.read(read_end, 65_536).decode()
    except BlockingIOError:
        text = ""
    os.close(read_end)
    killed = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
    code = os.WEXITSTATUS(status) if os.WIFEXITED(status) else 0
    elapsed_s = time.monotonic() - started
    if elapsed_s > PATIENCE_S:
        case.wrong.append(f"it hung for {elapsed_s:.0f} s")
    return Ended(killed, code, text, elapsed_s)


def _child(case: Case, verb: Callable[[Project], object], armed: str, log: Path) -> tuple[int, str]:
    fd = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666) if armed else -1
    if case.state.unprivileged and IS_ROOT:
        become_nobody()
    case.state.prepare()
    if armed:
        failpoints._armed = [_Recorder(fd) if armed == "record" else _Telling(armed, fd)]
    try:
        verb(case.project)
    except RollbackError as error:
        return CLEAR, f"{type(error).__name__}: {error} | {error.hint}"
    except Exception:  # noqa: BLE001 - whatever it is, the sweep has to name it
        return UNCLEAR, traceback.format_exc()
    return 0, ""


def _wait(pid: int, deadline: float) -> int:
    handle = os.pidfd_open(pid)
    try:
        poll = select.poll()
        poll.register(handle, select.POLLIN)
        if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
            os.kill(pid, signal.SIGKILL)
        return os.waitpid(pid, 0)[1]
    finally:
        os.close(handle)


class _Recorder(failpoints._Armed):
    """Writes down each place that is reached, in workers too."""

    def __init__(self, fd: int) -> None:
        super().__init__("*:count")
        self.fd = fd

    def hit(self, name: str) -> None:
        os.write(self.fd, name.encode() + b"\n")


class _Telling(failpoints._Armed):
    """Writes down that the fault befell somebody, before it does."""

    def __init__(self, text: str, fd: int) -> None:
        super().__init__(text)
        self.fd = fd

    def fire(self, name: str) -> None:
        os.write(self.fd, name.encode() + b"\n")
        super().fire(name)
