"""`guard report`: one self-contained HTML page about a run."""

from __future__ import annotations

import os
import time
from pathlib import Path

import click

from safeguards.cli import pass_session, verb
from safeguards.output import Answer
from safeguards.session import Session


@verb("report")
@click.argument("reference", metavar="[ID]", required=False)
@click.option("-o", "--output", metavar="FILE", help="The page (guard-report-N.html).")
@click.option("--open", "show", is_flag=True, help="Show it in the browser.")
@pass_session
def command(session: Session, reference: str | None, output: str | None, *, show: bool) -> Answer:
    """Write one self-contained HTML page about an operation (the newest run)."""
    from rollback.errors import NothingToDo  # noqa: PLC0415 - after --help
    from safeguards.errors import WrongUsage  # noqa: PLC0415
    from safeguards.render.report import Written  # noqa: PLC0415
    from safeguards.report import compose  # noqa: PLC0415

    config = session.configure(lenient=True)
    with session.open_engine(config, create=False) as engine:
        operation = engine.last_run() if reference is None else engine.find_operation(reference)
        identity = operation.data.get("snapshot_id")
        try:
            snapshot = engine.find_snapshot(str(identity)) if identity else None
        except NothingToDo:
            snapshot = None  # pruned
        difference = None if snapshot is None else engine.diff(snapshot, None)
    page = compose(operation, difference, time.strftime("%Y-%m-%d %H:%M"))
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
