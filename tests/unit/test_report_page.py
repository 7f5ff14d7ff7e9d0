"""The HTML page: complete, escaped, and asking nobody for anything."""

from __future__ import annotations

import os
import re
from html.parser import HTMLParser

from rollback.model import Category, Operation, TableChange
from rollback.reports import Change, Difference, DistributionChange
from safeguards.changed import changed_data
from safeguards.report import Subject, compose

EVIL = '<script src="http://evil">&"\'</script>' + os.fsdecode(b"\xff\n")
RUN = {
    "command": ["sh", "-c", EVIL],
    "label": EVIL,
    "child_exit": 3,
    "trouble": "command_failed",
    "snapshot_id": "ab12",
    "phases": [{"name": "snapshot", "elapsed_s": 1.25}],
    "protected": [
        {"resource": "files", "name": EVIL, "category": "code", "files": 1200, "bytes": 5_000_000}
    ],
    "skipped": [{"what": "git", "why": EVIL, "fix": "git init"}],
    "checks": {
        "passed": 3,
        "failed": 1,
        "warned": 0,
        "findings": [
            {
                "severity": "error",
                "subject": "a.csv",
                "column": EVIL,
                "message": EVIL,
                "value": 0.30001,
                "limit": None,
            }
        ],
    },
    "drill": {
        "passed": False,
        "bound_s": 400.0,
        "budget_s": 300.0,
        "parts": [{"name": EVIL, "files": 3, "bytes": 10, "estimated_s": 2.0}],
    },
}


class Checker(HTMLParser):
    """Collects tags and attributes, and whether every element that needs it was closed."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note an element."""
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        """Note its end."""
        assert self.open.pop() == tag


def page(difference: Difference | None = None, **data: object) -> str:
    """Return the page of a failed run."""
    operation = Operation(7, "id", "run", "failed", 0.0, 1.0, {**RUN, **data})
    return compose(Subject(operation, difference, EVIL, EVIL), "now")


def test_nothing_of_the_record_becomes_markup() -> None:
    """No element, attribute or request comes from names and messages."""
    change = Change("modified", "files", Category.CODE, EVIL, EVIL, 5, 7)
    table = TableChange("added", EVIL, None, 3)
    database = Change("modified", EVIL, Category.DATABASES, EVIL, EVIL, 5, 7, (table,))
    package = DistributionChange("modified", EVIL, EVIL, EVIL, EVIL)
    difference = Difference("a", None, (change, database), (package,))
    probe = {"name": EVIL, "passed": False, "elapsed_s": 1.0}
    changed = {**changed_data(difference), "git": 99}
    text = page(difference, probes=[probe], changed=changed, error=EVIL)
    checker = Checker()
    checker.feed(text)
    assert checker.open == []
    assert "script" not in checker.tags
    assert checker.attributes <= {"class", "lang", "charset", "name", "content"}
    assert not re.search(r"<[^>]*(src|href|url)", text)
    assert r"\xff\n" in text
    text.encode("utf-8")


def test_what_stands_on_it() -> None:
    """Figures with units, verdicts, and the way back."""
    text = page()
    for part in (">3<", "1.2 s", "1,200", "5.0 MB", "0.3", "3 passed, 1 failed", "not passed",
                 "6 min 40 s", "guard rollback --to 7", "command failed"):  # fmt: skip
        assert part in text, part


def test_an_operation_of_which_little_is_known() -> None:
    """A rollback, a run that was killed at once: a short page, no error."""
    for kind in ("run", "rollback", "drill", "snapshot"):
        text = compose(Subject(Operation(1, "id", kind, "running", 0.0, None, {})), "now")
        assert f"{kind} 1" in text
        assert "rollback --to" not in text


def test_what_the_command_changed_is_told_once_where_nothing_followed() -> None:
    """And apart from the present where something did."""
    table = TableChange("modified", "runs", 12, 10)
    database = Change("modified", "m.db", Category.DATABASES, "m.db", "", 5, 7, (table,))
    difference = Difference("a", None, (database,))
    changed = changed_data(difference)
    once = page(difference, changed=changed)
    assert once.count("<h2>Changed by the command</h2>") == 1
    assert once.count("12 → 10 rows") == 1
    later = Change("added", "files", Category.CODE, "later.py", "", None, 7)
    twice = page(Difference("a", None, (database, later)), changed=changed)
    assert twice.count("<h2>") == once.count("<h2>") + 1
    assert twice.count("12 → 10 rows") == 2
