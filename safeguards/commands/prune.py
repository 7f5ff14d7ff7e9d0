"""`guard prune`: retention."""

from __future__ import annotations

import click

from safeguards.cli import pass_session, verb
from safeguards.output import Answer
from safeguards.session import Session


@verb("prune")
@click.option("--keep-last", type=click.IntRange(min=0), metavar="N", help="Keep the newest N.")
@click.option("--keep-days", type=click.FloatRange(min=0), metavar="N",
              help="Keep those of the last N days.")  # fmt: skip
@click.option("--max-size", metavar="SIZE", help="Then the oldest go until the store fits.")
@click.option("--dry-run", is_flag=True, help="Show what would be removed.")
@pass_session
def command(
    session: Session,
    keep_last: int | None,
    keep_days: float | None,
    max_size: str | None,
    *,
    dry_run: bool,
) -> Answer:
    """Remove old snapshots; never the newest good one, nor one that is still needed."""
    from checks.tables import parse_size  # noqa: PLC0415 - after --help
    from rollback.errors import NoSpace  # noqa: PLC0415
    from safeguards.errors import WrongUsage  # noqa: PLC0415

    config = session.configure(lenient=True)
    try:
        max_bytes = config.max_store_bytes if max_size is None else parse_size(max_size)
    except ValueError as error:
        raise WrongUsage(f"--max-size: {error}", hint="guard prune --max-size 20GB") from None
    if keep_last is None and keep_days is None:
        keep_last, keep_days = config.keep_last, config.keep_days
    with session.open_engine(config, create=False) as engine:
        if not dry_run:
            try:
                for sentence in engine.recover():
                    session.terminal.warn(sentence)
            except NoSpace as error:
                # Room is what it needs; what it goes back to and its undo are not pruned.
                session.terminal.warn(str(error))
        report = engine.prune(
            keep_last=keep_last, keep_days=keep_days, max_bytes=max_bytes, dry_run=dry_run
        )
    return Answer("prune", report)
