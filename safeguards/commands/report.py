"""`guard report`: one self-contained HTML page about a run."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from safeguards.cli import pass_session, verb
from safeguards.output import Answer
from safeguards.session import Session

if TYPE_CHECKING:
    from rollback.engine import Engine
    from rollback.model import Operation
    from rollback.reports import Difference

_HEADING = "Different now from its snapshot"


@verb("report")
@click.argument("reference", metavar="[ID]", required=False)
@click.option("-o", "--output", metavar="FILE", help="The page (guard-report-N.html).")
@click.option("--open", "show", is_flag=True, help="Show it in the browser.")
@pass_session
def command(session: Session, reference: str | None, output: str | None, *, show: bool) -> Answer:
    """Write one self-contained HTML page about an operation (the newest run)."""
    from safeguards.errors import WrongUsage  # noqa: PLC0415 - after --help
    from safeguards.render.report import Written  # noqa: PLC0415
    from safeguards.report import Subject, compose  # noqa: PLC0415

    config = session.configure(lenient=True)
    with session.open_engine(config, create=False) as engine:
        operation = engine.last_run() if reference is None else engine.find_operation(reference)
        difference, heading = _difference(engine, operation)
    subject = Subject(operation, difference, heading, config.project.name)
    page = compose(subject, time.strftime("%Y-%m-%d %H:%M"))
    path = Path(os.path.abspath(output or f"guard-report-{operation.seq}.html"))
    try:
        path.write_text(page, encoding="utf-8")
    except OSError as error:
        raise WrongUsage(
            f"the page cannot be written to {path}: {error.strerror}",
            hint="guard report -o FILE, with a FILE in a folder that exists",
        ) from error
    if show:
        import webbrowser  # noqa: PLC0415 - only where it is asked for

        webbrowser.open(path.as_uri())
    return Answer("report", Written(operation.seq, path))


def _difference(engine: Engine, operation: Operation) -> tuple[Difference | None, str]:
    """Return what a page shows as different, and what that is; None where a side was pruned.

    Of a rollback both sides are kept: what it displaced, and what it put back. Of anything
    else the state before is, and what has become of it by now is looked at.
    """
    from rollback.errors import NothingToDo  # noqa: PLC0415 - after --help

    data = operation.data
    try:
        if data.get("undo_id") and data.get("target_id"):
            displaced = engine.find_snapshot(str(data["undo_id"]))
            target = engine.find_snapshot(str(data["target_id"]))
            return engine.diff(displaced, target), "What it put back"
        identity = data.get("snapshot_id")
        if not identity:
            return None, ""
        return engine.diff(engine.find_snapshot(str(identity)), None), _HEADING
    except NothingToDo:
        return None, ""
