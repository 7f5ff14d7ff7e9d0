"""Requests to stop are held while guard completes its own work, and dispositions come back."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from safeguards.supervisor import Outcome, hold_signals, reraise_interrupt
from safeguards.supervisor.signals import passed_on


def test_requests_to_stop_are_noted() -> None:
    """None of them interrupts; each is told to the caller, in order."""
    before = signal.getsignal(signal.SIGINT)
    with hold_signals() as held:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            os.kill(os.getpid(), number)
    assert held.received == [signal.SIGINT, signal.SIGTERM, signal.SIGINT, signal.SIGHUP]
    assert signal.getsignal(signal.SIGINT) is before


def test_an_error_while_held_puts_the_handlers_back() -> None:
    """The next Ctrl-C interrupts again."""
    with pytest.raises(ValueError, match="x"), hold_signals():
        raise ValueError("x")
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)


def test_an_ignored_signal_stays_ignored() -> None:
    """Under `nohup` a hang-up is nobody's business."""
    old = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert signal.SIGHUP not in passed_on()
        with hold_signals() as held:
            os.kill(os.getpid(), signal.SIGHUP)
            assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
        assert held.received == []
    finally:
        signal.signal(signal.SIGHUP, old)


def test_what_a_process_raises_against_itself_is_not_passed_on() -> None:
    """A crash of guard stays guard's; so does its broken pipe."""
    own = {signal.SIGSEGV, signal.SIGPIPE, signal.SIGCHLD, signal.SIGABRT, signal.SIGKILL}
    assert not own & passed_on()


@pytest.mark.parametrize(("terminal", "expected"), [(True, -signal.SIGINT), (False, 7)])
def test_a_terminal_interrupt_is_died_of(terminal: bool, expected: int) -> None:  # noqa: FBT001
    """So that the shell's loop ends; any other end returns to the caller."""
    script = (
        "import sys\nfrom safeguards.supervisor import Outcome, reraise_interrupt\n"
        f"reraise_interrupt(Outcome(status=130, terminal_interrupt={terminal}))\nsys.exit(7)\n"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == expected


def test_an_ordinary_outcome_returns() -> None:
    """Nothing happens after a success."""
    reraise_interrupt(Outcome(status=0))
