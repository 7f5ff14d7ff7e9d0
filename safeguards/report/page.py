"""Composes the page from the record of an operation; everything in it is escaped."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from rollback.model import Operation
from rollback.reports import Difference
from safeguards.changed import changed_data, changed_text, is_database
from safeguards.escalation import Level
from safeguards.output import one_line
from safeguards.render.diff import change_rows, rows_text, sizes, versions_text
from safeguards.render.log import operation_data, summary
from safeguards.render.paths import command_line
from safeguards.units import bytes_text, local_text, seconds_text

_MOST_CHANGES = 500
_STYLE = """
:root { color-scheme: light dark; --good: #1a7f37; --bad: #cf222e; --warn: #9a6700; --line: #8884; }
@media (prefers-color-scheme: dark) {
  :root { --good: #4ac26b; --bad: #ff7b72; --warn: #e3b341; }
}
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem;
  overflow-wrap: break-word; }
h1 { font-size: 1.5rem; margin: .25rem 0 1rem; }
h2 { font-size: 1.1rem; margin: 2rem 0 .5rem; }
header, footer { opacity: .75; font-size: .9em; }
footer { margin-top: 2rem; }
code, td.path { font-family: ui-monospace, monospace; font-size: .9em; overflow-wrap: anywhere; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; padding: .25rem .75rem .25rem 0; border-bottom: 1px solid var(--line);
  vertical-align: top; }
th:last-child, td:last-child { padding-right: 0; }
td.path { min-width: 6rem; }
td.word { white-space: nowrap; width: 1%; }
th.figure, td.figure { text-align: right; width: 1%; font-variant-numeric: tabular-nums; }
td.figure { white-space: nowrap; }
.good { color: var(--good); } .bad { color: var(--bad); } .warn { color: var(--warn); }
@media print { body { max-width: none; } }
@media (max-width: 30rem) {
  body { margin: 1rem auto; }
  th, td { padding-right: .5rem; }
}
"""
_TONES = {"added": "good", "modified": "warn", "deleted": "bad"}


@dataclass(frozen=True, slots=True)
class Subject:
    """What a page is about.

    Attributes:
        operation: The operation.
        difference: What differs; None where that is not known.
        heading: What that difference is, for people.
        project: Name of the project's folder.
    """

    operation: Operation
    difference: Difference | None = None
    heading: str = "Different now from before"
    project: str = ""


def compose(subject: Subject, made_at: str) -> str:
    """Return the page.

    Args:
        subject: What it is about.
        made_at: When the page is made, for people.
    """
    operation = subject.operation
    data = operation_data(operation)
    title = f"{operation.kind} {operation.seq}"
    of = f" of {_text(subject.project)}" if subject.project else ""
    parts = [
        f"<header>guard: {_text(title)}{of}</header>",
        _heading(operation, data),
        *_all_changes(subject, data.get("changed")),
        _probes(data.get("probes")),
        _checks(data.get("checks")),
        _drill(data.get("drill")),
        _phases(data.get("phases")),
        _protected(data.get("protected")),
        _skipped(data.get("skipped") or data.get("unrestorable")),
    ]
    body = "\n".join(part for part in parts if part)
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>guard: {_text(title)}{of}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        f"{body}\n<footer>Made by guard on {_text(made_at)}.</footer>\n</body>\n</html>\n"
    )


def _heading(operation: Operation, data: Mapping[str, Any]) -> str:
    tone = {"done": "good", "failed": "bad"}.get(operation.state, "warn")
    status = data.get("child_exit")
    rows = [
        ("Command", f"<code>{_text(command_line(data.get('command', ())))}</code>"),
        ("Label", _text(data.get("label") or "")),
        ("Started", _text(local_text(operation.started_at))),
        ("Took", _took(operation)),
        ("Exit status", "" if status is None else _text(status)),
        ("What", "" if operation.kind == "run" else _text(summary(operation))),
        ("Trouble", _text(str(data.get("trouble") or "").replace("_", " "))),
        ("Error", _text(data.get("error") or "")),
        ("Who acts", _level(data.get("level"))),
        ("Rolled back", "yes" if data.get("rolled_back") else ""),
        ("Snapshot", f"<code>{_text(data.get('snapshot_id') or '')}</code>"),
        ("To go back", f"<code>{_back(data)}</code>"),
        ("To take it back", f"<code>{_AGAIN.get(operation.kind, '')}</code>"),
    ]
    shown = [
        (f'<td class="word">{name}</td>', value)
        for name, value in rows
        if value not in {"", "<code></code>"}
    ]
    state = f'<span class="{tone}">{_text(operation.state)}</span>'
    kind = _text(operation.kind.capitalize())
    return f"<h1>{kind} {operation.seq}: {state}</h1>\n" + _table((), shown)


_AGAIN = {"rollback": "guard undo", "undo": "guard redo", "redo": "guard undo"}


def _took(operation: Operation) -> str:
    if operation.ended_at is None or operation.ended_at < operation.started_at:
        return ""
    return _text(seconds_text(operation.ended_at - operation.started_at))


def _level(level: Any) -> str:
    if not isinstance(level, int) or level not in range(1, 5):
        return ""
    return _text(f"{Level(level).title} (level {level})")


def _back(data: Mapping[str, Any]) -> str:
    return f"guard rollback --to {data['seq']}" if data.get("snapshot_id") else ""


def _all_changes(subject: Subject, changed: Any) -> tuple[str, ...]:
    """Return what the command changed and what differs now, once where that is the same."""
    same = subject.difference is not None and changed == changed_data(subject.difference)
    if same:
        return (_changes(replace(subject, heading=_BY_COMMAND)),)
    return _changed(changed), _changes(subject)


_BY_COMMAND = "Changed by the command"


def _changed(changed: Any) -> str:
    """Return what a run changed, as it was seen when the command had ended."""
    if not isinstance(changed, Mapping):
        return ""
    rows = [
        _change_row(table["action"], f"{database['name']}: table {table['name']}",
                    rows_text(table["old_rows"], table["new_rows"], table.get("rewritten")))
        for database in changed.get("databases", ())
        for table in database["tables"]
    ]  # fmt: skip
    rows += [
        _change_row(package["action"], f"package {package['name']}",
                    versions_text(package["old_version"], package["new_version"]))
        for package in changed.get("packages", ())
    ]  # fmt: skip
    text = f"<p>{_text(changed_text(changed, counted=True))}</p>\n"
    columns = ("", "What", "")
    return f"<h2>{_BY_COMMAND}</h2>\n" + text + (_table(columns, rows) if rows else "")


def _change_row(action: str, what: str, detail: str) -> tuple[str, ...]:
    name = f'<span class="{_TONES.get(action, "")}">{_text(action)}</span>'
    return (
        f'<td class="word">{name}</td>',
        _named(what),
        _figure(detail),
    )


def _probes(probes: Any) -> str:
    if not isinstance(probes, Sequence) or not probes:
        return ""
    rows = [
        (
            _verdict(passed=probe["passed"]),
            _named(probe["name"]),
            _figure(seconds_text(probe["elapsed_s"])),
        )
        for probe in probes
    ]
    return "<h2>Probes</h2>\n" + _table(("", "Probe", "#Time"), rows)


def _verdict(*, passed: bool) -> str:
    return f'<span class="{"good" if passed else "bad"}">{"passed" if passed else "failed"}</span>'


def _phases(phases: Any) -> str:
    if not isinstance(phases, Sequence) or not phases:
        return ""
    rows = [(_text(phase["name"]), _figure(seconds_text(phase["elapsed_s"]))) for phase in phases]
    return "<h2>Phases</h2>\n" + _table(("Phase", "#Time"), rows)


def _checks(checks: Any) -> str:
    if not isinstance(checks, Mapping):
        return ""
    head = f"{checks['passed']} passed, {checks['failed']} failed, {checks['warned']} warned"
    rows = [
        (
            _tone(finding["severity"]),
            _named(f"{finding['subject']} {finding['column'] or ''}"),
            _text(finding["message"]),
            _figure(_value(finding["value"])),
            _figure(_value(finding["limit"])),
        )
        for finding in checks["findings"]
    ]
    columns = ("", "Subject", "What", "#Figure", "#Limit")
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
            _named(part["name"]),
            _figure(f"{part['files']:,}"),
            _figure(bytes_text(part["bytes"])),
            _figure(seconds_text(part["estimated_s"])),
        )
        for part in drill.get("parts", ())
    ]
    text = f"A rollback of everything takes {bound} at most; the budget is {budget}."
    table = _table(("Part", "#Files rehearsed", "#Bytes rehearsed", "#Estimate"), rows)
    return f"<h2>Drill: {verdict}</h2>\n<p>{_text(text)}</p>\n{table if rows else ''}"


def _changes(subject: Subject) -> str:
    difference = subject.difference
    if difference is None:
        return ""
    head = f"<h2>{_text(subject.heading)}</h2>\n"
    if not difference.changes and not difference.distributions:
        return f"{head}<p>Nothing differs.</p>"
    told = f"<p>{_text(changed_text(changed_data(difference), counted=True))}</p>\n"
    rows = [
        _change_row(row.action, row.path, row.size or row.detail)
        for row in change_rows(difference, _MOST_CHANGES)
    ]
    for change in filter(is_database, difference.changes):
        detail = ", ".join(filter(None, (sizes(change), change.detail)))
        rows.append(_change_row(change.action, change.path, detail))
        rows += [
            _change_row(t.action, f"table {t.name}", rows_text(t.old_rows, t.new_rows, t.rewritten))
            for t in (change.tables if change.action == "modified" else ())
        ]
    rows += [
        _change_row(c.action, f"package {c.name}", versions_text(c.old_version, c.new_version))
        for c in difference.distributions
    ]
    shown = rows[:_MOST_CHANGES]
    more = f"<p>and {len(rows) - len(shown):,} more</p>" if len(shown) < len(rows) else ""
    return head + told + _table(("", "Path", "#"), shown) + more


def _protected(protected: Any) -> str:
    if not isinstance(protected, Sequence) or not protected:
        return ""
    rows = [
        (_text(p["resource"]), _text(p["category"]), _named(p["name"]),
         _figure(f"{p['files']:,}"), _figure(bytes_text(p["bytes"])))
        for p in protected
    ]  # fmt: skip
    columns = ("Resource", "Category", "Name", "#Files", "#Bytes")
    return "<h2>Protected</h2>\n" + _table(columns, rows)


def _skipped(skipped: Any) -> str:
    if not isinstance(skipped, Sequence) or not skipped:
        return ""
    rows = [(_text(s["what"]), _text(s["why"]), f"<code>{_text(s['fix'])}</code>") for s in skipped]
    return "<h2>Not protected</h2>\n" + _table(("What", "Why", "Mend"), rows)


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table; a column whose name begins with ``#`` holds figures."""
    head = "".join(
        f'<th class="figure">{_text(name[1:])}</th>'
        if name.startswith("#")
        else f"<th>{_text(name)}</th>"
        for name in columns
    )
    lines = [f"<tr>{head}</tr>"] if columns else []
    for row in rows:
        cells = "".join(c if c.startswith("<td") else f"<td>{c}</td>" for c in row)
        lines.append(f"<tr>{cells}</tr>")
    return '<div class="wide"><table>\n' + "\n".join(lines) + "\n</table></div>"


def _named(name: str) -> str:
    """Return a cell with a name, which may be long and is broken anywhere."""
    return f'<td class="path">{_text(name)}</td>'


def _figure(text: str) -> str:
    return f'<td class="figure">{_text(text)}</td>'


def _tone(severity: str) -> str:
    tone = {"error": "bad", "warning": "warn"}.get(severity, "")
    return f'<span class="{tone}">{_text(severity)}</span>'


def _value(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _text(value: Any) -> str:
    """Return a text escaped for HTML, odd bytes and controls as escapes."""
    text = one_line(str(value))
    return html.escape(text.encode("utf-8", "backslashreplace").decode())
