"""The help of guard or of one verb, asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from safeguards.output import Style


@dataclass(frozen=True, slots=True)
class Help:
    """The words that the help is about (``guard schema infer``), and its text."""

    command: str
    text: str


def as_text(value: Help, style: Style) -> list[str]:
    """Return the text as it is."""
    del style
    return [value.text]


def as_data(value: Help) -> dict[str, Any]:
    """Return both as JSON."""
    return {"command": value.command, "text": value.text}
