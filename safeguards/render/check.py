"""What the checks found."""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import dataclass
from typing import Any

from checks.model import CheckReport, Finding, Severity
from rollback.model import Skip
from safeguards.errors import ChecksFailed
from safeguards.output import Problem, Style, Tone, aligned, one_line
from safeguards.record import checks_data
from safeguards.render.findings import finding_line
from safeguards.render.snapshot import skip_lines
from safeguards.units import count_text, seconds_text

_TONES = {"error": Tone.BAD, "warning": Tone.WARN, "info": Tone.FAINT}
_MOST = 60
_MOST_SUBJECTS = 20
_INDENT = 9
_FIGURES_WIDTH = 30


@dataclass(frozen=True, slots=True)
class Checked:
    """A report, and whether the project declares any check."""

    report: CheckReport
    declared: bool


def failed_checks(report: CheckReport) -> tuple[Problem, ...]:
    """Return what failed checks are to a command: none where nothing failed."""
    if report.ok:
        return ()
    first = next(iter(report.of(Severity.ERROR)), None)
    told = f"{count_text(report.failed, 'check')} failed"
    if first is not None:
        told += f": {first.subject}: {first.message}"
    hint = first.hint if first is not None and first.hint else "correct the inputs"
    return (Problem(ChecksFailed.code, told, hint, told=True),)


def as_text(value: Checked, style: Style) -> list[str]:
    """Return the findings, the checks that passed, and the sum."""
    report = value.report
    undeclared = "no check is declared; guard init writes a guard.toml with checks"
    if not report.checked and not report.findings and not report.skipped:
        return ["no check concerns that" if value.declared else undeclared]
    shown = report.findings if style.verbose else report.findings[:_MOST]
    lines: list[str] = []
    for finding in shown:
        lines += _finding(finding, style)
    if len(shown) < len(report.findings):
        lines.append(f"and {len(report.findings) - len(shown)} more (-v shows all)")
    lines += skip_lines((Skip(s.what, s.why, s.fix) for s in report.skipped), style)
    lines += _subjects(report, style)
    lines.append(_verdict(report, style))
    if not value.declared:
        lines.append(undeclared)
    return lines


def _verdict(report: CheckReport, style: Style) -> str:
    if not report.checked:
        return style.paint("nothing was checked", Tone.WARN)
    known = f", {report.cached} known from before" if report.cached else ""
    verdict = style.paint("passed", Tone.GOOD) if report.ok else style.paint("failed", Tone.BAD)
    return (
        f"{verdict}: {report.passed} passed, {report.failed} failed, {report.warned} warned"
        f" in {seconds_text(report.elapsed_s)}{known}"
    )


def _finding(finding: Finding, style: Style) -> list[str]:
    tone = _TONES.get(str(finding.severity), Tone.WARN)
    lines = [style.paint(line, tone) for line in style.fit(finding_line(finding), _INDENT)]
    if style.verbose:
        for sample in finding.samples:
            lines += style.fit(one_line(f"{'':<{_INDENT}}{_sample(sample)}"), _INDENT + 2)
    if finding.hint:
        lines += style.fit(one_line(f"{'':<{_INDENT}}{finding.hint}"), _INDENT)
    return lines


def _sample(sample: Any) -> str:
    return ", ".join(f"{key} {item}" for key, item in sample.items())


def _subjects(report: CheckReport, style: Style) -> list[str]:
    """Return how many rules were applied to each subject: failed ones first, then some others."""
    failed = Counter(f.subject for f in report.findings if str(f.severity) == "error")
    applied = Counter(_subject(rule, subject) for rule, subject in report.checked)
    ordered = sorted(applied.items(), key=lambda item: not failed[item[0]])
    most = (
        len(ordered) if style.verbose else max(_MOST_SUBJECTS, sum(1 for s in applied if failed[s]))
    )
    room = max(20, style.width - _FIGURES_WIDTH) if style.wraps else sys.maxsize
    rows = [
        (
            _cut(one_line(subject), room),
            count_text(number, "rule"),
            f"{failed[subject]} failed" if failed[subject] else "",
        )
        for subject, number in ordered[:most]
    ]
    lines = aligned(rows, "  ")
    if len(ordered) > most:
        lines.append(f"  and {len(ordered) - most} more without a failure (-v shows all)")
    return lines


def _subject(rule: str, subject: str) -> str:
    """Return the file of a rule; parameters are counted with the file that they stand in."""
    return subject.partition(": ")[0] if rule.startswith("params.") else subject


def _cut(text: str, room: int) -> str:
    """Return a path that fits, without its middle: both ends tell it from others."""
    if len(text) <= room:
        return text
    half = (room - 1) // 2
    return f"{text[:half]}…{text[-half:]}"


def as_data(value: Checked) -> dict[str, Any]:
    """Return the report as JSON, sample rows included: it is asked for on the spot."""
    data = checks_data(value.report)
    for entry, finding in zip(data["findings"], value.report.findings, strict=True):
        entry["samples"] = [dict(sample) for sample in finding.samples]
    data["checked"] = [
        {"check": rule, "subject": subject} for rule, subject in value.report.checked
    ]
    return data
