"""`guard verify`: reads the whole store and says what is damaged."""

from __future__ import annotations

import click

from safeguards.cli import pass_session, verb
from safeguards.output import Answer, Problem
from safeguards.session import Session


@verb("verify")
@click.option("--repair", is_flag=True, help="Mend what can be mended.")
@pass_session
def command(session: Session, *, repair: bool) -> Answer:
    """Read the whole store and say what is damaged.

    The exit status is 1 where something is damaged and was not mended.
    """
    config = session.configure(lenient=True)
    with session.open_engine(config, create=False) as engine:
        if repair:
            for sentence in engine.recover():
                session.terminal.warn(sentence)
        report = engine.verify(repair=repair, progress=session.terminal.progress())
    if report.ok:
        return Answer("verify", report)
    left = sum(not damage.repaired for damage in report.damage)
    hint = "guard verify --repair" if not repair else "guard snapshot keeps the present state anew"
    problem = Problem("store_damaged", f"{left} of {report.blobs:,} blobs are damaged", hint)
    return Answer("verify", report, 1, (problem,), hint if not repair else "guard snapshot")
