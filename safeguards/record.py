"""What a guarded run leaves behind: the record that the log, the report and JSON show."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from rollback.model import Skip
from safeguards.units import iso_text

if TYPE_CHECKING:
    from checks.model import CheckReport
    from rollback.reports import DrillReport

_SECRET = re.compile(
    # Anywhere in a name, or a whole word of it: `--max-tokens` and `--passes` are none.
    r"password|passwd|passphrase|secret|credential"
    r"|(?:^|[-_.])(?:pass|pwd|token|auth|(?:api|access|private)[-_]?key)(?:$|[-_.](?!len|size|count))",
    re.IGNORECASE,
)
_NAME = re.compile(r"[\w.-]+")
_USER_INFO = re.compile(r"(?<=://)[^/@\s]*:[^/@\s]*(?=@)")
HIDDEN = "***"


@dataclass(frozen=True, slots=True)
class Within:
    """The run around one of the same project, which has the snapshot of both.

    Attributes:
        run_id: Id of its operation.
        run_seq: Its sequence number.
    """

    run_id: str
    run_seq: int


@dataclass(slots=True)
class RunRecord:
    """One run, filled in phase by phase; what is not known yet is None or empty.

    Attributes:
        command: The command's words, secrets hidden.
        started_at: Unix time in seconds.
        run_id: Id of the operation.
        run_seq: Sequence number of the operation.
        snapshot_id: What a rollback puts back.
        child_exit: The command's exit status, None where it was not started.
        elapsed_s: Seconds that the command itself took.
        phases: Name and seconds of each phase, in order.
        protected: What was captured, by resource.
        skipped: Safeguards that were not available.
        checks: What the checks said, None where none ran.
        drill: The verdict of the rehearsal, None where none was made.
        changes: How many things the command added, modified and deleted; None if not looked at.
        changed: The same as people ask for it (`safeguards.changed`): files, tables, packages.
        level: Escalation level that was reached, 0 for none.
        trouble: What went wrong, as `safeguards.escalation.Trouble` names it; empty for nothing.
        attempts: How often the command was started.
        tries: How each of these starts ended: status, seconds, trouble, whether it was put back.
        rolled_back: Whether the state from before was put back.
        label: What the user called the run.
        within: The run around this one, whose snapshot it is; None for none. There is no
            operation of its own then.
    """

    command: tuple[str, ...]
    started_at: float
    run_id: str = ""
    run_seq: int = 0
    snapshot_id: str = ""
    child_exit: int | None = None
    elapsed_s: float | None = None
    phases: list[tuple[str, float]] = field(default_factory=list)
    protected: list[Mapping[str, Any]] = field(default_factory=list)
    skipped: list[Skip] = field(default_factory=list)
    checks: CheckReport | None = None
    drill: DrillReport | None = None
    changes: Mapping[str, int] | None = None
    changed: Mapping[str, Any] | None = None
    level: int = 0
    trouble: str = ""
    attempts: int = 0
    tries: list[Mapping[str, Any]] = field(default_factory=list)
    rolled_back: bool = False
    label: str = ""
    within: Within | None = None

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Time a phase on the monotonic clock, also when it fails."""
        started = time.monotonic()
        try:
            yield
        finally:
            self.phases.append((name, time.monotonic() - started))

    def as_data(self) -> dict[str, Any]:
        """Return the record as the contract names its fields."""
        return {
            "run_id": self.run_id,
            "run_seq": self.run_seq,
            "snapshot_id": self.snapshot_id or None,
            "command": list(self.command),
            "label": self.label,
            "child_exit": self.child_exit,
            "started_at": iso_text(self.started_at),
            "elapsed_s": self.elapsed_s,
            "phases": [{"name": name, "elapsed_s": round(s, 4)} for name, s in self.phases],
            "protected": list(self.protected),
            "skipped": [skip_data(skip) for skip in self.skipped],
            "checks": None if self.checks is None else checks_data(self.checks),
            "drill": None if self.drill is None else drill_data(self.drill),
            "changes": None if self.changes is None else dict(self.changes),
            "changed": None if self.changed is None else dict(self.changed),
            "level": self.level,
            "trouble": self.trouble or None,
            "attempts": self.attempts,
            "tries": list(self.tries),
            "rolled_back": self.rolled_back,
            "within": None if self.within is None else asdict(self.within),
        }


def skip_data(skip: Any) -> dict[str, str]:
    """Return a skip, of the engine or of the checks, as JSON has it."""
    return {"what": skip.what, "why": skip.why, "fix": skip.fix}


def checks_data(report: CheckReport) -> dict[str, Any]:
    """Return the outcome of the checks as the contract names its fields.

    Sample rows are left out: they are the user's data, and a log is read by others.
    """
    return {
        "passed": report.passed,
        "failed": report.failed,
        "warned": report.warned,
        "cached": report.cached,
        "elapsed_s": report.elapsed_s,
        "findings": [
            {
                "check": f.check,
                "severity": str(f.severity),
                "subject": f.subject,
                "column": f.column,
                "value": f.value,
                "limit": f.limit,
                "count": f.count,
                "message": f.message,
                "hint": f.hint,
            }
            for f in report.findings
        ],
        "skipped": [skip_data(skip) for skip in report.skipped],
    }


def drill_data(report: DrillReport) -> dict[str, Any]:
    """Return the verdict of a rehearsal as the contract names its fields."""
    return {
        "snapshot_id": report.snapshot_id,
        "mode": report.mode,
        "elapsed_s": report.elapsed_s,
        "estimate_s": report.estimate_s,
        "bound_s": report.bound_s,
        "budget_s": report.budget_s,
        "passed": report.passed,
        "files": report.files,
        "bytes": report.bytes,
        "parts": [
            {
                "name": part.name,
                "files": part.files,
                "bytes": part.bytes,
                "elapsed_s": part.elapsed_s,
                "estimated_s": part.estimated_s,
            }
            for part in report.parts
        ],
        "failures": list(report.failures),
        "notes": list(report.notes),
        "skipped": [skip_data(skip) for skip in report.skips],
    }


def without_secrets(words: Sequence[str]) -> tuple[str, ...]:
    """Return a command's words with the values of options that sound secret replaced.

    ``--password x``, ``--api-key=x``, ``TOKEN=x`` and ``scheme://user:x@host`` are recognised.
    """
    shown: list[str] = []
    hide_next = False
    for word in words:
        name, separator, value = word.partition("=")
        if hide_next and not word.startswith("-"):
            shown.append(HIDDEN)
        elif separator and value and _sounds_secret(name):
            shown.append(f"{name}={HIDDEN}")
        else:
            shown.append(_USER_INFO.sub(HIDDEN, word))
        hide_next = not separator and word.startswith("-") and _sounds_secret(word)
    return tuple(shown)


def _sounds_secret(name: str) -> bool:
    return bool(_NAME.fullmatch(name) and _SECRET.search(name))
