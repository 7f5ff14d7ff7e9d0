"""`guard run` inside another one: of the same project, of another one, and when the outer died."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cli.test_run import read
from e2e.guard_command import EXECUTABLE, Guard, Result
from manifest import assert_back, manifest
from safeguards.supervisor import identify

GUARD = str(EXECUTABLE)
_QUICK = ("run", "--drill", "off")
_MIDDLE = """\
import ctypes, os, subprocess, sys, time
if sys.argv[1] == "another subreaper":
    assert ctypes.CDLL(None).prctl(36, 1, 0, 0, 0) == 0
subprocess.run([sys.executable, *sys.argv[2:]], check=True)
while not os.path.exists(sys.argv[4]):
    time.sleep(0.02)
print(os.getppid(), os.getpid())
"""
_DAEMON = """\
import os, subprocess, sys, time
said, *command = sys.argv[1:]
if os.fork():
    os._exit(0)
os.setsid()
first = os.getpid()
if os.fork():
    os._exit(0)
while os.getppid() == first:
    time.sleep(0.01)
done = subprocess.run(command, capture_output=True, text=True)
with open(said + ".tmp", "w") as file:
    file.write(f"{os.getppid()}\\n{done.returncode}\\n{done.stderr}")
os.rename(said + ".tmp", said)
"""


def inside(guard: Guard, script: str, *options: str) -> Result:
    """Run a shell script under guard in which `$G` is guard."""
    return guard(*_QUICK, *options, "--", "env", f"G={GUARD}", "sh", "-c", script)


def wait_for(condition: Callable[[], object], what: str) -> None:
    """Fail where a condition does not come about in 20 s."""
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


def kill_its_guard(guard: Guard, process: subprocess.Popen[bytes]) -> None:
    """Kill the guard of the first run once it has written down which command it started."""
    catalog = Path(os.environ["GUARD_STORE"]) / "catalog.db"

    def noted() -> bool:
        with contextlib.closing(sqlite3.connect(catalog)) as log:
            [(data,)] = log.execute("SELECT data FROM operation WHERE seq = 1")
        return "child" in json.loads(data)

    wait_for(noted, "the command was not written down")
    process.send_signal(signal.SIGKILL)
    process.wait(20)


def runs(guard: Guard) -> list[dict[str, Any]]:
    """Return the runs of the log, newest first."""
    data = guard("--json", "log").data()
    return [operation for operation in data["operations"] if operation["kind"] == "run"]


def test_a_run_inside_a_run_passes_through(guard: Guard) -> None:
    """The command runs; that nothing is taken twice is said once; one run is in the log."""
    before = manifest(guard.project)
    result = inside(guard, "$G run -- sh -c 'echo out; echo new > train.py; exit 3'; echo s=$?")
    assert result.status == 0, result.said
    assert result.out == "out\ns=3\n"
    assert len(re.findall(r"already protected by run 1 \(", result.err)) == 1, result.said
    assert result.err.count("snapshot  ") == 1, result.said
    assert [run["seq"] for run in runs(guard)] == [1]
    assert guard("rollback", "--last", "--yes").status == 0
    assert_back(before, manifest(guard.project))


@pytest.mark.parametrize("quiet", [(), ("-q",), ("-v",)])
def test_that_it_passes_through_is_said_also_where_guard_is_quiet(
    guard: Guard, quiet: tuple[str, ...]
) -> None:
    """It is a safeguard that is not there: never left out, never said twice."""
    result = inside(guard, " ".join(["$G", *quiet, "run", "--", "true"]))
    assert result.err.count("already protected by run 1") == 1, result.said


def test_the_report_of_an_inner_run_names_the_outer(guard: Guard) -> None:
    """`skipped` says why there is no snapshot of its own, `snapshot_id` is the outer's."""
    reports = [guard.project.parent / name for name in ("outer.json", "inner.json")]
    script = f"$G run --label inner --report {reports[1]} -- sh -c 'exit 5'; exit 6"
    assert inside(guard, script, "--report", str(reports[0])).status == 6
    outer, inner = read(reports[0]), read(reports[1])
    assert inner["snapshot_id"] == outer["snapshot_id"]
    assert inner["within"] == {"run_id": outer["run_id"], "run_seq": 1}
    assert outer["within"] is None
    assert (inner["run_id"], inner["run_seq"]) == ("", 0)
    assert (inner["child_exit"], inner["label"], inner["attempts"]) == (5, "inner", 1)
    assert inner["command"] == ["sh", "-c", "exit 5"]
    skips = [skip for skip in inner["skipped"] if "already protected by run 1" in skip["why"]]
    assert len(skips) == 1
    assert inner["drill"] is None
    assert inner["changes"] is None
    assert inner["trouble"] == "command_failed"
    assert [p["name"] for p in inner["phases"]] == ["preflight", "checks", "run"]


