"""What is looked at before anything is written: target, command, report."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

from safeguards.config import Config
from safeguards.errors import CommandNotFound, TargetRefused, WrongUsage

if TYPE_CHECKING:
    from safeguards.operation import Request
    from safeguards.scope import Concern

_DECLARED = "configuration"


def check(config: Config, request: Request, environ: Mapping[str, str]) -> tuple[Concern, ...]:
    """Refuse what cannot or must not be run.

    Returns:
        Concerns that do not stop the command, to be said aloud.

    Raises:
        TargetRefused: The command would reach beyond local, dev and staging.
        CommandNotFound: There is no such command.
        WrongUsage: The report cannot be written where it should be.
    """
    concerns = _look_at_target(config, request, environ)
    _find_command(request.argv[0], environ)
    if request.report is not None:
        folder = request.report.parent
        if not folder.is_dir() or request.report.is_dir():
            raise WrongUsage(
                f"the report cannot be written to {request.report}: no such folder",
                hint="guard run --report FILE -- COMMAND, with a FILE in a folder that exists",
            )
    return concerns


def _look_at_target(
    config: Config, request: Request, environ: Mapping[str, str]
) -> tuple[Concern, ...]:
    from safeguards import scope  # noqa: PLC0415 - only before a run

    verdict = scope.assess(config.project, request.argv, environ, config.environment)
    refusals, warnings = verdict.refusals, verdict.warnings
    if config.run.target == "warn":
        # What the project itself declares stays refused: to allow it, declare something else.
        warnings += tuple(c for c in refusals if c.where != _DECLARED)
        refusals = tuple(c for c in refusals if c.where == _DECLARED)
    if refusals:
        concern = refusals[0]
        more = f" (and {len(refusals) - 1} more)" if len(refusals) > 1 else ""
        raise TargetRefused(
            f"the command was not started: {concern.what} ({concern.where}), {concern.why}{more}",
            hint=f"{concern.fix}, then: guard run -- COMMAND",
        )
    return warnings


def _find_command(name: str, environ: Mapping[str, str]) -> None:
    """Refuse a command that is nowhere, before a snapshot is taken for nothing.

    Only the plain case: whatever exists somewhere is for the kernel to judge.
    """
    if "/" in name:
        return
    for folder in os.get_exec_path(dict(environ)):
        if os.path.lexists(os.path.join(folder or ".", name)):
            return
    hint = "check the spelling and PATH; the command stands after `--`: guard run -- COMMAND"
    if name and os.path.isfile(name):
        runner = "python " if name.endswith(".py") else "./"
        hint = f"it is a file here: guard run -- {runner}{name}"
    raise CommandNotFound(f"command not found: {name or '(empty)'}", hint=hint)
