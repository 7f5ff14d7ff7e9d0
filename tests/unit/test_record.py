"""What is kept of a run: secrets hidden, the contract's fields, results of checks, figures."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from checks.model import CheckReport, CheckSkip, Finding, Severity
from rollback.model import Operation
from safeguards.check_cache import FileCache
from safeguards.history import Rate, summarize
from safeguards.output import Answer, to_json
from safeguards.record import RunRecord, checks_data, without_secrets
from safeguards.render.log import run_line

REPORT = CheckReport(
    checked=(("data.missing", "a.csv"), ("data.outliers", "a.csv")),
    findings=(
        Finding(
            "data.missing",
            Severity.ERROR,
            "a.csv",
            "too much is missing",
            column="x",
            value=0.3,
            limit=0.1,
            count=30,
            samples=({"row": 1, "value": "private"},),
            hint="fill it",
        ),
    ),
    elapsed_s=0.5,
)


@pytest.mark.parametrize(
    ("words", "kept"),
    [
        (["--password", "x"], ["--password", "***"]),
        (["--password=x"], ["--password=***"]),
        (["-token", "x"], ["-token", "***"]),
        (["--api-key", "x", "y"], ["--api-key", "***", "y"]),
        (["--api_key=x"], ["--api_key=***"]),
        (["--db-passwd", "x"], ["--db-passwd", "***"]),
        (["--client-secret-id", "x"], ["--client-secret-id", "***"]),
        (["AWS_SECRET_ACCESS_KEY=x"], ["AWS_SECRET_ACCESS_KEY=***"]),
        (["HF_TOKEN=x"], ["HF_TOKEN=***"]),
        (["MYSQL_PASSWORD=x"], ["MYSQL_PASSWORD=***"]),
        (["postgresql://u:x@h/d"], ["postgresql://***@h/d"]),
        (["--url=https://u:x@h"], ["--url=https://***@h"]),
        (["--password", "--verbose"], ["--password", "--verbose"]),
        (["--password="], ["--password="]),
        (["--lr", "0.1", "a=b", "x@y", "http://h/a"], ["--lr", "0.1", "a=b", "x@y", "http://h/a"]),
        (["--tokenizer", "bert"], ["--tokenizer", "bert"]),
        (["--token-length", "5"], ["--token-length", "5"]),
        (["--max-tokens=5", "--passes", "3"], ["--max-tokens=5", "--passes", "3"]),
    ],
)
def test_secrets_on_the_command_line(words: list[str], kept: list[str]) -> None:
    """What sounds secret is hidden, what only looks like it is not."""
    assert list(without_secrets(["train", *words])) == ["train", *kept]


def test_phases_are_timed_also_when_they_fail() -> None:
    """A phase that raises has its figure, too."""
    record = RunRecord(("x",), time.time())

    def fail() -> None:
        with record.phase("drill"):
            time.sleep(0.01)
            raise ValueError("x")

    with pytest.raises(ValueError, match="x"):
        fail()
    ((name, elapsed_s),) = record.phases
    assert name == "drill"
    assert elapsed_s >= 0.01


def test_the_record_is_json_without_sample_rows() -> None:
    """The user's data does not go into the log."""
    record = RunRecord(("x",), time.time(), checks=REPORT)
    text = to_json(Answer("run", record))
    assert "private" not in text
    checks = json.loads(text)["data"]["checks"]
    assert (checks["passed"], checks["failed"], checks["warned"]) == (1, 1, 0)
    assert checks["findings"][0]["limit"] == 0.1
    assert checks_data(CheckReport())["passed"] == 0


def test_results_of_checks_are_kept(tmp_path: Path) -> None:
    """They come back equal; the file is private."""
    file = tmp_path / "checks.json"
    cache = FileCache(file)
    assert cache.get("k") is None
    cache.put("k", REPORT)
    cache.put("skipped", CheckReport(skipped=(CheckSkip("a", "b", "c"),)))
    cache.close()
    assert file.stat().st_mode & 0o777 == 0o600
    again = FileCache(file)
    assert again.get("k") == REPORT
    assert again.get("skipped") is None
    before = file.stat().st_mtime_ns
    again.close()
    assert file.stat().st_mtime_ns == before


