"""The supervised command: its status, streams, signals, environment and limits are its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from safeguards.supervisor import Limits, supervise

DRIVER = Path(__file__).parents[1] / "supervised.py"


def _wait_for(found: Callable[[], bool], timeout_s: float = 10.0) -> None:
    until = time.monotonic() + timeout_s
    while not found():
        assert time.monotonic() < until, "it did not happen in time"
        time.sleep(0.01)


def _is_alive(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return stat.rpartition(")")[2].split()[0] not in {"Z", "X"}


def _driver(*words: str) -> list[str]:
    return [sys.executable, str(DRIVER), *words]


def _guarded(*words: str, stdout: Any = subprocess.PIPE) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        _driver(*words), check=False, stdout=stdout, stderr=subprocess.PIPE, timeout=60
    )


def _shell(script: str, **options: Any) -> Any:
    return supervise(["sh", "-c", script], environ=os.environ, limits=Limits(**options))


def _counter(said: Path, number: int) -> str:
    """Return a program that notes a signal in a file each time it comes, for a second."""
    return (
        "import os, signal, time\n"
        f"file = os.open({str(said)!r}, os.O_CREAT | os.O_WRONLY)\n"
        f"signal.signal({int(number)}, lambda *_: os.write(file, b'got '))\n"
        "os.write(file, b'up ')\n"
        "until = time.monotonic() + 1.0\n"
        "while time.monotonic() < until: time.sleep(0.01)\n"
    )


@pytest.mark.parametrize("status", [0, 1, 2, 77, 123, 124, 125, 126, 127, 128, 130, 137, 254, 255])
def test_the_exit_status_is_the_childs(status: int) -> None:
    """Whatever the child exits with is passed on, the numbers of guard's own included."""
    outcome = _shell(f"exit {status}")
    assert outcome.status == status
    assert outcome.signal is None
    assert not outcome.timed_out


def test_every_exit_status_is_passed_on_by_a_whole_process() -> None:
    """0 to 255, through a guard process that exits with it."""
    script = (
        "import os, sys\nfrom safeguards.supervisor import supervise\n"
        "for n in range(256):\n"
        "    assert supervise(['sh', '-c', f'exit {n}'], environ=os.environ).status == n, n\n"
    )
    done = subprocess.run([sys.executable, "-c", script], check=False, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert _guarded("--", "sh", "-c", "exit 255").returncode == 255


@pytest.mark.parametrize("name", ["KILL", "TERM", "HUP", "SEGV", "ABRT", "PIPE", "USR1"])
def test_a_signal_is_128_and_its_number(name: str) -> None:
    """A child killed half way is told from one that exits with the same number."""
    number = int(getattr(signal, f"SIG{name}"))
    outcome = _shell(f"ulimit -c 0; kill -{name} $$")
    assert outcome.status == 128 + number
    assert outcome.signal == number
    assert not outcome.interrupted


def test_data_flows_through_a_pipeline() -> None:
    """Standard input and output are inherited, not copied."""
    guard = f"{sys.executable} {DRIVER} --"
    done = subprocess.run(
        ["bash", "-c", f"printf 'a\\nb\\n' | {guard} cat | wc -l"],
        check=False,
        capture_output=True,
    )
    assert done.stdout.strip() == b"2"
    assert done.stderr == b""


def test_process_substitution_reaches_the_child() -> None:
    """Descriptors above 2 that the shell passed on are the child's too."""
    line = f"{sys.executable} {DRIVER} -- cat <(echo one) <(echo two)"
    done = subprocess.run(["bash", "-c", line], check=False, capture_output=True)
    assert done.stdout == b"one\ntwo\n"


def test_guards_own_descriptors_do_not_reach_the_child(tmp_path: Path) -> None:
    """What guard has open, its store above all, is closed in the child."""
    listing = tmp_path / "fds"
    with (tmp_path / "store").open("w"):
        _shell(f"ls -l /proc/$$/fd > {listing}")
    assert "store" not in listing.read_text()


@pytest.mark.parametrize("fd", [0, 1, 2])
def test_a_closed_stream_stays_closed(fd: int, tmp_path: Path) -> None:
    """A stream that is closed for guard is closed for the child, and nothing takes its place."""
    said = tmp_path / "said"
    script = (
        "import os\n"
        f"try: os.fstat({fd}); text = os.readlink('/proc/self/fd/{fd}')\n"
        "except OSError as error: text = error.strerror\n"
        f"open({str(said)!r}, 'w').write(text)\n"
    )
    line = f'exec "$@" {fd}<&-'
    subprocess.run(
        ["sh", "-c", line, "sh", *_driver("--", sys.executable, "-c", script)], check=False
    )
    assert said.read_text() == "Bad file descriptor"


def test_a_full_disk_is_the_childs_own_error() -> None:
    """Writing to a full device fails as it does without guard."""
    with open("/dev/full", "w") as full:
        done = _guarded("--", "echo", "x", stdout=full)
    assert done.returncode == 1
    assert b"No space left" in done.stderr


def test_the_child_has_default_signals(tmp_path: Path) -> None:
    """Nothing is ignored or blocked that guard, or Python, ignores for itself."""
    said = tmp_path / "status"
    _shell(f"cat /proc/self/status > {said}")
    masks = dict(line.split(":\t") for line in said.read_text().splitlines() if "Sig" in line)
    assert int(masks["SigIgn"], 16) == 0
    assert int(masks["SigBlk"], 16) == 0


def test_a_broken_pipe_ends_the_child() -> None:
    """`yes | head` ends, and by SIGPIPE: Python's own ignoring is not inherited."""
    guard = f"{sys.executable} {DRIVER} --"
    line = f"{guard} yes | head -n 1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", line], check=False, capture_output=True, timeout=30)
    assert done.stdout == b"y\n141\n"


