"""`guard drill`: the timed rehearsal alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from safeguards.cli import pass_session, verb
from safeguards.output import Answer, Problem
from safeguards.session import Session

if TYPE_CHECKING:
    from rollback.reports import DrillReport


@verb("drill")
@click.argument("reference", metavar="[ID]", default="last")
@click.option("--full", is_flag=True, help="Rehearse everything.")
@click.option("--sample", is_flag=True, help="Rehearse a sample, compute the rest.")
@click.option("--budget", metavar="TIME", help="How long a rollback may take (5m).")
@pass_session
def command(
    session: Session, reference: str, budget: str | None, *, full: bool, sample: bool
) -> Answer:
    """Rehearse a rollback to a snapshot (the newest) against the clock.

    The exit status is 1 where it does not fit the budget.
    """
    from safeguards.errors import WrongUsage  # noqa: PLC0415 - after --help
    from safeguards.record import drill_data  # noqa: PLC0415
    from safeguards.undertaking import undertaken  # noqa: PLC0415

    if full and sample:
        raise WrongUsage("a drill is of everything or of a sample", hint="guard drill --full")
    mode = "full" if full else "sample" if sample else "auto"
    config = session.configure({"budget": budget}, lenient=True)
    with session.open_engine(config, create=False) as engine:
        for sentence in engine.recover():
            session.terminal.warn(sentence)
        snapshot = engine.find_snapshot(reference)
        with undertaken(engine, "drill", {"snapshot_id": snapshot.id}) as operation:
            report = engine.drill(
                snapshot, mode=mode, budget_s=config.budget_s,
                progress=session.terminal.progress(),
            )  # fmt: skip
            engine.finish(operation, "done", {"drill": drill_data(report)})
    problems = () if report.passed else (_problem(report),)
    return Answer("drill", report, 0 if report.passed else 1, problems)


def _problem(report: DrillReport) -> Problem:
    from safeguards.narration import over_budget  # noqa: PLC0415 - after --help

    if report.failures:
        return Problem("drill_failed", report.failures[0], "guard verify --repair", told=True)
    hint = "exclude what need not come back, or set a larger budget in guard.toml"
    return Problem("over_budget", over_budget(report), hint, told=True)
