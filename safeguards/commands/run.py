"""`guard run`: a command with everything around it that makes it harmless."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from safeguards.cli import pass_session, verb
from safeguards.config import CHECKS, DRILLS, ON_FAILURE
from safeguards.output import Answer
from safeguards.session import Session


@verb(
    "run",
    # What stands behind the first word that is no option belongs to the command.
    context_settings={"allow_interspersed_args": False},
    options_metavar="[OPTIONS] --",
)
@click.option("--on-failure", type=click.Choice(ON_FAILURE), help="What a failure leads to.")
@click.option("--drill", type=click.Choice(DRILLS), help="How the rollback is rehearsed.")
@click.option("--budget", metavar="TIME", help="How long a rollback may take (5m).")
@click.option("--checks", type=click.Choice(CHECKS), help="What a failed check leads to.")
@click.option("--retries", type=int, metavar="N", help="Further attempts, at most 2.")
@click.option("--retry-window", metavar="TIME", help="How long after the first failure (5m).")
@click.option("--timeout", metavar="TIME", help="End the command after this time.")
@click.option("--max-memory", metavar="SHARE", help="End it above this share of memory (80%).")
@click.option("--label", default="", metavar="TEXT", help="What to call the run.")
@click.option("--report", metavar="FILE", help="Write the record of the run as JSON.")
@click.argument("command", nargs=-1, type=click.UNPROCESSED, required=True)
@pass_session
def command(
    session: Session, /, command: tuple[str, ...], label: str, report: str | None, **options: Any
) -> Answer:
    """Run COMMAND with a snapshot before it and a way back after it."""
    from safeguards.operation import GuardedRun, Request  # noqa: PLC0415 - after --help

    config = session.configure(
        {"budget": options.pop("budget"), **{f"run.{key}": v for key, v in options.items()}}
    )
    file = None if report is None else Path(os.path.abspath(os.path.expanduser(report)))
    return GuardedRun(session, config, Request(command, label, file)).execute()
