"""The state of the store."""

from __future__ import annotations

from typing import Any

from rollback.reports import Damage, VerifyReport
from safeguards.output import Style, Tone, one_line
from safeguards.units import bytes_text, count_text, seconds_text

_MOST_PATHS = 5
_MOST_DAMAGE = 40


def as_text(value: VerifyReport, style: Style) -> list[str]:
    """Return what is damaged and what that touches, and how much was read."""
    lines: list[str] = []
    # What stays damaged is what somebody has to know; what was mended comes after it.
    told = sorted(value.damage, key=lambda damage: damage.repaired)
    shown = told if style.verbose else told[:_MOST_DAMAGE]
    for damage in shown:
        lines += _damage(damage, style)
    if len(told) > len(shown):
        lines.append(f"and {len(told) - len(shown):,} more (-v shows all)")
    verdict = style.paint("whole", Tone.GOOD) if value.ok else style.paint("damaged", Tone.BAD)
    lines.append(
        f"the store is {verdict}: {count_text(value.snapshots, 'snapshot')},"
        f" {count_text(value.blobs, 'blob')}, {bytes_text(value.bytes)} read in"
        f" {seconds_text(value.elapsed_s)}"
    )
    return lines


def _damage(damage: Damage, style: Style) -> list[str]:
    state = "mended" if damage.repaired else "damaged"
    tone = Tone.WARN if damage.repaired else Tone.BAD
    lines = [style.paint(one_line(f"{state}  {damage.what}"), tone)]
    if damage.snapshots:
        lines.append(f"  needed by {', '.join(name[:8] for name in damage.snapshots)}")
    lines += [f"  content of {one_line(path)}" for path in damage.paths[:_MOST_PATHS]]
    if len(damage.paths) > _MOST_PATHS:
        lines.append(f"  and {len(damage.paths) - _MOST_PATHS} more paths")
    return lines


def as_data(value: VerifyReport) -> dict[str, Any]:
    """Return the report as JSON."""
    return {
        "ok": value.ok,
        "blobs": value.blobs,
        "bytes": value.bytes,
        "snapshots": value.snapshots,
        "elapsed_s": value.elapsed_s,
        "damage": [
            {
                "what": d.what,
                "snapshots": list(d.snapshots),
                "paths": list(d.paths),
                "repaired": d.repaired,
            }
            for d in value.damage
        ],
    }
