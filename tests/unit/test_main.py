"""Every error ends in its status, with a message and a next command, never a traceback."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from checks.errors import DeclarationError
from rollback.errors import NoSpace, RestoreIncomplete, StoreBusy, StoreCorrupt
from safeguards import main
from safeguards.errors import ChecksFailed, TargetRefused
from safeguards.output import Answer
from safeguards.session import Session

Raise = Callable[[BaseException], None]
CASES = [
    (StoreBusy("m", hint="guard h"), 11),
    (StoreCorrupt("m", hint="guard h"), 12),
    (NoSpace("m", hint="guard h", missing_bytes=5), 13),
    (RestoreIncomplete("m", hint="guard h"), 123),
    (DeclarationError("m", hint="guard h"), 2),
    (ChecksFailed("m", hint="guard h"), 121),
    (TargetRefused("m", hint="guard h"), 120),
    (KeyboardInterrupt(), 130),
    (main.Terminated(signal.SIGTERM), 143),
    (RuntimeError("the canary"), 125),
    (MemoryError(), 125),
    (OSError(28, "No space left on device", "/x"), 125),
    (SystemExit(3), 125),
]
REQUESTS: list[tuple[BaseException, int]] = [
    (KeyboardInterrupt(), 130),
    (main.Terminated(signal.SIGTERM), 143),
]


def _raised_while(request: BaseException) -> BaseException:
    """Return an error that a clean-up raised while a request to end was under way."""
    error = ValueError("a clean-up failed")
    error.__context__ = OSError("and another before it")
    error.__context__.__context__ = request
    return error


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Raise:
    """Return a function that makes the next command raise an error."""

    def arm(error: BaseException) -> None:
        def invoke(_session: Session, _words: list[str]) -> None:
            raise error

        monkeypatch.setattr(main, "_invoke", invoke)

    return arm


@pytest.mark.parametrize(("done", "status"), [(0, "partial"), (1, "error")])
def test_an_answer_that_standard_output_does_not_take_goes_to_the_other(
    done: int, status: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What was done is said, whatever became of the disk that its report was to lie on."""
    answer = Answer("log", None, done)
    monkeypatch.setattr(main, "_invoke", lambda _session, _words: answer)
    with open("/dev/full", "w", encoding="utf-8") as full:
        monkeypatch.setattr("sys.stdout", full)
        assert main.execute(Session(), ["--json", "log"]) == (done or 125)
    told = json.loads(capsys.readouterr().err)
    assert (told["status"], told["exit_code"]) == (status, done or 125)
    (problem,) = told["errors"]
    assert problem["code"] == "output_failed"
    assert problem["message"] == "standard output cannot be written: No space left on device"


@pytest.mark.parametrize(("request_", "status"), REQUESTS, ids=lambda value: type(value).__name__)
def test_a_clean_up_that_fails_does_not_hide_a_request_to_end(
    request_: BaseException, status: int, failing: Raise, capsys: pytest.CaptureFixture[str]
) -> None:
    """The person pressed Ctrl-C; that a library stumbled over it is no failure of guard."""
    failing(_raised_while(request_))
    assert main.execute(Session(), ["log"]) == status
    assert "failed" not in capsys.readouterr().err


@pytest.mark.parametrize(("error", "status"), CASES, ids=lambda value: type(value).__name__)
def test_every_error_has_a_status_and_words(
    error: BaseException, status: int, failing: Raise, capsys: pytest.CaptureFixture[str]
) -> None:
    """On standard error for people, as one object for programs."""
    failing(error)
    assert main.execute(Session(), ["log"]) == status
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("guard")
    assert "next: guard " in said.err
    assert "Traceback" not in said.err
    assert main.execute(Session(), ["log", "--json"]) == status
    said = capsys.readouterr()
    envelope = json.loads(said.out)
    assert (envelope["exit_code"], envelope["status"]) == (status, "error")
    assert envelope["errors"][0]["hint"]
    assert said.err == ""


def test_what_is_written_down_of_a_failure(
    failing: Raise, capsys: pytest.CaptureFixture[str], isolated_home: Path
) -> None:
    """The traceback is in a private file that is named; arguments and variables are not."""
    failing(RuntimeError("broken inside"))
    session = Session()
    session.verb = "run"
    assert main.execute(session, ["run", "--", "x", "--password", "canary"]) == 125
    match = re.search(r"details are in (\S+\.log)", capsys.readouterr().err)
    assert match
    log = Path(match[1])
    assert isolated_home in log.parents
    assert log.stat().st_mode & 0o777 == 0o600
    text = log.read_text()
    assert "Traceback" in text
    assert "broken inside" in text
    assert "canary" not in text


def test_two_failures_in_one_second_are_both_written_down(
    failing: Raise, capsys: pytest.CaptureFixture[str], isolated_home: Path
) -> None:
    """Each in a file of its own, where such files belong."""
    failing(RuntimeError("broken inside"))
    for _ in range(2):
        main.execute(Session(), ["log"])
    logs = re.findall(r"details are in (\S+\.log)", capsys.readouterr().err)
    assert len(set(logs)) == 2
    assert all(isolated_home in Path(log).parents for log in logs)


def test_a_home_that_cannot_be_written(
    failing: Raise, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The details go to the system's folder for temporary files, else nowhere; no new error."""
    failing(RuntimeError("x"))
    session = Session(environ={"XDG_STATE_HOME": "/proc/none"})
    assert main.execute(session, ["log"]) == 125
    match = re.search(r"details are in (\S+\.log)", capsys.readouterr().err)
    assert match
    Path(match[1]).unlink()
    monkeypatch.setattr("tempfile.mkstemp", lambda **_: (_ for _ in ()).throw(OSError))
    assert main.execute(session, ["log"]) == 125
    assert "no log file could be written" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "asked"),
    [
        ("--json log", True),
        ("log --json", True),
        ("log -- --json", False),
        ("run --json -- x", True),
        ("run -- x --json", False),
        ("run x --json", False),
        ("run --label x --json y", True),
        ("run --label=x y --json", False),
        ("run --quiet y --json", False),
        ("-q run y --json", False),
        ("--project run --json", True),
        ("--project run run x --json", False),
        ("", False),
    ],
)
def test_who_asked_for_json(words: str, asked: bool) -> None:  # noqa: FBT001
    """Guard, or the command behind `run`: also where the command line is wrong."""
    assert main._asks_for_json(words.split()) is asked
