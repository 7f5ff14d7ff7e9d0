"""What a restore will do, as a value: every root and every database compared with a snapshot."""

from __future__ import annotations

import contextlib
import os
import shlex
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from rollback.difference import find_entry
from rollback.folders import split
from rollback.inventory import database, is_tree, resource_from, target_from
from rollback.model import Category, Entry, Kind, ResourceState, Skip, Snapshot, Step
from rollback.obstacles import Obstacle, concerns, find_obstacles, leave_out
from rollback.plan import TreePlan, show_path, steps_of
from rollback.planning import BRING_BACK, NOT_KEPT, STAYS, plan_tree
from rollback.present import Present
from rollback.reclaim import distribution_label, lost_skips
from rollback.reports import RestorePlan, Selection
from rollback.resources.base import Resource
from rollback.rootfolders import settle_roots
from rollback.snapshots import gather
from rollback.sqlitefiles import SIDE_SUFFIXES
from rollback.store.store import Store
from rollback.store.vault import StoreVault

RECLAIM = "reinstall"
"""Action of a step that fetches a file again whose content the store lost."""


@dataclass(slots=True)
class DatabaseWork:
    """One live database: what it shall be (None: absent), and whether it is there now."""

    path: bytes
    resource: Resource
    state: ResourceState | None
    present: bool


@dataclass(slots=True)
class Work:
    """Everything that a restore will do; the public plan is made from it.

    Attributes:
        snapshot: What is put back.
        selection: Which part of it.
        trees: What is done to file trees.
        databases: What is done to databases.
        unchanged: States of databases that are as they were, or left alone.
        stay: Databases that are left alone, and why.
        steps: All of it, for people.
        unrestorable: What cannot be put back, `stay` included.
    """

    snapshot: Snapshot
    selection: Selection
    trees: list[TreePlan]
    databases: list[DatabaseWork]
    unchanged: list[ResourceState]
    stay: list[Skip]
    steps: list[Step]
    unrestorable: list[Skip]

    @property
    def idle(self) -> bool:
        """Whether nothing has to be done: not even the time of a folder, which is no step."""
        return not self.databases and all(plan.empty for plan in self.trees)

    @property
    def public(self) -> RestorePlan:
        """The plan as a value for callers."""
        return RestorePlan(
            self.snapshot, tuple(self.steps), self.selection, tuple(self.unrestorable)
        )


def make_plan(
    store: Store, snapshot: Snapshot, selection: Selection, known: Sequence[Obstacle] = ()
) -> Work:
    """Compare the present with a snapshot and return what a restore would do; reads only.

    Args:
        store: Where the snapshot is.
        snapshot: What is put back.
        selection: Which part of it.
        known: What stood in the way of an earlier try.
    """
    with store.catalog.remembering():
        return _make_plan(store, snapshot, selection, known)


def _make_plan(
    store: Store, snapshot: Snapshot, selection: Selection, known: Sequence[Obstacle]
) -> Work:
    trees: list[TreePlan] = []
    project = os.fsencode(snapshot.project)
    extra: set[bytes] = set()
    for state in filter(is_tree, snapshot.states):
        target = target_from(state, store.reader)
        live = Present(target.root, store.reader)
        root = target.root
        extra |= {
            os.path.join(root.path, path)
            for path in live.captured.databases
            if not _was_database(live, target.tree, path)
        }
        trees.append(plan_tree(target, live, selection, snapshot))
    databases, unchanged, stay = _plan_databases(store, snapshot, selection, extra)
    whole = not (selection.paths or selection.categories)
    settle_roots(trees, exact=whole or snapshot.kind == "undo")
    for plan in trees:
        _leave_to_databases(plan, databases)
        _keep_away(plan, stay)
        here = put_in(plan, databases) | inside(plan, (work.path for work in databases))
        find_obstacles(plan, here, store.folder, known)
    stay += _leave_obstructed(trees, databases, snapshot.seq)
    databases = [work for work in databases if not any(bars(plan, work.path) for plan in trees)]
    steps: list[Step] = []
    unrestorable = [*stay]
    for plan in trees:
        steps += steps_of(plan, project) + _reclaims(plan, project)
        unrestorable += gather(plan.unrestorable, plan.target.root)
        unrestorable += lost_skips(plan, store.reader)
    vault = StoreVault(store.reader, None, os.path.join(store.folder, b"work"))
    for work in databases:
        if work.state is not None:
            steps += [
                replace(step, path=work.resource.name, resource=work.resource.name)
                for step in work.resource.plan(work.state, vault)
            ]
        else:
            steps.append(Step("remove", work.resource.name, work.resource.name, "database"))
    return Work(snapshot, selection, trees, databases, unchanged, stay, steps, unrestorable)


def inside(plan: TreePlan, paths: Iterable[bytes]) -> set[bytes]:
    """Return those of some absolute paths that lie in a root, relative to it."""
    below = plan.target.root.path + b"/"
    return {path[len(below) :] for path in paths if path.startswith(below)}


def put_in(plan: TreePlan, databases: Sequence[DatabaseWork]) -> set[bytes]:
    """Return where databases are put in a root, relative to it."""
    return inside(plan, (place for work in databases for place in _places(work)))


def folders_around(plan: TreePlan, databases: Iterable[DatabaseWork]) -> dict[bytes, Entry]:
    """Return the folders of a root in which a database is put back or removed: it touches them."""
    target = plan.target
    found: dict[bytes, Entry] = {}
    for path in {split(path)[0] for path in inside(plan, (work.path for work in databases))}:
        entry = find_entry(plan.live.load, target.tree, path) if path else target.meta
        if entry is not None and entry.kind is Kind.DIRECTORY:
            found[path] = entry
    return found if target.present else {}


