"""What the hooks say: findings of a commit, and where a hook was installed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from checks.model import CheckReport, Severity
from safeguards.integrations.git_hook import HookInstall
from safeguards.output import Style, one_line
from safeguards.render.findings import finding_lines


def as_text(value: CheckReport | HookInstall, style: Style) -> Iterator[str]:
    """Yield the lines of a report, none where nothing was found; or where the hook is."""
    del style
    if isinstance(value, HookInstall):
        yield from _install_lines(value)
        return
    yield from finding_lines(value)
    for skip in value.skipped:
        yield one_line(f"{'skipped':<9}{skip.what}: {skip.why}")
        yield one_line(f"{'':<9}{skip.fix}")
    errors = sum(1 for _ in value.of(Severity.ERROR))
    if errors:
        yield f"guard: {errors} {'problem' if errors == 1 else 'problems'} in what is staged"
        yield "guard: to commit all the same: git commit --no-verify"


def as_data(value: CheckReport | HookInstall) -> dict[str, Any]:
    """Return the object below ``data``."""
    if isinstance(value, HookInstall):
        return {
            "path": str(value.path),
            "chained": None if value.chained is None else str(value.chained),
            "changed": value.changed,
            "by_framework": value.by_framework,
        }
    return {
        "passed": value.passed,
        "failed": value.failed,
        "warned": value.warned,
        "findings": [asdict(finding) for finding in value.findings],
        "skipped": [asdict(skip) for skip in value.skipped],
        "elapsed_s": value.elapsed_s,
    }


def _install_lines(done: HookInstall) -> Iterator[str]:
    if done.by_framework:
        yield f"the pre-commit framework's hook {done.path} calls guard's already"
    elif not done.changed:
        yield f"{done.path} is guard's hook already"
    else:
        yield f"installed {done.path}"
    if done.chained is not None:
        yield f"the hook that was there is called first: {done.chained}"
