"""A real interactive shell on a real terminal finds no difference between `guard` and `env`.

Each scenario runs under `env`, which is the proof that it expects what is true
without guard, and under the supervisor: once, and once more below another one.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import re
import select
import shutil
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

DRIVER = Path(__file__).parents[1] / "supervised.py"
COUNTER = """\
import os, signal, sys, time
counts = {}
def count(number, _):
    name = signal.Signals(number).name
    counts[name] = counts.get(name, 0) + 1
    print(f"<{name}:{counts[name]}>", flush=True)
for name in sys.argv[1].split(","):
    signal.signal(getattr(signal, name), count)
print("<up>", flush=True)
until = time.monotonic() + 60
while time.monotonic() < until and not os.path.exists("enough"):
    time.sleep(0.01)
print("<down>", flush=True)
"""

pytestmark = pytest.mark.e2e


class Terminal:
    """An interactive bash in a session and terminal of its own, driven by typing."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.master, slave = pty.openpty()
        self.resize(40, 120)
        self.shell = subprocess.Popen(
            ["setsid", "--ctty", "bash", "--norc", "--noprofile", "-i"],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            cwd=folder,
            env={**os.environ, "PS1": "READY> ", "TERM": "xterm", "PAGER": "less"},
        )
        os.close(slave)
        self.seen = ""
        self.expect("READY> ")

    def resize(self, rows: int, columns: int) -> None:
        """Change the window's size, as a terminal emulator does."""
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, text: str) -> None:
        """Type keys; control characters as they are."""
        os.write(self.master, text.encode())

    def run(self, line: str) -> None:
        """Type a command line and Enter."""
        self.type(line + "\r")

    def expect(self, pattern: str, timeout_s: float = 15.0) -> re.Match[str]:
        """Read until the pattern appears; what was before it is forgotten."""
        until = time.monotonic() + timeout_s
        while not (match := re.search(pattern, self.seen)):
            left_s = until - time.monotonic()
            assert left_s > 0, f"{pattern!r} did not appear in {self.seen!r}"
            if select.select([self.master], [], [], left_s)[0]:
                self.seen += os.read(self.master, 65536).decode("utf-8", "replace")
        self.seen = self.seen[match.end() :]
        return match

    def status(self) -> int:
        """Return ``$?`` at the prompt."""
        self.run('echo "status=$?"')
        return int(self.expect(r"status=(\d+)")[1])

    def settle(self, seconds: float = 0.4) -> str:
        """Read for a while and return what stands there."""
        until = time.monotonic() + seconds
        while (left_s := until - time.monotonic()) > 0:
            if select.select([self.master], [], [], left_s)[0]:
                self.seen += os.read(self.master, 65536).decode("utf-8", "replace")
        return self.seen

    def enough(self) -> None:
        """Tell the counting program to end."""
        (self.folder / "enough").touch()

    def close(self) -> None:
        """Close the window; the system hangs up."""
        if self.master >= 0:
            os.close(self.master)
            self.master = -1


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    """A terminal that is closed, and whose shell is gone, after the test."""
    (tmp_path / "counter.py").write_text(COUNTER)
    window = Terminal(tmp_path)
    yield window
    window.close()
    with contextlib.suppress(subprocess.TimeoutExpired):
        window.shell.wait(5)
    window.shell.kill()
    window.shell.wait()


