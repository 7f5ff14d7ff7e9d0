"""The program inside `rescue.pyz`: the way back, and a look at the store, with nothing installed.

    python3 STORE/rescue.pyz rollback --last

It is the one module of this package that prints and exits: it is a program of its own.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import sys
import time
from pathlib import Path

from rollback.chosen import whole_path
from rollback.engine import Engine
from rollback.errors import (
    NoSpace,
    NothingToDo,
    RestoreIncomplete,
    RestoreRefused,
    RollbackError,
    StoreBusy,
    StoreCorrupt,
)
from rollback.holding import projects_of
from rollback.inventory import EngineSettings
from rollback.model import Operation, Snapshot
from rollback.repairing import repair_store
from rollback.reports import RestorePlan, Selection, VerifyReport
from rollback.store.placement import has_lost_marker

_STATUS = {
    NothingToDo: 10,
    StoreBusy: 11,
    StoreCorrupt: 12,
    NoSpace: 13,
    RestoreIncomplete: 123,
    RestoreRefused: 123,
}
_SHOWN = 20
_WIDTH = 60
_OF_GUARD = re.compile(r"\bguard(?=( --project \S+)? (log|rollback|undo|redo|verify)\b)")


def main() -> None:
    """Run the program and exit with guard's documented status."""
    try:
        status = _run(_arguments())
    except _Misused as error:
        print(f"rescue: {error}", file=sys.stderr)
        status = 2
    except RollbackError as error:
        print(f"rescue: {error}\n        next: {_typeable(error.hint)}", file=sys.stderr)
        status = next((s for kind, s in _STATUS.items() if isinstance(error, kind)), 125)
    except OSError as error:
        print(f"rescue: {error}", file=sys.stderr)
        status = 125
    except KeyboardInterrupt:
        status = 130
    sys.exit(status)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="rescue.pyz", description="Put a project back without guard being installed."
    )
    parser.add_argument("--store", type=Path, default=Path(sys.argv[0]).resolve().parent)
    parser.add_argument("--project", metavar="DIR", help="whose, where the store serves several")
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("log", help="list operations, newest first")
    back = verbs.add_parser("rollback", help="put a snapshot back")
    which = back.add_mutually_exclusive_group(required=True)
    which.add_argument("--last", action="store_true", help="the state before the newest run")
    which.add_argument("--to", metavar="ID", help="this snapshot")
    back.add_argument("paths", nargs="*", help="only these")
    undo = verbs.add_parser("undo", help="take the newest rollback back")
    redo = verbs.add_parser("redo", help="take the newest undo back")
    for verb in (back, undo, redo):
        verb.add_argument("--dry-run", action="store_true", help="only say what would be done")
        verb.add_argument("--yes", action="store_true", help="do not ask")
    verify = verbs.add_parser("verify", help="read the whole store")
    verify.add_argument("--repair", action="store_true", help="mend what can be mended")
    return parser.parse_args()


class _Misused(Exception):
    """What was asked for cannot be understood."""


def _run(asked: argparse.Namespace) -> int:
    repair = asked.verb == "verify" and asked.repair
    project = _project(asked, _projects(asked.store, lost=repair))
    settings = EngineSettings(project, store=asked.store, environ=dict(os.environ))
    if repair:
        report, sentences = repair_store(settings)
        for sentence in sentences:
            print(f"rescue: {sentence}", file=sys.stderr)
        return _tell(report)
    with Engine(settings, create=False) as engine:
        if asked.verb == "log":
            for operation in engine.operations():
                print(_line(operation))
            return 0
        if asked.verb == "verify":
            return _tell(engine.verify(repair=False))
        for sentence in engine.recover():
            print(f"rescue: {sentence}", file=sys.stderr)
        if asked.verb != "rollback":
            target = engine.undo_target() if asked.verb == "undo" else engine.redo_target()
            return _restore(engine, asked, target, engine.selection_of(target))
        snapshot = _wanted(engine, asked)
        return _restore(engine, asked, snapshot, _selection(engine, asked, snapshot))


def _typeable(hint: str) -> str:
    """Return a hint in which this program stands for guard, as far as it can do the same."""
    program = shlex.join([sys.executable or "python3", sys.argv[0]])
    return _OF_GUARD.sub(lambda _: program, hint)


def _line(operation: Operation) -> str:
    started = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(operation.started_at))
    command = " ".join(operation.data.get("command", ()))
    about = str(operation.data.get("label") or command)
    line = (
        f"{operation.seq:5}  {operation.id[:8]}  {started}  {operation.kind:9}"
        f" {operation.state:11}  {_shown(about)[:_WIDTH]}"
    )
    return line.rstrip()


