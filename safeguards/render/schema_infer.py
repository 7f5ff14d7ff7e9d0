"""A schema that was inferred."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safeguards.output import Style, one_line


@dataclass(frozen=True, slots=True)
class Inferred:
    """A schema, the data it is of, and where it was written (None for nowhere)."""

    source: Path
    text: str
    target: Path | None


def as_text(value: Inferred, style: Style) -> list[str]:
    """Return the schema itself, or where it was written."""
    del style
    if value.target is None:
        return [value.text.rstrip("\n")]
    return [one_line(f"wrote {value.target}; name it in guard.toml: schema = …")]


def as_data(value: Inferred) -> dict[str, Any]:
    """Return the schema as JSON."""
    target = None if value.target is None else str(value.target)
    return {"source": str(value.source), "schema": value.text, "written_to": target}
