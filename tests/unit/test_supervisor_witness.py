"""The witness tells a signal for everyone from one for guard alone, and holds on to nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from safeguards.supervisor.launch import inheritable_descriptors
from safeguards.supervisor.tree import is_stopped
from safeguards.supervisor.witness import Witness

WATCHED = (signal.SIGUSR1, signal.SIGTERM, signal.SIGTSTP)


def test_what_it_receives_is_shared_and_counts_once() -> None:
    """One signal to it makes one signal of guard's a shared one."""
    with Witness(WATCHED, ()) as witness:
        assert witness.pid is not None
        assert not witness.shared(signal.SIGUSR1)
        os.kill(witness.pid, signal.SIGUSR1)
        assert witness.shared(signal.SIGUSR1)
        time.sleep(0.05)
        assert not witness.shared(signal.SIGUSR1)
        assert not witness.shared(signal.SIGTERM)


def test_a_signal_before_it_is_up_is_not_lost() -> None:
    """Signals are blocked in it until it can report them."""
    with Witness(WATCHED, ()) as witness:
        assert witness.pid is not None
        for number in WATCHED:
            os.kill(witness.pid, number)
        assert all(witness.shared(number) for number in WATCHED)


def test_a_stopped_witness_still_counts() -> None:
    """What waits for a witness that gets no time was sent to it all the same."""
    with Witness(WATCHED, ()) as witness:
        assert witness.pid is not None
        assert not witness.shared(signal.SIGUSR1)
        os.kill(witness.pid, signal.SIGSTOP)
        while not is_stopped(witness.pid):
            time.sleep(0.01)
        os.kill(witness.pid, signal.SIGUSR1)
        assert witness.shared(signal.SIGUSR1)


@pytest.mark.parametrize("noticed", [True, False])
def test_without_it_the_kind_of_signal_decides(
    noticed: bool,  # noqa: FBT001
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Killed, it is replaced by the rule of thumb; at once, not after a wait."""
    monkeypatch.setattr("safeguards.supervisor.witness._in_foreground", lambda: True)
    with Witness(WATCHED, ()) as witness:
        assert witness.pid is not None
        os.kill(witness.pid, signal.SIGKILL)
        if noticed:
            os.waitpid(witness.pid, 0)
            witness.lost()
        else:
            time.sleep(0.1)
        before = time.monotonic()
        assert witness.shared(signal.SIGTSTP)
        assert not witness.shared(signal.SIGTERM)
        assert time.monotonic() - before < 0.5


def test_no_interpreter_no_witness(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it cannot be started, guard works without."""
    monkeypatch.setattr(sys, "executable", "/nonexistent/python")
    before = len(os.listdir("/proc/self/fd"))
    with Witness(WATCHED, ()) as witness:
        assert witness.pid is None
        assert not witness.shared(signal.SIGTERM)
    assert len(os.listdir("/proc/self/fd")) == before


def test_it_holds_none_of_guards_descriptors(tmp_path: Path) -> None:
    """A reader at the other end of a pipe never waits for the witness."""
    with (tmp_path / "inherited").open("w") as file:
        os.set_inheritable(file.fileno(), True)
        assert file.fileno() in inheritable_descriptors()
        with Witness(WATCHED, inheritable_descriptors()) as witness:
            assert witness.pid is not None
            assert not witness.shared(signal.SIGTERM)
            folder = Path(f"/proc/{witness.pid}/fd")
            held = {entry.name: os.readlink(entry) for entry in folder.iterdir()}
    assert sorted(held) == ["0", "1", "2"]
    assert held["0"].startswith("pipe:")
    assert held["1"].startswith("pipe:")
    assert held["2"] == os.devnull


def test_it_ends_with_guard() -> None:
    """However guard ends: its standard input ends."""
    script = (
        "import os, signal, sys\n"
        "from safeguards.supervisor.witness import Witness\n"
        "witness = Witness((15,), ()).__enter__()\n"
        "witness.shared(15)\n"
        "print(witness.pid, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], check=False, capture_output=True)
    assert done.returncode == -signal.SIGKILL
    folder = Path(f"/proc/{int(done.stdout)}")
    until = time.monotonic() + 5
    while folder.exists() and "Z" not in (folder / "stat").read_text().split():
        assert time.monotonic() < until, "the witness outlives guard"
        time.sleep(0.01)
