"""`guard init`: finds what the project has and writes a commented guard.toml."""

from __future__ import annotations

import click

from safeguards.cli import pass_session, verb
from safeguards.output import Answer
from safeguards.session import Session


@verb("init")
@click.option("--force", is_flag=True, help="Replace a guard.toml that is there.")
@click.option("--dry-run", is_flag=True, help="Print it, write nothing.")
@pass_session
def command(session: Session, *, force: bool, dry_run: bool) -> Answer:
    """Find what the project has and write a commented guard.toml; nothing is run."""
    from safeguards import configuring, discovery, initial  # noqa: PLC0415 - after --help
    from safeguards.config import Config  # noqa: PLC0415
    from safeguards.discovery import surveying  # noqa: PLC0415
    from safeguards.errors import WrongUsage  # noqa: PLC0415
    from safeguards.project import CONFIGURATION, configuration_file  # noqa: PLC0415
    from safeguards.render.init import Initial  # noqa: PLC0415

    project = session.project()
    file = project / CONFIGURATION
    present = configuration_file(project)
    if present is not None and not force and not dry_run:
        raise WrongUsage(
            f"there is a configuration already: {present}",
            hint="guard init --dry-run shows another; guard init --force replaces it",
        )
    config = Config(project)
    found = surveying.survey(project, session.environ)
    outside = discovery.outside(config, session.environ)
    text = initial.compose(config, found, outside)
    configuring.validate(text, project)
    if not dry_run:
        try:
            initial.write(file, text, replace=force)
        except OSError as error:
            raise WrongUsage(
                f"{file} cannot be written: {error.strerror}",
                hint="guard init --dry-run prints it instead",
            ) from error
    answer = Initial(file, text, not dry_run, initial.as_mapping(found, outside))
    return Answer("init", answer, next_command="guard status")
