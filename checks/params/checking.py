"""Carrying out `[[check.params]]`: files, then environment, then command line, then rules."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

from checks.model import CheckReport, CheckSkip, Finding, Severity
from checks.params import files, overrides
from checks.params.rules import check_relation, check_rule
from checks.params.values import Unusable, Value

if TYPE_CHECKING:
    from checks.context import Context
    from checks.params.declaration import ParamsCheck

_UNRESOLVED = "${"


def check(declaration: ParamsCheck, context: Context) -> CheckReport:
    """Check the parameters that a run would use."""
    started = time.monotonic()
    findings: list[Finding] = []
    skipped: list[CheckSkip] = []
    found, whole = _collect(declaration, context, findings)
    subject = ", ".join(declaration.files) or "parameters"
    checked = [("params.source", name) for name in declaration.files]
    for rule in declaration.rules if whole else ():
        checked.append(("params.value", f"{subject}: {rule.name}"))
        value = found.get(rule.name)
        if value is not None and isinstance(value.value, str) and _UNRESOLVED in value.value:
            why = f"its value is computed when the run starts (from {value.origin})"
            skipped.append(CheckSkip(f"params.value of {rule.name}", why, "set it to a value"))
            continue
        findings += check_rule(rule, value, subject)
    for relation in declaration.relations if whole else ():
        checked.append(("params.relation", subject))
        findings += check_relation(relation, found, subject)
    if declaration.batch is not None and whole:
        from checks.params import batches  # noqa: PLC0415  # only where declared

        report = batches.check(declaration.batch, found, subject, context)
        checked += report.checked
        findings += report.findings
        skipped += report.skipped
    if declaration.severity is Severity.WARNING:
        findings = [replace(each, severity=Severity.WARNING) for each in findings]
    return CheckReport(tuple(checked), tuple(findings), tuple(skipped), time.monotonic() - started)


def collect(declaration: ParamsCheck, context: Context) -> dict[str, Value]:
    """Return the parameters that a run would use, as far as their sources can be read."""
    return _collect(declaration, context, [])[0]


def _collect(
    declaration: ParamsCheck, context: Context, findings: list[Finding]
) -> tuple[dict[str, Value], bool]:
    """Return the parameters, and whether every source of them could be read."""
    found: dict[str, Value] = {}
    whole, composed = True, False
    groups: set[str] = set()
    command = context.command if declaration.command_line else ()
    for name in declaration.files:
        path = context.resolve(name)
        shown = context.subject(path)
        try:
            if path.is_dir():
                from checks.params import hydra  # noqa: PLC0415  # few projects have it

                found.update(hydra.compose(path, declaration.config_name, command, context))
                groups |= hydra.groups(path)
                composed = True
            else:
                found.update(files.read(path, shown))
        except Unusable as error:
            whole = False
            message = str(error)
            findings.append(
                Finding(f"params.{error.rule}", Severity.ERROR, shown, message, hint=error.hint)
            )
        except OSError as error:
            whole = False
            message, hint = f"cannot be read: {error.strerror}", "correct `file`"
            findings.append(Finding("params.unreadable", Severity.ERROR, shown, message, hint=hint))
    found.update(overrides.from_environment(declaration.environment, context.environ))
    declared = [rule.name for rule in declaration.rules]
    found = overrides.apply(found, command, declared, groups)
    if composed:
        found = hydra.interpolate(found, context)
    return found, whole
