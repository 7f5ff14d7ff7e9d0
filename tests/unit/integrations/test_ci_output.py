"""What CI shows: escaped as GitHub asks, never over its limit."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from checks.model import CheckReport, CheckSkip, Finding, Severity
from safeguards.integrations.ci import (
    SUMMARY_LIMIT_BYTES,
    annotate,
    escape_data,
    escape_property,
    summary,
    write_summary,
)


def report(*findings: Finding) -> CheckReport:
    """Return a report of findings."""
    skip = CheckSkip("gpu", "no driver", "install it")
    return CheckReport((("a.b", "c"),), findings, (skip,))


def finding(subject: str = "a.csv", message: str = "is bad", **more: object) -> Finding:
    """Return an error."""
    values = {"hint": "mend it", "samples": ({"row": 7},), **more}
    return Finding("data.missing", Severity.ERROR, subject, message, **values)  # type: ignore[arg-type]


def test_an_annotation() -> None:
    """Command, file, line, title and message stand where GitHub looks for them."""
    (line,) = annotate(report(finding("a,b:c\n.csv", "100 % bad\r\nvery")))
    assert line == (
        "::error file=a%2Cb%3Ac%0A.csv,line=8,title=data.missing::100 %25 bad%0D%0Avery%0Amend it"
    )


def test_files_stand_where_github_looks_for_them() -> None:
    """A project below the repository's top is named; what is no file is none."""
    machine = Finding("machine.memory", Severity.WARNING, "memory", "full")
    assert list(annotate(report(finding("data/a.csv", "bad"), machine), "models/x")) == [
        "::error file=models/x/data/a.csv,line=8,title=data.missing::bad%0Amend it",
        "::warning title=machine.memory::full",
    ]


@pytest.mark.parametrize(
    ("check", "subject", "line"),
    [
        ("data.missing", "a.CSV", "line=8,"),  # the header is a line
        ("features.missing", "a.jsonl", "line=7,"),
        ("data.missing", "a.parquet", ""),
        ("data.missing", "part-*.parquet", ""),
        ("secrets.likely", ".env", "line=7,"),
    ],
)
def test_rows_are_lines_of_text_files_alone(check: str, subject: str, line: str) -> None:
    """A row of data is the line below the header; a Parquet file has no lines."""
    bad = Finding(check, Severity.ERROR, subject, "m", samples=({"row": 7},))
    assert list(annotate(report(bad))) == [f"::error file={subject},{line}title={check}::m"]


def test_levels() -> None:
    """Warnings and notes have commands of their own; without a row there is no line."""
    low = Finding("x", Severity.WARNING, "s", "m"), Finding("x", Severity.INFO, "s", "m")
    assert list(annotate(report(*low))) == [
        "::warning file=s,title=x::m",
        "::notice file=s,title=x::m",
    ]


@given(st.text())
def test_a_message_stays_on_its_line(text: str) -> None:
    """No text ends the command early or starts another; surrogates survive printing."""
    for escaped in (escape_data(text), escape_property(text)):
        assert "\n" not in escaped
        assert "\r" not in escaped
        escaped.encode()


def test_the_summary() -> None:
    """Cells cannot break the table or bring markup."""
    text = summary(report(finding("a|b.csv", "<script>\nx")))
    assert "| ❌ | &lt;script> x | a\\|b.csv |  | mend it |" in text
    assert "- gpu: no driver (install it)" in text
    assert "1 failed" in text


def test_the_summary_is_cut(tmp_path: Path) -> None:
    """Ten thousand findings do not exceed what a step may say, over several reports."""
    many = report(*(finding(f"file{n}.csv", "x" * 200) for n in range(10_000)))
    target = tmp_path / "summary.md"
    environ = {"GITHUB_STEP_SUMMARY": str(target)}
    assert write_summary(many, environ)
    assert write_summary(many, environ)
    assert target.stat().st_size <= SUMMARY_LIMIT_BYTES
    assert "cut here" in target.read_text()


def test_a_summary_that_cannot_be_written(tmp_path: Path) -> None:
    """It is no reason to fail."""
    assert not write_summary(report(), {})
    assert not write_summary(report(), {"GITHUB_STEP_SUMMARY": str(tmp_path)})
