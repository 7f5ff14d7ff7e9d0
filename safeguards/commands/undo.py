"""`guard undo`: take back the newest rollback."""

from __future__ import annotations

import click

from safeguards.cli import pass_session, verb
from safeguards.output import Answer
from safeguards.session import Session


@verb("undo")
@click.option("--dry-run", is_flag=True, help="Show what would be done.")
@click.option("--yes", "-y", is_flag=True, help="Accepted for scripts; undo never asks.")
@pass_session
def command(session: Session, *, dry_run: bool, yes: bool) -> Answer:
    """Take back the newest rollback."""
    del yes
    from safeguards import restoring  # noqa: PLC0415 - after --help

    return restoring.restore(session, restoring.Wish("undo", dry_run=dry_run, yes=True))
