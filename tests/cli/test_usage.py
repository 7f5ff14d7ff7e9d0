"""Wrong usage, help, version, and the global options before and behind the verb."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path

import pytest

from e2e.guard_command import EXECUTABLE, Guard
from rollback.failpoints import FAILPOINTS


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["rolback"], "guard rollback"),
        (["run"], "guard run --help"),
        (["run", "--"], "guard run --help"),
        (["run", "--bogus", "--", "true"], "--bogus"),
        (["run", "--retries", "3", "--", "true"], "at most 2"),
        (["run", "--budget", "soon", "--", "true"], "soon"),
        (["run", "--max-memory", "180%", "--", "true"], "180%"),
        (["run", "--timeout", "0s", "--", "true"], "longer than nothing"),
        (["run", "--report", "no/such/folder/r.json", "--", "true"], "no such folder"),
        (["rollback"], "guard rollback --last"),
        (["rollback", "--last", "--to", "1"], "guard rollback --last"),
        (["rollback", "--only", "everything", "--last"], "everything"),
        (["log", "-n", "0"], "0"),
        (["diff", "1", "2", "3"], "guard diff"),
        (["prune", "--max-size", "big"], "big"),
        (["seal", "no-such-file"], "no-such-file"),
        (["seal"], "guard seal --help"),
        (["schema", "infer", "no-such-file"], "no-such-file"),
        (["schema"], "guard schema --help"),
        (["--project", "/no/such/folder", "status"], "/no/such/folder"),
        (["check", "no-such-file.csv"], "no-such-file.csv"),
        (["show"], "guard show --help"),
    ],
)
def test_wrong_usage_is_status_2_and_says_what_to_type(
    arguments: list[str], said: str, guard: Guard
) -> None:
    """Nothing is written to standard output, and nothing is made."""
    result = guard(*arguments)
    assert result.status == 2, result.said
    assert said in result.err, result.said
    assert "guard" in result.err
    assert result.out == ""
    assert not (guard.project.parent / "store").exists()


def test_no_words_at_all_is_wrong_usage_with_help(guard: Guard) -> None:
    """`guard` alone says what there is."""
    result = guard()
    assert result.status == 2
    assert "rollback" in result.out + result.err


def test_version_and_help(guard: Guard) -> None:
    """Both are results, on standard output."""
    assert guard("--version").out.startswith("guard ")
    text = guard("--help")
    assert text.status == 0
    assert "rollback" in text.out
    assert text.err == ""
    assert "--on-failure" in guard("run", "--help").out


@pytest.mark.parametrize("words", [["--json", "--version"], ["--version", "--json"]])
def test_the_version_as_json(words: list[str], guard: Guard) -> None:
    """One object, like every answer."""
    result = guard(*words)
    envelope = json.loads(result.out)
    assert (envelope["command"], envelope["status"], result.status) == ("version", "success", 0)
    assert guard("--version").out == f"guard {envelope['data']['version']}\n"


@pytest.mark.parametrize("of", [[], ["run"], ["rollback"], ["schema"], ["schema", "infer"]])
@pytest.mark.parametrize("option", ["--help", "-h"])
def test_the_help_as_json(of: list[str], option: str, guard: Guard) -> None:
    """The text that people read, in one object on standard output."""
    for words in (["--json", *of, option], [*of, option, "--json"]):
        result = guard(*words)
        assert (result.status, result.err) == (0, "")
        envelope = json.loads(result.out)
        assert (envelope["command"], envelope["status"]) == ("help", "success")
        assert envelope["data"]["command"] == " ".join(["guard", *of])
        assert envelope["data"]["text"] == guard(*of, option).out.rstrip("\n")


def test_the_failpoints_are_listed_but_not_advertised(guard: Guard) -> None:
    """The names are those of the engine; a fault at one of them happens."""
    listed = guard("failpoints", "--json").data()
    assert {item["name"]: item["what"] for item in listed["failpoints"]} == FAILPOINTS
    assert {"kill", "enospc", "eio", "eacces", "emfile", "sleep"} == set(listed["actions"])
    assert [line.split()[0] for line in guard("failpoints").out.splitlines()] == list(FAILPOINTS)
    assert "failpoints" not in guard("--help").out
    guard.env["GUARD_FAILPOINT"] = "snapshot.commit:kill"
    killed = guard("snapshot")
    del guard.env["GUARD_FAILPOINT"]
    assert killed.status == -signal.SIGKILL
    assert "snapshot" in guard("status").said


@pytest.mark.parametrize("place", ["before", "behind"])
def test_global_options_before_and_behind_the_verb(
    place: str, guard: Guard, tmp_path: Path
) -> None:
    """`--project`, `--store` and `--json` mean the same in both places."""
    options = ["--json", "--project", str(guard.project), "--store", str(tmp_path / "elsewhere")]
    words = ["status", *options] if place == "behind" else [*options, "status"]
    result = guard(*words, cwd=tmp_path)
    assert result.status == 0, result.said
    assert result.data()["project"] == str(guard.project)
    assert result.data()["store"]["path"] == str(tmp_path / "elsewhere")


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (["--json", "rolback"], 2),
        (["--json", "log", "-n", "many"], 2),
        (["log", "--json", "--bogus"], 2),
        (["--json", "--project", "/no/such/folder", "status"], 2),
        (["--json", "log"], 10),
        (["--json", "rollback", "--last", "--yes"], 10),
        (["--json", "show", "7"], 10),
        (["undo", "--json"], 10),
    ],
)
def test_an_error_is_one_json_object_too(arguments: list[str], status: int, guard: Guard) -> None:
    """The object is the only thing on standard output, and nothing else is said."""
    result = guard(*arguments)
    assert result.status == status, result.said
    envelope = json.loads(result.out)
    assert list(envelope) == [
        *("schema_version", "command", "status", "exit_code", "data", "errors", "next_command"),
    ]
    assert envelope["status"] == "error"
    assert envelope["exit_code"] == status
    assert envelope["errors"][0]["code"]
    assert envelope["errors"][0]["hint"]
    assert result.err == ""


def test_a_json_of_the_child_is_none_of_guards(guard: Guard) -> None:
    """`--json` behind the command's name belongs to the command."""
    result = guard("run", "--drill", "off", "echo", "--json", "-q")
    assert result.status == 0, result.said
    assert result.out == "--json -q\n"
    assert "{" not in result.err


