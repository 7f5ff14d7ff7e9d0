"""The three commands that put a state back: rollback, undo, redo."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from rollback.chosen import whole_path
from rollback.errors import RollbackError
from rollback.lock import ancestors
from rollback.model import Category, Operation, Snapshot
from rollback.reports import RestorePlan, Selection
from safeguards.config import Config
from safeguards.errors import Interrupted, NothingToActOn, WrongUsage
from safeguards.output import Answer, Problem, one_line
from safeguards.project import current_folder
from safeguards.restoration import (
    TAKES_BACK,
    Around,
    Restoration,
    end_leftovers,
    left_running,
    not_restored,
    planned,
    put_back,
    still_running,
)
from safeguards.session import Session, shell_word

if TYPE_CHECKING:
    from rollback.engine import Engine
    from safeguards.reverting import Revert


INCOMPLETE = 123
_MEND_PROBE = "nothing was put back: mend what the probe needs, then: guard rollback --last"


@dataclass(frozen=True, slots=True)
class Wish:
    """What the user asked for.

    Attributes:
        kind: ``rollback``, ``undo`` or ``redo``.
        reference: The snapshot; None for the state before the newest run.
        only: Names of categories.
        paths: Paths as typed.
        revert: Whether pushed commits are undone by a commit.
        dry_run: Whether the plan is only shown.
        yes: Whether nobody is asked.
    """

    kind: str
    reference: str | None = None
    only: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()
    revert: bool = False
    dry_run: bool = False
    yes: bool = False


@dataclass(frozen=True, slots=True)
class Decided:
    """What is going to be done.

    Attributes:
        config: The configuration before it.
        wish: What the user asked for.
        plan: What the engine will do.
        revert: Pushed commits that are undone afterwards, None for none.
    """

    config: Config
    wish: Wish
    plan: RestorePlan
    revert: Revert | None


def restore(session: Session, wish: Wish) -> Answer:
    """Plan, ask where there is somebody to ask, put back, and say what came of it.

    Raises:
        WrongUsage: Nobody can be asked and `--yes` is missing; a path is outside.
        RollbackError: As the engine raises.
    """
    if wish.revert and (wish.only or wish.paths):
        raise WrongUsage(
            "--revert makes a commit of the whole snapshot, so it cannot go with a part of it",
            hint="guard rollback --last --revert, or the part without --revert",
        )
    config = session.configure(lenient=True)
    with session.open_engine(config, create=False) as engine:
        if not wish.dry_run:
            for sentence in engine.recover():
                session.terminal.warn(sentence)
        snapshot, runs = _target(engine, wish)
        _refuse_other_project(snapshot, config, engine)
        _refuse_while_busy(session, engine, wish)
        selection = _selection(session, config, engine, wish, snapshot)
        plan = engine.plan(snapshot, selection)
        if not plan.steps:
            _refuse_unknown(engine, snapshot, selection, wish)
        shown = planned(plan, wish.kind, config.budget_s)
        revert = _find_revert(session, config, snapshot) if wish.revert else None
        if revert is not None:
            shown = replace(shown, revert=revert.pushed)
        if wish.dry_run:
            return _answer_plan(session, wish, config, shown)
        if plan.steps and not wish.yes:
            declined = _ask(session, wish, config, shown)
            if declined is not None:
                return declined
        for run in runs:
            _end_or_name(session, run)
        return _carry_out(session, engine, Decided(config, wish, plan, revert))


def _end_or_name(session: Session, run: Operation) -> None:
    """End the command of a run whose guard died; name what any other left running.

    Who asks from inside of that command is answered: it is named, and goes on.
    """
    child = still_running(run)
    around = child is not None and (child.pid, child.started_ticks) in ancestors()
    for problem in end_leftovers(() if child is None or around else (child,)):
        session.terminal.warn(problem)
    left = left_running(run) if child is None or not around else [child]
    for process in left:
        told = f"{process.pid} ({one_line(process.name)}) of the run still runs"
        session.terminal.warn(f"{told}: what it writes from now on stays")


def _target(engine: Engine, wish: Wish) -> tuple[Snapshot, list[Operation]]:
    """Return the state to go to, and the runs since whose commands may still be at work."""
    if wish.kind == "undo":
        return engine.undo_target(), []
    if wish.kind == "redo":
        return engine.redo_target(), []
    reference = wish.reference
    if reference is None:
        reference = str(engine.last_run(started=True).data["snapshot_id"])
    snapshot = engine.find_snapshot(reference)
    return snapshot, engine.runs_since(snapshot)


def _refuse_other_project(snapshot: Snapshot, config: Config, engine: Engine) -> None:
    """Refuse a snapshot of another project: a store that variables name may hold several."""
    if Path(snapshot.project) != config.project:
        raise NothingToActOn(
            f"snapshot {snapshot.seq} is of another project, {snapshot.project}",
            hint=f"{engine.reaching(snapshot.project)} rollback --to {snapshot.seq}",
        )


def _refuse_while_busy(session: Session, engine: Engine, wish: Wish) -> None:
    """Say at once that another operation is at work, not after a long look and a question."""
    if not wish.dry_run and (wish.yes or session.terminal.interactive()):
        engine.store.lock.refuse_if_busy()


def _selection(
    session: Session, config: Config, engine: Engine, wish: Wish, snapshot: Snapshot
) -> Selection:
    if wish.kind != "rollback":
        return engine.selection_of(snapshot)
    here = _here(session, config) if wish.paths else config.project
    paths = tuple(os.fsencode(_inside(path, here, config)) for path in wish.paths)
    return Selection(paths, frozenset(Category(name) for name in wish.only))


def _refuse_unknown(engine: Engine, snapshot: Snapshot, selection: Selection, wish: Wish) -> None:
    """Refuse a misspelt path: "nothing to put back" would be taken for the truth about it."""
    for path, typed in zip(selection.paths, wish.paths, strict=False):
        if not engine.knows(snapshot, path):
            raise NothingToActOn(
                f"there is no {typed}, neither now nor in snapshot {snapshot.seq}",
                hint="check the spelling; guard diff names what differs",
            )


def _here(session: Session, config: Config) -> Path:
    """Return where typed paths start: the current folder, if it is in the project."""
    here = current_folder(session.environ)
    return here if config.project in (here, *here.parents) else config.project


def _inside(path: str, here: Path, config: Config) -> str:
    whole = whole_path(path, here, (config.project, *config.also))
    if whole is None:
        what = f"{path} is not in the project {config.project}" if path else "a path is empty"
        raise WrongUsage(what, hint="name paths of the project: guard rollback --last PATH")
    return whole


def _answer_plan(session: Session, wish: Wish, config: Config, shown: Restoration) -> Answer:
    command = session.guard_command(*_words(wish), config=config) if shown.steps else ""
    return Answer(wish.kind, shown, next_command=command)


def _ask(session: Session, wish: Wish, config: Config, shown: Restoration) -> Answer | None:
    """Return an answer where it is not to be done."""
    session.terminal.preview(Answer(wish.kind, shown))
    command = session.guard_command(*_words(wish), "--yes", config=config)
    if not session.terminal.interactive():
        problem = Problem(WrongUsage.code, "nobody can be asked whether to do this", command)
        return Answer(wish.kind, shown if session.terminal.json else None, 2, (problem,), command)
    if session.terminal.ask("guard: put this back?"):
        return None
    problem = Problem("declined", "nothing was changed", command)
    return Answer(wish.kind, None, 1, (problem,), command)


def _words(wish: Wish) -> list[str]:
    """Return the words that say the wish again."""
    words = [wish.kind]
    if wish.kind == "rollback":
        words += ["--last"] if wish.reference is None else ["--to", shell_word(wish.reference)]
    for name in wish.only:
        words += ["--only", name]
    if wish.revert:
        words.append("--revert")
    return [*words, *(shell_word(path) for path in wish.paths)]


def _carry_out(session: Session, engine: Engine, decided: Decided) -> Answer:
    config, wish, revert = decided.config, decided.wish, decided.revert

    around = Around(
        config,
        session.environ,
        lambda: session.configure(lenient=True),
        session.terminal.progress(),
    )
    done = put_back(engine, decided.plan, wish.kind, around)
    _name_new_folder(session)
    problems = _problems(done)
    if revert is not None:
        try:
            done = replace(done, revert=revert.pushed, revert_commit=revert.commit())
        except RollbackError as error:
            problems.append(Problem(error.code, str(error), error.hint))
    next_command = TAKES_BACK[wish.kind]
    status = 0 if done.succeeded and (revert is None or done.revert_commit) else 1
    if done.interrupted:
        status = Interrupted.exit_code
    return Answer(
        wish.kind,
        done,
        INCOMPLETE if done.unrestorable else status,
        tuple(problems),
        session.guard_command(next_command, config=config),
        partial=bool(done.unrestorable),
    )


def _name_new_folder(session: Session) -> None:
    """Say how to step into a folder that is back: a shell stays in the one that was removed."""
    try:
        os.getcwd()
    except FileNotFoundError:
        new = current_folder(session.environ)
        if new.is_dir():
            word = shell_word(str(new))
            session.terminal.warn(f"your shell is still in the removed folder; next: cd {word}")


def _problems(done: Restoration) -> list[Problem]:
    undo = f"guard {TAKES_BACK[done.kind]} takes it back" if done.steps else _MEND_PROBE
    found = [Problem("not_restored", not_restored(done), s.fix) for s in done.unrestorable[:1]]
    found += [
        Problem("probe_failed", f"the probe {probe.name} failed: {probe.detail}", undo)
        for probe in done.probes
        if not probe.passed
    ]
    if not done.within_budget:
        found.append(
            Problem(
                "over_budget",
                f"it took {done.elapsed_s:.1f} s, more than the budget of {done.budget_s:g} s",
                "guard drill names the slowest parts",
            )
        )
    found += [
        Problem("not_working", f"it is back as it was, and does not work: {line}", "guard status")
        for line in done.broken
    ]
    found += [Problem("service", problem, "guard status") for problem in done.problems]
    return found


def _find_revert(session: Session, config: Config, snapshot: Snapshot) -> Revert | None:
    from safeguards.reverting import find_revert  # noqa: PLC0415 - imports git

    revert = find_revert(config.project, snapshot, session.environ)
    if revert is None:
        session.terminal.note("no remote has a commit since the snapshot: there is none to revert")
    return revert
