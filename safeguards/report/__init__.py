"""One self-contained HTML page about a run: no script, no font, no request to anywhere."""

from __future__ import annotations

from safeguards.report.page import Subject, compose

__all__ = ["Subject", "compose"]