def _shown(text: str) -> str:
    """Return text as one line that any terminal can take."""
    escaped = text.encode(errors="backslashreplace").decode()
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in escaped)


def _tell(report: VerifyReport) -> int:
    for damage in report.damage:
        state = "mended: " if damage.repaired else ""
        print(state + damage.what, *damage.paths, sep="\n    ")
    left = sum(not damage.repaired for damage in report.damage)
    print(f"{report.blobs:,} blobs read, {left} damaged")
    return 0 if report.ok else 1


def _wanted(engine: Engine, asked: argparse.Namespace) -> Snapshot:
    reference = engine.last_run(started=True).data["snapshot_id"] if asked.last else asked.to
    snapshot = engine.find_snapshot(str(reference))
    if snapshot.project != engine.project:
        raise NothingToDo(
            f"snapshot {snapshot.seq} is of another project, {snapshot.project}",
            hint=f"--project {shlex.quote(snapshot.project)}",
        )
    return snapshot


def _selection(engine: Engine, asked: argparse.Namespace, snapshot: Snapshot) -> Selection:
    """Return what the typed paths name; each has to be in the project, and known or there."""
    project = Path(engine.project)
    here = _here()
    start = here if here is not None and project in (here, *here.parents) else project
    roots = [project, *(Path(s.location) for s in snapshot.states if "tree" in s.data)]
    found: list[bytes] = []
    for typed in asked.paths:
        whole = whole_path(typed, start, roots)
        if whole is None:
            raise _Misused(f"{typed!r} is not in the project {project}")
        found.append(os.fsencode(whole))
        if not engine.knows(snapshot, found[-1]):
            raise NothingToDo(
                f"there is no {typed}, neither now nor in snapshot {snapshot.seq}",
                hint="check the spelling",
            )
    return Selection(tuple(found))


def _here() -> Path | None:
    try:
        return Path(os.getcwd())
    except FileNotFoundError:
        return None


def _restore(
    engine: Engine, asked: argparse.Namespace, snapshot: Snapshot, selection: Selection
) -> int:
    plan = engine.plan(snapshot, selection)
    _show(plan)
    if asked.dry_run:
        return 0
    if plan.steps and not asked.yes:
        if not sys.stdin.isatty():
            print("rescue: not on a terminal: add --yes to carry this out", file=sys.stderr)
            return 2
        if input("put this back? [y/N] ").strip().lower() not in {"y", "yes"}:
            return 1
    outcome = engine.restore(plan, kind=asked.verb)
    number = sum(step.changes for step in outcome.steps)
    changes = f"{number:,} change{'s' * (number != 1)}"
    print(f"put back {changes} in {outcome.elapsed_s:.1f} s, verified")
    for skip in outcome.skipped:
        print(f"not put back: {skip.what}: {skip.why}", file=sys.stderr)
    return _STATUS[RestoreIncomplete] if outcome.skipped else 0


def _show(plan: RestorePlan) -> None:
    for step in plan.steps[:_SHOWN]:
        print(f"  {step.action:9} {_shown(step.path)} {_shown(step.detail)}".rstrip())
    if len(plan.steps) > _SHOWN:
        print(f"  … and {len(plan.steps) - _SHOWN:,} more")
    if not plan.steps:
        print("nothing differs")


def _project(asked: argparse.Namespace, projects: list[str]) -> Path:
    """Return the project that is meant: the named one, that of the current folder, the only one.

    Raises:
        NothingToDo: The store has nothing of it.
        _Misused: There are several.
    """
    if not projects:
        raise NothingToDo("the store holds no snapshot", hint="there is nothing to put back")
    if asked.project is not None:
        project = os.path.realpath(asked.project)
        if project not in projects:
            raise NothingToDo(
                f"the store holds nothing of {project}", hint=f"it has {', '.join(projects)}"
            )
        return Path(project)
    here = _here()
    around = [] if here is None else [str(folder) for folder in (here, *here.parents)]
    found = [folder for folder in around if folder in projects] or projects
    if len(found) > 1 and found is projects and asked.verb in {"rollback", "undo", "redo"}:
        raise _Misused(f"name the project with --project: one of {', '.join(projects)}")
    return Path(found[0])


def _projects(store: Path, *, lost: bool) -> list[str]:
    """Return whose snapshots a store has, that of the newest first.

    Args:
        store: Its folder.
        lost: Whether the documents beside the catalog may be asked where that cannot be read.
    """
    if not (store / "STORE").exists() and not has_lost_marker(store):
        raise NothingToDo(f"{store} is not a guard store", hint="name it with --store DIR")
    return list(projects_of(store, documents=lost))
