"""`guard snapshot`: a snapshot alone."""

from __future__ import annotations

import click

from safeguards.cli import pass_session, verb
from safeguards.output import Answer
from safeguards.session import Session


@verb("snapshot")
@click.option("--label", default="", metavar="TEXT", help="What to call it.")
@pass_session
def command(session: Session, label: str) -> Answer:
    """Take a snapshot."""
    from safeguards.render.snapshot import Taken  # noqa: PLC0415 - after --help
    from safeguards.undertaking import undertaken  # noqa: PLC0415

    config = session.configure()
    with session.open_engine(config) as engine:
        for sentence in engine.recover():
            session.terminal.warn(sentence)
        with undertaken(engine, "snapshot", {"label": label}) as operation:
            report = engine.snapshot(
                operation, kind="manual", label=label, progress=session.terminal.progress()
            )
            engine.finish(operation, "done", {"snapshot_id": report.snapshot.id})
        session.remember_place(config)
        skips = (*report.snapshot.skipped, *session.skips(config))
    undo = session.guard_command("rollback", "--to", str(report.snapshot.seq), config=config)
    return Answer("snapshot", Taken(report, skips), next_command=undo)
