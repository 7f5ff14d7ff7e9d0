"""What the checks found."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

from checks.model import CheckReport, Finding
from rollback.model import Skip
from safeguards.output import Style, Tone, aligned, one_line
from safeguards.record import checks_data
from safeguards.render.findings import finding_line
from safeguards.render.snapshot import skip_lines
from safeguards.units import count_text, seconds_text

_TONES = {"error": Tone.BAD, "warning": Tone.WARN, "info": Tone.FAINT}
_MOST = 60


@dataclass(frozen=True, slots=True)
class Checked:
    """A report, and whether the project declares any check."""

    report: CheckReport
    declared: bool


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
    lines += _subjects(report)
    passed = max(0, len(report.checked) - report.failed)
    known = f", {report.cached} known from before" if report.cached else ""
    verdict = style.paint("passed", Tone.GOOD) if report.ok else style.paint("failed", Tone.BAD)
    lines.append(
        f"{verdict}: {passed} passed, {report.failed} failed, {report.warned} warned"
        f" in {seconds_text(report.elapsed_s)}{known}"
    )
    if not value.declared:
        lines.append(undeclared)
    return lines


def _finding(finding: Finding, style: Style) -> list[str]:
    tone = _TONES.get(str(finding.severity), Tone.WARN)
    lines = [style.paint(finding_line(finding), tone)]
    if style.verbose:
        lines += [one_line(f"{'':<9}{_sample(sample)}") for sample in finding.samples]
    if finding.hint:
        lines.append(one_line(f"{'':<9}{finding.hint}"))
    return lines


def _sample(sample: Any) -> str:
    return ", ".join(f"{key} {item}" for key, item in sample.items())


def _subjects(report: CheckReport) -> list[str]:
    """Return how many rules were applied to each subject."""
    failed = Counter(f.subject for f in report.findings if str(f.severity) == "error")
    applied = Counter(subject for _, subject in report.checked)
    rows = [
        (
            one_line(subject),
            count_text(number, "rule"),
            f"{failed[subject]} failed" if failed[subject] else "",
        )
        for subject, number in applied.items()
    ]
    return aligned(rows, "  ")


def as_data(value: Checked) -> dict[str, Any]:
    """Return the report as JSON, sample rows included: it is asked for on the spot."""
    data = checks_data(value.report)
    for entry, finding in zip(data["findings"], value.report.findings, strict=True):
        entry["samples"] = [dict(sample) for sample in finding.samples]
    data["checked"] = [
        {"check": rule, "subject": subject} for rule, subject in value.report.checked
    ]
    return data
