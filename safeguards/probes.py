"""Runs the project's probes: what has to work before a rollback is called done."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from safeguards.config import Probe

_TAIL_BYTES = 2000
_LAST_LINES = 3


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """How one probe ended.

    Attributes:
        name: Its name.
        passed: Whether it ended with status 0 in time.
        elapsed_s: Seconds that it took.
        detail: Why it failed, with its last words; empty where it passed.
    """

    name: str
    passed: bool
    elapsed_s: float
    detail: str = ""


def run_probes(
    probes: Iterable[Probe], project: Path, environ: Mapping[str, str]
) -> list[ProbeResult]:
    """Run probes one after the other, all of them, and return how each ended.

    Args:
        probes: What to run.
        project: Where they run.
        environ: The environment of the guarded command.
    """
    prepared = with_environment(project, environ)
    return [_run(probe, project, prepared) for probe in probes]


def with_environment(project: Path, environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment with the project's own virtual environment in front.

    After a bad run people type `guard rollback` in any shell; ``python`` in a probe still has to
    be the project's.
    """
    prepared = dict(environ)
    own = project / ".venv"
    if "VIRTUAL_ENV" not in prepared and (own / "bin" / "python").exists():
        prepared["VIRTUAL_ENV"] = str(own)
        prepared["PATH"] = f"{own / 'bin'}{os.pathsep}{prepared.get('PATH', os.defpath)}"
    return prepared


def shell(
    command: str, project: Path, environ: Mapping[str, str], timeout_s: float
) -> tuple[int | None, str]:
    """Run a line of the configuration in the shell, silently.

    Its output never reaches guard's own streams, and its whole group is ended at the timeout.

    Returns:
        The exit status (None where it did not end in time), and the last lines of its output.
    """
    # A temporary file, not a pipe: what the command leaves running in the background would hold
    # a pipe open, and guard would wait for it.
    import tempfile  # noqa: PLC0415 - only where something is run

    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            ["/bin/sh", "-c", command],
            cwd=project,
            env=dict(environ),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        status: int | None
        try:
            status = process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            status = None
        except BaseException:
            _end_group(process)
            raise
        if status is None:
            _end_group(process)
        size = output.seek(0, os.SEEK_END)
        output.seek(max(0, size - _TAIL_BYTES))
        tail = output.read().decode("utf-8", "replace")
    return status, "\n".join(tail.strip().splitlines()[-_LAST_LINES:])


def _end_group(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _run(probe: Probe, project: Path, environ: Mapping[str, str]) -> ProbeResult:
    started = time.monotonic()
    try:
        status, tail = shell(probe.command, project, environ, probe.timeout_s)
    except OSError as error:
        status, tail = 126, error.strerror or str(error)
    elapsed_s = time.monotonic() - started
    if status == 0:
        return ProbeResult(probe.name, passed=True, elapsed_s=elapsed_s)
    why = f"no answer in {probe.timeout_s:g} s" if status is None else f"exit status {status}"
    last = tail.splitlines()[-1] if tail else ""
    return ProbeResult(probe.name, False, elapsed_s, f"{why}: {last}" if last else why)