def test_what_was_ignored_stays_ignored(tmp_path: Path) -> None:
    """Under `nohup` neither guard nor the child minds a hang-up."""
    started = tmp_path / "pid"
    line = 'trap "" HUP; exec "$@"'
    words = _driver(f"--started={started}", "--", "sleep", "1")
    guard = subprocess.Popen(["sh", "-c", line, "sh", *words])
    _wait_for(lambda: started.exists() and started.read_text() != "")
    guard.send_signal(signal.SIGHUP)
    os.kill(int(started.read_text()), signal.SIGHUP)
    assert guard.wait(20) == 0


def test_the_environment_is_exactly_the_given_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What guard, or a library that it imported, set for itself does not reach the child."""
    monkeypatch.setenv("SPARK_LOCAL_IP", "127.0.0.1")
    monkeypatch.setenv("PYARROW_IGNORE_TIMEZONE", "1")
    said = tmp_path / "environ"
    script = f"import os; open({str(said)!r}, 'wb').write(open('/proc/self/environ', 'rb').read())"
    given = {"ONLY": "this", "PATH": os.environ["PATH"], "BYTE": "\udcff"}
    outcome = supervise([sys.executable, "-S", "-c", script], environ=given)
    assert outcome.status == 0
    found = set(said.read_bytes().rstrip(b"\0").split(b"\0"))
    assert found == {b"ONLY=this", f"PATH={os.environ['PATH']}".encode(), b"BYTE=\xff"}


def test_the_folder_is_the_given_one(tmp_path: Path) -> None:
    """The command starts in `cwd`; guard stays where it is."""
    before = Path.cwd()
    folder = tmp_path / "folder"
    folder.mkdir()
    supervise(["touch", "here"], environ=os.environ, cwd=folder)
    assert (folder / "here").exists()
    assert Path.cwd() == before


@pytest.mark.parametrize("name", ["TERM", "INT", "HUP", "USR1", "USR2", "WINCH", "CONT", "RTMIN"])
def test_a_signal_to_guard_alone_is_passed_on(name: str, tmp_path: Path) -> None:
    """`kill -NAME <pid of guard>` reaches the command, once."""
    said = tmp_path / "said"
    number = int(getattr(signal, f"SIG{name}"))
    guard = subprocess.Popen(_driver("--", sys.executable, "-c", _counter(said, number)))
    _wait_for(lambda: said.exists() and "up" in said.read_text())
    guard.send_signal(number)
    assert guard.wait(20) == 0
    assert said.read_text() == "up got "


def test_signals_reach_the_child_from_guards_threads_too(tmp_path: Path) -> None:
    """A thread of a library that takes guard's signal does not swallow it."""
    said = tmp_path / "said"
    words = _driver("--threads", "--", sys.executable, "-c", _counter(said, signal.SIGUSR1))
    guard = subprocess.Popen(words)
    _wait_for(lambda: said.exists() and "up" in said.read_text())
    for thread in sorted(map(int, os.listdir(f"/proc/{guard.pid}/task")))[:3]:
        # Every thread in turn: kill(2) of a thread's number is process-wide.
        os.kill(thread, signal.SIGUSR1)
        time.sleep(0.2)
    assert guard.wait(20) == 0
    assert said.read_text() == "up got got got "


