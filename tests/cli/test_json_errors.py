"""With `--json`, whatever is no success names its reason: every command, refused and saying no."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable

import pytest

from e2e.guard_command import Guard
from safeguards.cli import VERBS


def _nothing(_guard: Guard) -> None:
    return


def _changed(guard: Guard) -> None:
    """Take a snapshot, then change something."""
    assert guard("snapshot").status == 0
    (guard.project / "train.py").write_text("spoilt\n")


def _damaged(guard: Guard) -> None:
    """Take a snapshot and damage the store."""
    assert guard("snapshot").status == 0
    for pack in (guard.project.parent / "store" / "packs").iterdir():
        pack.write_bytes(pack.read_bytes()[:-20] + bytes(20))


def _wrong(guard: Guard) -> None:
    """Declare parameters that are out of range."""
    text = '[[check.params]]\nfile = "params.yaml"\n[check.params.ranges]\nlr = { max = 0.01 }\n'
    (guard.project / "guard.toml").write_text(text)


def _staged(guard: Guard) -> None:
    """Stage a file that is larger than may be."""
    subprocess.run(["git", "init", "-q", guard.project], check=True)
    subprocess.run(["git", "-C", guard.project, "add", "."], check=True)


def _slow(guard: Guard) -> None:
    """Take a snapshot, and allow a rollback next to no time."""
    assert guard("snapshot").status == 0
    guard.env["GUARD_BUDGET"] = "0.001s"


_CASES: list[tuple[str, Callable[[Guard], None], str, int]] = [
    ("init", _wrong, "init", 2),
    ("status", _nothing, "--project /no/such status", 2),
    ("run", _nothing, "run -- no-such-command", 127),
    ("run", _nothing, "run -- false", 1),
    ("run", _wrong, "run -- true", 121),
    ("snapshot", _nothing, "--project /no/such snapshot", 2),
    ("check", _wrong, "check", 1),
    ("check", _nothing, "check no-such-file.csv", 2),
    ("drill", _nothing, "drill", 10),
    ("drill", _slow, "drill", 1),
    ("rollback", _changed, "rollback --to 1", 2),
    ("rollback", _nothing, "rollback --last --yes", 10),
    ("undo", _nothing, "undo --yes", 10),
    ("redo", _nothing, "redo --yes", 10),
    ("log", _nothing, "log", 10),
    ("show", _changed, "show 77", 10),
    ("diff", _nothing, "diff", 10),
    ("diff", _changed, "diff", 1),
    ("diff", _changed, "diff --stat", 1),
    ("diff", _changed, "diff 1 2 3", 2),
    ("verify", _nothing, "verify", 10),
    ("verify", _damaged, "verify", 1),
    ("prune", _nothing, "prune --keep-last 1", 10),
    ("seal", _nothing, "seal no-such-file", 2),
    ("schema", _nothing, "schema infer no-such-file", 2),
    ("report", _nothing, "report", 10),
    ("stats", _nothing, "stats", 10),
    ("hook", _nothing, "hook install", 2),
    ("hook", _staged, "hook pre-commit --max-size 1B", 1),
]


@pytest.mark.parametrize(("prepare", "words", "status"), [case[1:] for case in _CASES])
def test_what_is_no_success_says_why(
    prepare: Callable[[Guard], None], words: str, status: int, guard: Guard
) -> None:
    """One object: `error`, its exit status, and an entry with code, message and hint."""
    prepare(guard)
    result = guard("--json", *words.split())
    assert result.status == status, result.said
    text = result.err.splitlines()[-1] if words.startswith("run") else result.out
    envelope = json.loads(text)
    assert (envelope["status"], envelope["exit_code"]) == ("error", status)
    assert envelope["errors"]
    for error in envelope["errors"]:
        assert error["code"].isidentifier()
        assert error["message"]
        assert error["hint"]


def test_no_command_is_left_out() -> None:
    """A new command brings its own case."""
    assert {verb for verb, *_ in _CASES} == set(VERBS)


def test_people_read_what_differs_once(guard: Guard) -> None:
    """The reason is in the list already: standard error has nothing to add."""
    _changed(guard)
    result = guard("diff")
    assert (result.status, result.err) == (1, "")
    assert result.out.count("1 file modified") == 1
    _wrong(guard)
    failed = guard("check")
    assert (failed.status, failed.err) == (1, "")
