"""A configuration that was composed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safeguards.output import Style, aligned, one_line


@dataclass(frozen=True, slots=True)
class Initial:
    """A configuration: where it belongs, its text, whether it was written, what was found."""

    file: Path
    text: str
    written: bool
    found: Mapping[str, Any]


def as_text(value: Initial, style: Style) -> list[str]:
    """Return the text itself, or what was found and where it was written."""
    del style
    if not value.written:
        return [value.text.rstrip("\n")]
    rows = []
    for name, items in value.found.items():
        if isinstance(items, list) and items:
            shown = ", ".join(one_line(str(item)) for item in items[:4])
            more = f" and {len(items) - 4} more" if len(items) > 4 else ""  # noqa: PLR2004
            rows.append((name, shown + more))
    return [*aligned(rows, "  "), f"wrote {one_line(str(value.file))}; next: guard status"]


def as_data(value: Initial) -> dict[str, Any]:
    """Return it as JSON."""
    return {
        "file": str(value.file),
        "written": value.written,
        "text": value.text,
        "found": dict(value.found),
    }
