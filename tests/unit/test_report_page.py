"""The HTML page: complete, escaped, and asking nobody for anything."""

from __future__ import annotations

import os
import re
from html.parser import HTMLParser

from rollback.model import Category, Operation
from rollback.reports import Change, Difference
from safeguards.report import compose

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
    return compose(
        Operation(7, "id", "run", "failed", 0.0, 1.0, {**RUN, **data}), difference, "now"
    )


def test_nothing_of_the_record_becomes_markup() -> None:
    """No element, attribute or request comes from names and messages."""
    change = Change("modified", "files", Category.CODE, EVIL, EVIL, 5, 7)
    text = page(Difference("a", None, (change,)))
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
    for part in ("exit 3", "1.2 s", "1,200", "5.0 MB", "0.3", "3 passed, 1 failed", "not passed",
                 "6 min 40 s", "guard rollback --to 7", "command failed"):  # fmt: skip
        assert part in text, part


def test_an_operation_of_which_little_is_known() -> None:
    """A rollback, a run that was killed at once: a short page, no error."""
    for kind in ("run", "rollback", "drill", "snapshot"):
        text = compose(Operation(1, "id", kind, "running", 0.0, None, {}), None, "now")
        assert f"{kind} 1" in text
        assert "rollback --to" not in text
