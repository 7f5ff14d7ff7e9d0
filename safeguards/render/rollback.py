"""A rollback, undo or redo: planned, or carried out."""

from __future__ import annotations

from typing import Any

from safeguards.output import Style, Tone, aligned, one_line
from safeguards.record import skip_data
from safeguards.render.paths import Row, folded, gathered, short_path
from safeguards.render.snapshot import skip_lines
from safeguards.restoration import TAKES_BACK, Restoration
from safeguards.units import bytes_text, count_text, moment_text, seconds_text

_MOST = 40
_WIDEST = 60
_TONES = {"create": Tone.GOOD, "remove": Tone.BAD, "replace": Tone.WARN, "database": Tone.WARN}


def as_text(value: Restoration, style: Style) -> list[str]:
    """Return the plan, or what was done, how long it took, and how the probes ended."""
    if value.elapsed_s is None:
        return _plan(value, style)
    lines = [*_done(value), *skip_lines((*value.unrestorable, *value.unchecked), style)]
    for probe in value.probes:
        verdict = (
            style.paint("passed", Tone.GOOD) if probe.passed else style.paint("failed", Tone.BAD)
        )
        lines.append(
            f"  probe {one_line(probe.name)}: {verdict} in {seconds_text(probe.elapsed_s)}"
        )
    lines += [f"  kept aside: {one_line(path)}" for path in value.kept_aside]
    if value.revert_commit:
        number = count_text(0 if value.revert is None else len(value.revert.commits), "commit")
        lines.append(f"  reverted what was pushed ({number}) by {value.revert_commit[:12]}")
        lines.append("  the remote does not have that yet: git push")
    if value.steps:
        lines.append(f"to take that back: guard {TAKES_BACK[value.kind]}")
    return lines


def _plan(value: Restoration, style: Style) -> list[str]:
    state = f"snapshot {value.snapshot_seq} of {moment_text(value.taken_at)}"
    if not value.steps:
        return [f"nothing to put back: {_rest(value)} is as in {state}",
                *skip_lines(value.unrestorable, style)]  # fmt: skip
    rows = [Row(s.action, s.path, bytes_text(s.bytes) if s.bytes else "", s.detail)
            for s in value.steps]  # fmt: skip
    shown = rows if style.verbose else folded(gathered(rows), _MOST)[:_MOST]
    cells = [(row.action, short_path(row.path), row.size, one_line(row.detail)) for row in shown]
    lines = [f"to put back {state}:"]
    lines += [
        style.paint(line, tone) if (tone := _TONES.get(row.action)) else line
        for line, row in zip(aligned(cells, "  ", _WIDEST), shown, strict=True)
    ]
    hidden = len(rows) - sum(row.stands_for for row in shown)
    if hidden:
        lines.append(f"  and {hidden:,} more (-v shows all)")
    size = sum(step.bytes for step in value.steps)
    changes = count_text(sum(step.changes for step in value.steps), "change")
    lines.append(f"{changes}, {bytes_text(size)} to write")
    return [*lines, *_revert_plan(value), *skip_lines(value.unrestorable, style)]


def _revert_plan(value: Restoration) -> list[str]:
    """Return which commits a new one will revert, and which only leave the branch."""
    if value.revert is None:
        return []
    branch = value.revert.branch.removeprefix("refs/heads/")
    lines = [
        f"then one commit on {one_line(branch)} that reverts what was pushed:",
        *(f"  {c.id[:12]} {one_line(c.subject)}" for c in value.revert.commits[:_MOST]),
    ]
    if value.revert.dropped:
        lines.append("these were not pushed and leave the branch (guard undo has them):")
        lines += [f"  {c.id[:12]} {one_line(c.subject)}" for c in value.revert.dropped[:_MOST]]
    return lines


def _rest(value: Restoration) -> str:
    if value.partial:
        return "the rest of what was chosen" if value.unrestorable else "what was chosen"
    return "everything else" if value.unrestorable else "everything"


def _done(value: Restoration) -> list[str]:
    elapsed, budget = seconds_text(value.elapsed_s or 0.0), seconds_text(value.budget_s)
    if not value.steps:
        return [f"nothing to put back: {_rest(value)} is as in snapshot {value.snapshot_seq}"]
    verified = "verified" if value.verified else "not verified"
    changes = count_text(sum(s.changes for s in value.steps), "change")
    state = f"snapshot {value.snapshot_seq}"
    return [f"put back {changes} from {state} in {elapsed} of {budget}, {verified}"]


def as_data(value: Restoration) -> dict[str, Any]:
    """Return the plan and the outcome as JSON."""
    return {
        "kind": value.kind,
        "snapshot_id": value.snapshot_id,
        "snapshot_seq": value.snapshot_seq,
        "undo_id": value.undo_id or None,
        "dry_run": value.elapsed_s is None,
        "plan": [
            {
                "action": step.action,
                "resource": step.resource,
                "path": step.path,
                "detail": step.detail,
                "bytes": step.bytes,
            }
            for step in value.steps
        ],
        "skipped": [skip_data(skip) for skip in (*value.unrestorable, *value.unchecked)],
        "elapsed_s": value.elapsed_s,
        "budget_s": value.budget_s,
        "within_budget": value.within_budget,
        "verified": value.verified,
        "probes": [
            {"name": p.name, "passed": p.passed, "elapsed_s": p.elapsed_s, "detail": p.detail}
            for p in value.probes
        ],
        "kept_aside": list(value.kept_aside),
        "revert": _revert_data(value),
        "revert_commit": value.revert_commit or None,
    }


def _revert_data(value: Restoration) -> dict[str, Any] | None:
    if value.revert is None:
        return None
    commits, dropped = (
        [{"id": c.id, "author": c.author, "subject": c.subject} for c in lines]
        for lines in (value.revert.commits, value.revert.dropped)
    )
    return {"branch": value.revert.branch, "commits": commits, "dropped": dropped}
