"""`guard status`: what is protected, what is not and why, where the store is, the last run."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from safeguards.cli import pass_session, verb
from safeguards.output import Answer, Problem, one_line
from safeguards.session import Session

if TYPE_CHECKING:
    from rollback.engine import Engine
    from rollback.model import Operation
    from safeguards.config import Config
    from safeguards.render.status import Overview


@verb("status")
@pass_session
def command(session: Session) -> Answer:
    """Show what is protected, what is not and why, and the last run."""
    from safeguards.errors import WrongUsage  # noqa: PLC0415 - after --help

    try:
        config = session.configure()
    except WrongUsage as error:  # a run that spoils the file must not hide what it left behind
        overview = _look(session, session.configure(lenient=True, warn=False))
        problem = Problem(error.code, str(error), error.hint)
        return Answer("status", overview, error.exit_code, (problem,), overview.next_command)
    overview = _look(session, config)
    return Answer("status", overview, next_command=overview.next_command)


def _look(session: Session, config: Config) -> Overview:
    from rollback.errors import NothingToDo  # noqa: PLC0415 - after --help
    from rollback.inventory import take_inventory  # noqa: PLC0415
    from rollback.store import placement  # noqa: PLC0415
    from safeguards.moved import moved_from  # noqa: PLC0415
    from safeguards.render.status import Overview, Protected  # noqa: PLC0415
    from safeguards.settings import engine_settings  # noqa: PLC0415

    settings = engine_settings(config, session.environ)
    place = placement.choose(settings.project, settings.store, session.environ)
    last = store = databases = None
    at_work: list[str] = []
    unfinished: list[str] = []
    mend = ""
    try:
        with session.open_engine(config, create=False) as engine:
            store = engine.status()
            databases = _known_databases(engine)
            try:
                last = engine.last_run()
            except NothingToDo:
                last = None
            at_work = [_at_work(operation) for operation in store.at_work]
            unfinished = [_unfinished(operation) for operation in store.unfinished]
            if unfinished:
                mend = session.guard_command("rollback", "--last", config=config)
    except NothingToDo:
        if was := moved_from(config, session.environ):
            session.terminal.warn(was)
    missing = not config.project.is_dir()
    if missing and last is not None:
        mend = session.guard_command("rollback", "--last", config=config)
    inventory = None if missing else take_inventory(settings, place.path)
    if databases is None and not missing:
        from safeguards.discovery.surveying import find_databases  # noqa: PLC0415 - before a snapshot only

        databases = [str(config.project / path) for path in find_databases(config.project)]
    return Overview(
        project=config.project,
        missing=missing,
        config=config,
        store_path=str(place.path) if store is None else store.path,
        store_why=_why_there(config, place.why if store is None else store.why_here),
        store=store,
        protected=() if inventory is None else Protected.of(inventory, databases or ()),
        skips=() if inventory is None else (*inventory.skipped, *session.skips(config)),
        facts={} if inventory is None else inventory.facts,
        last_run=last,
        at_work=tuple(at_work),
        unfinished=tuple(unfinished),
        next_command=mend,
    )


def _why_there(config: Config, otherwise: str) -> str:
    origin = config.origins.get("store")
    return f"named by {origin}" if origin else otherwise


def _at_work(operation: Operation) -> str:
    owner = operation.data.get("owner", {})
    name = f"{operation.kind} {operation.seq}"
    return one_line(f"at work   {name}: pid {owner.get('pid')}, {owner.get('command')}")


def _unfinished(operation: Operation) -> str:
    """Return what to call it, with the command that its guard left behind."""
    from safeguards.restoration import still_running  # noqa: PLC0415 - after --help

    told = f"unfinished {operation.kind} {operation.seq}"
    child = still_running(operation)
    if child is None:
        return told
    return one_line(f"{told}: guard is gone, its command is at work: pid {child.pid}, {child.name}")


def _known_databases(engine: Engine) -> list[str] | None:
    """Return the SQLite files that the newest snapshot found in the project and that are there.

    Returns:
        Absolute paths; None where there is no snapshot yet.
    """
    from rollback.errors import NothingToDo  # noqa: PLC0415 - after --help

    try:
        newest = engine.find_snapshot("last")
    except NothingToDo:
        return None
    inside = os.path.join(newest.project, "")
    states = (state for state in newest.states if state.resource == "sqlite")
    places = (s.location for s in states if s.location.startswith(inside))
    return sorted(place for place in places if os.path.lexists(place))
