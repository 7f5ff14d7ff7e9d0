"""`guard hook`: connects guard to git and to the pre-commit framework."""

from __future__ import annotations

import click

from checks.tables import parse_size
from safeguards.cli import VERBS, VerbGroup, pass_session
from safeguards.output import Answer
from safeguards.session import Session

_FAMILIES = ("data", "artifacts", "params", "secrets")

command = VerbGroup("hook", help=VERBS["hook"])
"""The group; its verbs import what they do when they are used."""


def _bytes(_ctx: click.Context, _option: click.Parameter, value: str | None) -> int | None:
    """Read a size such as ``50MB``."""
    try:
        return None if value is None else parse_size(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


@command.command("pre-commit")
@click.argument("files", nargs=-1, metavar="[FILE]...")
@click.option(
    "--only", multiple=True, type=click.Choice(_FAMILIES), help="Check this family alone."
)
@click.option(
    "--max-size",
    callback=_bytes,
    metavar="SIZE",
    envvar="GUARD_MAX_STAGED_SIZE",
    help="Largest file that belongs into git (default 10MB).",
)
@click.option(
    "--trust-schemas", is_flag=True, help="Import schemas that are Python code (runs it)."
)
@pass_session
def pre_commit(
    session: Session,
    files: tuple[str, ...],
    only: tuple[str, ...],
    max_size: int | None,
    *,
    trust_schemas: bool,
) -> Answer:
    """Check what is staged; all of it, or the named files as they are staged."""
    from safeguards.integrations import ci  # noqa: PLC0415 - cold start
    from safeguards.integrations.precommit import Settings, run_pre_commit  # noqa: PLC0415
    from safeguards.render.check import failed_checks  # noqa: PLC0415

    settings = Settings(only, trusted=trust_schemas)
    if max_size is not None:
        settings = Settings(only, max_size, trusted=trust_schemas)
    report = run_pre_commit(session.project(), files, settings, session.environ)
    ci.publish(report, session)
    return Answer("hook", report, 0 if report.ok else 1, failed_checks(report))


@command.command("install")
@click.option("--force", is_flag=True, help="Also into a folder of hooks that others share.")
@pass_session
def install(session: Session, *, force: bool) -> Answer:
    """Install a plain git hook; one that is there already is called first."""
    from safeguards.integrations.git_hook import install_git_hook  # noqa: PLC0415 - cold start

    done = install_git_hook(session.project(), force=force, environ=session.environ)
    return Answer("hook", done)
