"""The log and the snapshots as they are looked up: by number, by id, by what came last."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from typing import Any

from rollback.difference import find_entry
from rollback.errors import NothingToDo, StoreBusy
from rollback.inventory import is_tree
from rollback.lock import is_ancestor
from rollback.meanwhile import edited_meanwhile
from rollback.model import Category, Operation, Snapshot
from rollback.replaced import way_back
from rollback.reports import Selection
from rollback.snapshots import load
from rollback.store.catalog import translated
from rollback.store.store import Store

_MOST_DIGITS = 15  # fewer than an id has, and SQLite's integers hold them
_BEGINS = "SELECT document FROM snapshot WHERE substr(id, 1, ?) = ?"
_RESTORES = ("rollback", "undo", "redo")
_IDENTITY = ("pid", "start", "boot")


class History:
    """What a store knows of the past; reads only.

    Args:
        store: Where it is written.
        project: Whose runs are meant, for a store may serve several.
    """

    def __init__(self, store: Store, project: str | os.PathLike[str]) -> None:
        self.store = store
        self.project = os.path.realpath(project)

    def find_snapshot(self, reference: str) -> Snapshot:
        """Return a snapshot by sequence number, prefix of its id, or ``last``.

        What can be read as a number that there is, is one: an id may begin with any digit.

        Raises:
            NothingToDo: There is none, or the prefix fits several.
        """
        if not reference:
            raise _nothing("'' fits no snapshot: name one")
        if reference == "last":
            newest = self.newest()
            if newest is None:
                raise _nothing("there is no snapshot yet")
            return newest
        number = _number(reference)
        rows = self._query("SELECT document FROM snapshot WHERE seq = ?", (number,))
        operations = [] if rows else self._operations_like(reference)
        if not rows and not (operations and operations[0].seq == number):
            rows = self._query(_BEGINS, (len(reference), reference))
        if not rows:
            for operation in operations:
                identity = str(operation.data.get("snapshot_id", ""))
                # A snapshot has its operation's id: one that was pruned would be searched forever.
                if identity == reference:
                    raise _nothing(f"the snapshot of {operation.kind} {operation.seq} was pruned")
                if identity:
                    return self.find_snapshot(identity)
            raise _nothing(f"there is no snapshot {reference}")
        if len(rows) > 1:
            raise _nothing(f"{reference} fits {len(rows)} snapshots")
        return load(rows[0][0])

    def find_operation(self, reference: str) -> Operation:
        """Return an operation by sequence number, prefix of its id, or ``last``.

        Raises:
            NothingToDo: There is none, or the prefix fits several.
        """
        found = self.operations(1) if reference == "last" else self._operations_like(reference)
        if len(found) != 1:
            why = "there is no operation" if not found else f"{len(found)} operations fit"
            raise _nothing(f"{why} {reference}")
        return found[0]

    def last_run(self, *, started: bool = False) -> Operation:
        """Return the newest run that has a snapshot.

        Args:
            started: Leave those out whose command was not started: they changed nothing.

        Raises:
            NothingToDo: There is none.
        """
        here = self.project
        other = ""
        for operation in self.store.catalog.operations("WHERE kind = 'run'"):
            if operation.data.get("snapshot_id") and not (started and _never_started(operation)):
                if self.is_mine(operation):
                    return operation
                other = other or self._project_of(operation)
        if other:
            raise NothingToDo(
                f"there is no run of {here} to roll back: the newest in this store is of {other}",
                hint=f"{self.reaching(other)} rollback --last",
            )
        raise _nothing(f"there is no run of {here} to roll back")

    def reaching(self, other: str) -> str:
        """Return the beginning of a command for another project of this store.

        A store that lies in a project goes with it where that is moved.
        """
        here = os.fspath(self.project)
        if os.path.isdir(other) or not self.store.path.is_relative_to(here):
            return f"guard --project {shlex.quote(other)}"
        return f"{way_back(here, other)} && guard"

    def runs_since(self, snapshot: Snapshot) -> list[Operation]:
        """Return the runs of this project that may have left something running, newest first.

        Those that began with a snapshot or after it, and the one that came before them.
        """
        found: list[Operation] = []
        for operation in self.store.catalog.operations("WHERE kind = 'run'"):
            if self.is_mine(operation):
                found.append(operation)
                if operation.seq < snapshot.seq and operation.data.get("snapshot_id"):
                    break
        return found

    def run_around(self, busy: StoreBusy) -> Operation | None:
        """Return the run of this project that holds the store and that this process is part of.

        Its owner has to be an ancestor by the kernel's word, and the one that has the lock. One
        that has no snapshot yet, or that is putting something back, protects nobody.

        Args:
            busy: What was said when the lock was asked for.
        """
        if not busy.owner or not is_ancestor(busy.owner):
            return None
        who = {key: busy.owner.get(key) for key in _IDENTITY}
        found = [
            operation
            for operation in filter(self.is_mine, self.store.at_work())
            if who == {key: operation.data["owner"].get(key) for key in _IDENTITY}
        ]
        run = next((o for o in found if o.kind == "run" and o.data.get("snapshot_id")), None)
        return None if any(o.kind in _RESTORES for o in found) else run

    def is_mine(self, operation: Operation) -> bool:
        """Return whether an operation is of this project, for a store may serve several."""
        return self._project_of(operation) in {"", self.project}

    def _project_of(self, operation: Operation) -> str:
        """Return the project of an operation; empty where nothing tells it any more."""
        data = operation.data
        if data.get("project"):
            return str(data["project"])
        for key in ("snapshot_id", "undo_id", "target_id"):
            rows = self._query("SELECT document FROM snapshot WHERE id = ?", (data.get(key),))
            if rows:
                return load(rows[0][0]).project
        return ""

    def snapshots(self) -> list[Snapshot]:
        """Return all snapshots, newest first; those of rollbacks among them."""
        return [load(r[0]) for r in self._query("SELECT document FROM snapshot ORDER BY seq DESC")]

    def operations(self, limit: int | None = None) -> list[Operation]:
        """Return the log, newest first."""
        found = self.store.catalog.operations()
        return found if limit is None else found[:limit]

    def undo_target(self) -> Snapshot:
        """Return the state that `undo` puts back: what the newest rollback displaced.

        Raises:
            NothingToDo: There is no rollback that was not taken back already.
        """
        return self._top(self._displaced()[0], "rollback to take back")

    def redo_target(self) -> Snapshot:
        """Return the state that `redo` puts back: what the newest undo displaced.

        Raises:
            NothingToDo: There is no undo that was not taken back already.
        """
        return self._top(self._displaced()[1], "undo to take back")

    def next_undo(self) -> list[str]:
        """Return the id of the state that `undo` puts back, if there is one."""
        return self._displaced()[0][-1:]

    def knows(self, snapshot: Snapshot, path: bytes) -> bool:
        """Return whether a path (absolute) is in a snapshot, or there now."""
        if os.path.lexists(path):
            return True
        for state in filter(is_tree, snapshot.states):
            folder = os.path.join(os.fsencode(state.location), b"")
            if not path.startswith(folder):
                continue
            tree = bytes.fromhex(state.data["tree"])
            if find_entry(self.store.reader.tree, tree, path[len(folder) :]) is not None:
                return True
        return any(os.fsencode(state.location) == path for state in snapshot.states)

    def selection_of(self, snapshot: Snapshot) -> Selection:
        """Return the selection of the restore that displaced a state; undoing it stays in it."""
        data = self.store.catalog.operation(snapshot.seq).data
        return selection_from(data)

    def superseded(
        self, operation: Operation, undo: Snapshot, target: Snapshot
    ) -> tuple[list[Operation], list[str]]:
        """Return the restores that stopped half way and are done with this one, and what to undo.

        Those that wanted the same are one with it: an undo brings back what the first of them
        displaced, after what was changed meanwhile, if anything was. All others are done with
        once everything was put back: none may be taken up again later, when people have gone on
        working.

        Args:
            operation: The restore that came through.
            undo: What it displaced.
            target: What it put back.

        Returns:
            The restores; and the snapshots to go back to, the one that comes first last.
        """
        wanted = _intent(operation)
        pending = [
            other
            for other in self._applying(operation)
            if _intent(other) == wanted or not (wanted[1] or wanted[2])
        ]
        steps = [undo]
        for other in pending:
            if _intent(other) != wanted:
                break
            steps.append(self.find_snapshot(str(other.data["undo_id"])))
        steps.reverse()
        kept = steps[:1]
        for step in steps[1:]:
            states = (kept[-1], step, target)
            if edited_meanwhile(self.store, states, selection_from(operation.data)):
                kept.append(step)
        return pending, [snapshot.id for snapshot in kept]

    def _applying(self, operation: Operation) -> list[Operation]:
        """Return the other restores that stopped half way, newest first; the lock is held."""
        found = self.store.catalog.operations("WHERE state = 'applying'")
        return [o for o in found if o.seq != operation.seq and self.is_mine(o)]

    def _displaced(self) -> tuple[list[str], list[str]]:
        """Return what undo and redo would put back, newest last, by going through the log.

        An undo that could not put all back may be made again, once: what it named may have been
        mended. The one after that goes further back, whatever became of it.
        """
        undo: list[str] = []
        redo: list[str] = []
        again = ""
        for operation in reversed(self.store.catalog.operations("WHERE state = 'done'")):
            if operation.kind not in _RESTORES or not self.is_mine(operation):
                continue
            if self._shows_nothing(operation) and (operation.data.get("idle") or undo or redo):
                continue
            displaced = displaced_by(operation)
            if operation.kind == "undo":
                again = undo[-1] if undo and undo[-1] != again and _left_over(operation) else ""
                if not again:
                    undo[-1:] = []
                redo += displaced
                continue
            again = ""
            if operation.kind == "redo":
                redo[-1:] = []
            else:
                redo.clear()
            undo += displaced
        return undo, redo

    def _shows_nothing(self, operation: Operation) -> bool:
        """Return whether a rollback changed nothing that is told: times of folders at most.

        It never stands before what people saw happen and want to take back. One that finished
        another's work undoes what that one displaced, however little it did.
        """
        if operation.kind != "rollback" or operation.data.get("steps") != 0:
            return False
        undo = (str(operation.data["undo_id"]),)
        rows = self._query("SELECT seq FROM snapshot WHERE id = ?", undo)
        return not rows or rows[0][0] == operation.seq

    def _top(self, displaced: list[str], what: str) -> Snapshot:
        if not displaced:
            raise _nothing(f"there is no {what}")
        rows = self._query("SELECT document FROM snapshot WHERE id = ?", (displaced[-1],))
        if not rows:
            raise _nothing(f"there was a {what}, but the state to go back to was pruned")
        return load(rows[0][0])

    def newest(self) -> Snapshot | None:
        """Return the project's newest snapshot that is none of a rollback's, None for none."""
        rows = self._query("SELECT seq FROM snapshot WHERE kind != 'undo' ORDER BY seq DESC")
        for (seq,) in rows:
            row = self._query("SELECT document FROM snapshot WHERE seq = ?", (seq,))
            snapshot = load(row[0][0])
            if snapshot.project == self.project:
                return snapshot
        return None

    def _operations_like(self, reference: str) -> list[Operation]:
        operations = self.store.catalog.operations
        return operations("WHERE seq = ?", (_number(reference),)) or operations(
            "WHERE substr(id, 1, ?) = ?", (len(reference), reference)
        )

    def _query(self, sql: str, values: tuple[Any, ...] = ()) -> list[Any]:
        with translated(self.store.catalog.path):
            return self.store.catalog.db.execute(sql, values).fetchall()


def _number(reference: str) -> int | None:
    """Return the sequence number that a reference can be read as."""
    plain = reference.isascii() and reference.isdecimal() and len(reference) <= _MOST_DIGITS
    return int(reference) if plain else None


def _never_started(run: Operation) -> bool:
    """Return whether a run ended before its command began: failed checks, a drill over budget."""
    told = run.data
    return "child_exit" in told and told["child_exit"] is None and not told.get("child")


def _nothing(message: str) -> NothingToDo:
    return NothingToDo(message, hint="guard log lists what there is")


def _left_over(operation: Operation) -> bool:
    """Return whether a restore named something that it could not put back."""
    return bool(operation.data.get("unrestorable"))


def displaced_by(operation: Operation) -> list[str]:
    """Return the snapshots that take a restore back, in the reverse of their order."""
    return [str(i) for i in (*operation.data.get("undo_below", ()), operation.data["undo_id"])]


def _intent(operation: Operation) -> tuple[str, list[str], list[str]]:
    data = operation.data
    return str(data["target_id"]), list(data.get("paths", [])), list(data.get("categories", []))


def selection_data(selection: Selection) -> dict[str, Any]:
    """Return a selection as the log keeps it."""
    return {
        "paths": [os.fsdecode(path) for path in selection.paths],
        "categories": sorted(selection.categories),
    }


def selection_from(data: Mapping[str, Any]) -> Selection:
    """Return a selection that the log kept."""
    return Selection(
        tuple(os.fsencode(path) for path in data.get("paths", [])),
        frozenset(Category(name) for name in data.get("categories", [])),
    )