def test_json_of_an_inner_run_is_one_object(guard: Guard) -> None:
    """The last line on standard error, and nothing else of guard's."""
    result = inside(guard, "$G --json run -- sh -c 'exit 5' 2> inner.txt; exit 0")
    assert result.status == 0, result.said
    envelope = json.loads((guard.project / "inner.txt").read_text())
    assert envelope["exit_code"] == 5
    assert envelope["data"]["within"]["run_seq"] == 1
    assert envelope["errors"][0]["code"] == "command_failed"


def test_checks_and_targets_of_an_inner_run_hold(guard: Guard) -> None:
    """121 and 120 as ever, the command is not started, and the report is written."""
    (guard.project / "guard.toml").write_text(
        '[[check.params]]\nfile = "params.yaml"\n'
        "[check.params.ranges]\nlr = { min = 0.01, max = 1.0 }\n"
    )
    report = guard.project.parent / "report.json"
    script = f"echo 'lr: 7' > params.yaml; $G run --report {report} -- touch ran; echo $?"
    result = inside(guard, script)
    assert result.out == "121\n", result.said
    assert json.loads(report.read_text())["errors"][0]["code"] == "checks_failed"
    (guard.project / "params.yaml").write_text("lr: 0.1\n")
    script = (
        "echo '[guard]\nenvironment = \"production\"' > guard.toml;$G run -- touch ran; echo $?"
    )
    result = inside(guard, script)
    assert result.out == "120\n", result.said
    assert not (guard.project / "ran").exists()


@pytest.mark.parametrize(
    ("script", "status"),
    [("exit 7", 7), ("kill -9 $$", 137), ("kill -TERM $$", 143), ("no-such-program", 127)],
)
def test_statuses_pass_through_three_guards(guard: Guard, script: str, status: int) -> None:
    """A run in a run in a run ends with what its command ended with, and is told each time."""
    command = ["run", "--drill", "off", "--", GUARD, "run", "--", GUARD, "run", "--"]
    result = guard(*command, "sh", "-c", script)
    assert result.status == status, result.said
    assert result.err.count("already protected by run 1 (") == 2, result.said
    assert len(runs(guard)) == 1


def test_limits_of_an_inner_run_hold(guard: Guard) -> None:
    """`--timeout` ends the inner command and its tree, and nothing of the outer one."""
    result = inside(guard, "$G run --timeout 0.5s -- sh -c 'sleep 60 & sleep 60'; echo $?")
    assert result.out == "124\n", result.said
    assert result.status == 0


def test_streams_of_an_inner_run_are_its_own(guard: Guard) -> None:
    """Standard input reaches the command, and its output is all that is on standard output."""
    result = inside(guard, "printf 'to the child' | $G run -- cat | tr a-z A-Z")
    assert result.out == "TO THE CHILD", result.said


@pytest.mark.parametrize("detached", ["setsid", "setsid -f", "nohup"])
def test_an_orphan_in_a_session_of_its_own_is_known(guard: Guard, detached: str) -> None:
    """The tree of processes decides, not the session, and not the terminal."""
    done = guard.project.parent / "done"
    script = f"{detached} sh -c '$G run -- true 2> inner.txt; echo $? > {done}' &"
    script += f" while ! [ -s {done} ]; do sleep 0.05; done"
    result = inside(guard, script)
    assert result.status == 0, result.said
    assert done.read_text() == "0\n"
    assert "already protected by run 1" in (guard.project / "inner.txt").read_text()


@pytest.mark.parametrize("between", ["none", "another subreaper"])
def test_who_was_orphaned_hangs_below_the_nearest_subreaper(guard: Guard, between: str) -> None:
    """A daemon without parents is the outer guard's, or that of a subreaper in between."""
    said = guard.project.parent / "said"
    daemon = ["-c", _DAEMON, str(said), GUARD, "run", "--", "true"]
    result = guard(*_QUICK, "--", sys.executable, "-c", _MIDDLE, between, *daemon)
    assert result.status == 0, result.said
    parent, status, told = said.read_text().split("\n", 2)
    assert status == "0", told
    assert "already protected by run 1" in told
    of_guard, of_middle = result.out.split()
    assert parent == (of_guard if between == "none" else of_middle)


