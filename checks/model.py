"""What a check says: findings, each with its figure, its limit and what to do about it."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any


class Severity(enum.StrEnum):
    """How much a finding weighs; only an error stops a run."""

    ERROR = "error"
    WARNING = "warning"
    INFO = "info"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that a check found.

    Attributes:
        check: Stable dotted name of the rule, such as ``data.missing``.
        severity: Whether it stops a run.
        subject: The file (relative to the project), parameter or machine part.
        message: What happened, in one sentence, without secrets.
        column: The column, parameter or member inside the subject.
        value: The measured figure.
        limit: The figure it was held against.
        count: How many rows (or items) fail.
        samples: At most ten failing rows: ``{"row": 17, "value": "x"}``.
        hint: What to type or change next.
    """

    check: str
    severity: Severity
    subject: str
    message: str
    column: str | None = None
    value: float | int | str | None = None
    limit: float | int | str | None = None
    count: int | None = None
    samples: tuple[Mapping[str, Any], ...] = ()
    hint: str = ""


@dataclass(frozen=True, slots=True)
class CheckSkip:
    """A check that could not be made here: what, why, and how to mend it."""

    what: str
    why: str
    fix: str


@dataclass(frozen=True, slots=True)
class CheckReport:
    """The outcome of a set of checks.

    Attributes:
        checked: The rules that were applied, as ``(rule, subject)``.
        findings: Everything found, errors first.
        skipped: Checks that were not available.
        elapsed_s: Wall time in seconds on the monotonic clock.
        cached: How many of `checked` were answered from unchanged inputs.
    """

    checked: tuple[tuple[str, str], ...] = ()
    findings: tuple[Finding, ...] = ()
    skipped: tuple[CheckSkip, ...] = ()
    elapsed_s: float = 0.0
    cached: int = 0
    figures: Mapping[str, Any] = field(default_factory=dict)

    @property
    def passed(self) -> int:
        """Number of rules of `checked` without an error.

        A finding whose own rule is not in the list (``params.range`` of ``params.value``) counts
        against one of its subject's.
        """
        errors = {(f.check, f.subject, f.column) for f in self.of(Severity.ERROR)}
        listed = {*self.checked} & {(check, subject) for check, subject, _ in errors}
        others = {error for error in errors if error[:2] not in listed}
        return max(0, len(self.checked) - len(listed) - len(others))

    @property
    def failed(self) -> int:
        """Number of failures: a rule counts once for each subject and column."""
        return len({(f.check, f.subject, f.column) for f in self.of(Severity.ERROR)})

    @property
    def warned(self) -> int:
        """Number of warnings, counted in the same way."""
        return len({(f.check, f.subject, f.column) for f in self.of(Severity.WARNING)})

    @property
    def ok(self) -> bool:
        """Whether nothing found is an error."""
        return not any(f.severity is Severity.ERROR for f in self.findings)

    def of(self, severity: Severity) -> Iterable[Finding]:
        """Return the findings of one severity."""
        return (f for f in self.findings if f.severity is severity)


def merge(reports: Iterable[CheckReport]) -> CheckReport:
    """Join reports into one: findings errors first, times added."""
    checked: list[tuple[str, str]] = []
    findings: list[Finding] = []
    skipped: list[CheckSkip] = []
    figures: dict[str, Any] = {}
    elapsed_s, cached = 0.0, 0
    for report in reports:
        checked += report.checked
        findings += report.findings
        skipped += report.skipped
        figures.update(report.figures)
        elapsed_s += report.elapsed_s
        cached += report.cached
    order = {Severity.ERROR: 0, Severity.WARNING: 1, Severity.INFO: 2}
    findings.sort(key=lambda f: order[f.severity])
    return CheckReport(tuple(checked), tuple(findings), tuple(skipped), elapsed_s, cached, figures)
