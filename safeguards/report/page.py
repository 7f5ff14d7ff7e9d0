"""Composes the page from the record of an operation; everything in it is escaped."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rollback.model import Operation
from rollback.reports import Difference
from safeguards.output import one_line
from safeguards.render.log import operation_data, summary
from safeguards.render.paths import Row, command_line, gathered
from safeguards.units import bytes_text, seconds_text

_MOST_CHANGES = 500
_STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
code, td.path { font-family: ui-monospace, monospace; font-size: .9em; overflow-wrap: anywhere; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; padding: .25rem .75rem .25rem 0; border-bottom: 1px solid #8884;
  vertical-align: top; }
td.figure { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }
.good { color: #1a7f37; } .bad { color: #cf222e; } .warn { color: #9a6700; }
"""


def compose(operation: Operation, difference: Difference | None, made_at: str) -> str:
    """Return the page.

    Args:
        operation: What it is about.
        difference: What has changed since its snapshot; None where that is not known.
        made_at: When the page is made, for people.
    """
    data = operation_data(operation)
    title = f"{operation.kind} {operation.seq}"
    parts = [
        _heading(operation, data),
        _phases(data.get("phases")),
        _checks(data.get("checks")),
        _drill(data.get("drill")),
        _changes(difference),
        _protected(data.get("protected")),
        _skipped(data.get("skipped")),
    ]
    body = "\n".join(part for part in parts if part)
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>guard: {_text(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        f"{body}\n<p>Made by guard on {_text(made_at)}.</p>\n</body>\n</html>\n"
    )


def _heading(operation: Operation, data: Mapping[str, Any]) -> str:
    tone = {"done": "good", "failed": "bad"}.get(operation.state, "warn")
    rows = [
        ("Command", f"<code>{_text(command_line(data.get('command', ())))}</code>"),
        ("Started", _text(data["started_at"])),
        ("Summary", _text(summary(operation))),
        ("Label", _text(data.get("label") or "")),
        ("Trouble", _text(str(data.get("trouble") or "").replace("_", " "))),
        ("Error", _text(data.get("error") or "")),
        ("Snapshot", f"<code>{_text(data.get('snapshot_id') or '')}</code>"),
        ("Back", f"<code>{_back(data)}</code>"),
    ]
    shown = [(name, value) for name, value in rows if value not in {"", "<code></code>"}]
    state = f'<span class="{tone}">{_text(operation.state)}</span>'
    return f"<h1>{_text(operation.kind)} {operation.seq}: {state}</h1>\n" + _table((), shown)


def _back(data: Mapping[str, Any]) -> str:
    return f"guard rollback --to {data['seq']}" if data.get("snapshot_id") else ""


def _phases(phases: Any) -> str:
    if not isinstance(phases, Sequence) or not phases:
        return ""
    rows = [(_text(phase["name"]), _figure(seconds_text(phase["elapsed_s"]))) for phase in phases]
    return "<h2>Phases</h2>\n" + _table(("Phase", "Time"), rows)


def _checks(checks: Any) -> str:
    if not isinstance(checks, Mapping):
        return ""
    head = f"{checks['passed']} passed, {checks['failed']} failed, {checks['warned']} warned"
    rows = [
        (
            _tone(finding["severity"]),
            _text(f"{finding['subject']} {finding['column'] or ''}"),
            _text(finding["message"]),
            _figure(_value(finding["value"])),
            _figure(_value(finding["limit"])),
        )
        for finding in checks["findings"]
    ]
    columns = ("", "Subject", "What", "Figure", "Limit")
    return f"<h2>Checks: {_text(head)}</h2>\n" + (_table(columns, rows) if rows else "")


def _drill(drill: Any) -> str:
    if not isinstance(drill, Mapping):
        return ""
    bound, budget = seconds_text(drill["bound_s"]), seconds_text(drill["budget_s"])
    verdict = (
        '<span class="good">passed</span>'
        if drill["passed"]
        else ('<span class="bad">not passed</span>')
    )
    rows = [
        (
            f'<td class="path">{_text(part["name"])}</td>',
            _figure(f"{part['files']:,}"),
            _figure(bytes_text(part["bytes"])),
            _figure(seconds_text(part["estimated_s"])),
        )
        for part in drill.get("parts", ())
    ]
    text = f"A rollback of everything takes {bound} at most; the budget is {budget}."
    table = _table(("Part", "Files rehearsed", "Bytes rehearsed", "Estimate"), rows)
    return f"<h2>Drill: {verdict}</h2>\n<p>{_text(text)}</p>\n{table if rows else ''}"


def _changes(difference: Difference | None) -> str:
    if difference is None:
        return ""
    rows = gathered(
        [
            Row(c.action, c.path, _size(c.old_bytes, c.new_bytes), c.detail)
            for c in difference.changes
        ]
    )
    shown = [
        (_text(row.action), f'<td class="path">{_text(row.path)}</td>', _figure(row.size),
         _text(row.detail))
        for row in rows[:_MOST_CHANGES]
    ]  # fmt: skip
    more = f"<p>and {len(rows) - len(shown):,} more</p>" if len(shown) < len(rows) else ""
    head = f"<h2>Changed since: {len(difference.changes):,}</h2>\n"
    return head + (_table(("", "Path", "Size", ""), shown) if shown else "") + more


def _protected(protected: Any) -> str:
    if not isinstance(protected, Sequence) or not protected:
        return ""
    rows = [
        (_text(p["resource"]), _text(p["category"]), _text(p["name"]),
         _figure(f"{p['files']:,}"), _figure(bytes_text(p["bytes"])))
        for p in protected
    ]  # fmt: skip
    columns = ("Resource", "Category", "Name", "Files", "Bytes")
    return "<h2>Protected</h2>\n" + _table(columns, rows)


def _skipped(skipped: Any) -> str:
    if not isinstance(skipped, Sequence) or not skipped:
        return ""
    rows = [(_text(s["what"]), _text(s["why"]), f"<code>{_text(s['fix'])}</code>") for s in skipped]
    return "<h2>Not protected</h2>\n" + _table(("What", "Why", "Mend"), rows)


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    head = "".join(f"<th>{_text(name)}</th>" for name in columns)
    lines = [f"<tr>{head}</tr>"] if columns else []
    for row in rows:
        cells = "".join(c if c.startswith("<td") else f"<td>{c}</td>" for c in row)
        lines.append(f"<tr>{cells}</tr>")
    return "<table>\n" + "\n".join(lines) + "\n</table>"


def _figure(text: str) -> str:
    return f'<td class="figure">{_text(text)}</td>'


def _tone(severity: str) -> str:
    tone = {"error": "bad", "warning": "warn"}.get(severity, "")
    return f'<span class="{tone}">{_text(severity)}</span>'


def _value(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _size(old: int | None, new: int | None) -> str:
    shown = [bytes_text(size) for size in (old, new) if size is not None]
    return " → ".join(dict.fromkeys(shown))


def _text(value: Any) -> str:
    """Return a text escaped for HTML, odd bytes and controls as escapes."""
    text = one_line(str(value))
    return html.escape(text.encode("utf-8", "backslashreplace").decode())
