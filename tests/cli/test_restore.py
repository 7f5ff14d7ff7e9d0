"""rollback, undo, redo and the commands that look: as scripts and people see them."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import pty
import select
import signal
import sqlite3
import subprocess
import time
from pathlib import Path

import pytest

from database_processes import serving
from e2e.guard_command import EXECUTABLE, Guard
from manifest import assert_back, manifest


@pytest.fixture
def spoilt(guard: Guard) -> Guard:
    """Return guard for a project after a bad run."""
    script = "rm -r models; echo bad > params.yaml; echo new > new.txt; exit 1"
    assert guard("run", "--", "sh", "-c", script).status == 1
    return guard


def test_rollback_undo_redo(guard: Guard) -> None:
    """Each takes the one before back, byte for byte, and says what to type next."""
    before = manifest(guard.project)
    guard("run", "--", "sh", "-c", "rm -r models; echo bad > params.yaml; exit 1")
    after = manifest(guard.project)
    result = guard("rollback", "--last", "--yes")
    assert result.status == 0, result.said
    assert "guard undo" in result.out
    assert_back(before, manifest(guard.project))
    undo = guard("--json", "undo")
    assert undo.status == 0, undo.said
    assert undo.data()["verified"] is True
    assert_back(after, manifest(guard.project))
    assert guard("redo").status == 0
    assert_back(before, manifest(guard.project))
    assert guard("redo").status == 10


def test_without_a_terminal_and_without_yes(spoilt: Guard) -> None:
    """The plan is shown, nothing is changed, and the command to type is complete."""
    before = manifest(spoilt.project)
    result = spoilt("rollback", "--last", "--only", "configuration", "params.yaml")
    assert result.status == 2, result.said
    assert "params.yaml" in result.err
    command = "guard rollback --last --only configuration params.yaml --yes"
    assert command in result.err
    assert_back(before, manifest(spoilt.project))
    assert spoilt(*command.split()[1:]).status == 0
    assert (spoilt.project / "params.yaml").read_text() == "lr: 0.1\n"
    assert not (spoilt.project / "models").exists()


def test_the_plan(spoilt: Guard) -> None:
    """`--dry-run` is a result: on standard output, with status 0, as text and as JSON."""
    before = manifest(spoilt.project)
    text = spoilt("rollback", "--last", "--dry-run")
    assert text.status == 0, text.said
    for path in ("models", "params.yaml", "new.txt"):
        assert path in text.out
    data = spoilt("--json", "rollback", "--last", "--dry-run").data()
    assert {"models/", "params.yaml", "new.txt"} <= {step["path"] for step in data["plan"]}
    assert data["elapsed_s"] is None
    assert data["verified"] is False
    assert_back(before, manifest(spoilt.project))
    assert [o["kind"] for o in spoilt("--json", "log").data()["operations"]] == ["run"]


def test_the_outcome_in_json(spoilt: Guard) -> None:
    """The contract's fields, with probes and figures."""
    probe = '[[probe]]\nname = "there"\ncommand = "test -e models/best.bin"\n'
    spoilt("rollback", "--last", "--yes")
    (spoilt.project / "guard.toml").write_text(probe)
    assert spoilt("run", "--", "sh", "-c", "rm -r models guard.toml; exit 1").status == 1
    result = spoilt("--json", "rollback", "--last", "--yes")
    assert result.status == 0, result.said
    data = result.data()
    assert data["within_budget"] is True
    assert data["elapsed_s"] < data["budget_s"] == 300
    assert data["undo_id"]
    assert [(p["name"], p["passed"]) for p in data["probes"]] == [("there", True)]


