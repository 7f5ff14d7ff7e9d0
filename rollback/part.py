"""What one root or resource contributes to a rehearsal: sizes, times, and what was wrong."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field

from rollback.metadata import AS_OWNER
from rollback.model import Skip
from rollback.room import PAGE

SAFETY = 1.25
"""The bound is this many times the estimate: the disk of tomorrow is not that of today."""
_DOUBT = 2.0
"""The bound of what could not be rehearsed at all is this many times what the rest took."""


@dataclass(slots=True)
class Part:
    """What one root or resource contributed."""

    name: str
    files: int = 0
    size: int = 0
    elapsed_s: float = 0.0
    estimate_s: float = 0.0
    bound_s: float = 0.0
    failures: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    skips: list[Skip] = field(default_factory=list)
    sampled: bool = False
    lost: bool = False
    unsynced: bool = False
    unmeasured: int = 0
    weight: int = 0

    def crowded(self, why: str) -> None:
        """Say that there is no room to rehearse all of it."""
        self.sampled = True
        fix = "free some space, then guard drill --full"
        self.skips.append(Skip(f"a part of the drill of {self.name}", why, fix))

    def name_unset(self, root: bytes, notes: Iterable[tuple[bytes, str]]) -> None:
        """Name what this user cannot set, each reason once: a rollback brings the rest back."""
        reasons: dict[str, list[bytes]] = {}
        for path, why in notes:
            reasons.setdefault(why, []).append(path)
        for why, paths in reasons.items():
            more = f" and {len(paths) - 1:,} more" if len(paths) > 1 else ""
            shown = os.fsdecode(os.path.join(root, min(paths))) + more
            self.skips.append(Skip(shown, f"where a rollback makes it again, {why}", AS_OWNER))


def guess(parts: list[Part]) -> None:
    """Estimate what there was no room to rehearse, at the pace of all that was."""
    missing = [part for part in parts if part.unmeasured]
    written = sum(part.size + PAGE * part.files for part in parts)
    if missing and not written:
        missing[0].crowded("nothing of it was rehearsed: how long a rollback takes is not known")
        return
    pace_s = sum(part.elapsed_s for part in parts) / max(1, written)
    for part in missing:
        part.estimate_s += part.unmeasured * pace_s
        part.bound_s += part.unmeasured * pace_s * _DOUBT * SAFETY