@pytest.fixture(params=["env", "guard", "guard with threads", "guard in guard"])
def wrap(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The words in front of the command."""
    if request.param == "env":
        return "env"
    extra = " --threads" if "threads" in request.param else ""
    around = f"{sys.executable} {DRIVER} -- " if "in guard" in request.param else ""
    return f"{around}{sys.executable} {DRIVER} --record={tmp_path}/outcome.json{extra} --"


def _needs(program: str) -> None:
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")


def _count(signals: str) -> str:
    return f"{sys.executable} counter.py {signals}"


def test_an_interactive_interpreter_works(terminal: Terminal, wrap: str) -> None:
    """`python -i` has its prompt, line editing and exit status."""
    terminal.run(f'{wrap} {sys.executable} -i -c \'import sys; sys.ps1="p"+"y: "\'')
    terminal.expect("py: ")
    terminal.run("print(6 * 7)")
    terminal.expect(r"\b42\b")
    terminal.expect("py: ")
    # Not one long sleep: a signal just before the call would be seen only after it.
    terminal.run("import time; print('a' + 'b', flush=True); [time.sleep(.05) for _ in range(999)]")
    terminal.expect(r"\bab\b")
    terminal.type("\x03")
    terminal.expect("KeyboardInterrupt")
    terminal.expect("py: ")
    terminal.run("sys.exit(9)")
    terminal.expect("READY> ")
    assert terminal.status() == 9


def test_a_pager_has_the_terminal(terminal: Terminal, wrap: str) -> None:
    """`less` pages, searches and gives the terminal back."""
    _needs("less")
    (terminal.folder / "long.txt").write_text("".join(f"line {n}\n" for n in range(1000)))
    terminal.run(f"{wrap} less long.txt")
    terminal.expect("line 30")
    terminal.type("G")
    terminal.expect("line 999")
    terminal.type("q")
    terminal.expect("READY> ")
    assert terminal.status() == 0


def test_a_pager_behind_a_pipe_has_the_terminal(terminal: Terminal, wrap: str) -> None:
    """In ``guard run … | less`` the pager, in the same group, keeps the terminal."""
    _needs("less")
    terminal.run(f"{wrap} seq 1 100000 | less")
    terminal.expect(r"\b30\b")
    terminal.type("G")
    terminal.expect("100000")
    terminal.type("q")
    terminal.expect("READY> ")
    assert terminal.status() == 0


def test_an_editor_suspends_and_comes_back(terminal: Terminal, wrap: str) -> None:
    """Ctrl-Z in `vim` gives the prompt; fg gives the text, and :wq writes it."""
    _needs("vim")
    terminal.run(f"{wrap} vim -N -u NONE note.txt")
    terminal.expect("note.txt")
    terminal.type("ihello\x1b")
    terminal.settle()
    terminal.type("\x1a")
    terminal.expect("Stopped")
    terminal.expect("READY> ")
    terminal.run("fg")
    terminal.settle()
    terminal.type("A world\x1b:wq\r")
    terminal.expect("READY> ")
    assert terminal.status() == 0
    assert (terminal.folder / "note.txt").read_text() == "hello world\n"


def test_ctrl_c_ends_a_sleep_and_its_loop(terminal: Terminal, wrap: str) -> None:
    """Ctrl-C gives 130 and ends the shell's loop: the next seed does not start."""
    terminal.run(f'for seed in 1 2 3; do echo "seed=$seed"; {wrap} sleep 30; done')
    terminal.expect("seed=1")
    terminal.settle(0.6)
    terminal.type("\x03")
    terminal.expect("READY> ", 5)
    assert terminal.status() == 130
    assert "seed=2" not in terminal.seen


def test_each_ctrl_c_arrives_once(terminal: Terminal, wrap: str) -> None:
    """Three Ctrl-C are three, none doubled, and a child that handles them lives on."""
    terminal.run(f"{wrap} {_count('SIGINT')}")
    terminal.expect("<up>")
    for number in (1, 2, 3):
        terminal.type("\x03")
        terminal.expect(f"<SIGINT:{number}>")
        assert f"<SIGINT:{number + 1}>" not in terminal.settle(0.3)
    terminal.enough()
    terminal.expect("<down>")
    terminal.expect("READY> ")
    assert terminal.status() == 0


def test_ctrl_backslash_quits(terminal: Terminal, wrap: str) -> None:
    """SIGQUIT of the keyboard ends the child with 131."""
    terminal.run("ulimit -c 0")
    terminal.run(f"{wrap} sh -c 'echo now\"\"up; exec sleep 30'")
    terminal.expect("nowup")
    terminal.settle(0.3)
    terminal.type("\x1c")
    terminal.expect("READY> ")
    assert terminal.status() == 131


def test_ctrl_z_stops_and_fg_continues(terminal: Terminal, wrap: str) -> None:
    """The job is stopped for the shell; fg continues it, and one SIGCONT arrives."""
    terminal.run(f"{wrap} {_count('SIGCONT')}")
    terminal.expect("<up>")
    terminal.type("\x1a")
    terminal.expect(r"\[1\]\+\s+Stopped")
    terminal.expect("READY> ")
    assert terminal.status() == 148
    terminal.run("fg")
    terminal.expect("<SIGCONT:1>")
    assert "<SIGCONT:2>" not in terminal.settle(0.3)
    terminal.type("\x1a")
    terminal.expect("Stopped")
    terminal.run("bg")
    terminal.expect("<SIGCONT:2>")
    assert "<SIGCONT:3>" not in terminal.settle(0.3)
    terminal.run("wait; echo waited=$?")
    terminal.settle(0.1)
    terminal.enough()
    terminal.expect("<down>")
    terminal.expect("waited=0")


def test_a_child_that_ignores_ctrl_z_is_not_stopped(terminal: Terminal, wrap: str) -> None:
    """Guard does not stop before its child does."""
    terminal.run(f'{wrap} sh -c \'trap "" TSTP; echo now""up; sleep 1; echo do""ne\'')
    terminal.expect("nowup")
    terminal.type("\x1a")
    terminal.expect("done")
    terminal.expect("READY> ")
    assert terminal.status() == 0


def test_a_child_that_stops_itself_stops_the_job(terminal: Terminal, wrap: str) -> None:
    """SIGSTOP by the child itself gives the shell its terminal back."""
    terminal.run(f'{wrap} sh -c \'echo now""up; kill -STOP $$; echo ag""ain; exit 4\'')
    terminal.expect("nowup")
    terminal.expect("Stopped")
    terminal.expect("READY> ")
    terminal.run("fg")
    terminal.expect("again")
    terminal.expect("READY> ")
    assert terminal.status() == 4


def test_a_stopped_and_continued_group_goes_on(terminal: Terminal, wrap: str) -> None:
    """A batch system that suspends and resumes everything leaves nobody behind."""
    terminal.run(f"{wrap} {_count('SIGCONT')} &")
    terminal.expect("<up>")
    for number in (1, 2, 3):
        terminal.run("kill -STOP %1; sleep 0.1; kill -CONT %1")
        terminal.expect(f"<SIGCONT:{number}>")
    terminal.run("wait %1; echo waited=$?")
    terminal.settle(0.1)
    terminal.enough()
    terminal.expect("waited=0")


def test_reading_in_the_background_stops_until_fg(terminal: Terminal, wrap: str) -> None:
    """A background reader of the terminal is stopped (tty input); fg lets it read."""
    terminal.run(f"{wrap} head -n 1 &")
    terminal.settle(0.8)
    terminal.run("")
    terminal.expect(r"Stopped \(tty input\)|Stopped")
    terminal.run("fg")
    terminal.settle(0.3)
    terminal.run("typed")
    terminal.expect(r"typed\r\n(?:.*\r\n)?typed\r\n")
    terminal.expect("READY> ")
    assert terminal.status() == 0


def test_kill_of_the_job_arrives_once(terminal: Terminal, wrap: str) -> None:
    """A signal to the whole group is not doubled by passing it on."""
    terminal.run(f"{wrap} {_count('SIGTERM,SIGUSR1,SIGHUP')} &")
    terminal.expect("<up>")
    for name in ("TERM", "USR1", "HUP", "TERM"):
        terminal.run(f"kill -{name} %1")
        terminal.expect(f"<SIG{name}:")
    said = terminal.settle(0.5)
    assert "<SIGTERM:3>" not in said
    assert "<SIGUSR1:2>" not in said
    terminal.run("wait %1; echo waited=$?")
    terminal.settle(0.1)
    terminal.enough()
    terminal.expect("waited=0")


def test_kill_of_the_pid_arrives_once(terminal: Terminal, wrap: str) -> None:
    """A signal to the pid that the shell knows reaches the command."""
    terminal.run(f"{wrap} {_count('SIGTERM,SIGUSR1,SIGINT,SIGHUP,SIGWINCH')} &")
    terminal.expect("<up>")
    for name in ("TERM", "USR1", "INT", "HUP", "WINCH"):
        terminal.run(f"kill -{name} $!")
        terminal.expect(f"<SIG{name}:1>")
    assert ":2>" not in terminal.settle(0.5)
    terminal.run("wait %1; echo waited=$?")
    terminal.settle(0.1)
    terminal.enough()
    terminal.expect("waited=0")


def test_kill_9_of_the_job_ends_everything(terminal: Terminal, wrap: str) -> None:
    """The child is in the group, so signal 9 to the job leaves nothing behind."""
    terminal.run(f"{wrap} sh -c 'echo $$ > child.pid; echo now\"\"up; exec sleep 60' &")
    terminal.expect("nowup")
    terminal.run("kill -9 %1; wait %1; echo waited=$?")
    terminal.expect("waited=137")
    child = int((terminal.folder / "child.pid").read_text())
    until = time.monotonic() + 5
    while _is_alive(child) and time.monotonic() < until:
        time.sleep(0.02)
    assert not _is_alive(child)


def test_a_resize_arrives_once(terminal: Terminal, wrap: str) -> None:
    """The window's new size is seen at once, and its signal once."""
    terminal.run(f"{wrap} {_count('SIGWINCH')}")
    terminal.expect("<up>")
    terminal.resize(30, 100)
    terminal.expect("<SIGWINCH:1>")
    assert "<SIGWINCH:2>" not in terminal.settle(0.4)
    terminal.enough()
    terminal.expect("<down>")
    terminal.run(f"{wrap} stty size")
    terminal.expect("30 100")


def test_a_shell_inside_has_its_own_job_control(terminal: Terminal, wrap: str) -> None:
    """An interactive bash as the command takes the terminal, runs jobs and gives it back."""
    terminal.run(f"PS1='INNER> ' {wrap} bash --norc --noprofile -i")
    terminal.expect("INNER> ")
    terminal.run("sleep 60")
    terminal.settle(0.3)
    terminal.type("\x1a")
    terminal.expect("Stopped")
    terminal.expect("INNER> ")
    terminal.run("kill %1; fg 2>/dev/null; exit 5")
    terminal.expect("READY> ")
    assert terminal.status() == 5


def test_closing_the_window_hangs_up(terminal: Terminal, wrap: str) -> None:
    """A closed terminal ends the command by SIGHUP; guard lives to record it."""
    line = f"{wrap} sh -c 'echo $$ > child.pid; echo now\"\"up; exec sleep 60'"
    terminal.run(line)
    terminal.expect("nowup")
    terminal.settle(0.5)
    child = int((terminal.folder / "child.pid").read_text())
    terminal.close()
    until = time.monotonic() + 5
    while _is_alive(child) and time.monotonic() < until:
        time.sleep(0.02)
    assert not _is_alive(child)
    if not wrap.startswith("env"):
        record = terminal.folder / "outcome.json"
        while not record.exists() and time.monotonic() < until:
            time.sleep(0.02)
        outcome = json.loads(record.read_text())
        assert outcome["signal"] == signal.SIGHUP
        assert outcome["interrupted"] is True


def test_ctrl_c_never_skips_the_bookkeeping(terminal: Terminal) -> None:
    """Three Ctrl-C, two of them after the command ended: the record is written all the same."""
    record = terminal.folder / "outcome.json"
    terminal.run(f"{sys.executable} {DRIVER} --record={record} --after=1.5 -- sleep 60")
    terminal.settle(0.8)
    for _ in range(3):
        terminal.type("\x03")
        terminal.settle(0.4)
    terminal.expect("READY> ")
    assert terminal.status() == 130
    outcome = json.loads(record.read_text())
    assert outcome["signal"] == signal.SIGINT
    assert outcome["terminal_interrupt"] is True
    assert len(outcome["held"]) == 2


def test_time_spent_stopped_does_not_count(terminal: Terminal) -> None:
    """A job that sleeps under Ctrl-Z is not timed out when it comes back."""
    terminal.run(f"{sys.executable} {DRIVER} --timeout_s=1.5 -- sh -c 'echo now\"\"up; sleep 0.8'")
    terminal.expect("nowup")
    terminal.settle(0.2)  # dash starts programs by vfork, and hangs when stopped within
    terminal.type("\x1a")
    terminal.expect("Stopped")
    terminal.settle(2.0)
    terminal.run("fg")
    terminal.expect("READY> ")
    assert terminal.status() == 0


def _is_alive(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return stat.rpartition(")")[2].split()[0] not in {"Z", "X"}