def test_a_failed_probe_is_said_with_a_status(guard: Guard) -> None:
    """The state is back, and guard does not claim that all is well."""
    probe = '[[probe]]\nname = "loads"\ncommand = "echo cannot load >&2; exit 4"\n'
    (guard.project / "guard.toml").write_text(probe)
    before = manifest(guard.project)
    guard("run", "--", "rm", "params.yaml")
    result = guard("--json", "rollback", "--last", "--yes")
    assert result.status == 1, result.said
    envelope = json.loads(result.out)
    assert envelope["errors"][0]["code"] == "probe_failed"
    assert "cannot load" in envelope["errors"][0]["message"]
    assert_back(before, manifest(guard.project))


def test_over_budget_is_said_with_a_status(spoilt: Guard) -> None:
    """The rollback is done, and its time is told."""
    (spoilt.project / "guard.toml").write_text('[guard]\nbudget = "1ms"\n')
    result = spoilt("rollback", "--last", "--yes", "params.yaml")
    assert result.status == 1, result.said
    assert "budget" in result.err
    assert (spoilt.project / "params.yaml").read_text() == "lr: 0.1\n"


def test_services_are_down_meanwhile(guard: Guard) -> None:
    """Stopped before, started after."""
    log = guard.project.parent / "service.log"
    (guard.project / "guard.toml").write_text(
        f'[[service]]\nname = "s"\nstop = "ls > {log}"\nstart = "ls >> {log}; echo up >> {log}"\n'
    )
    guard("run", "--", "rm", "train.py")
    assert guard("rollback", "--last", "--yes").status == 0
    lines = log.read_text().split()
    assert lines.count("train.py") == 1
    assert lines[-1] == "up"
    assert lines.index("train.py") > lines.index("params.yaml")


def test_wrong_paths(spoilt: Guard) -> None:
    """A path outside the project is refused; one that never was is named, and changes nothing."""
    for path in ("../other", "/etc/passwd"):
        result = spoilt("rollback", "--last", "--yes", path)
        assert result.status == 2, result.said
        assert "not in the project" in result.err
    before = manifest(spoilt.project)
    empty = spoilt("rollback", "--last", "--yes", "")  # a variable that was never set
    assert empty.status == 2, empty.said
    misspelt = spoilt("rollback", "--last", "--yes", "never/was")
    assert misspelt.status == 10, misspelt.said
    assert "there is no never/was" in misspelt.err
    assert_back(before, manifest(spoilt.project))


def test_paths_start_where_the_user_stands(guard: Guard) -> None:
    """In a subfolder, a relative path is below that folder."""
    (guard.project / "guard.toml").touch()
    guard("run", "--", "sh", "-c", "rm models/best.bin params.yaml")
    result = guard("rollback", "--last", "--yes", "best.bin", cwd=guard.project / "models")
    assert result.status == 0, result.said
    assert (guard.project / "models" / "best.bin").exists()
    assert not (guard.project / "params.yaml").exists()


def test_a_project_that_became_a_link_is_named(guard: Guard, tmp_path: Path) -> None:
    """Not what is behind the link, which may be a home; where it is no more, all is back."""
    before = manifest(guard.project)
    home = tmp_path / "home"
    home.mkdir()
    there = Guard(guard.project, env={"HOME": str(home)})
    there("run", "--", "sh", "-c", f"cd /; rm -rf {guard.project}; ln -s {home} {guard.project}")
    words = ("--project", guard.project, "rollback", "--last", "--yes")
    result = there(*words, cwd=tmp_path)
    assert result.status == 2, result.said
    assert f"{guard.project} was a folder and is a link to {home} now" in result.err
    assert f"rm {guard.project} removes the link alone" in result.err
    assert list(home.iterdir()) == []
    guard.project.unlink()
    assert there(*words, cwd=tmp_path).status == 0
    assert_back(before, manifest(guard.project))


def test_a_project_around_the_home_that_lost_its_mark(guard: Guard) -> None:
    """It was one when the snapshot was taken, so it is put back as one."""
    (guard.project / "guard.toml").touch()
    (guard.project / "home").mkdir()
    before = manifest(guard.project)
    there = Guard(guard.project, env={"HOME": str(guard.project / "home")})
    assert there("run", "--", "sh", "-c", "rm guard.toml params.yaml; exit 1").status == 1
    result = there("rollback", "--last", "--yes")
    assert result.status == 0, result.said
    assert_back(before, manifest(guard.project))


