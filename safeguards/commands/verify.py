"""`guard verify`: reads the whole store and says what is damaged."""

from __future__ import annotations

import click

from rollback.reports import VerifyReport
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
    report = _repaired(session) if repair else _read(session)
    if report.ok:
        return Answer("verify", report)
    left = sum(not damage.repaired for damage in report.damage)
    hint = "guard verify --repair" if not repair else "guard snapshot keeps the present state anew"
    verb_form = "part is" if left == 1 else "parts are"
    problem = Problem("store_damaged", f"{left:,} {verb_form} damaged", hint)
    return Answer("verify", report, 1, (problem,), hint if not repair else "guard snapshot")


def _read(session: Session) -> VerifyReport:
    with session.open_engine(session.configure(lenient=True), create=False) as engine:
        return engine.verify(repair=False, progress=session.terminal.progress())


def _repaired(session: Session) -> VerifyReport:
    report, sentences = session.repair_store(session.configure(lenient=True))
    for sentence in sentences:
        session.terminal.warn(sentence)
    return report
