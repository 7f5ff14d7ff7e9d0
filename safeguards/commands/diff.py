"""`guard diff`: what differs between two snapshots, or a snapshot and now."""

from __future__ import annotations

import click

from safeguards.cli import pass_session, verb
from safeguards.output import Answer
from safeguards.session import Session


@verb("diff")
@click.argument("references", nargs=-1, metavar="[ID [ID]]")
@click.option("--stat", is_flag=True, help="Count, do not list.")
@pass_session
def command(session: Session, references: tuple[str, ...], *, stat: bool) -> Answer:
    """Show what differs between two snapshots, or a snapshot (the newest) and now.

    The exit status is 1 where anything differs.
    """
    from safeguards.errors import WrongUsage  # noqa: PLC0415 - after --help
    from safeguards.output import Problem  # noqa: PLC0415
    from safeguards.render.diff import Differences  # noqa: PLC0415

    if len(references) > 2:  # noqa: PLR2004 - old and new
        raise WrongUsage("at most two snapshots can be compared", hint="guard diff OLD NEW")
    config = session.configure(lenient=True)
    with session.open_engine(config, create=False) as engine:
        old = engine.find_snapshot(references[0] if references else "last")
        new = engine.find_snapshot(references[1]) if len(references) > 1 else None
        difference = engine.diff(old, new)
    number = None if new is None else new.seq
    value = Differences(difference, old.seq, number, stat, config.project)
    if not value.found:
        return Answer("diff", value)
    hint = f"guard rollback --to {old.seq} --dry-run"
    return Answer("diff", value, 1, (Problem("differences_found", value.told, hint, told=True),))