def test_a_snapshot_of_another_project_is_refused(guard: Guard, tmp_path: Path) -> None:
    """One store for two projects: neither is rolled back to the other's state."""
    guard("run", "--", "rm", "params.yaml")
    other = tmp_path / "other"
    other.mkdir()
    (other / "mine.txt").write_text("precious")
    before = manifest(other)
    for words in (("--last",), ("--to", "1")):
        result = guard("rollback", *words, "--yes", cwd=other)
        assert result.status == 10, result.said
        assert str(guard.project) in result.err
    assert_back(before, manifest(other))


def test_a_command_that_outlived_its_guard_is_ended_first(guard: Guard) -> None:
    """Killed by signal 9, guard leaves the command running; the rollback ends it."""
    before = manifest(guard.project)
    script = "trap '' TERM HUP; rm params.yaml; touch up; while :; do sleep .1; echo x >> w; done"
    popen = guard.start("run", "--drill", "off", "--", "bash", "-c", script)
    while not (guard.project / "up").exists():
        assert popen.poll() is None
        time.sleep(0.01)
    time.sleep(0.2)
    popen.kill()
    popen.wait()
    status = guard("status")
    assert "unfinished run 1" in status.out
    assert "guard rollback --last" in status.out
    result = guard("rollback", "--last", "--yes")
    assert result.status == 0, result.said
    assert_back(before, manifest(guard.project))
    time.sleep(0.5)
    assert_back(before, manifest(guard.project))
    assert "unfinished" not in guard("status").out


def test_asked_on_a_terminal(spoilt: Guard) -> None:
    """The plan is shown and the answer obeyed: no changes nothing, yes puts back."""
    before = manifest(spoilt.project)
    status, said = on_terminal(spoilt, ["rollback", "--last"], b"n\n")
    assert status == 1, said
    assert "params.yaml" in said
    assert_back(before, manifest(spoilt.project))
    status, said = on_terminal(spoilt, ["rollback", "--last"], b"y\n")
    assert status == 0, said
    assert (spoilt.project / "models" / "best.bin").exists()


def test_ctrl_c_at_the_question(spoilt: Guard) -> None:
    """130, nothing is changed, and the terminal's line is not left open."""
    before = manifest(spoilt.project)
    status, said = on_terminal(spoilt, ["rollback", "--last"], b"\x03")
    assert status == 130, said
    assert "Traceback" not in said
    assert_back(before, manifest(spoilt.project))


def test_asking_after_a_failure(guard: Guard) -> None:
    """`--on-failure ask` on a terminal rolls back when told to."""
    words = ["run", "--on-failure", "ask", "--", "sh", "-c", "rm train.py; exit 6"]
    status, said = on_terminal(guard, words, b"y\n")
    assert status == 6, said
    assert (guard.project / "train.py").exists()


def on_terminal(guard: Guard, words: list[str], typed: bytes) -> tuple[int, str]:
    """Run guard on a terminal, type when it asks, and return its status and what it said."""
    master, slave = pty.openpty()
    popen = subprocess.Popen(
        ["setsid", "--ctty", "--wait", EXECUTABLE, *words],
        cwd=guard.project,
        env={**os.environ, "TERM": "xterm", "NO_COLOR": "1"},
        stdin=slave,
        stdout=slave,
        stderr=slave,
    )
    os.close(slave)
    said = b""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if select.select([master], [], [], 0.1)[0]:
            try:
                chunk = os.read(master, 4096)
            except OSError:  # the other side is closed
                break
            said += chunk
            if typed and b"[y/N]" in said:
                os.write(master, typed)
                typed = b""
        elif popen.poll() is not None:
            break
    os.close(master)
    if popen.poll() is None and time.monotonic() >= deadline:
        popen.send_signal(signal.SIGKILL)
    return popen.wait(), said.decode("utf-8", "replace")


