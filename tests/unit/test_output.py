"""Output: streams, JSON, odd names, colour, progress, figures."""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import os
import pkgutil
import pty
import signal
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any, TextIO

import pytest

from rollback.model import Category
from rollback.reports import Change, Difference
from safeguards import output, render, units
from safeguards.asking import read_line
from safeguards.output import Answer, Problem, Style, Terminal, Tone, Verbosity
from safeguards.render.diff import Differences
from safeguards.render.paths import Row, gathered, short_path


class Screen(io.StringIO):
    """A stream that says that it is a terminal."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        """Return True."""
        return True


def answer(path: str = "a.txt", **settings: Any) -> Answer:
    """Return the answer of a diff with one change."""
    change = Change("added", "files", Category.CODE, path, new_bytes=5)
    value = Differences(Difference("old", None, (change,)), 1, None, False)
    return Answer("diff", value, **settings)


def test_results_and_messages_go_to_different_streams(capsys: pytest.CaptureFixture[str]) -> None:
    """Standard output has the result and nothing else."""
    terminal = Terminal(environ={}, name="guard diff")
    terminal.note("a note")
    terminal.present(answer(problems=(Problem("x", "it broke", "guard mend"),)))
    said = capsys.readouterr()
    assert said.out.startswith("+  a.txt")
    assert said.err == "guard: a note\nguard diff: it broke\n  next: guard mend\n"


def test_verbosity(capsys: pytest.CaptureFixture[str]) -> None:
    """Quiet leaves warnings, normal adds notes, verbose adds details; JSON says nothing."""
    told = []
    for verbosity in Verbosity:
        terminal = Terminal(verbosity, environ={})
        terminal.note("note")
        terminal.detail("detail")
        terminal.warn("warning")
        told.append(capsys.readouterr().err.count("guard: "))
    assert told == [1, 2, 3]
    terminal = Terminal(Verbosity.VERBOSE, json=True, environ={})
    terminal.note("note")
    terminal.warn("warning")
    terminal.fail(Problem("x", "y"))
    assert capsys.readouterr().err == ""


ODD = os.fsdecode(b"a\xff\n\x1b[31m\xe2\x80\xae.txt")


def test_odd_names_are_escaped_for_people_and_survive_json(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Neither a newline, an escape sequence nor a direction override reaches the terminal."""
    Terminal(environ={}).present(answer(ODD))
    said = capsys.readouterr().out
    assert said.splitlines()[0].startswith(r"+  a\xff\n\x1b[31m\u202e.txt")
    assert "\x1b" not in said
    Terminal(json=True, environ={}).present(answer(ODD))
    (line,) = capsys.readouterr().out.splitlines()
    data = json.loads(line)["data"]
    assert os.fsencode(data["changes"][0]["path"]) == os.fsencode(ODD)
    assert line.isascii()


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_any_encoding_of_the_stream(encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the stream cannot take is escaped, never an exception."""
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding=encoding))
    Terminal(environ={}).present(answer(f"ümläut → \udcff {ODD}"))
    assert b"ml" in raw.getvalue()


def test_the_envelope(capsys: pytest.CaptureFixture[str]) -> None:
    """One object on one line; what is no figure is null; status follows the exit code."""
    problems = (Problem("c", "m", "h"),)
    for exit_code, given, status in ((0, (), "success"), (0, problems, "partial"),
                                     (1, (), "error"), (10, problems, "error")):  # fmt: skip
        shown = Answer("diff", None, exit_code, given, "guard next")
        Terminal(json=True, environ={}).present(shown)
        envelope = json.loads(capsys.readouterr().out)
        assert (envelope["status"], envelope["exit_code"]) == (status, exit_code)
        assert envelope["data"] == {}
        assert envelope["next_command"] == "guard next"
    assert json.loads(output.to_json(Answer("diff")))["next_command"] is None
    assert output._plain({"x": float("nan"), "y": (1, b"\xff"), 3: {4}}) == {
        "x": None,
        "y": [1, "\udcff"],
        "3": [4],
    }


@pytest.mark.parametrize(
    ("color", "environ", "terminal", "colored"),
    [
        ("auto", {}, True, True),
        ("auto", {}, False, False),
        ("auto", {"NO_COLOR": "1"}, True, False),
        ("auto", {"NO_COLOR": ""}, True, True),
        ("auto", {"TERM": "dumb"}, True, False),
        ("always", {"NO_COLOR": "1"}, False, True),
        ("never", {}, True, False),
    ],
)
def test_colour(color: str, environ: dict[str, str], terminal: bool, colored: bool) -> None:  # noqa: FBT001
    """On a terminal only, NO_COLOR honoured where it is not empty, options win."""
    stream = Screen() if terminal else io.StringIO()
    style = Terminal(color=color, environ=environ).style(stream)
    assert style.color is colored
    assert ("\x1b[31m" in style.paint("x", Tone.BAD)) is colored


def test_progress_only_on_a_terminal_and_only_after_half_a_second(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A short phase draws nothing; the bar is gone before anything else is said."""
    assert Terminal(environ={}).progress() is None
    screen = Screen()
    monkeypatch.setattr(sys, "stderr", screen)
    assert Terminal(Verbosity.QUIET, environ={}).progress() is None
    assert Terminal(json=True, environ={}).progress() is None
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    terminal = Terminal(environ={"COLUMNS": "60"})
    show = terminal.progress()
    assert show is not None
    show("snapshot", 0, 10)
    now[0] += 0.4
    show("snapshot", 5, 10)
    assert screen.getvalue() == ""
    now[0] += 0.2
    show("snapshot", 6, 10)
    assert "snapshot [" in screen.getvalue()
    assert "60%" in screen.getvalue()
    terminal.note("done")
    assert screen.getvalue().endswith("\r\x1b[Kguard: done\n")


def test_nobody_is_asked_without_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer is no, and no question is written."""
    err = io.StringIO()
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    monkeypatch.setattr(sys, "stderr", err)
    assert Terminal(environ={}).ask("really?") is False
    assert err.getvalue() == ""


@pytest.mark.parametrize(
    ("typed", "yes"), [(b"y\n", True), (b"YES\n", True), (b"\n", False), (b"\x04", False)]
)
def test_the_answer_on_a_terminal(typed: bytes, yes: bool, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: FBT001
    """Only a plain yes is one; the end of the input is not."""
    with keyboard() as (keys, stdin):
        monkeypatch.setattr(sys, "stdin", stdin)
        monkeypatch.setattr(sys, "stderr", Screen())
        os.write(keys, typed)
        assert Terminal(environ={}).ask("really?") is yes


def test_a_signal_ends_the_wait_for_an_answer() -> None:
    """One whose handler only takes note does not."""
    noted: list[int] = []

    def note(number: int, _: object) -> None:
        noted.append(number)
        if len(noted) == 2:
            raise KeyboardInterrupt

    before = signal.signal(signal.SIGUSR1, note)
    timer = threading.Thread(target=_signal_twice)
    try:
        with keyboard() as (keys, stdin):
            os.write(keys, b"half a line")
            timer.start()
            with pytest.raises(KeyboardInterrupt):
                read_line(stdin)
            assert len(noted) == 2
            os.write(keys, b", and the rest\n")
            assert read_line(stdin) == "half a line, and the rest\n"
    finally:
        timer.join()
        signal.signal(signal.SIGUSR1, before)
    assert signal.set_wakeup_fd(-1) == -1


def _signal_twice() -> None:
    for _ in range(2):
        time.sleep(0.2)
        os.kill(os.getpid(), signal.SIGUSR1)


@contextlib.contextmanager
def keyboard() -> Iterator[tuple[int, TextIO]]:
    """Give where one types, and what a program reads from."""
    keys, terminal = pty.openpty()
    try:
        with open(terminal, encoding="utf-8") as stdin:
            yield keys, stdin
    finally:
        os.close(keys)


def test_every_renderer_draws_text_and_data() -> None:
    """Whatever a command answers with can be drawn both ways."""
    helpers = {"findings", "paths"}
    names = {module.name for module in pkgutil.iter_modules(render.__path__)} - helpers
    assert {"run", "rollback", "status", "log"} <= names
    for name in names:
        module = importlib.import_module(f"safeguards.render.{name}")
        assert callable(module.as_text), name
        assert callable(module.as_data), name


def test_gits_objects_are_one_line() -> None:
    """Hundreds of names that nobody reads do not bury the one that matters."""
    rows = [Row("added", f".git/objects/ab/{n}", "1 B", "") for n in range(300)]
    rows.insert(7, Row("modified", "train.py", "", ""))
    rows.append(Row("deleted", "sub/.git/objects/ab/1", "1 B", ""))
    assert [(r.action, r.path, r.stands_for) for r in gathered(rows)] == [
        ("added", ".git/objects/", 300),
        ("modified", "train.py", 1),
        ("deleted", "sub/.git/objects/", 1),
    ]


def test_paths_are_short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Inside the project relative, inside the home with a tilde."""
    monkeypatch.setenv("HOME", "/home/a")
    from pathlib import Path  # noqa: PLC0415 - used here only

    assert short_path("/a/p/x", Path("/a/p")) == "x"
    assert short_path("/a/p", Path("/a/p")) == "."
    assert short_path("/a/pq", Path("/a/p")) == "/a/pq"
    assert short_path("/home/a/x") == "~/x"
    assert short_path("/home/ab") == "/home/ab"


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (999_949, "999.9 kB"), (999_999, "1.0 MB"),
     (4_200_000_000, "4.2 GB"), (10**15, "1.0 PB"), (10**18, "1000.0 PB")],
)  # fmt: skip
def test_sizes(value: int, text: str) -> None:
    """Powers of a thousand, one digit."""
    assert units.bytes_text(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0, "0.00 s"), (0.0001, "1 ms"), (0.004, "4 ms"), (0.012, "0.01 s"),
         (0.21, "0.21 s"), (1.34, "1.3 s"), (12.4, "12 s"), (59.7, "1 min"),
     (90, "1 min 30 s"), (300, "5 min"), (7800, "2 h 10 min"), (86_400, "1 d"),
     (3599.6, "1 h")],
)  # fmt: skip
def test_times(seconds: float, text: str) -> None:
    """The unit that people would use."""
    assert units.seconds_text(seconds) == text


def test_counts_shares_and_moments() -> None:
    """Singular and plural, per cent, and a date only where it is not today."""
    assert units.count_text(1, "file") == "1 file"
    assert units.count_text(12_400, "file") == "12,400 files"
    assert units.count_text(2, "process", "processes") == "2 processes"
    assert units.share_text(0.125) == "12.5 %"
    assert units.share_text(1.0) == "100 %"
    assert units.moment_text(1_700_000_000, 1_700_000_100) == "22:13:20"
    assert units.moment_text(1_700_000_000, 1_800_000_000) == "2023-11-14 22:13"
    assert units.iso_text(1_700_000_000) == "2023-11-14T22:13:20Z"


def test_columns_begin_at_the_same_place() -> None:
    """Cells are padded, lines are not."""
    lines = output.aligned([("a", "bb", ""), ("aaa", "b", "c")], "  ")
    assert lines == ["  a    bb", "  aaa  b   c"]
    assert output.aligned([]) == []
    assert Style().paint("", Tone.BAD) == ""