def test_a_container_does_not_see_what_is_around_it(guard: Guard) -> None:
    """11, for nothing proves that the holder is the run around; what to do then is said."""
    isolated = ["unshare", "-rpf", "--mount-proc"]
    if subprocess.run([*isolated, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no namespace of processes can be made here")
    result = inside(guard, f"{' '.join(isolated)} $G run -- touch ran; echo $?; ! [ -e ran ]")
    assert result.out == "11\n", result.said
    assert result.status == 0
    assert "a guard operation outside of this container is at work here: pid " in result.err
    assert "start it without guard" in result.err


def test_an_unrelated_guard_is_still_refused(guard: Guard, tmp_path: Path) -> None:
    """11 with pid and command, whatever its environment says."""
    script = f"env -0 > {tmp_path}/environ; while ! [ -e {tmp_path}/go ]; do sleep 0.05; done"
    process = guard.start(*_QUICK, "--", "sh", "-c", script)
    try:
        wait_for((tmp_path / "environ").exists, "the outer run did not start")
        wait_for((tmp_path / "environ").read_bytes, "the outer run did not start")
        words = (tmp_path / "environ").read_text().split("\0")
        copied = dict(word.split("=", 1) for word in words if word)
        result = Guard(guard.project, env=copied)(*_QUICK, "--", "true")
        assert result.status == 11, result.said
        assert f"another guard operation is at work here: pid {process.pid}, " in result.err
        assert "guard run" in result.err
    finally:
        (tmp_path / "go").touch()
        process.wait(20)


def test_what_the_lock_file_says_of_an_ancestor_is_not_believed(
    guard: Guard, tmp_path: Path
) -> None:
    """A run at work by somebody else protects nobody, though the lock names an ancestor."""
    script = f"touch {tmp_path}/ready; while ! [ -e {tmp_path}/go ]; do sleep 0.05; done"
    process = guard.start(*_QUICK, "--", "sh", "-c", script)
    try:
        wait_for((tmp_path / "ready").exists, "the outer run did not start")
        [lock] = (tmp_path / "store").glob("lock-*")
        who = json.loads(lock.read_bytes().strip(b" \0"))
        stat = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        who |= {"pid": os.getpid(), "start": int(stat[19])}
        lock.write_text(json.dumps(who).ljust(512))
        result = guard(*_QUICK, "--", "true")
        assert result.status == 11, result.said
        assert "already protected" not in result.err
    finally:
        (tmp_path / "go").touch()
        process.wait(20)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ("--on-failure rollback", "the rollback on failure"),
        ("--on-failure ask", "the rollback on failure"),
        ("--retries 2", "the retries"),
    ],
)
def test_what_would_restore_is_named_before_the_command(
    guard: Guard, options: str, named: str
) -> None:
    """An inner run cannot put back what the outer one owns: said first, and nothing is done."""
    script = f"$G run {options} -- sh -c 'echo begun >&2; echo x >> tries; exit 4'; echo $?"
    result = inside(guard, script)
    assert result.out == "4\n", result.said
    assert (guard.project / "tries").read_text() == "x\n"
    assert f"skipped {named}: " in result.err, result.said
    assert result.err.index(f"skipped {named}") < result.err.index("begun")
    assert "nothing was put back" in result.err[result.err.index("begun") :], result.said


def test_the_outer_run_puts_back_what_the_inner_one_did(guard: Guard) -> None:
    """A failure inside that is passed on ends in the rollback of the outer run."""
    before = manifest(guard.project)
    result = inside(guard, "$G run -- sh -c 'rm -r models; exit 4'", "--on-failure", "rollback")
    assert result.status == 4, result.said
    assert_back(before, manifest(guard.project))


@pytest.mark.parametrize("other", [False, True])
def test_a_probe_may_be_guarded(guard: Guard, tmp_path: Path, *, other: bool) -> None:
    """What a run starts after its rollback is inside of it, or of a project of its own."""
    place = tmp_path / "other" if other else guard.project
    place.mkdir(exist_ok=True)
    (place / "guard.toml").touch()
    command = f"{GUARD} --project {place} run --drill off -- touch {tmp_path}/probed"
    (guard.project / "guard.toml").write_text(f'[[probe]]\nname = "p"\ncommand = "{command}"\n')
    result = inside(guard, "rm train.py; exit 4", "--on-failure", "rollback")
    assert result.status == 4, result.said
    assert "the probe p failed" not in result.err, result.said
    assert "verified" in result.err, result.said
    assert (tmp_path / "probed").exists()
    assert (guard.project / "train.py").exists()
    (guard.project / "train.py").unlink()
    assert guard("rollback", "--last", "--yes").status == 0


