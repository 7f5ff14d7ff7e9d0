"""Who acts next: guard itself, a colleague, an architect, the user. Told once, with figures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from e2e.guard_command import Guard
from manifest import assert_back, manifest

PROBE = '[[probe]]\nname = "model loads"\ncommand = "echo broken model >&2; exit 3"\n'


def report(guard: Guard, number: int) -> str:
    """Return the report that a run left for a colleague."""
    return (guard.project.parent / "store" / "log" / f"run-{number}.md").read_text()


def told(guard: Guard, *arguments: str) -> dict[str, Any]:
    """Return the object of a run that writes nothing else to standard error."""
    envelope: dict[str, Any] = json.loads(guard("--json", "run", *arguments).err.splitlines()[-1])
    return envelope


def test_fails_twice_then_passes(guard: Guard, tmp_path: Path) -> None:
    """Level 1: each start is told with its end, and each but the last was put back."""
    count = tmp_path / "count"
    script = f"echo x >> {count}; echo junk > junk; [ $(wc -l < {count}) -ge 3 ]"
    envelope = told(guard, "--retries", "2", "--", "sh", "-c", script)
    data = envelope["data"]
    assert (envelope["exit_code"], data["level"], data["attempts"]) == (0, 1, 3)
    tries = [(t["status"], t["trouble"], t["restored"]) for t in data["tries"]]
    failed = (1, "command_failed", True)
    assert tries == [failed, failed, (0, None, False)]
    stats = guard("--json", "stats").data()
    assert stats["levels"]["1"] == {"succeeded": 1, "total": 1, "share": 1.0}


def test_the_same_failure_climbs(guard: Guard) -> None:
    """A peer, the peer again, an architect, the user; the last may choose."""
    for number, level in enumerate((2, 2, 3, 4), 1):
        assert told(guard, "--", "sh", "-c", "exit 7")["data"]["level"] == level
        text = report(guard, number)
        assert f"Run {number} (sh -c 'exit 7'): command failed with status 7." in text
        assert "start 1: command failed with status 7 after" in text
        assert "Changed by the command: nothing" in text
        assert "\\`" not in text
    assert "1. **Roll back** (advised)" in report(guard, 4)


def test_a_probe_that_fails_after_the_rollback_of_a_run(guard: Guard) -> None:
    """The state is back, which is said, and that it does not work is the trouble."""
    (guard.project / "guard.toml").write_text(PROBE)
    before = manifest(guard.project)
    envelope = told(guard, "--on-failure", "rollback", "--", "sh", "-c", "rm train.py; exit 5")
    assert envelope["exit_code"] == 5
    assert envelope["data"]["trouble"] == "probe_failed"
    assert envelope["data"]["rolled_back"] is True
    codes = [error["code"] for error in envelope["errors"]]
    assert codes == ["command_failed", "probe_failed"]
    assert "model loads" in envelope["errors"][1]["message"]
    assert_back(before, manifest(guard.project))
    assert "probe failed" in report(guard, 1)
    show = guard("show", "2").out
    assert "model loads: failed" in show
    assert "broken model" not in show
    assert "1 probe failed" in guard("log").out
    text = guard("run", "--on-failure", "rollback", "--", "sh", "-c", "rm train.py; exit 5")
    assert text.err.count("the probe model loads failed") == 1


def test_a_probe_that_fails_where_nothing_was_put_back(guard: Guard) -> None:
    """`guard undo` would take nothing back, so it is not what to type next."""
    (guard.project / "guard.toml").write_text(PROBE)
    assert guard("run", "--", "true").status == 0
    result = guard("rollback", "--last", "--yes")
    assert result.status == 1, result.said
    assert "guard undo" not in result.said
    assert "mend what the probe needs" in result.err


def test_over_budget_is_told_once(guard: Guard) -> None:
    """A missing budget is for the architect; the sentence stands there once."""
    result = guard("run", "--budget", "1ms", "--", "true")
    assert result.status == 122
    assert result.err.count("more than the budget of 1 ms") == 1
    assert "architecture review (level 3)" in result.err
    (guard.project / "guard.toml").write_text('[run]\nover_budget = "warn"\n')
    warned = guard("run", "--budget", "1ms", "--", "true")
    assert warned.status == 0
    assert warned.err.count("more than the budget of 1 ms") == 1


def test_a_refused_target_is_for_the_user(guard: Guard) -> None:
    """Nothing was begun, and the object says who decides."""
    far = Guard(guard.project, env={"MLFLOW_TRACKING_URI": "https://mlflow.example.com"})
    data = told(far, "--", "true")["data"]
    assert (data["level"], data["trouble"], data["run_seq"]) == (4, "target_refused", 0)
    assert data["child_exit"] is None
