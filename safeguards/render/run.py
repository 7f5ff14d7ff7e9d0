"""The record of a run; its story was told while it happened."""

from __future__ import annotations

from typing import Any

from safeguards.output import Style
from safeguards.record import RunRecord


def as_text(value: RunRecord, style: Style) -> list[str]:
    """Return nothing: the story was told already."""
    del value, style
    return []


def as_data(value: RunRecord) -> dict[str, Any]:
    """Return the record as JSON."""
    return value.as_data()