def test_an_interrupt_of_guard_alone_exits_with_130(tmp_path: Path) -> None:
    """The status is a plain 130, and the outcome says that guard was asked to stop."""
    started, record = tmp_path / "pid", tmp_path / "outcome"
    guard = subprocess.Popen(
        _driver(f"--started={started}", f"--record={record}", "--", "sleep", "60")
    )
    _wait_for(lambda: started.exists() and started.read_text() != "")
    guard.send_signal(signal.SIGINT)
    assert guard.wait(20) == 130
    outcome = json.loads(record.read_text())
    assert outcome["interrupted"] is True
    assert outcome["terminal_interrupt"] is False


def test_a_child_that_ignores_an_interrupt_is_not_ended(tmp_path: Path) -> None:
    """Asked to stop three times by INT, guard waits for the child that does not want to."""
    started = tmp_path / "pid"
    guard = subprocess.Popen(
        _driver(f"--started={started}", "--", "sh", "-c", 'trap "" INT; sleep 1.2; exit 3')
    )
    _wait_for(lambda: started.exists() and started.read_text() != "")
    time.sleep(0.3)
    for _ in range(3):
        guard.send_signal(signal.SIGINT)
        time.sleep(0.05)
    assert guard.wait(20) == 3


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_to_the_whole_group_is_not_doubled(number: int, tmp_path: Path) -> None:
    """What a batch system sends to everybody is not passed on a second time."""
    said = tmp_path / "said"
    words = _driver("--", sys.executable, "-c", _counter(said, number))
    guard = subprocess.Popen(words, start_new_session=True)
    _wait_for(lambda: said.exists() and "up" in said.read_text())
    os.killpg(guard.pid, number)
    assert guard.wait(20) == 0
    assert said.read_text() == "up got "


def test_a_timeout_ends_the_whole_tree(tmp_path: Path) -> None:
    """Status 124; a daemon with a session of its own and children deaf to TERM are gone."""
    pids = tmp_path / "pids"
    script = (
        f"setsid sh -c 'echo $$ >> {pids}; exec sleep 60' & trap \"\" TERM; "
        f"sh -c 'echo $$ >> {pids}; sleep 60; sleep 60'"
    )
    started = time.monotonic()
    outcome = _shell(script, timeout_s=0.6, grace_s=0.4)
    assert outcome.status == 124
    assert outcome.timed_out
    assert 0.5 < outcome.elapsed_s < 5
    assert time.monotonic() - started < 10
    assert outcome.left_over == ()
    assert len(outcome.ended) >= 2
    assert [pid for pid in map(int, pids.read_text().split()) if _is_alive(pid)] == []


def test_a_timeout_lets_the_child_tidy_up(tmp_path: Path) -> None:
    """TERM comes first, and the child has the grace to write its checkpoint."""
    saved = tmp_path / "checkpoint"
    script = f'trap "sleep 0.3; echo saved > {saved}; exit 0" TERM; while :; do sleep 0.05; done'
    outcome = _shell(script, timeout_s=0.4, grace_s=10)
    assert outcome.status == 124
    assert outcome.signal is None
    assert saved.read_text() == "saved\n"
    assert outcome.elapsed_s < 5


def test_a_timeout_ends_a_stopped_child() -> None:
    """A child that is stopped does not see TERM until it is continued."""
    outcome = _shell("kill -STOP $$; sleep 60", timeout_s=0.5, grace_s=20)
    assert outcome.status == 124
    assert outcome.signal == signal.SIGTERM


def test_a_command_within_its_time_is_not_touched() -> None:
    """A limit that is not reached changes nothing."""
    outcome = _shell("sleep 0.1; exit 5", timeout_s=30)
    assert outcome.status == 5
    assert not outcome.timed_out


