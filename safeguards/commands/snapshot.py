"""`guard snapshot`: a snapshot alone."""

from __future__ import annotations

import contextlib

import click

from safeguards.cli import pass_session, verb
from safeguards.output import Answer
from safeguards.session import Session


@verb("snapshot")
@click.option("--label", default="", metavar="TEXT", help="What to call it.")
@pass_session
def command(session: Session, label: str) -> Answer:
    """Take a snapshot."""
    from rollback.errors import RollbackError  # noqa: PLC0415 - after --help
    from safeguards.render.snapshot import Taken  # noqa: PLC0415

    config = session.configure()
    with session.open_engine(config) as engine:
        for sentence in engine.recover():
            session.terminal.warn(sentence)
        operation = engine.begin("snapshot", {"label": label})
        try:
            report = engine.snapshot(
                operation, kind="manual", label=label, progress=session.terminal.progress()
            )
            engine.finish(operation, "done", {"snapshot_id": report.snapshot.id})
        except BaseException as error:
            with contextlib.suppress(RollbackError, OSError):
                state = "failed" if isinstance(error, Exception) else "interrupted"
                engine.finish(operation, state, {"error": type(error).__name__})
            raise
        session.remember_place(config)
        skips = (*report.snapshot.skipped, *session.skips(config))
    undo = session.guard_command("rollback", "--to", str(report.snapshot.seq), config=config)
    return Answer("snapshot", Taken(report, skips), next_command=undo)
