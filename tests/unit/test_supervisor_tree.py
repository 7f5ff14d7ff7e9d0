"""The whole tree is known and ended: daemons, stopped ones, two hundred at once, no bystander."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from safeguards.supervisor import Limits, Process, end_tree, identify, is_running, supervise
from safeguards.supervisor.tree import Tree, is_stopped


def _leave(script: str, **options: bool) -> tuple[Process, ...]:
    outcome = supervise(["sh", "-c", script], environ=os.environ, limits=Limits(**options))
    assert outcome.status == 0
    return outcome.left_over


@pytest.fixture(autouse=True)
def _nothing_left() -> Iterator[None]:
    """Tests leave no process behind, ended ones that were not waited for included."""
    yield
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text()
    assert children == ""


def test_a_daemon_is_reported_not_ended() -> None:
    """What the command leaves on purpose goes on, named without its arguments."""
    left = _leave("setsid sleep 61 & sleep 0.1")
    assert [process.name for process in left] == ["sleep"]
    assert is_running(left[0])
    assert end_tree(left) == ()
    assert not is_running(left[0])


def test_a_daemon_is_ended_where_asked() -> None:
    """Also one that forked twice and has a session of its own."""
    script = "setsid sh -c 'sleep 61 & exec sleep 62' & sleep 0.1"
    outcome = supervise(
        ["sh", "-c", script], environ=os.environ, limits=Limits(kill_left_over=True, grace_s=5)
    )
    assert outcome.left_over == ()
    assert len(outcome.ended) == 2
    assert not any(is_running(process) for process in outcome.ended)


def test_what_is_ending_anyway_is_not_reported() -> None:
    """A helper that ends a moment after its parent is not left over."""
    assert _leave("sleep 0.05 &") == ()


def test_what_ends_while_guard_looks_for_it_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is no longer alive then, and no zombie either."""
    look = Tree.members

    def look_late(tree: Tree) -> tuple[Process, ...]:
        time.sleep(0.2)
        return look(tree)

    monkeypatch.setattr(Tree, "members", look_late)
    assert _leave("sleep 0.05 &") == ()


def test_deaf_and_stopped_processes_end() -> None:
    """TERM ignored, or stopped: KILL after the grace, CONT at once."""
    left = _leave(
        "setsid sh -c 'trap \"\" TERM; while :; do sleep 0.05; done' & "
        "setsid sh -c 'kill -STOP $$; sleep 60' & sleep 0.3"
    )
    assert any(is_stopped(process.pid) for process in left)
    started = time.monotonic()
    assert end_tree(left, grace_s=0.5) == ()
    assert 0.4 < time.monotonic() - started < 5


def test_what_is_started_while_ending_ends_too() -> None:
    """A process that answers TERM by starting another one does not get away."""
    left = _leave(
        "setsid sh -c 'trap \"setsid sleep 63 & exit\" TERM; while :; do sleep 0.05; done' & "
        "sleep 0.3"
    )
    assert end_tree(left, grace_s=1) == ()
    found = subprocess.run(["pgrep", "-fx", "sleep 63"], check=False, capture_output=True)
    assert found.stdout == b""


def test_guards_own_children_are_spared() -> None:
    """A worker that guard started for itself survives, and its status is not taken."""
    worker = subprocess.Popen(["sh", "-c", "sleep 1; exit 5"])
    left = _leave("setsid sleep 61 & sleep 0.1")
    assert [process.name for process in left] == ["sleep"]
    assert end_tree(left) == ()
    assert worker.wait(10) == 5


def test_two_hundred_processes_end_and_leave_no_zombie() -> None:
    """A fork for each core of a large machine, all reaped."""
    script = (
        "import os, time\n"
        "for _ in range(200):\n"
        "    if os.fork() == 0:\n"
        "        os.setsid(); time.sleep(60); os._exit(0)\n"
    )
    outcome = supervise([sys.executable, "-S", "-c", script], environ=os.environ)
    assert len(outcome.left_over) == 200
    started = time.monotonic()
    assert end_tree(outcome.left_over) == ()
    assert time.monotonic() - started < 10


def test_orphans_are_reaped_while_the_command_runs() -> None:
    """Orphans that come to guard do not pile up as zombies."""
    script = (
        "for i in 1 2 3 4 5; do sh -c 'sleep 0.05 & exit'; done; sleep 0.4; "
        'test -z "$(ps -o stat= --ppid $PPID | grep Z)"'
    )
    assert supervise(["sh", "-c", script], environ=os.environ).status == 0


def test_a_later_process_with_the_same_number_is_not_meant() -> None:
    """An identity is a number and a start time."""
    me = identify(os.getpid())
    assert me is not None
    assert is_running(me)
    earlier = dataclasses.replace(me, started_ticks=me.started_ticks - 1)
    assert not is_running(earlier)
    assert end_tree([earlier]) == ()


def test_a_recorded_command_of_a_killed_guard_is_ended(tmp_path: Path) -> None:
    """A new guard finds the tree by the identity that the killed one recorded."""
    pid = tmp_path / "pid"
    script = (
        "import os, signal\nfrom pathlib import Path\n"
        "from safeguards.supervisor import supervise\n"
        "def on_start(pid):\n"
        f"    Path({str(pid)!r}).write_text(str(pid))\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "supervise(['sh', '-c', 'sleep 64; true'], environ=os.environ, on_start=on_start)\n"
    )
    subprocess.run([sys.executable, "-c", script], check=False)
    found = identify(int(pid.read_text()))
    assert found is not None
    assert found.name == "sh"
    assert end_tree([found], grace_s=5) == ()
    assert not is_running(found)
    with contextlib.suppress(ChildProcessError):
        while True:  # the killed guard's orphans came to this process, a subreaper too
            os.waitpid(-1, 0)


def test_a_name_with_brackets_is_read(tmp_path: Path) -> None:
    """The kernel's line is parsed from its last bracket."""
    program = tmp_path / "a) S 1 (b"
    program.symlink_to("/bin/sleep")
    child = subprocess.Popen([str(program), "60"])
    try:
        found = identify(child.pid)
        assert found is not None
        assert found.name == "a) S 1 (b"
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()
