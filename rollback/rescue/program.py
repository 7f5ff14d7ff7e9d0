"""The program inside `rescue.pyz`: log, rollback, undo and verify with the standard library.

    python3 STORE/rescue.pyz rollback --last

It is the one module of this package that prints and exits: it is a program of its own.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from rollback.engine import Engine
from rollback.errors import (
    NoSpace,
    NothingToDo,
    RestoreIncomplete,
    RollbackError,
    StoreBusy,
    StoreCorrupt,
)
from rollback.inventory import EngineSettings
from rollback.model import Snapshot
from rollback.reports import RestorePlan, Selection
from rollback.snapshots import load
from rollback.store.catalog import Catalog

_STATUS = {
    NothingToDo: 10,
    StoreBusy: 11,
    StoreCorrupt: 12,
    NoSpace: 13,
    RestoreIncomplete: 123,
}
_SHOWN = 20


def main() -> None:
    """Run the program and exit with guard's documented status."""
    try:
        status = _run(_arguments())
    except RollbackError as error:
        print(f"rescue: {error}\n        next: {error.hint}", file=sys.stderr)
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
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("log", help="list operations, newest first")
    back = verbs.add_parser("rollback", help="put a snapshot back")
    which = back.add_mutually_exclusive_group(required=True)
    which.add_argument("--last", action="store_true", help="the state before the newest run")
    which.add_argument("--to", metavar="ID", help="this snapshot")
    back.add_argument("paths", nargs="*", type=Path, help="only these")
    undo = verbs.add_parser("undo", help="take the newest rollback back")
    for verb in (back, undo):
        verb.add_argument("--dry-run", action="store_true", help="only say what would be done")
        verb.add_argument("--yes", action="store_true", help="do not ask")
    verbs.add_parser("verify", help="read the whole store")
    return parser.parse_args()


def _run(asked: argparse.Namespace) -> int:
    project = _project(asked.store)
    settings = EngineSettings(project, store=asked.store, environ=dict(os.environ))
    with Engine(settings, create=False) as engine:
        if asked.verb == "log":
            for operation in engine.operations():
                print(
                    f"{operation.seq:5}  {operation.id[:8]}  {operation.kind:9} {operation.state}"
                )
            return 0
        if asked.verb == "verify":
            report = engine.verify(repair=False)
            for damage in report.damage:
                print(damage.what, *damage.paths, sep="\n    ")
            print(f"{report.blobs} blobs read, {len(report.damage)} damaged")
            return 0 if report.ok else 1
        for sentence in engine.recover():
            print(f"rescue: {sentence}", file=sys.stderr)
        if asked.verb == "undo":
            target = engine.undo_target()
            return _restore(engine, asked, target, engine.selection_of(target))
        paths = tuple(os.fsencode(path.absolute()) for path in asked.paths)
        return _restore(engine, asked, _wanted(engine, asked), Selection(paths))


def _wanted(engine: Engine, asked: argparse.Namespace) -> Snapshot:
    reference = engine.last_run().data["snapshot_id"] if asked.last else asked.to
    return engine.find_snapshot(str(reference))


def _restore(
    engine: Engine, asked: argparse.Namespace, snapshot: Snapshot, selection: Selection
) -> int:
    plan = engine.plan(snapshot, selection)
    _show(plan)
    if asked.dry_run or not plan.steps:
        return 0
    if not asked.yes:
        if not sys.stdin.isatty():
            print("rescue: not on a terminal: add --yes to carry this out", file=sys.stderr)
            return 2
        if input("put this back? [y/N] ").strip().lower() not in {"y", "yes"}:
            return 1
    outcome = engine.restore(plan, kind=asked.verb)
    print(f"put back {len(outcome.steps)} changes in {outcome.elapsed_s:.1f} s, verified")
    for skip in outcome.skipped:
        print(f"not put back: {skip.what}: {skip.why}", file=sys.stderr)
    return 0


def _show(plan: RestorePlan) -> None:
    for step in plan.steps[:_SHOWN]:
        shown = step.path.encode(errors="backslashreplace").decode()
        print(f"  {step.action:9} {shown} {step.detail}")
    if len(plan.steps) > _SHOWN:
        print(f"  … and {len(plan.steps) - _SHOWN} more")
    if not plan.steps:
        print("nothing differs")


def _project(store: Path) -> Path:
    """Return the project of a store: its newest snapshot says where it was."""
    if not (store / "STORE").exists():
        raise NothingToDo(f"{store} is not a guard store", hint="name it with --store DIR")
    catalog = Catalog(store / "catalog.db", writable=False)
    try:
        row = catalog.db.execute(
            "SELECT document FROM snapshot ORDER BY seq DESC LIMIT 1"
        ).fetchone()
    finally:
        catalog.close()
    if row is None:
        raise NothingToDo("the store holds no snapshot", hint="there is nothing to put back")
    return Path(load(row[0]).project)