def test_a_configuration_that_is_wrong(guard: Guard) -> None:
    """An unknown key is named with the nearest; the rollback works in spite of it."""
    assert guard("run", "--drill", "off", "--", "rm", "params.yaml").status == 0
    (guard.project / "guard.toml").write_text('[guard]\nbugdet = "5m"\n')
    result = guard("run", "--", "true")
    assert result.status == 2
    assert "budget" in result.err
    assert guard("status").status == 2
    back = guard("rollback", "--last", "--yes")
    assert back.status == 0, back.said
    assert "bugdet" in back.err
    assert not (guard.project / "guard.toml").exists()


def test_a_reader_that_goes_away_is_no_error(guard: Guard) -> None:
    """`guard log | head -1` is quiet."""
    for _ in range(3):
        guard("snapshot")
    done = subprocess.run(
        ["bash", "-c", f"{EXECUTABLE} log -v | true; echo ${{PIPESTATUS[0]}}"],
        cwd=guard.project,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "0\n"
    assert done.stderr == ""


def test_standard_output_that_is_full_is_an_error(guard: Guard) -> None:
    """A result that could not be written is not a success."""
    guard("snapshot")
    done = subprocess.run(
        ["sh", "-c", f"{EXECUTABLE} log > /dev/full"],
        cwd=guard.project,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 125
    assert "No space left" in done.stderr
    assert "Traceback" not in done.stderr


def test_closed_streams(guard: Guard) -> None:
    """Without standard streams guard works, and nothing is written into a wrong file."""
    done = subprocess.run(
        ["sh", "-c", f"{EXECUTABLE} run --drill off -- touch ran <&- >&- 2>&-"],
        cwd=guard.project,
        check=False,
    )
    assert done.returncode == 0
    assert (guard.project / "ran").exists()
    assert guard("verify").status == 0
