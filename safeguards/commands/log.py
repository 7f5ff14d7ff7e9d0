"""`guard log`: operations, newest first."""

from __future__ import annotations

import click

from safeguards.cli import pass_session, verb
from safeguards.output import Answer
from safeguards.session import Session


@verb("log")
@click.option("-n", "limit", type=click.IntRange(min=1), default=20, metavar="N",
              help="How many (20).")  # fmt: skip
@pass_session
def command(session: Session, limit: int) -> Answer:
    """List operations, newest first."""
    from safeguards.render.log import Log  # noqa: PLC0415 - after --help

    config = session.configure(lenient=True)
    with session.open_engine(config, create=False) as engine:
        operations = engine.operations()
    shown = tuple(operations[:limit])
    return Answer("log", Log(shown, len(operations) - len(shown)))