BROKEN = (
    *("", "[]", "{", '{"format": 2}', '{"format": 1}', '{"format": 1, "results": 5}'),
    '{"format": 1, "results": {"k": 5}}',
    '{"format": 1, "results": {"k": {"report": {}}}}',
)


@pytest.mark.parametrize("content", BROKEN)
def test_a_broken_cache_costs_time_and_no_more(content: str, tmp_path: Path) -> None:
    """It is as if it were empty, and is written anew."""
    file = tmp_path / "checks.json"
    file.write_text(content)
    cache = FileCache(file)
    assert cache.get("k") is None
    cache.put("k", REPORT)
    cache.close()
    assert FileCache(file).get("k") == REPORT


def test_a_cache_that_cannot_be_written(tmp_path: Path) -> None:
    """No error reaches the run."""
    cache = FileCache(tmp_path / "no" / "folder" / "checks.json")
    cache.put("k", REPORT)
    cache.close()
    assert cache.get("k") == REPORT


def test_the_cache_does_not_grow_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The least recently used go."""
    monkeypatch.setattr("safeguards.check_cache._MOST", 3)
    cache = FileCache(tmp_path / "c.json")
    for number in range(5):
        cache.put(str(number), REPORT)
    assert cache.get("0") == REPORT
    cache.close()
    kept = FileCache(tmp_path / "c.json")
    assert [n for n in "01234" if kept.get(n)] == ["0", "3", "4"]


def operation(kind: str, state: str = "done", **data: Any) -> Operation:
    """Return one line of a log."""
    return Operation(1, "id", kind, state, 0.0, 1.0, data)


def test_figures_from_the_log() -> None:
    """Each figure is counted or measured; what did not end is not counted as a success."""
    drill = {"passed": True, "elapsed_s": 2.0}
    log = [
        operation("run", child_exit=0, drill=drill, attempts=1),
        operation("run", "failed", child_exit=3, attempts=3, level=1, rolled_back=True),
        operation("run", child_exit=0, attempts=2, level=1),
        operation("run", "failed", error="checks"),
        operation("run", "running", child_exit=None),
        operation("rollback", elapsed_s=1.0, verified=True),
        operation("rollback", "failed"),
        operation("drill", drill={"passed": False, "elapsed_s": 4.0}),
        operation("prune"),
    ]
    figures = summarize(log)
    assert figures.runs == Rate(2, 3)
    assert figures.stopped == 1
    assert figures.attempts == Rate(1, 2)
    assert figures.levels == {1: Rate(2, 2)}
    assert figures.restores == Rate(1, 2)
    assert figures.drills == Rate(1, 2)
    assert figures.drill_times is not None
    assert (figures.drill_times.median_s, figures.drill_times.max_s) == (2.0, 4.0)
    assert summarize([]).runs.share is None
    assert summarize([]).restore_times is None


def test_the_percentile_is_a_measured_figure() -> None:
    """Nearest rank: of a hundred figures the ninety-fifth."""
    log = [operation("rollback", elapsed_s=float(n), verified=True) for n in range(1, 101)]
    times = summarize(log).restore_times
    assert times is not None
    assert (times.median_s, times.p95_s, times.max_s) == (50.0, 95.0, 100.0)


@pytest.mark.parametrize(
    ("state", "data", "told"),
    [
        ("interrupted", {}, "interrupted"),
        ("interrupted", {"child": {"pid": 7}}, "interrupted"),
        ("failed", {"child_exit": None}, "not started"),
        ("failed", {"child_exit": 3, "child": {"pid": 7}}, "exit 3"),
    ],
)
def test_not_started_is_said_only_of_what_ended_before(
    state: str, data: dict[str, Any], told: str
) -> None:
    """A guard that is killed as the command begins has not noted that it began."""
    run = Operation(1, "0a1b", "run", state, 0.0, 1.0, {"command": ["train"], **data})
    assert run_line(run).endswith(f"train · {told}")
