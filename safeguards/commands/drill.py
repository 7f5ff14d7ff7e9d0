"""`guard drill`: the timed rehearsal alone."""

from __future__ import annotations

import contextlib

import click

from safeguards.cli import pass_session, verb
from safeguards.output import Answer
from safeguards.session import Session


@verb("drill")
@click.argument("reference", metavar="[ID]", default="last")
@click.option("--full", "mode", flag_value="full", help="Rehearse everything.")
@click.option("--sample", "mode", flag_value="sample", help="Rehearse a sample, compute the rest.")
@click.option("--budget", metavar="TIME", help="How long a rollback may take (5m).")
@pass_session
def command(session: Session, reference: str, mode: str | None, budget: str | None) -> Answer:
    """Rehearse a rollback to a snapshot (the newest) against the clock.

    The exit status is 1 where it does not fit the budget.
    """
    from rollback.errors import RollbackError  # noqa: PLC0415 - after --help
    from safeguards.record import drill_data  # noqa: PLC0415

    config = session.configure({"budget": budget}, lenient=True)
    with session.open_engine(config, create=False) as engine:
        for sentence in engine.recover():
            session.terminal.warn(sentence)
        snapshot = engine.find_snapshot(reference)
        operation = engine.begin("drill", {"snapshot_id": snapshot.id})
        try:
            report = engine.drill(
                snapshot, mode=mode or "auto", budget_s=config.budget_s,
                progress=session.terminal.progress(),
            )  # fmt: skip
            engine.finish(operation, "done", {"drill": drill_data(report)})
        except BaseException as error:
            with contextlib.suppress(RollbackError, OSError):
                state = "failed" if isinstance(error, Exception) else "interrupted"
                engine.finish(operation, state, {"error": type(error).__name__})
            raise
    return Answer("drill", report, exit_code=0 if report.passed else 1)