def test_log_show_diff_stats(spoilt: Guard) -> None:
    """What was done can be read, by number, beginning of an id, and `last`."""
    log = spoilt("log")
    assert "exit 1" in log.out
    data = spoilt("--json", "log").data()["operations"][0]
    for reference in ("1", data["id"][:4], data["id"], "last"):
        assert spoilt("--json", "show", reference).data()["seq"] == 1
    assert "params.yaml" not in spoilt("show", "1").err
    diff = spoilt("diff")
    assert diff.status == 1
    for line in ("-  models", "~  params.yaml", "+  new.txt"):
        assert line in diff.out, diff.said
    stat = spoilt("--json", "diff", "--stat").data()
    assert "changes" not in stat
    assert stat["counts"]["modified"] >= 1
    assert spoilt("snapshot", "--label", "after").status == 0
    assert spoilt("diff").status == 0
    assert spoilt("diff", "1", "2").status == 1
    assert spoilt("diff", "2", "2").status == 0
    assert "0 of 1 succeeded" in spoilt("stats").out
    assert spoilt("show", "99").status == 10


def test_verify_and_prune(spoilt: Guard) -> None:
    """The store is read, and old snapshots go only when they are named first."""
    for number in range(3):
        (spoilt.project / "params.yaml").write_text(f"lr: {number}\n")
        assert spoilt("snapshot").status == 0
    assert spoilt("verify").status == 0
    shown = spoilt("--json", "prune", "--keep-last", "1", "--keep-days", "0", "--dry-run").data()
    assert len(shown["removed"]) == 3
    assert all(kept["why"] for kept in shown["kept"])
    assert len(spoilt("--json", "log").data()["operations"]) == 4
    assert spoilt("rollback", "--to", "1", "--dry-run").status == 0
    done = spoilt("--json", "prune", "--keep-last", "1", "--keep-days", "0").data()
    assert [s["seq"] for s in done["removed"]] == [s["seq"] for s in shown["removed"]]
    assert spoilt("rollback", "--to", "1", "--dry-run").status == 10
    assert spoilt("verify").status == 0


