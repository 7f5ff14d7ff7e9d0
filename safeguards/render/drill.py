"""The verdict of a rehearsal."""

from __future__ import annotations

from typing import Any

from rollback.reports import DrillReport
from safeguards.output import Style, Tone, aligned, one_line
from safeguards.record import drill_data
from safeguards.render.snapshot import skip_lines
from safeguards.units import bytes_text, count_text, seconds_text

_MOST_PARTS = 6


def as_text(value: DrillReport, style: Style) -> list[str]:
    """Return the verdict, what was measured, and the slowest parts."""
    verdict = style.paint("passed", Tone.GOOD) if value.passed else style.paint("failed", Tone.BAD)
    whole = "all" if value.mode == "full" else "a sample"
    bound, budget = seconds_text(value.bound_s), seconds_text(value.budget_s)
    size = f"{count_text(value.files, 'file')}, {bytes_text(value.bytes)}"
    took, estimate = seconds_text(value.elapsed_s), seconds_text(value.estimate_s)
    what = f"a rollback of everything takes {bound} at most of {budget}"
    if value.failures:
        what = "not everything came back as it was"
    lines = [
        f"drill {verdict}: {what}",
        f"  rehearsed {whole}: {size} in {took} (estimate for everything: {estimate})",
    ]
    parts = value.parts if style.verbose else value.parts[:_MOST_PARTS]
    lines += aligned(
        [
            (one_line(p.name), count_text(p.files, "file"), bytes_text(p.bytes),
             seconds_text(p.estimated_s))
            for p in parts
        ],
        "  ",
    )  # fmt: skip
    lines += [style.paint(one_line(f"  not reproduced: {f}"), Tone.BAD) for f in value.failures]
    lines += [style.paint(one_line(f"  broken before too: {n}"), Tone.WARN) for n in value.notes]
    return [*lines, *skip_lines(value.skips, style)]


def as_data(value: DrillReport) -> dict[str, Any]:
    """Return the verdict as JSON."""
    return drill_data(value)
