"""Findings of checks as lines: what, where, figure against limit, and what to do."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from safeguards.output import one_line

if TYPE_CHECKING:
    from checks.model import CheckReport, Finding

_MARKS = {"error": "failed", "warning": "warning", "info": "note"}


def finding_lines(report: CheckReport, *, most: int | None = None) -> Iterator[str]:
    """Yield a line for each finding, and one for its hint.

    Args:
        report: What the checks found, errors first.
        most: How many are shown; the rest is counted.
    """
    shown = report.findings if most is None else report.findings[:most]
    for finding in shown:
        yield finding_line(finding)
        if finding.hint:
            yield one_line(f"{'':<9}{finding.hint}")
    hidden = len(report.findings) - len(shown)
    if hidden > 0:
        yield f"and {hidden} more: guard check"


def finding_line(finding: Finding) -> str:
    """Return one finding: its weight, its subject with the column, and what happened."""
    message = finding.message
    parts = [] if finding.subject in message else [finding.subject]
    if finding.column is not None and finding.column not in message:
        parts.append(finding.column)
    mark = _MARKS.get(str(finding.severity), str(finding.severity))
    return one_line(f"{mark:<9}{': '.join([*parts, message])}")
