"""The engine's failpoints."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from safeguards.output import Style, aligned


@dataclass(frozen=True, slots=True)
class Listed:
    """What can be armed: each place with what it stands before or after, and the actions."""

    places: Mapping[str, str]
    actions: tuple[str, ...]


def as_text(value: Listed, style: Style) -> list[str]:
    """Return a line for each place."""
    del style
    return aligned(list(value.places.items()))


def as_data(value: Listed) -> dict[str, Any]:
    """Return names, meanings and actions as JSON."""
    places = [{"name": name, "what": what} for name, what in value.places.items()]
    return {"failpoints": places, "actions": list(value.actions)}
