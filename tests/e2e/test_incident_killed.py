"""Incident 11: the child is killed while it writes, guard is killed, a rollback is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from e2e.guard_command import Guard
from e2e.projects import assert_repository_whole
from manifest import assert_back, differences, manifest

_HALF = """
import os, signal
with open("models/best.ckpt", "wb") as file:
    file.write(b"half of a model" * 1000)
    file.flush()
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_11_the_child_is_killed_half_way_through_a_model(messy: Guard) -> None:
    """137 is passed on, and the model is back."""
    before = manifest(messy.project)
    run = messy("run", "--", "python3", "-c", _HALF)
    assert run.status == 137, run.said
    assert "guard rollback --last" in run.err
    assert differences(before, manifest(messy.project))
    assert_back(before, messy.roll_back())


def test_11_guard_is_killed_during_the_run(messy: Guard) -> None:
    """`guard status` says "unfinished run" with the one command that mends it."""
    before = manifest(messy.project)
    popen = messy.start(
        *("run", "--", "sh", "-c"),
        "rm -rf src ; echo $$ > child.pid ; mv child.pid child ; sleep 600",
    )
    child = messy.project / "child"
    try:
        _wait_for(child, popen, messy)
    finally:
        popen.kill()
        popen.wait()
    pid = int(child.read_text())
    _end(pid)

    status = messy("status")
    assert "unfinished run" in status.out + status.err, status.said
    assert "guard rollback --last" in status.out + status.err, status.said
    assert_back(before, messy.roll_back())
    again = messy("status")
    assert "unfinished run" not in again.out + again.err, again.said
    assert_repository_whole(messy.project)


def test_11_guard_is_killed_during_the_snapshot(messy: Guard) -> None:
    """A kill before the run loses nothing, starts nothing, and blocks no later run."""
    for number in range(60):
        (messy.project / f"big-{number}.bin").write_bytes(os.urandom(1 << 20))
    before = manifest(messy.project)
    for delay_s in (0.15, 0.3, 0.45, 0.6):
        popen = messy.start("run", "--", "sh", "-c", "echo ran >> ran.txt ; sleep 60")
        time.sleep(delay_s)
        popen.kill()
        popen.wait()
        if (messy.project / "ran.txt").exists():
            break  # this machine is faster than the kill: the other tests cover the run
        assert_back(before, manifest(messy.project))
    else:
        run = messy.shell("rm -rf src big-1.bin")
        assert run.status == 0, run.said
        assert_back(before, messy.roll_back())


@pytest.mark.parametrize("delay_s", [0.2, 0.3, 0.4, 0.5, 0.7])
def test_a_rollback_that_is_killed_is_finished_by_the_next(delay_s: float, messy: Guard) -> None:
    """Killed at any moment, the next rollback ends in the state before the run."""
    (messy.project / "many").mkdir()
    for number in range(1500):
        (messy.project / "many" / f"{number}.txt").write_text(f"{number}\n" * 20)
    before = manifest(messy.project)
    run = messy.shell("rm -rf src models ; for f in many/*; do echo spoilt > $f; done ; exit 1")
    assert run.status == 1, run.said
    popen = messy.start("rollback", "--last", "--yes")
    time.sleep(delay_s)
    popen.kill()
    popen.wait()
    status = messy("status")
    assert status.status == 0, status.said
    assert_back(before, messy.roll_back())
    assert_repository_whole(messy.project)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_reach_the_child_and_its_tree(number: signal.Signals, messy: Guard) -> None:
    """The child gets the signal, decides its own status, and nothing keeps running."""
    before = manifest(messy.project)
    popen = messy.start(
        *("run", "--", "python3", "-c"),
        "import os, signal, subprocess, sys, time\n"
        "def bye(*_): sys.exit(7)\n"
        "for s in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP): signal.signal(s, bye)\n"
        "open('child.tmp', 'w').write(str(os.getpid())); os.rename('child.tmp', 'child')\n"
        "time.sleep(600)\n",
    )
    _wait_for(messy.project / "child", popen, messy)
    popen.send_signal(number)
    assert popen.wait(60) == 7, messy.spoken.read_text()
    assert not _alive(int((messy.project / "child").read_text()))
    assert_back(before, messy.roll_back())


def _wait_for(path: Path, popen: subprocess.Popen[bytes], guard: Guard) -> None:
    deadline = time.monotonic() + 60
    while not path.exists():
        assert popen.poll() is None, guard.spoken.read_text()
        assert time.monotonic() < deadline, "the child did not start within a minute"
        time.sleep(0.02)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def _end(pid: int) -> None:
    if _alive(pid):
        os.kill(pid, signal.SIGKILL)