def test_memory_above_the_limit_ends_the_tree(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two samples above the limit end the tree, and the outcome says why."""
    shares = iter([0.5, 0.95, 0.5, 0.91, 0.92])
    monkeypatch.setattr("safeguards.supervisor.memory.memory_share", lambda: next(shares))
    outcome = _shell("sleep 60", max_memory_share=0.9, sample_interval_s=0.05)
    assert outcome.memory_exceeded
    assert outcome.memory_share == 0.92
    assert outcome.status == 128 + signal.SIGTERM
    assert outcome.peak_memory_bytes is not None
    assert outcome.peak_memory_bytes > 100_000
    assert not outcome.timed_out


def test_real_memory_below_the_limit_is_left_alone() -> None:
    """The share of this machine is sampled, with the size of the tree."""
    script = "x = bytearray(60_000_000); import time; time.sleep(0.5)"
    outcome = supervise(
        [sys.executable, "-S", "-c", script],
        environ=os.environ,
        limits=Limits(max_memory_share=0.999, sample_interval_s=0.05),
    )
    assert outcome.status == 0
    assert not outcome.memory_exceeded
    assert outcome.peak_memory_bytes is not None
    assert 60_000_000 < outcome.peak_memory_bytes < 200_000_000


def test_nothing_is_sampled_without_a_limit() -> None:
    """No figure is invented, and psutil is not imported."""
    script = (
        "import os, sys\nfrom safeguards.supervisor import supervise\n"
        "assert supervise(['true'], environ=os.environ).peak_memory_bytes is None\n"
        "heavy = {'psutil', 'click', 'pandera', 'polars', 'git', 'rich'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_an_error_in_on_start_ends_the_tree() -> None:
    """A caller that fails does not leave a command behind that nobody watches."""
    seen: list[int] = []

    def fail(pid: int) -> None:
        seen.append(pid)
        raise ValueError("journal")

    with pytest.raises(ValueError, match="journal"):
        supervise(["sleep", "60"], environ=os.environ, on_start=fail)
    assert not _is_alive(seen[0])


def test_handlers_are_put_back() -> None:
    """Afterwards guard's own signal handling is what it was, and no descriptor leaked."""
    watched = [signal.SIGINT, signal.SIGTERM, signal.SIGCHLD, signal.SIGTSTP, signal.SIGWINCH]
    before = [signal.getsignal(number) for number in watched], len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        _shell("exit 0")
    after = [signal.getsignal(number) for number in watched], len(os.listdir("/proc/self/fd"))
    assert after == before
    assert signal.set_wakeup_fd(-1) == -1


def test_guard_killed_leaves_the_command_running(tmp_path: Path) -> None:
    """Signal 9 to guard does not end a run of two days; its witness goes."""
    started, done = tmp_path / "pid", tmp_path / "done"
    guard = subprocess.Popen(
        _driver(f"--started={started}", "--", "sh", "-c", f"sleep 0.8; touch {done}")
    )
    _wait_for(lambda: started.exists() and started.read_text() != "")
    others = Path(f"/proc/{guard.pid}/task/{guard.pid}/children").read_text().split()
    witness = {int(pid) for pid in others} - {int(started.read_text())}
    assert len(witness) == 1
    guard.kill()
    guard.wait()
    _wait_for(done.exists)
    _wait_for(lambda: not _is_alive(witness.pop()) if witness else True)


def test_pipes_are_let_go_where_asked() -> None:
    """A reader sees the end as soon as the child closes its output, not when guard ends."""
    words = _driver("--release_pipes=true", "--", "sh", "-c", "exec >&-; sleep 1.5")
    guard = subprocess.Popen(words, stdout=subprocess.PIPE)
    assert guard.stdout is not None
    started = time.monotonic()
    assert guard.stdout.read() == b""
    assert time.monotonic() - started < 1.2
    assert guard.wait(20) == 0
    guard.stdout.close()


def test_no_busy_loop() -> None:
    """Waiting costs no processor time."""
    before = time.process_time()
    _shell("sleep 1")
    assert time.process_time() - before < 0.2


def test_as_process_1_of_a_container() -> None:
    """There guard reaps strangers' zombies, passes TERM on, and exits with the status."""
    probe = subprocess.run(["unshare", "-pf", "--mount-proc", "true"], check=False, stderr=-3)
    if probe.returncode != 0:
        pytest.skip("no process namespace can be made here")
    script = (
        "for i in 1 2 3; do setsid sh -c 'sleep 0.1 & exit' & done; wait; sleep 0.4; "
        "ps -eo stat= | grep -c Z; kill -TERM 1; sleep 30"
    )
    done = subprocess.run(
        ["unshare", "-pf", "--mount-proc", *_driver("--", "sh", "-c", script)],
        check=False,
        capture_output=True,
        timeout=60,
    )
    assert done.stdout.strip() == b"0"
    assert done.returncode == 143
