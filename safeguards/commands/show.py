"""`guard show`: one operation or snapshot."""

from __future__ import annotations

import click

from safeguards.cli import pass_session, verb
from safeguards.output import Answer
from safeguards.session import Session


@verb("show")
@click.argument("reference", metavar="ID")
@pass_session
def command(session: Session, reference: str) -> Answer:
    """Show one operation or snapshot: a number, the beginning of an id, or `last`."""
    from rollback.errors import NothingToDo  # noqa: PLC0415 - after --help
    from safeguards.render.show import Shown  # noqa: PLC0415

    config = session.configure(lenient=True)
    with session.open_engine(config, create=False) as engine:
        operation = snapshot = None
        try:
            operation = engine.find_operation(reference)
        except NothingToDo:
            snapshot = engine.find_snapshot(reference)
        if snapshot is None and operation is not None:
            try:
                snapshot = engine.find_snapshot(
                    str(operation.data.get("snapshot_id") or operation.seq)
                )
            except NothingToDo:
                snapshot = None  # pruned, or an operation that takes none
        return Answer("show", Shown(operation, snapshot))
