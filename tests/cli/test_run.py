"""`guard run` as scripts see it: statuses, streams, report, log."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from e2e.guard_command import EXECUTABLE, Guard
from manifest import assert_back, manifest


def read(report: Path) -> dict[str, Any]:
    """Return the record in a report, whose envelope is checked."""
    envelope = json.loads(report.read_text())
    assert envelope["schema_version"] == 1
    assert envelope["command"] == "run"
    data: dict[str, Any] = envelope["data"]
    return data


@pytest.mark.parametrize(("script", "status"), [("exit 0", 0), ("exit 7", 7), ("kill -9 $$", 137)])
def test_the_childs_status_is_passed_on(script: str, status: int, guard: Guard) -> None:
    """Whatever the child ends with, guard ends with."""
    result = guard("run", "--", "sh", "-c", script)
    assert result.status == status, result.said
    assert ("guard rollback --last" in result.err) == (status != 0)


def test_standard_output_is_the_childs_alone(guard: Guard) -> None:
    """Guard writes nothing of its own to it, also with --json and at failures."""
    for options in ([], ["--json"], ["-v"]):
        result = guard(*options, "run", "--", "sh", "-c", "echo from the child; exit 3")
        assert result.out == "from the child\n"
        assert result.status == 3
    refused = guard("run", "--", "no-such-command-anywhere")
    assert refused.out == ""
    assert refused.status == 127


def test_the_child_has_guards_standard_input(guard: Guard) -> None:
    """What is piped into guard is read by the child."""
    done = subprocess.run(
        [EXECUTABLE, "run", "--drill", "off", "cat"],
        cwd=guard.project,
        input=b"to the child",
        capture_output=True,
        check=True,
    )
    assert done.stdout == b"to the child"


def test_words_reach_the_child_as_they_are(guard: Guard) -> None:
    """Options, dashes, empty words and odd bytes behind the command are the child's."""
    words = ["-c", "--json", "--", "", "a b", "--project", "x", os.fsdecode(b"\xff")]
    for dashes in (["--"], []):
        script = 'import sys, os; sys.stdout.buffer.write(b"|".join(map(os.fsencode, sys.argv)))'
        (guard.project / "words.py").write_text(script)
        result = guard("run", "--drill", "off", *dashes, "python3", "words.py", *words)
        assert result.status == 0, result.said
        assert result.out == "words.py|-c|--json|--||a b|--project|x|\\xff"