def _places(work: DatabaseWork) -> tuple[bytes, ...]:
    return () if work.state is None else work.resource.places(work.state)


def _leave_to_databases(plan: TreePlan, databases: Sequence[DatabaseWork]) -> None:
    """Leave a file that is no database, but was one before, to what puts databases back.

    It knows what lies beside them: SQLite would bring the log of the one that goes into the file.
    """
    theirs = inside(plan, (work.path for work in databases if _places(work)))
    plan.places = [(path, entry) for path, entry in plan.places if path not in theirs]


def _keep_away(plan: TreePlan, stay: Iterable[Skip]) -> None:
    """Leave alone what lies beside databases that stay, and name what is not put back there.

    Of one that cannot be read the log is a file like any other to a walk.
    """
    names = (os.fsencode(skip.what) + suffix for skip in stay for suffix in (b"", *SIDE_SUFFIXES))
    for path in sorted(inside(plan, names)):
        entry = find_entry(plan.live.load, plan.target.tree, path)
        if entry is not None and entry.kind is not Kind.DATABASE and concerns(plan, path):
            plan.bar(path, "it lies beside a database that stays as it is", "mend that")
        plan.barred.add(path)


def _leave_obstructed(
    trees: Sequence[TreePlan], databases: list[DatabaseWork], seq: int
) -> list[Skip]:
    """Leave databases alone beside which something stays where a file of theirs is to lie."""
    going = {plan.whole(path) for plan in trees for path, _ in plan.removes}
    left: list[Skip] = []
    for work in list(databases):
        for place in _places(work)[1:]:
            if place not in going and os.path.lexists(place) and not _is_file(place):
                why = f"{os.fsdecode(place)} is no file, and its place is needed"
                left.append(_standing(work.path, seq, (why, "move that away")))
                databases.remove(work)
                break
    for plan in trees if left else ():
        _keep_away(plan, left)
        leave_out(plan)
    return left


def _standing(path: bytes, seq: int, obstacle: tuple[str, str]) -> Skip:
    """Return what to say of a database that stays: why, the mend, and the command for it alone."""
    why, fix = obstacle
    shown = os.fsdecode(path)
    return Skip(shown, why, f"{fix}, then: guard rollback --to {seq} {shlex.quote(shown)}")


def _is_file(path: bytes) -> bool:
    return stat.S_ISREG(os.lstat(path).st_mode)


def bars(plan: TreePlan, path: bytes) -> bool:
    """Return whether something stands in the way of a database; it is named already."""
    below = plan.target.root.path + b"/"
    return path.startswith(below) and plan.is_barred(path[len(below) :])


def _reclaims(plan: TreePlan, project: bytes) -> list[Step]:
    """Return what will be asked of an installer's cache."""
    root = plan.target.root
    return [
        Step(RECLAIM, root.name, show_path(root, path, project), f"from a cache: {label}")
        for path, lost in sorted(plan.lost.items())
        if (label := distribution_label(plan.target, lost))
    ]


def _was_database(live: Present, tree: bytes, path: bytes) -> bool:
    """Return whether a tree has a database at a path; what became of it, its state says."""
    entry = find_entry(live.load, tree, path)
    return entry is not None and entry.kind is Kind.DATABASE


def _plan_databases(
    store: Store, snapshot: Snapshot, selection: Selection, extra: set[bytes]
) -> tuple[list[DatabaseWork], list[ResourceState], list[Skip]]:
    """Return what to do to databases, the states of those that are as they were, and what stays.

    Args:
        store: Where the snapshot is.
        snapshot: What is put back.
        selection: Which part of it.
        extra: Live databases that the snapshot's trees do not have.
    """
    project = os.fsencode(snapshot.project)
    vault = StoreVault(store.reader, None, os.path.join(store.folder, b"work"))
    found: list[DatabaseWork] = []
    unchanged: list[ResourceState] = []
    stay: list[Skip] = []
    known: set[bytes] = set()
    for state in snapshot.states:
        if is_tree(state):
            continue
        path = os.fsencode(state.location)
        known.add(path)
        if _database_selected(path, state.category, selection):
            resource = resource_from(state)
            with _unless_unreadable(path, stay):
                if resource.is_lacking(state):
                    stay.append(Skip(os.fsdecode(path), NOT_KEPT, BRING_BACK))
                    unchanged.append(resource.leave())
                elif not resource.plan(state, vault):
                    unchanged.append(state)
                elif (obstacle := resource.obstacle(state)) is not None:
                    stay.append(_standing(path, snapshot.seq, obstacle))
                else:
                    found.append(DatabaseWork(path, resource, state, os.path.lexists(path)))
    for path in sorted(extra - known):
        if _database_selected(path, Category.DATABASES, selection):
            resource = database(path, project)
            with _unless_unreadable(path, stay):
                resource.try_reading()
                found.append(DatabaseWork(path, resource, None, present=True))
    return found, unchanged, stay


@contextlib.contextmanager
def _unless_unreadable(path: bytes, stay: list[Skip]) -> Iterator[None]:
    """Leave a database alone that the undo could not hold, and name it."""
    try:
        yield
    except PermissionError:
        stay.append(Skip(os.fsdecode(path), *STAYS[Kind.UNPROTECTED]))


def _database_selected(path: bytes, category: Category, selection: Selection) -> bool:
    if selection.categories and category not in selection.categories:
        return False
    return not selection.paths or any(
        path == chosen or path.startswith(chosen.rstrip(b"/") + b"/") for chosen in selection.paths
    )
