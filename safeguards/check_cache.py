"""Keeps what checks said of inputs, so that unchanged ones are not read again."""

from __future__ import annotations

import contextlib
import json
import os
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from checks.model import CheckReport, CheckSkip, Finding, Severity

FORMAT = 1
_MOST = 2_000
_PRIVATE = 0o600


class FileCache:
    """A JSON file below the store; one that cannot be read or written costs time, no more.

    Args:
        file: Where the results are; written by `close` if anything is new.
        fresh: Whether what is kept is not asked for, and only replaced.
    """

    def __init__(self, file: Path, *, fresh: bool = False) -> None:
        self.file = file
        self._fresh = fresh
        self._known: dict[str, dict[str, Any]] | None = None
        self._changed = False

    def get(self, key: str) -> CheckReport | None:
        """Return the report kept under `key`, or None."""
        kept = self._entries().get(key)
        if kept is None or self._fresh:
            return None
        try:
            report = _read_report(kept["report"])
        except (KeyError, TypeError, ValueError):
            del self._entries()[key]
            return None
        kept["used_at"] = time.time()
        return report

    def put(self, key: str, report: CheckReport) -> None:
        """Keep `report` under `key`, unless it says that something was not available."""
        if report.skipped:
            return  # what was missing may be there next time
        self._entries()[key] = {"used_at": time.time(), "report": asdict(report)}
        self._changed = True

    def close(self) -> None:
        """Write what is new; the least recently used results go first."""
        if not self._changed:
            return
        entries = self._entries()
        newest = sorted(entries.items(), key=lambda item: item[1]["used_at"])[-_MOST:]
        with contextlib.suppress(OSError, ValueError, TypeError):
            text = json.dumps({"format": FORMAT, "results": dict(newest)}).encode()
            partial = self.file.with_name(f"{self.file.name}.{os.getpid()}")
            fd = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, _PRIVATE)
            with os.fdopen(fd, "wb") as stream:
                stream.write(text)
            os.replace(partial, self.file)

    def _entries(self) -> dict[str, dict[str, Any]]:
        if self._known is None:
            self._known = {}
            with contextlib.suppress(OSError, ValueError, AttributeError, TypeError, KeyError):
                content = json.loads(self.file.read_bytes())
                if content.get("format") == FORMAT:
                    self._known = dict(content["results"])
        return self._known


def _read_report(values: dict[str, Any]) -> CheckReport:
    findings = tuple(
        Finding(
            **{
                **finding,
                "severity": Severity(finding["severity"]),
                "samples": tuple(finding.get("samples", ())),
            }
        )
        for finding in values["findings"]
    )
    return CheckReport(
        checked=tuple((str(rule), str(subject)) for rule, subject in values["checked"]),
        findings=findings,
        skipped=tuple(CheckSkip(**skip) for skip in values["skipped"]),
        elapsed_s=float(values["elapsed_s"]),
        cached=int(values["cached"]),
        figures=values.get("figures", {}),
    )
