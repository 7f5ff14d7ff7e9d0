"""`guard status`: which databases are protected, and which cannot be."""

from __future__ import annotations

import contextlib
import sqlite3
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
