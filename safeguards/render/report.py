"""A page that was written."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safeguards.output import Style, one_line


@dataclass(frozen=True, slots=True)
class Written:
    """The number of an operation, and the page about it."""

    seq: int
    path: Path


def as_text(value: Written, style: Style) -> list[str]:
    """Return where the page is."""
    del style
    return [one_line(str(value.path))]


def as_data(value: Written) -> dict[str, Any]:
    """Return it as JSON."""
    return {"seq": value.seq, "file": str(value.path)}
