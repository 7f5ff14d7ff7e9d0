"""How checks name what they looked at."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from checks.context import Context


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        (b"data/train.csv", "data/train.csv"),
        ("données/entraînement.csv".encode(), "données/entraînement.csv"),
        (b"a\n::error::b.csv", "a\\n::error::b.csv"),
        (b"a\x1b[2Jb\r\t", "a\\x1b[2Jb\\r\\t"),
        (b"a\xff", "a\\xff"),
        ("a\u2028b\u202ec".encode(), "a\\u2028b\\u202ec"),
    ],
)
def test_subject_is_one_line_that_a_terminal_only_shows(name: bytes, shown: str) -> None:
    """Control characters, line breaks and bytes that are no text are shown as escapes."""
    subject = Context(base=Path("/project")).subject(Path("/project") / os.fsdecode(name))
    assert subject == shown
    assert subject.isprintable()


def test_pattern_takes_the_project_literally() -> None:
    """Only what was declared is a pattern; home and absolute paths stay as they are."""
    context = Context(base=Path("/p/[a]*"), environ={"HOME": "/home/u"})
    assert context.pattern("d/*.csv") == "/p/[[]a][*]/d/*.csv"
    assert context.pattern("~/d/*.csv") == "/home/u/d/*.csv"
    assert context.pattern("/data/*.csv") == "/data/*.csv"
