"""`guard status`: what is protected, what cannot be, what is at work and what was left."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sqlite3
import time
from dataclasses import replace
from pathlib import Path

from e2e.guard_command import Guard


def make(path: Path) -> None:
    """Make a database."""
    with contextlib.closing(sqlite3.connect(path)) as database, database:
        database.execute("CREATE TABLE runs (id INTEGER)")


def databases(guard: Guard) -> list[str]:
    """Return the databases that guard says it protects."""
    protected = guard("--json", "status").data()["protected"]
    return sorted(p["name"] for p in protected if p["resource"] == "sqlite")


def test_databases_in_the_project_are_named(guard: Guard) -> None:
    """Before the first snapshot by a look, then as the newest found them, whatever the name."""
    make(guard.project / "mlflow.db")
    make(guard.project / "study")
    assert databases(guard) == ["mlflow.db"]
    assert guard("snapshot").status == 0
    assert databases(guard) == ["mlflow.db", "study"]
    said = guard("status").out
    assert [line.split() for line in said.splitlines() if "mlflow.db" in line] == [
        ["sqlite", "databases", "mlflow.db"]
    ]
    (guard.project / "study").unlink()
    assert databases(guard) == ["mlflow.db"]


def test_a_database_that_is_not_kept_is_said_loudly(guard: Guard) -> None:
    """PostgreSQL by configuration: in the status and before a run, with the dump to make."""
    url = "postgresql://u:canary@localhost/mlflow"
    (guard.project / "guard.toml").write_text(f'[[database]]\nurl = "{url}"\n')
    for said in (guard("status").out, guard("run", "--", "true").err):
        assert "skipped the database postgresql://localhost/mlflow" in said
        assert "pg_dump --format=custom" in said
        assert "canary" not in said


def test_what_is_at_work_and_what_a_dead_guard_left_behind(guard: Guard) -> None:
    """Who is at work is named; after a kill the run is unfinished, and its command is named."""
    child = guard.project.parent / "child.pid"
    popen = guard.start("run", "--", "sh", "-c", f"echo $$ > {child}.new; mv {child}.new {child}; "
                        "exec sleep 60")  # fmt: skip
    while not child.exists():
        assert popen.poll() is None, guard.spoken.read_text()
        time.sleep(0.01)
    busy = guard("snapshot")
    assert busy.status == 11
    assert f"pid {popen.pid}" in busy.err
    said = guard("status").out
    assert f"at work   run 1: pid {popen.pid}, guard run" in said
    assert "unfinished" not in said
    assert guard("--json", "log").data()["operations"][0]["state"] == "running"
    popen.kill()
    popen.wait()
    pid = int(child.read_text())
    try:
        said = guard("status").out
        assert "at work   run" not in said
        assert f"unfinished run 1: guard is gone, its command is at work: pid {pid}" in said
        assert "guard rollback --last" in said
        assert guard("--json", "log").data()["operations"][0]["state"] == "unfinished"
        assert "unfinished" in guard("show", "1").out
    finally:
        os.kill(pid, signal.SIGKILL)
    assert "its command" not in guard("status").out


def test_snapshots_and_what_rollbacks_displaced_are_counted_apart(guard: Guard) -> None:
    """The figures are those of `verify` and `prune`, and say what they count."""
    assert guard("run", "--", "sh", "-c", "echo 2 > params.yaml").status == 0
    assert guard("rollback", "--last", "--yes").status == 0
    assert "1 snapshot and 1 of what rollbacks displaced" in guard("status").out
    store = guard("--json", "status").data()["store"]
    assert (store["snapshots"], store["displaced"]) == (1, 1)


def test_a_spoilt_configuration_hides_nothing(guard: Guard) -> None:
    """It is wrong usage, as everywhere; the store and the last run are told all the same."""
    (guard.project / "guard.toml").write_text(f'[guard]\nstore = "{guard.project.parent / "s"}"\n')
    moved = replace(guard, env={"GUARD_STORE": ""})
    assert moved("run", "--", "sh", "-c", "echo oops > guard.toml; exit 1").status == 1
    result = moved("status")
    assert result.status == 2, result.said
    assert "guard.toml" in result.err
    assert result.said.count("line 1") == 1
    assert "left aside, it is wrong" in result.out
    assert str(guard.project.parent / "s") in result.out
    assert "last run  1" in result.out
    envelope = json.loads(moved("--json", "status").out)
    assert (envelope["status"], envelope["errors"][0]["code"]) == ("error", "wrong_usage")
    assert envelope["data"]["store"]["snapshots"] == 1


def test_a_variable_names_one_store_from_everywhere_in_the_project(guard: Guard) -> None:
    """A relative one starts in the project, like a path of the file; who named it is said."""
    relative = replace(guard, env={"GUARD_STORE": "../beside"})
    assert relative("snapshot").status == 0
    (guard.project / ".git").mkdir()
    for folder in (guard.project, guard.project / "models"):
        said = relative("status", cwd=folder).out
        assert f"store     {guard.project.parent / 'beside'}\n" in said
        assert "named by GUARD_STORE\n" in said
        assert "1 snapshot," in said
    assert not (guard.project / "beside").exists()
