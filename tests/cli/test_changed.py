"""What did this command change? As text, as JSON, in the log, after the run."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from e2e.guard_command import Guard

SPOIL = """
import sqlite3
with sqlite3.connect("mlflow.db") as db:
    db.execute("DELETE FROM runs WHERE id > 10")
    db.execute("CREATE TABLE evil (x)")
db.close()
open("params.yaml", "w").write("lr: 9\\n")
open("a.txt", "w").close()
open("b.txt", "w").close()
"""


@pytest.fixture
def tracked(guard: Guard) -> Guard:
    """Return guard for a project with a database and an environment of its own."""
    with closing(sqlite3.connect(guard.project / "mlflow.db")) as db, db:
        db.execute("CREATE TABLE runs (id INTEGER PRIMARY KEY)")
        db.executemany("INSERT INTO runs VALUES (?)", [(n,) for n in range(12)])
    db.close()
    (guard.project / "spoil.py").write_text(SPOIL)
    return guard


def site(guard: Guard) -> Path:
    """Make an environment in the project and return its site-packages."""
    folder = guard.project / ".venv/lib/python3.11/site-packages"
    folder.mkdir(parents=True)
    (guard.project / ".venv/bin").mkdir()
    (guard.project / ".venv/bin/python").symlink_to("/usr/bin/python3")
    (guard.project / ".venv/pyvenv.cfg").write_text("home = /usr/bin\nversion = 3.11.7\n")
    return folder


def install(folder: Path, name: str, version: str, files: int) -> None:
    """Lay a distribution of so many modules out."""
    (folder / name).mkdir(exist_ok=True)
    info = folder / f"{name}-{version}.dist-info"
    info.mkdir()
    for number in range(files):
        (folder / name / f"m{number}.py").write_text(f"{version}\n")
    record = "".join(f"{name}/m{number}.py,,\n" for number in range(files))
    (info / "RECORD").write_text(f"{record}{info.name}/RECORD,,\n")


def test_the_run_itself_says_it(tracked: Guard) -> None:
    """In the line after the command, in the log, and with names in `show`."""
    run = tracked("run", "--", "python", "spoil.py")
    assert run.status == 0, run.said
    assert "changed: 3 files (2 added, 1 modified), 1 database: 2 tables" in run.err
    log = tracked("log").out
    assert "3 files, 1 database: 2 tables" in log
    show = tracked("show", "1").out
    assert "+  mlflow.db: evil  0 rows" in show
    assert "~  mlflow.db: runs  12 → 11 rows" in show
    changed = tracked("--json", "show", "1").data()["changed"]
    assert changed["files"] == {"added": 2, "modified": 1}
    (database,) = changed["databases"]
    assert (database["name"], database["tables_total"]) == ("mlflow.db", 2)
    runs = {"name": "runs", "action": "modified", "old_rows": 12, "new_rows": 11, "rewritten": None}
    assert runs in database["tables"]


def test_diff_names_tables_and_packages(tracked: Guard) -> None:
    """Files that came with a package are told by the package; what nobody installed is not."""
    folder = site(tracked)
    install(folder, "idna", "3.7", 3)
    assert tracked("snapshot").status == 0
    for path in (folder / "idna-3.7.dist-info").iterdir():
        path.unlink()
    (folder / "idna-3.7.dist-info").rmdir()
    install(folder, "idna", "3.10", 2)
    install(folder, "rich", "13.9", 100)
    (folder / "sitecustomize.py").write_text("import evil\n")
    subprocess.run([sys.executable, "spoil.py"], cwd=tracked.project, check=True)
    result = tracked("diff")
    assert result.status == 1, result.said
    lines = [line.split() for line in result.out.splitlines()]
    assert ["~", "idna", "3.7", "→", "3.10"] in lines
    assert ["+", "rich", "13.9"] in lines
    assert ["~", "table", "runs", "12", "→", "11", "rows"] in lines
    assert ["+", "table", "evil", "0", "rows"] in lines
    assert "sitecustomize.py" in result.out
    assert "m99.py" not in result.out
    told = lines[-1]
    assert " ".join(told).endswith("1 database: 2 tables, 2 packages"), result.said
    data = tracked("--json", "diff").data()
    packages = {p["name"]: (p["old_version"], p["new_version"]) for p in data["packages"]}
    assert packages == {"idna": ("3.7", "3.10"), "rich": (None, "13.9")}
    owned = {c["path"]: c["package"] for c in data["changes"]}
    assert owned[".venv/lib/python3.11/site-packages/rich/m99.py"] == "rich"
    assert owned[".venv/lib/python3.11/site-packages/sitecustomize.py"] is None
    assert "m99.py" in json.dumps(data)


def test_many_files_are_told_by_folder(guard: Guard) -> None:
    """A screen says it; `-v` lists all, and so does JSON."""
    assert guard("snapshot").status == 0
    for number in range(300):
        folder = guard.project / "runs" / f"r{number % 3}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number}.txt").write_text("x")
    (guard.project / "train.py").write_text("other\n")
    text = guard("diff")
    assert len(text.out.splitlines()) < 20, text.said
    assert "runs/r1/" in text.out
    assert "100 files" in text.out
    assert "~  train.py" in text.out
    assert "301 files (300 added, 1 modified)" in text.out
    assert "runs/r1/100.txt" in guard("-v", "diff").out
    assert len(guard("--json", "diff").data()["changes"]) == 301


def test_odd_names_are_shown_harmless(guard: Guard) -> None:
    """Of files, tables and packages."""
    db = sqlite3.connect(guard.project / "a.db")
    db.execute("CREATE TABLE runs (x)")
    db.commit()
    assert guard("snapshot").status == 0
    db.execute('CREATE TABLE "\x1b[31mred" (x)')
    db.commit()
    db.close()
    (guard.project / os.fsdecode(b"\xff\x1b[2J")).write_text("x")
    folder = site(guard)
    install(folder, "odd", "1\x1b[1m", 1)
    result = guard("diff")
    assert result.status == 1
    assert "\x1b" not in result.out
    assert "table \\x1b[31mred" in result.out


def test_a_failure_is_an_error_of_the_object_too(guard: Guard) -> None:
    """A script reads `errors`; a person is not told twice."""
    result = guard("--json", "run", "--", "sh", "-c", "exit 3")
    envelope = json.loads(result.err.splitlines()[-1])
    assert (envelope["status"], envelope["exit_code"]) == ("error", 3)
    (error,) = envelope["errors"]
    assert error["code"] == "command_failed"
    assert error["message"] == "sh failed with status 3"
    assert error["hint"] == envelope["next_command"] == "guard rollback --last"
    assert guard("run", "--", "sh", "-c", "exit 3").err.count("failed with status 3") == 1
    late = json.loads(guard("--json", "run", "--timeout", "0.2s", "--", "sleep", "9").err)
    assert late["errors"][0]["code"] == "timed_out"
    drill = guard("--json", "drill", "--budget", "1ms")
    assert drill.status == 1
    assert json.loads(drill.out)["errors"][0]["code"] == "over_budget"