def test_what_the_outer_run_did_not_take_is_named(guard: Guard, tmp_path: Path) -> None:
    """Another environment, a database elsewhere: they are not protected, and that is said."""
    other = tmp_path / "other-environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", other], check=True)
    folder = tmp_path / "registry"
    folder.mkdir()
    with contextlib.closing(sqlite3.connect(folder / "mlflow.db")) as database, database:
        database.execute("CREATE TABLE experiments (name TEXT)")
    report = tmp_path / "report.json"
    script = f"export MLFLOW_TRACKING_URI=sqlite:///{folder}/mlflow.db;"
    script += f"P={other}; $G run --report {report} -- $P/bin/python -c ''"
    result = inside(guard, script)
    assert result.status == 0, result.said
    whats = [skip["what"] for skip in read(report)["skipped"]]
    assert any(str(other) in what for what in whats), whats
    assert str(folder / "mlflow.db") in whats
    for what in (str(other), str(folder / "mlflow.db")):
        assert f"{what}" in result.err, result.said
    assert "run 1 around this one did not take it" in result.err


def test_what_the_outer_run_took_is_not_named(guard: Guard, tmp_path: Path) -> None:
    """An environment that the command made in the project goes with a rollback of the project."""
    report = tmp_path / "report.json"
    script = f"{sys.executable} -m venv --without-pip .venv;"
    script += f"$G run --report {report} -- .venv/bin/python -c ''"
    result = inside(guard, script)
    assert result.status == 0, result.said
    assert "did not take it" not in result.err


@pytest.mark.parametrize("own_store", [True, False])
def test_another_project_has_a_snapshot_of_its_own(
    guard: Guard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, own_store: bool
) -> None:
    """Each comes back alone, the inner one while the outer one is at work."""
    other = tmp_path / "other"
    other.mkdir()
    (other / "guard.toml").touch()
    (other / "model").write_text("before")
    if own_store:
        monkeypatch.delenv("GUARD_STORE")
    script = f"echo changed > train.py; cd {other};"
    script += f"$G --project {other} run --drill off -- sh -c 'echo after > model'; echo $?;"
    script += "$G rollback --last --yes; echo $?; cat model"
    result = inside(guard, script)
    assert result.status == 0, result.said
    lines = result.out.splitlines()
    assert (lines[0], lines[-2], lines[-1]) == ("0", "0", "before"), result.said
    assert "already protected" not in result.err
    assert (guard.project / "train.py").read_text() == "changed\n"
    assert guard("rollback", "--last", "--yes").status == 0
    assert (guard.project / "train.py").read_text() == "print('training')\n"


READING = (
    *("status", "log", "show last", "diff --stat", "verify", "check", "check machine", "stats"),
    *("report -o page.html", "prune --dry-run", "rollback --last --dry-run", "hook pre-commit"),
)


def test_reading_ones_work_inside(guard: Guard) -> None:
    """What only looks is answered at once, with no word of a lock."""
    subprocess.run(["git", "init", "-q"], cwd=guard.project, check=True)
    script = "".join(f"$G {verb} > /dev/null 2> err.txt; echo $?; cat err.txt;" for verb in READING)
    result = inside(guard, f"echo changed > train.py; {script}")
    assert result.status == 0, result.said
    statuses = [line for line in result.out.splitlines() if line.isdecimal()]
    expected = ["1" if verb.startswith("diff") else "0" for verb in READING]
    assert statuses == expected, result.said
    assert "at work here" not in result.out + result.err


WRITING = (
    *("snapshot", "rollback --last --yes", "drill", "prune --keep-last 1", "verify --repair"),
    *("undo", "redo"),
)


