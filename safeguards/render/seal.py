"""A manifest that was written."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from checks.seal import Manifest
from safeguards.output import Style, one_line
from safeguards.units import count_text


@dataclass(frozen=True, slots=True)
class Sealed:
    """A manifest and where it was written."""

    file: Path
    manifest: Manifest


def as_text(value: Sealed, style: Style) -> list[str]:
    """Return how many files were sealed and how to check them."""
    lines = [
        f"sealed {count_text(len(value.manifest.seals), 'file')} in {one_line(str(value.file))}"
    ]
    if style.verbose:
        lines += [one_line(f"  {seal.digest}  {seal.name}") for seal in value.manifest.seals]
    return lines


def as_data(value: Sealed) -> dict[str, Any]:
    """Return the manifest as JSON."""
    return {
        "manifest": str(value.file),
        "files": [{"path": seal.name, "sha256": seal.digest} for seal in value.manifest.seals],
    }