def test_the_environment_is_the_childs_as_it_was(
    guard: Guard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No variable is added, changed or lost, PYTHONPATH and PYTHONWARNINGS among them."""
    monkeypatch.setenv("PYTHONPATH", "src::lib")
    monkeypatch.setenv("PYTHONWARNINGS", "error")
    script = "import os, json; print(json.dumps(dict(os.environ)))"
    done = subprocess.run(
        ["python3", "-c", script],
        cwd=guard.project,
        env=dict(os.environ),  # without what C libraries have set behind Python's back
        capture_output=True,
        check=True,
    )
    expected = json.loads(done.stdout)
    result = guard("run", "--drill", "off", "--", "python3", "-c", script)
    assert result.status == 0, result.said
    assert json.loads(result.out) == expected


def test_the_report_says_everything(guard: Guard) -> None:
    """The record has the contract's fields, with figures that were measured."""
    report = guard.project.parent / "report.json"
    script = "rm params.yaml; echo 1 > new; echo 2 >> train.py; exit 5"
    result = guard("run", "--label", "try", "--report", report, "--", "sh", "-c", script)
    assert result.status == 5
    data = read(report)
    assert data["child_exit"] == 5
    assert data["command"] == ["sh", "-c", script]
    assert data["label"] == "try"
    assert [phase["name"] for phase in data["phases"]] == [
        *("preflight", "snapshot", "checks", "drill", "run", "outcome"),
    ]
    assert all(phase["elapsed_s"] >= 0 for phase in data["phases"])
    assert {"files", "python"} <= {entry["resource"] for entry in data["protected"]}
    assert data["drill"]["passed"]
    assert data["drill"]["bound_s"] <= data["drill"]["budget_s"] == 300
    assert data["changes"] == {"added": 1, "modified": 1, "deleted": 1}
    assert data["rolled_back"] is False
    assert any(skip["what"] == "git" for skip in data["skipped"])
    shown = guard("--json", "show", "1").data()
    for key in ("run_id", "snapshot_id", "child_exit", "changes", "drill", "command", "skipped"):
        assert shown[key] == data[key], key


def test_a_command_that_cannot_be_started(guard: Guard) -> None:
    """126 and 127; no snapshot is taken for a command that is nowhere."""
    result = guard("run", "no-such-command-anywhere")
    assert result.status == 127, result.said
    assert "guard run -- COMMAND" in result.err
    assert guard("log").status == 10
    assert guard("run", "train.py").status == 127
    assert guard("run", "./train.py").status == 126
    assert guard("run", "./models").status == 126


def test_a_secret_on_the_command_line_is_not_kept(guard: Guard) -> None:
    """Values of options that sound secret are hidden in log, report and messages."""
    report = guard.project.parent / "report.json"
    words = ["--password", "canary-1", "--api-key=canary-2", "TOKEN=canary-3", "db://u:canary-4@h"]
    result = guard("run", "--report", report, "--", "echo", *words)
    assert result.out == " ".join(words) + "\n"
    said = [result.err, report.read_text(), guard("log").out, guard("show", "1").out]
    said.append(guard("--json", "show", "1").out)
    assert "canary" not in "".join(said)
    assert "***" in report.read_text()


def test_production_is_refused(guard: Guard) -> None:
    """120, and the command was not started."""
    (guard.project / "guard.toml").write_text('[guard]\nenvironment = "production"\n')
    report = guard.project.parent / "report.json"
    result = guard("run", "--report", report, "--", "touch", "ran")
    assert result.status == 120, result.said
    assert not (guard.project / "ran").exists()
    assert json.loads(report.read_text())["errors"][0]["code"] == "target_refused"


def test_a_failed_check_stops_the_run(guard: Guard) -> None:
    """121 with column, figure and limit; --checks warn and off let it pass."""
    (guard.project / "guard.toml").write_text('[[check.data]]\npath = "data.csv"\n')
    rows = "".join(f"{n},{'' if n < 30 else n}\n" for n in range(100))
    (guard.project / "data.csv").write_text(f"a,b\n{rows}")
    report = guard.project.parent / "report.json"
    result = guard("run", "--report", report, "--", "touch", "ran")
    assert result.status == 121, result.said
    assert "b" in result.err
    assert "30" in result.err
    assert "10" in result.err
    assert not (guard.project / "ran").exists()
    checks = read(report)["checks"]
    assert checks["failed"] >= 1
    assert checks["findings"][0]["column"] == "b"
    assert guard("check").status == 1
    warned = guard("run", "--checks", "warn", "--", "true")
    assert warned.status == 0, warned.said
    assert "missing" in warned.err
    off = guard("run", "--checks", "off", "--", "true")
    assert off.status == 0
    assert "switched off" in off.err


def test_the_machine_is_held_without_a_declaration(guard: Guard) -> None:
    """Memory and disk are looked at always; what nobody declared only warns."""
    report = guard.project.parent / "report.json"
    assert guard("run", "--report", report, "--", "true").status == 0
    checks = read(report)["checks"]
    assert checks["passed"] + checks["warned"] == 2, checks
    assert checks["failed"] == 0
    checked = guard("--json", "check", "machine").data()["checked"]
    assert [rule["check"] for rule in checked] == ["machine.memory", "machine.disk"]
    (guard.project / "guard.toml").write_text("[check.machine]\nmemory = 0.0\n")
    full = guard("run", "--", "touch", "ran")
    assert full.status == 121, full.said
    assert "is in use" in full.err
    assert not (guard.project / "ran").exists()


def test_findings_in_github_actions(guard: Guard) -> None:
    """Annotations: of `check` on standard output, of `run` beside the child's; and a summary."""
    (guard.project / "guard.toml").write_text("[check.machine]\nmemory = 0.0\n")
    summary = guard.project.parent / "summary.md"
    inside = {"GITHUB_ACTIONS": "true", "GITHUB_STEP_SUMMARY": str(summary)}
    workflow = Guard(guard.project, env=inside)
    run = workflow("run", "--checks", "warn", "--", "echo", "of the child")
    assert run.status == 0, run.said
    assert run.out == "of the child\n"
    command = "::error title=machine.memory::"
    assert [line for line in run.err.splitlines() if line.startswith(command)]
    check = workflow("check")
    assert check.status == 1
    assert [line for line in check.out.splitlines() if line.startswith(command)]
    assert summary.read_text().count("### guard run: failed") == 1
    assert summary.read_text().count("### guard check: failed") == 1
    assert workflow("--json", "check").data()["failed"] == 1, "one object and nothing else"
    assert "::error" not in guard("check").out


def test_results_of_checks_are_kept_between_runs(guard: Guard) -> None:
    """Unchanged inputs are not read again; changed ones are."""
    (guard.project / "guard.toml").write_text('[[check.data]]\npath = "data.csv"\n')
    old = time.time() - 100
    os.utime(guard.project / "data.csv", (old, old))
    report = guard.project.parent / "report.json"
    time.sleep(2.1)  # a file as young as the clock's granularity is always read again
    cached = []
    for _ in range(2):
        assert guard("run", "--report", report, "--", "true").status == 0
        cached.append(read(report)["checks"]["cached"])
    assert cached[0] == 0
    assert cached[1] > 0
    (guard.project / "data.csv").write_text("a,b\n1,\n")
    assert guard("run", "--", "true").status == 121


def test_a_drill_over_budget_stops_the_run(guard: Guard) -> None:
    """122 with the slowest parts; the configuration can turn that into a warning."""
    result = guard("run", "--budget", "1ms", "--", "touch", "ran")
    assert result.status == 122, result.said
    assert "budget" in result.err
    assert not (guard.project / "ran").exists()
    assert guard("drill", "--budget", "1ms").status == 1
    (guard.project / "guard.toml").write_text('[run]\nover_budget = "warn"\n')
    warned = guard("run", "--budget", "1ms", "--", "true")
    assert warned.status == 0, warned.said
    assert "budget" in warned.err


def test_the_drill_says_that_probes_come_on_top(guard: Guard) -> None:
    """They count in a rollback's budget, and nobody can rehearse them."""
    assert " apart" not in guard("run", "--", "true").err
    probe = '[[probe]]\nname = "one"\ncommand = "true"\n'
    (guard.project / "guard.toml").write_text(probe)
    assert "at most of 5 min, 1 probe apart (rehearsed" in guard("run", "--", "true").err


def test_the_timeout(guard: Guard) -> None:
    """124, and the command's tree is ended."""
    result = guard("run", "--timeout", "500ms", "--", "sh", "-c", "sleep 60; true")
    assert result.status == 124, result.said
    assert "--timeout" in result.err
    assert "guard rollback --last" in result.err


def test_a_timeout_is_tried_again_and_goes_to_a_colleague(guard: Guard) -> None:
    """Each attempt has the whole time and the state from before; then a report is written."""
    report = guard.project.parent / "report.json"
    result = guard(
        *("run", "--timeout", "400ms", "--retries", "1", "--report", report, "--"),
        *("sh", "-c", "test ! -e half || exit 7; echo > half; sleep 60"),
    )
    assert result.status == 124, result.said
    data = read(report)
    assert (data["attempts"], data["level"], data["trouble"]) == (2, 2, "timed_out")
    (written,) = (guard.project.parent / "store").glob("**/log/run-*.md")
    assert written.stat().st_mode & 0o077 == 0
    assert written.name in result.err
    assert "timed out" in written.read_text()
    assert guard("--json", "stats").data()["levels"]["2"]["total"] == 1


def test_rollback_on_failure(guard: Guard) -> None:
    """The state from before is back, the child's status is passed on."""
    before = manifest(guard.project)
    report = guard.project.parent / "report.json"
    result = guard(
        *("run", "--on-failure", "rollback", "--report", report, "--"),
        *("sh", "-c", "rm -r models train.py; (sleep 60; touch late) & exit 9"),
    )
    assert result.status == 9, result.said
    assert "rolled back" in result.err
    assert read(report)["rolled_back"] is True
    assert_back(before, manifest(guard.project))
    kinds = [operation["kind"] for operation in guard("--json", "log").data()["operations"]]
    assert kinds == ["rollback", "run"]
    assert guard("undo").status == 0
    assert not (guard.project / "train.py").exists()


def test_asking_without_a_terminal_keeps(guard: Guard) -> None:
    """`--on-failure ask` with nobody there does what `keep` does."""
    result = guard("run", "--on-failure", "ask", "--", "sh", "-c", "rm train.py; exit 1")
    assert result.status == 1
    assert not (guard.project / "train.py").exists()
    assert "guard rollback --last" in result.err


def test_retries_start_from_the_restored_state(guard: Guard) -> None:
    """A second attempt finds the project as the first did; the third is not needed."""
    outside = guard.project.parent / "attempts"
    script = (
        f"echo x >> {outside}; test ! -e half || exit 2; touch half; test $(wc -l < {outside}) = 2"
    )
    report = guard.project.parent / "report.json"
    result = guard("run", "--retries", "2", "--report", report, "--", "sh", "-c", script)
    assert result.status == 0, result.said
    assert outside.read_text() == "x\nx\n"
    assert read(report)["attempts"] == 2
    assert "attempt 1 of 3" in result.err


def test_retries_end(guard: Guard) -> None:
    """After the last attempt the status is passed on and what it left stays."""
    outside = guard.project.parent / "attempts"
    script = f"echo x >> {outside}; echo x >> left; exit 4"
    result = guard("run", "--retries", "1", "--", "sh", "-c", script)
    assert result.status == 4
    assert outside.read_text() == "x\nx\n"
    assert (guard.project / "left").read_text() == "x\n"
    late = guard(
        "run", "--retries", "2", "--retry-window", "1ms", "--", "sh", "-c", "sleep .1; exit 4"
    )
    assert late.status == 4


def test_a_folder_that_vanishes_under_the_run(guard: Guard) -> None:
    """The printed command names the project, and works from elsewhere."""
    before = manifest(guard.project)
    result = guard("run", "--", "sh", "-c", f"rm -rf {guard.project}; exit 1")
    assert result.status == 1, result.said
    line = next(line for line in result.err.splitlines() if "rollback --last" in line)
    words = line[line.index("guard --project") :].split()
    back = guard(*words[1:], "--yes", cwd=guard.project.parent)
    assert back.status == 0, back.said
    assert_back(before, manifest(guard.project))


def test_a_spoilt_configuration_that_moved_the_store(
    guard: Guard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store is found again although the file that named it is gone."""
    monkeypatch.delenv("GUARD_STORE")
    store = guard.project.parent / "moved"
    (guard.project / "guard.toml").write_text(f'[guard]\nstore = "{store}"\n')
    before = manifest(guard.project)
    assert guard("run", "--", "sh", "-c", "rm guard.toml train.py; exit 1").status == 1
    assert store.exists()
    back = guard("rollback", "--last", "--yes")
    assert back.status == 0, back.said
    assert_back(before, manifest(guard.project))


def test_a_store_that_moved_back_is_not_looked_for_where_it_was(
    guard: Guard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The configuration named a place once; a run that removes it now does not lead there."""
    monkeypatch.delenv("GUARD_STORE")
    configuration = guard.project / "guard.toml"
    configuration.write_text('[guard]\nstore = "../moved"\n')
    assert guard("run", "--", "true").status == 0
    configuration.write_text("[guard]\n")
    assert guard("run", "--", "sh", "-c", "rm guard.toml train.py").status == 0
    shown = guard("--json", "status").data()["store"]
    assert "state folder" in shown["why"]
    back = guard("rollback", "--last", "--yes")
    assert back.status == 0, back.said
    assert configuration.read_text() == "[guard]\n"
    assert (guard.project / "train.py").exists()


_PLANT = 'mkdir .guard; printf "guard store 1\\n" > .guard/STORE'
_MOVE = "printf '[guard]\\nstore = \"../elsewhere\"\\n' > guard.toml"


@pytest.mark.parametrize("hide", [_PLANT, _MOVE, f"{_PLANT}; {_MOVE}"])
def test_a_run_cannot_hide_the_store(
    guard: Guard, hide: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither by a store in the project nor by a configuration that names another place."""
    monkeypatch.delenv("GUARD_STORE")
    before = (guard.project / "train.py").read_text()
    assert guard("run", "--", "sh", "-c", f"{hide}; rm train.py; exit 1").status == 1
    assert guard("verify").status == 0
    back = guard("rollback", "--last", "--yes")
    assert back.status == 0, back.said
    assert (guard.project / "train.py").read_text() == before
    assert not (guard.project / "guard.toml").exists()
    named = guard("--store", "../another", "rollback", "--last", "--yes")
    assert named.status == 10, named.said


def test_what_a_run_left_running_is_named_by_the_rollback(guard: Guard) -> None:
    """A server in the background may be meant; that it writes on is said all the same."""
    script = "rm train.py; (setsid sleep 60 >/dev/null 2>&1 & echo $! > pid)"
    assert guard("run", "--", "sh", "-c", script).status == 0
    number = int((guard.project / "pid").read_text())
    try:
        back = guard("rollback", "--last", "--yes")
        assert back.status == 0, back.said
        assert f"{number} (sleep) of the run still runs: what it writes from now on" in back.err
    finally:
        os.kill(number, signal.SIGKILL)
    assert "still runs" not in guard("rollback", "--last", "--yes").err


@pytest.mark.parametrize("status", [0, 3])
def test_a_run_that_removes_the_store_has_no_way_back(guard: Guard, status: int) -> None:
    """`git clean -fdx` takes a store in the project along: nothing is promised any more."""
    store = Path(guard("--json", "status").data()["store"]["path"])
    result = guard("run", "--", "sh", "-c", f"rm -r '{store}'; rm train.py; exit {status}")
    assert result.status == status, result.said
    assert "the command removed guard's store" in result.err
    assert "there is no way back" in result.err
    assert "rollback --last" not in result.err


def test_an_interrupt_before_the_command(guard: Guard) -> None:
    """Ctrl-C during the snapshot is 130; the log says so and the next run is not blocked."""
    for number in range(4000):
        (guard.project / f"{number}.txt").write_text(f"{number}")
    popen = guard.start("run", "--", "touch", "ran")
    while not list(guard.project.parent.glob("store/work/*")):
        assert popen.poll() is None
        time.sleep(0.005)
    popen.send_signal(signal.SIGINT)
    popen.wait(timeout=60)
    said = guard.spoken.read_text()
    if popen.returncode == 0:
        pytest.skip("this machine is faster than the signal")
    assert popen.returncode == 130, said
    assert "Traceback" not in said
    assert not (guard.project / "ran").exists()
    (operation,) = guard("--json", "log").data()["operations"]
    assert operation["state"] == "interrupted"
    assert guard("run", "--", "true").status == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_request_to_end_before_the_command(number: signal.Signals, guard: Guard) -> None:
    """SIGTERM and SIGHUP end guard with 128 + n and a closed log."""
    for index in range(4000):
        (guard.project / f"{index}.txt").write_text(f"{index}")
    popen = guard.start("run", "--", "touch", "ran")
    while not list(guard.project.parent.glob("store/work/*")):
        assert popen.poll() is None
        time.sleep(0.005)
    popen.send_signal(number)
    popen.wait(timeout=60)
    said = guard.spoken.read_text()
    if popen.returncode == 0:
        pytest.skip("this machine is faster than the signal")
    assert popen.returncode == 128 + number, said
    assert "Traceback" not in said
    assert guard("run", "--", "true").status == 0


def test_old_snapshots_that_make_room_are_named(guard: Guard) -> None:
    """The quota is full of history: what goes for the present is said before the command."""
    (guard.project / "guard.toml").write_text('[guard]\nmax_store = "1500kB"\n')
    data = guard.project / "weights.bin"
    for _ in range(2):
        data.write_bytes(os.urandom(600_000))
        assert guard("snapshot").status == 0
    data.write_bytes(os.urandom(600_000))
    before = manifest(guard.project)
    run = guard("run", "--drill", "off", "--", "sh", "-c", "echo the child; rm weights.bin")
    assert run.status == 0, run.said
    assert "removed 1 old snapshot to make room (1)" in run.err, run.said
    assert "quota" not in run.err, run.said
    assert_back(before, guard.roll_back())


def test_old_snapshots_that_go_after_a_run_are_named(guard: Guard) -> None:
    """A store that is too large for its quota shrinks when a run ended; what went is said."""
    data = guard.project / "weights.bin"
    for _ in range(3):
        data.write_bytes(os.urandom(600_000))
        assert guard("snapshot").status == 0
    (guard.project / "guard.toml").write_text('[guard]\nmax_store = "1500kB"\n')
    dry = guard("prune", "--dry-run")
    assert "would go: the store is too large" in dry.out
    tight = guard("prune", "--dry-run", "--max-size", "10kB").out
    assert "too few: what is left has to stay" in tight
    assert "no rule keeps it" in guard("prune", "--dry-run", "--keep-last", "1").out
    run = guard("run", "--drill", "off", "--", "true")
    assert run.status == 0, run.said
    assert "to make room (1" in run.err, run.said
    numbers = [int(n) for n in re.findall(r"to make room \(([\d, ]+)\)", run.err)[0].split(", ")]
    assert all(guard("rollback", "--to", str(n), "--dry-run").status == 10 for n in numbers)
