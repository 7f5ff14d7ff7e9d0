"""Findings where continuous integration shows them: GitHub annotations and the job's summary.

Formats: https://docs.github.com/actions/reference/workflow-commands-for-github-actions
(properties also escape `:` and `,`; a step's summary may have 1 MiB). The documentation names
standard output alone; the runner reads commands from both streams (actions/runner,
`ScriptHandler`: one `OutputManager` for each), so that `guard run` can leave the child's
standard output alone.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from checks.model import CheckReport, Finding, Severity

if TYPE_CHECKING:
    from safeguards.session import Session

SUMMARY_LIMIT_BYTES = 1 << 20
_COMMANDS = {Severity.ERROR: "error", Severity.WARNING: "warning", Severity.INFO: "notice"}
_SIGNS = {Severity.ERROR: "❌", Severity.WARNING: "⚠️", Severity.INFO: "ℹ️"}  # noqa: RUF001
_NO_FILE = "machine."
_TABLES = ("data.", "features.")
_WITHOUT_HEADER = (".jsonl", ".ndjson")
_TEXT_TABLES = (".csv", ".tsv", ".txt", *_WITHOUT_HEADER)
_CUT = "\n… cut here: the summary of a step may have 1 MiB.\n"


def in_github_actions(environ: Mapping[str, str]) -> bool:
    """Return whether this is a step of a GitHub workflow."""
    return environ.get("GITHUB_ACTIONS") == "true"


def publish(
    report: CheckReport, session: Session, base: Path | None = None, *, to_stderr: bool = False
) -> None:
    """Show a report where GitHub shows it; outside of a workflow, do nothing.

    Args:
        report: What the checks found.
        session: This call of guard; with ``--json`` its streams are left alone.
        base: The folder from which subjects count; None for the repository's.
        to_stderr: Whether standard output belongs to a child.
    """
    if not in_github_actions(session.environ):
        return
    if not session.terminal.json:
        workspace = session.environ.get("GITHUB_WORKSPACE")
        folder = "" if base is None or not workspace else os.path.relpath(base, workspace)
        for line in annotate(report, "" if folder.startswith("..") else folder):
            session.terminal.result(line, to_stderr=to_stderr)
    write_summary(report, session.environ, f"guard {session.verb}".strip())


def annotate(report: CheckReport, folder: str = "") -> Iterator[str]:
    """Yield one workflow command for each finding, to be printed as a line of its own.

    Args:
        report: What the checks found.
        folder: Where the project lies in the repository, in which GitHub looks for files.
    """
    for finding in report.findings:
        file = "" if finding.check.startswith(_NO_FILE) else finding.subject
        if file and folder:
            file = os.path.normpath(os.path.join(folder, file))
        properties = {"file": file, "line": _line(finding), "title": finding.check}
        shown = ",".join(f"{k}={escape_property(v)}" for k, v in properties.items() if v)
        text = finding.message if not finding.hint else f"{finding.message}\n{finding.hint}"
        yield f"::{_COMMANDS[finding.severity]} {shown}::{escape_data(text)}"


def summary(report: CheckReport, title: str = "guard") -> str:
    """Return the report in Markdown, cut to what a step may say."""
    errors = sum(1 for _ in report.of(Severity.ERROR))
    warnings = sum(1 for _ in report.of(Severity.WARNING))
    skipped = len(report.skipped)
    lines = [
        f"### {_cell(title)}: {'failed' if errors else 'passed'}",
        "",
        f"{len(report.checked)} checked, {errors} failed, {warnings} warned, {skipped} skipped",
        "",
    ]
    if report.findings:
        lines += ["| | What | Where | Limit | Next |", "|---|---|---|---|---|"]
        lines += [_row(finding) for finding in report.findings]
    if report.skipped:
        lines += ["", "Not checked:", ""]
        lines += [f"- {_cell(s.what)}: {_cell(s.why)} ({_cell(s.fix)})" for s in report.skipped]
    return _cut_to("\n".join(lines) + "\n", SUMMARY_LIMIT_BYTES)


def write_summary(report: CheckReport, environ: Mapping[str, str], title: str = "guard") -> bool:
    """Append the report to the step's summary; return whether there is one that could be written.

    A summary that cannot be written is no reason to fail a step.
    """
    path = environ.get("GITHUB_STEP_SUMMARY")
    if not path:
        return False
    try:
        with open(path, "a", encoding="utf-8", errors="backslashreplace") as file:
            left = SUMMARY_LIMIT_BYTES - file.tell()
            file.write(_cut_to(summary(report, title), left))
    except OSError:
        return False
    return True


def escape_data(text: str) -> str:
    """Return a message as a workflow command takes it."""
    clean = text.encode("utf-8", "backslashreplace").decode()
    return clean.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def escape_property(text: str) -> str:
    """Return a property (file, title) as a workflow command takes it."""
    return escape_data(text).replace(":", "%3A").replace(",", "%2C")


def _line(finding: Finding) -> str:
    """Return the line of the first sample row: tables in binary files have none."""
    row = finding.samples[0].get("row") if finding.samples else None
    if not isinstance(row, int):
        return ""
    if finding.check.startswith(_TABLES):
        name = finding.subject.lower()
        if not name.endswith(_TEXT_TABLES):
            return ""
        row += not name.endswith(_WITHOUT_HEADER)
    return str(row)


def _row(finding: Finding) -> str:
    where = f"{finding.subject} `{finding.column}`" if finding.column else finding.subject
    limit = "" if finding.limit is None else str(finding.limit)
    cells = (finding.message, where, limit[:80], finding.hint)
    return f"| {_SIGNS[finding.severity]} | {' | '.join(map(_cell, cells))} |"


def _cell(text: str) -> str:
    clean = text.encode("utf-8", "backslashreplace").decode()
    flat = " ".join(clean.split())
    return flat.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")


def _cut_to(text: str, limit: int) -> str:
    raw = text.encode("utf-8", "backslashreplace")
    if len(raw) <= limit:
        return raw.decode()
    room = limit - len(_CUT.encode())
    if room <= 0:
        return ""
    return raw[:room].decode("utf-8", "ignore").rpartition("\n")[0] + _CUT