def test_damage_is_named_with_its_status(spoilt: Guard) -> None:
    """`verify` answers 1 and names the files; a rollback that needs them answers 12."""
    packs = list((spoilt.project.parent / "store" / "packs").iterdir())
    assert packs
    for pack in packs:
        content = bytearray(pack.read_bytes())
        content[len(content) // 2] ^= 1
        pack.write_bytes(bytes(content))
    result = spoilt("verify")
    assert result.status == 1, result.said
    assert "guard verify --repair" in result.err
    assert spoilt("--json", "verify").data()["damage"]


def test_a_repair_that_mends_everything_is_done(guard: Guard) -> None:
    """The answer is no only where something is damaged still: `mended` is not `damaged`."""
    assert guard("snapshot").status == 0
    for pack in (guard.project.parent / "store" / "packs").iterdir():
        pack.unlink()
    assert guard("verify").status == 1
    mended = guard("--json", "verify", "--repair")
    assert mended.status == 0, mended.said
    damage = mended.data()["damage"]
    assert damage
    assert all(one["repaired"] for one in damage)
    assert guard("verify", "--repair").status == 0
    assert guard("verify").status == 0


def test_a_lost_catalog_is_made_again(spoilt: Guard) -> None:
    """The hint of every other command leads out of it."""
    before = spoilt("--json", "log").data()["operations"]
    (spoilt.project.parent / "store" / "catalog.db").unlink()
    lost = spoilt("rollback", "--last", "--yes")
    assert lost.status == 12, lost.said
    assert "guard verify --repair" in lost.err
    mended = spoilt("verify", "--repair")
    assert mended.status == 0, mended.said
    assert "the catalog was made again" in mended.err
    assert len(spoilt("--json", "log").data()["operations"]) == len(before)
    assert spoilt("rollback", "--last", "--yes").status == 0


def test_seal_and_schema(guard: Guard) -> None:
    """The manifest is one that sha256sum reads; the schema is YAML on standard output."""
    assert guard("seal", "models").status == 0
    check = ["sha256sum", "-c", "SHA256SUMS"]
    subprocess.run(check, cwd=guard.project / "models", check=True, capture_output=True)
    assert guard("--json", "seal", "models", "-o", "sums").data()["files"][0]["sha256"]
    schema = guard("schema", "infer", "data.csv")
    assert schema.status == 0, schema.said
    assert "columns:" in schema.out
    assert guard("schema", "infer", "data.csv", "-o", "schema.yaml").status == 0
    assert (guard.project / "schema.yaml").read_text().rstrip() == schema.out.rstrip()
    assert guard("--json", "schema", "infer", "data.csv").data()["schema"]


def test_init(guard: Guard) -> None:
    """It writes what is valid and about this project, never over what is there."""
    shown = guard("init", "--dry-run")
    assert shown.status == 0
    assert not (guard.project / "guard.toml").exists()
    result = guard("init")
    assert result.status == 0, result.said
    text = (guard.project / "guard.toml").read_text()
    assert text.rstrip() == shown.out.rstrip()
    assert 'path = "data.csv"' in text
    assert guard("init").status == 2
    assert guard("init", "--force").status == 0
    assert guard("status").status == 0
    assert guard("check").status == 0
    run = guard("run", "--", "true")
    assert run.status == 0, run.said
    assert "checks" in run.err


def test_every_answer_is_one_json_object(spoilt: Guard) -> None:
    """Each command's object has the envelope, and nothing is said beside it."""
    every = (
        *("status", "log", "show 1", "diff", "drill", "verify", "stats", "check", "snapshot"),
        *("prune --dry-run", "init --dry-run", "rollback --last --yes"),
        *("undo --dry-run", "undo", "redo"),
    )
    for words in map(str.split, every):
        result = spoilt(*words, "--json")
        assert result.status in {0, 1}, result.said
        assert result.out.count("\n") == 1, result.said
        result.data()
        assert json.loads(result.out)["command"] == words[0]
        assert result.err == "", result.said


def test_ctrl_c_at_the_question_after_a_failure(guard: Guard) -> None:
    """The command's status is passed on, nothing is put back, and the log is closed."""
    words = ["run", "--on-failure", "ask", "--", "sh", "-c", "rm train.py; exit 6"]
    status, said = on_terminal(guard, words, b"\x03")
    assert status == 6, said
    assert "guard rollback --last" in said
    assert not (guard.project / "train.py").exists()
    (operation,) = guard("--json", "log").data()["operations"]
    assert (operation["state"], operation["child_exit"]) == ("failed", 6)


def test_ctrl_c_while_the_probes_run(guard: Guard) -> None:
    """The state is back and that is said; the status says that guard was interrupted."""
    probe = '[[probe]]\nname = "slow"\ncommand = "touch ../probing; sleep 50"\ntimeout = "55s"\n'
    (guard.project / "guard.toml").write_text(probe)
    before = manifest(guard.project)
    guard("run", "--", "rm", "train.py")
    popen = guard.start("rollback", "--last", "--yes")
    while not (guard.project.parent / "probing").exists():
        assert popen.poll() is None
        time.sleep(0.01)
    popen.send_signal(signal.SIGINT)
    assert popen.wait(timeout=20) == 130
    said = guard.spoken.read_text()
    assert "put back" in said
    assert "interrupted" in said
    assert_back(before, manifest(guard.project))


def test_json_of_a_run_is_on_standard_error(guard: Guard) -> None:
    """One object, alone; standard output is the command's also when nothing was started."""
    for words, status in ((["sh", "-c", "exit 3"], 3), (["no-such-command"], 127)):
        result = guard("--json", "run", "--", *words)
        assert result.out == ""
        envelope = json.loads(result.err)
        assert (envelope["command"], envelope["exit_code"]) == ("run", status)
        assert envelope["data"]["child_exit"] == (3 if status == 3 else None)


def test_a_run_that_is_looked_after_is_left_alone(guard: Guard) -> None:
    """While guard is with its command, a rollback is refused with 11 and ends nothing."""
    script = "rm params.yaml; touch up; while test ! -e enough; do sleep .05; done; exit 8"
    popen = guard.start("run", "--drill", "off", "--", "sh", "-c", script)
    while not (guard.project / "up").exists():
        assert popen.poll() is None
        time.sleep(0.01)
    for words in (("rollback", "--last", "--yes"), ("snapshot",), ("run", "--", "true")):
        result = guard(*words)
        assert result.status == 11, result.said
        assert str(popen.pid) in result.err
    for look in ("status", "log", "show 1", "stats", "verify"):
        assert guard(*look.split()).status == 0
    assert guard("diff").status == 1
    (guard.project / "enough").touch()
    assert popen.wait(timeout=30) == 8


def test_who_goes_on_with_a_deleted_database_is_named(guard: Guard) -> None:
    """All is back, and the server that cannot know it has to be restarted: no failure."""
    database = guard.project / "mlflow.db"
    with contextlib.closing(sqlite3.connect(database)) as made, made:
        made.execute("CREATE TABLE runs (id INTEGER)")
    before = database.read_bytes()
    with serving(database) as server:
        assert guard("run", "--", "rm", "mlflow.db").status == 0
        done = guard("rollback", "--last", "--yes")
        assert done.status == 0, done.said
        assert f"restart pid {server.pid} (" in done.out
    assert database.read_bytes() == before


def test_what_is_said_of_damage_is_plain_and_its_next_command_right(guard: Guard) -> None:
    """The path, once; the rest of this very snapshot, not of the newest run's."""
    content = os.urandom(1_500_000)
    (guard.project / "big.ckpt").write_bytes(content)
    assert guard("snapshot").status == 0
    assert guard("run", "--", "sh", "-c", "echo 3 > params.yaml; rm big.ckpt").status == 0
    assert guard("run", "--", "sh", "-c", "echo 4 > params.yaml").status == 0
    name = hashlib.sha256(content).hexdigest()
    blob = next((guard.project.parent / "store" / "loose").rglob(name))
    blob.chmod(0o600)
    blob.write_bytes(b"\0" + content[1:])
    said = guard("verify")
    assert said.status == 1, said.said
    assert f"damaged  blob {name[:16]}: its content does not match its hash\n" in said.out
    result = guard("rollback", "--to", "1", "--yes")
    assert result.status == 12, result.said
    assert "content of big.ckpt is damaged; nothing was changed\n" in result.err
    command = "guard rollback --to 1 params.yaml"
    assert command in result.err
    assert guard(*command.split()[1:], "--yes").status == 0
    assert (guard.project / "params.yaml").read_text() == "lr: 0.1\n"


def test_nothing_to_put_back_speaks_of_what_was_asked(spoilt: Guard) -> None:
    """A part that is as it was says nothing of the rest, which differs."""
    for part in (("train.py",), ("--only", "code", "train.py")):
        for last in ("--dry-run", "--yes"):
            said = spoilt("rollback", "--last", *part, last)
            assert said.status == 0, said.said
            assert "nothing to put back: what was chosen is as in snapshot 1" in said.out
    assert spoilt("rollback", "--last", "--yes").status == 0
    assert "everything is as in snapshot 1" in spoilt("rollback", "--last", "--dry-run").out


def test_show_says_each_thing_once(guard: Guard) -> None:
    """The command whole, and what came of it in words; one of anything is not called many."""
    (guard.project / "one").mkdir()
    (guard.project / "one" / "file").write_text("x")
    script = "rm -r one; echo bad > params.yaml; exit 3"
    assert guard("run", "--label", "try", "--", "sh", "-c", script).status == 3
    said = guard("show", "1").out
    assert said.count("sh -c") == 1
    lines = [line.split(None, 1) for line in said.splitlines()[:6]]
    assert ["ended", "exit 3"] in lines
    assert ["changed", "2 files (1 modified, 1 deleted)"] in lines
    assert ["label", "try"] in lines
    plan = guard("rollback", "--last", "--dry-run").out
    assert "one/" in plan
    assert "1 file\n" in plan


def test_the_log_and_the_store_are_told_in_bounds(guard: Guard) -> None:
    """What is left out is counted, with the option that shows it; an empty name is none."""
    for number in range(50):
        (guard.project / f"{number}.bin").write_bytes(os.urandom(1_050_000))
    for _ in range(3):
        assert guard("snapshot").status == 0
    assert guard("log", "-n", "1").out.endswith("and 2 older: guard log -n 3\n")
    assert guard("--json", "log", "-n", "1").data()["older"] == 2
    assert "older" not in guard("log").out
    for path in (guard.project.parent / "store" / "loose").rglob("*"):
        if path.is_file():
            path.unlink()
    said = guard("verify")
    assert "and 10 more (-v shows all)\n" in said.out
    assert said.out.count("damaged  blob") == 40
    assert guard("-v", "verify").out.count("damaged  blob") == 50
    for command in ("show", "drill"):
        assert "'' fits no snapshot: name one" in guard(command, "").err
    both = guard("rollback", "--last", "--to", "1")
    assert (both.status, "--last and --to name two states" in both.err) == (2, True)


def test_a_probe_that_fails_after_an_undo_names_what_takes_that_back(guard: Guard) -> None:
    """A second undo would go further back: it is the redo."""
    probe = '[[probe]]\nname = "there"\ncommand = "test -e models/best.bin"\n'
    (guard.project / "guard.toml").write_text(probe)
    assert guard("run", "--", "rm", "models/best.bin").status == 0
    assert guard("rollback", "--last", "--yes").status == 0
    undone = guard("undo")
    assert undone.status == 1
    assert "next: guard redo takes it back" in undone.err
    assert guard("redo").status == 0


def test_changes_are_counted_alike_in_both_directions(guard: Guard) -> None:
    """A folder that comes in whole stands for its files."""
    folder = guard.project / "many"
    (folder / "deep").mkdir(parents=True)
    for number in range(9):
        (folder / "deep" / f"{number}.txt").write_text("x")
    (folder / "link").symlink_to("deep")
    assert guard("run", "--", "rm", "-r", "many", "train.py").status == 0
    assert "11 changes, " in guard("rollback", "--last", "--dry-run").out
    for words in ("rollback --last --yes", "undo", "redo"):
        assert "put back 11 changes" in guard(*words.split()).out
        assert "11 changes" in guard("log", "-n", "1").out


@pytest.mark.parametrize(
    ("words", "status"),
    [(("--budget", "1ms", "--", "true"), 122), (("--", "./nowhere"), 127), (("--", "cat"), 0)],
)
def test_a_command_that_was_not_started_is_not_the_last_run(
    guard: Guard, words: tuple[str, ...], status: int
) -> None:
    """It changed nothing; what is to be taken back is what the one before did."""
    before = manifest(guard.project)
    guard("run", "--", "sh", "-c", "rm -r models; echo bad > params.yaml; exit 1")
    spoilt = manifest(guard.project)
    assert guard("run", *words).status == status
    result = guard("rollback", "--last", "--yes")
    assert result.status == 0, result.said
    assert_back(before if status else spoilt, manifest(guard.project))