@pytest.mark.parametrize("verb", WRITING)
def test_writing_ones_name_the_run_around(guard: Guard, verb: str) -> None:
    """11: it is the run around this very command, and what to do next is said."""
    (guard.project / "train.py").write_text("first")
    assert guard(*_QUICK, "--", "sh", "-c", "echo a > train.py").status == 0
    assert guard("rollback", "--last", "--yes").status == 0
    if verb == "redo":
        assert guard("undo").status == 0
    result = inside(guard, f"echo changed > train.py; $G {verb} < /dev/null; echo $?; cat train.py")
    assert result.out == "11\nchanged\n", result.said
    assert "the guard operation around this command" in result.err, result.said
    assert re.search(r"next:.*when (it|that) has ended", result.err), result.said
    assert "another guard operation" not in result.err


def test_a_question_is_not_asked_for_nothing(guard: Guard) -> None:
    """Without a terminal and without --yes the plan is shown, as ever, and the status is 2."""
    result = inside(guard, "echo changed > train.py; $G rollback --last < /dev/null; echo $?")
    assert result.out == "2\n", result.said


def test_nobody_is_asked_what_cannot_be_done(guard: Guard) -> None:
    """On a terminal the refusal comes at once, in place of the plan and the question."""
    spawn = "import os, pty, sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))"
    script = f"echo changed > train.py; {sys.executable} -c '{spawn}' $G rollback --last; echo $?"
    result = inside(guard, script)
    assert result.out.endswith("\n11\n"), result.said
    assert "put this back?" not in result.out


def test_a_command_that_outlives_its_guard_is_guarded_anew(guard: Guard, tmp_path: Path) -> None:
    """A killed outer run holds no lock: the inner one names it, and takes its own snapshot."""
    script = f"echo bad > train.py; touch {tmp_path}/ready;"
    script += f" while ! [ -e {tmp_path}/go ]; do sleep 0.05; done;"
    script += f" {GUARD} run --drill off -- sh -c 'echo worse > train.py' 2> {tmp_path}/inner;"
    script += f" echo $? > {tmp_path}/done"
    before = manifest(guard.project)
    process = guard.start(*_QUICK, "--", "sh", "-c", script)
    wait_for((tmp_path / "ready").exists, "the outer run did not start")
    kill_its_guard(guard, process)
    (tmp_path / "go").touch()
    wait_for((tmp_path / "done").exists, "the inner run did not end")
    wait_for((tmp_path / "done").read_text, "the inner run did not end")
    told = (tmp_path / "inner").read_text()
    assert (tmp_path / "done").read_text() == "0\n", told
    assert "already protected" not in told
    found = re.search(r"run 1 did not finish; to put its changes back: guard (.*)", told)
    assert found, told
    # By now there is a newer run: what was said then leads to the state before the first.
    assert guard(*found[1].split(), "--yes").status == 0
    assert_back(before, manifest(guard.project))


def test_a_rollback_does_not_end_the_command_that_asks_for_it(guard: Guard, tmp_path: Path) -> None:
    """Called by what a killed run left running, it is answered, and its caller goes on."""
    script = f"echo bad > train.py; touch {tmp_path}/ready;"
    script += f" while ! [ -e {tmp_path}/go ]; do sleep 0.05; done;"
    script += f" {GUARD} rollback --last --yes > {tmp_path}/said 2>&1;"
    script += f" echo $? > {tmp_path}/done"
    process = guard.start(*_QUICK, "--", "sh", "-c", script)
    wait_for((tmp_path / "ready").exists, "the outer run did not start")
    kill_its_guard(guard, process)
    (tmp_path / "go").touch()
    wait_for((tmp_path / "done").exists, "the caller of the rollback was ended")
    wait_for((tmp_path / "done").read_text, "the caller of the rollback was ended")
    told = (tmp_path / "said").read_text()
    assert (tmp_path / "done").read_text() == "0\n", told
    assert (guard.project / "train.py").read_text() == "print('training')\n"
    assert "still runs: what it writes from now on stays" in told


def test_what_a_killed_run_left_is_ended_also_after_a_newer_run(
    guard: Guard, tmp_path: Path
) -> None:
    """A rollback to before it ends its command, or that would go on writing."""
    pid = tmp_path / "pid"
    script = f"echo bad > train.py; echo $$ > {pid}.tmp; mv {pid}.tmp {pid}; exec sleep 60"
    process = guard.start(*_QUICK, "--", "sh", "-c", script)
    wait_for(pid.exists, "the outer run did not start")
    kill_its_guard(guard, process)
    assert guard(*_QUICK, "--", "true").status == 0
    assert identify(int(pid.read_text()))
    assert guard("rollback", "--to", "1", "--yes").status == 0
    assert identify(int(pid.read_text())) is None
    assert (guard.project / "train.py").read_text() == "print('training')\n"
