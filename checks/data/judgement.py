"""Collects what the rules find about one data set, and shows failing rows at the end."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from checks.model import CheckReport, CheckSkip, Finding, Severity

if TYPE_CHECKING:
    from checks.data.declaration import DataCheck
    from checks.data.source import SourceProblem
    from checks.data.table import Data, Predicate, Summary

SHOWN_FINDINGS = 200


@dataclass(slots=True)
class Judgement:
    """The outcome of one data set while its rules are applied.

    Attributes:
        subject: How people know the data set.
        declaration: What the project demands.
        family: What the names of its rules start with, instead of ``data``.
        rows: Number of rows.
        summaries: The figures of each column.
    """

    subject: str
    declaration: DataCheck
    family: str = "data"
    rows: int = 0
    summaries: dict[str, Summary] = field(default_factory=dict)
    checked: dict[str, None] = field(default_factory=dict)
    skipped: list[CheckSkip] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)
    _found: list[tuple[Finding, Predicate | None]] = field(default_factory=list)

    def applied(self, rule: str) -> None:
        """Note that `rule` was applied, whatever it found."""
        self.checked[self._named(rule)] = None

    def found(self, finding: Finding, predicate: Predicate | None = None) -> None:
        """Add a finding; rows that `predicate` marks are shown with it."""
        self.applied(finding.check)
        self._found.append((finding, predicate))

    def unreadable(self, problem: SourceProblem) -> None:
        """Add what keeps the data, or a part of it, from being checked."""
        value, limit = problem.figures or (None, None)
        self.found(
            self.finding(problem.rule, str(problem), value=value, limit=limit, hint=problem.hint)
        )

    def has_found(self, rule: str) -> bool:
        """Return whether a rule has found anything."""
        return any(finding.check == self._named(rule) for finding, _ in self._found)

    def finding(self, rule: str, message: str, **more: Any) -> Finding:
        """Return a finding of the declared severity about this data set."""
        more.setdefault("severity", self.declaration.severity)
        return Finding(check=self._named(rule), subject=self.subject, message=message, **more)

    def column_figures(self, column: str) -> dict[str, Any]:
        """Return the figures of `column`, to be added to."""
        columns: dict[str, dict[str, Any]] = self.figures.setdefault("columns", {})
        return columns.setdefault(column, {})

    def _named(self, rule: str) -> str:
        return rule.replace("data.", f"{self.family}.", 1) if rule.startswith("data.") else rule

    def report(self, data: Data | None, elapsed_s: float) -> CheckReport:
        """Return the report, with at most ten failing rows for each finding.

        Args:
            data: Where the rows are read; None where the data could not be opened.
            elapsed_s: Wall time of the check.
        """
        wanted = [n for n, (_, predicate) in enumerate(self._found) if predicate is not None]
        findings = [finding for finding, _ in self._found]
        if data is not None and wanted:
            predicates = [p for _, p in self._found if p is not None][:SHOWN_FINDINGS]
            shown = wanted[:SHOWN_FINDINGS]
            for n, rows in zip(shown, data.failing(predicates), strict=True):
                findings[n] = replace(findings[n], samples=rows)
        weights = list(Severity)
        return CheckReport(
            checked=tuple((rule, self.subject) for rule in self.checked),
            findings=tuple(sorted(findings, key=lambda f: weights.index(f.severity))),
            skipped=tuple(self.skipped),
            elapsed_s=elapsed_s,
            figures={self.subject: {"rows": self.rows, **self.figures}} if self.rows else {},
        )


def percent(share: float) -> str:
    """Return a share as people read it: ``12.5 %``."""
    text = f"{100 * share:.2f}".rstrip("0").rstrip(".")
    return f"{text if text != '0' or share == 0 else f'{100 * share:.2g}'} %"


def number(value: Any) -> str:
    """Return a figure in at most six digits."""
    return f"{value:.6g}" if isinstance(value, float) else str(value)
