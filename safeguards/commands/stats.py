"""`guard stats`: success rates and times."""

from __future__ import annotations

from safeguards.cli import pass_session, verb
from safeguards.output import Answer
from safeguards.session import Session


@verb("stats")
@pass_session
def command(session: Session) -> Answer:
    """Show success rates by escalation level, drill and rollback times."""
    from safeguards.history import summarize  # noqa: PLC0415 - after --help

    config = session.configure(lenient=True)
    with session.open_engine(config, create=False) as engine:
        return Answer("stats", summarize(engine.operations(None)))
