"""`guard rollback`: puts the project back, all of it or chosen paths and categories."""

from __future__ import annotations

import click

from safeguards.cli import pass_session, verb
from safeguards.output import Answer
from safeguards.session import Session

CATEGORIES = ("code", "dependencies", "databases", "artifacts", "configuration", "validation")


@verb("rollback")
@click.option("--last", is_flag=True, help="To the state before the newest run.")
@click.option("--to", "reference", metavar="ID", help="To this snapshot.")
@click.option("--only", "only", multiple=True, type=click.Choice(CATEGORIES), metavar="CATEGORY",
              help=f"Only this category: {', '.join(CATEGORIES)}.")  # fmt: skip
@click.option("--revert", is_flag=True, help="Undo pushed commits by a commit, not by moving back.")
@click.option("--dry-run", is_flag=True, help="Show what would be done.")
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@click.argument("paths", nargs=-1, metavar="[PATH]...")
@pass_session
def command(  # noqa: PLR0913 - one parameter for each option of the contract
    session: Session,
    reference: str | None,
    only: tuple[str, ...],
    paths: tuple[str, ...],
    *,
    last: bool,
    revert: bool,
    dry_run: bool,
    yes: bool,
) -> Answer:
    """Put the project back as it was; nothing is lost: `guard undo` takes it back."""
    from safeguards import restoring  # noqa: PLC0415 - after --help
    from safeguards.errors import WrongUsage  # noqa: PLC0415

    if last == (reference is not None):
        told = "--last and --to name two states" if last else "name the state to go back to"
        raise WrongUsage(told, hint="guard rollback --last, or guard rollback --to ID")
    wish = restoring.Wish("rollback", reference, only, paths, revert, dry_run, yes)
    return restoring.restore(session, wish)
