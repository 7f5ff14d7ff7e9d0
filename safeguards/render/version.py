"""The version of guard, asked for."""

from __future__ import annotations

from typing import Any

from safeguards.output import Style


def as_text(value: str, style: Style) -> list[str]:
    """Return the name with the version."""
    del style
    return [f"guard {value}"]


def as_data(value: str) -> dict[str, Any]:
    """Return the version as JSON."""
    return {"version": value}
