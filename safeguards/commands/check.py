"""`guard check`: checks alone."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

import click

from safeguards.cli import pass_session, verb
from safeguards.output import Answer
from safeguards.session import Session

if TYPE_CHECKING:
    from rollback.engine import Engine
    from safeguards.config import Config

FAMILIES = ("data", "features", "artifacts", "params", "machine")


@verb("check", options_metavar="[OPTIONS] [data|features|artifacts|params|machine]...")
@click.argument("names", nargs=-1, metavar="[FILE]...")
@click.option("--fresh", is_flag=True, help="Read unchanged files again, too.")
@pass_session
def command(session: Session, names: tuple[str, ...], *, fresh: bool) -> Answer:
    """Check the inputs: all that is declared, some families, or some files.

    The exit status is 1 where a check failed.
    """
    from safeguards.checking import Wanted, run_checks  # noqa: PLC0415 - after --help
    from safeguards.errors import WrongUsage  # noqa: PLC0415
    from safeguards.integrations import ci  # noqa: PLC0415
    from safeguards.render.check import Checked, failed_checks  # noqa: PLC0415

    config = session.configure()
    families = [name for name in names if name in FAMILIES]
    files = [os.path.abspath(name) for name in names if name not in FAMILIES]
    for file in files:
        if not os.path.lexists(file):
            raise WrongUsage(
                f"there is no file {file}", hint=f"guard check [{'|'.join(FAMILIES)}] [FILE]"
            )
    if files and not families and not config.declarations:
        families = ["data", "artifacts"]  # nothing is declared: hold it against the defaults
    wanted = Wanted((), tuple(families) or None, tuple(files), fresh)
    with contextlib.ExitStack() as stack:
        report = run_checks(session, config, _engine(session, config, stack), wanted)
    ci.publish(report, session, config.project)
    declared = bool(config.declarations)
    return Answer("check", Checked(report, declared), 0 if report.ok else 1, failed_checks(report))


def _engine(session: Session, config: Config, stack: contextlib.ExitStack) -> Engine | None:
    """Return the engine where there is a store; checks work without one."""
    from rollback.errors import RollbackError  # noqa: PLC0415 - after --help

    with contextlib.suppress(RollbackError):
        return stack.enter_context(session.open_engine(config, create=False))
    return None
