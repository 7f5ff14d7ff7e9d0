"""The engine's face: what a command line, a hook or a test calls.

It opens the store of one project, keeps the log of operations, and hands each verb to the
module that knows how. It never prints and never exits.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any, Self, TypeVar

from rollback.changes import describe_changes, describe_distributions
from rollback.clearance import Wanted, take_snapshot
from rollback.drill import Drill
from rollback.errors import (
    CaptureFailed,
    DrillFailed,
    RestoreIncomplete,
    RollbackError,
    StoreBusy,
    StoreUnusable,
    speaking,
)
from rollback.failpoints import reach
from rollback.folders import allow_many_files
from rollback.history import selection_data, selection_from
from rollback.inventory import (
    EngineSettings,
    Inventory,
    take_inventory,
)
from rollback.lock import owner
from rollback.model import Operation, Snapshot
from rollback.obstacles import Obstacle
from rollback.operations import Operations
from rollback.reports import (
    Difference,
    DrillReport,
    PruneReport,
    RestoreOutcome,
    RestorePlan,
    Selection,
    SnapshotReport,
    StoreStatus,
    VerifyReport,
)
from rollback.rescue import write_rescue
from rollback.restore import Restorer
from rollback.shut import Modes, find_shut, open_folders
from rollback.soundness import Soundness, check_roots
from rollback.store import placement
from rollback.store.store import Store
from rollback.task import Task
from rollback.work import Work, make_plan

Progress = Callable[[str, int, int], None]
_T = TypeVar("_T")
_FRESH_S = 2.0
_NAMED = 20


class Engine(Operations):
    """The snapshot engine of one project.

    Args:
        settings: Project, store, command.
        create: Whether to make the store where there is none.

    Raises:
        NothingToDo: There is no store and none shall be made.
        StoreUnusable: The store cannot be used here.
        CatalogCorrupt: The store's catalog cannot be read.
    """

    def __init__(self, settings: EngineSettings, *, create: bool = True) -> None:
        allow_many_files()
        self.settings = settings
        self.placement = placement.choose(settings.project, settings.store, settings.environ)
        with speaking(StoreUnusable, f"the store {self.placement.path} cannot be opened"):
            super().__init__(Store(self.placement.path, create=create), settings.project)
        self.store.lock.for_project(self.project)
        self.store.max_bytes = settings.max_store_bytes
        self._planned: tuple[float, Work] | None = None
        self._inventory: Inventory | None = None
        self._obstacles: list[Obstacle] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the store and give its lock back."""
        self.store.close()

    @property
    def is_gone(self) -> bool:
        """Whether somebody removed the store while it was open: no snapshot is in its place."""
        names = ("catalog.db", "snapshots")
        return not any((self.store.path / name).exists() for name in names)

    def status(self) -> StoreStatus:
        """Return where the store is, how much is in it, what is at work and what did not finish."""
        kinds = Counter(kind for (kind,) in self._query("SELECT kind FROM snapshot"))
        displaced = kinds.pop("undo", 0)
        return StoreStatus(
            path=str(self.store.path),
            bytes=self.store.used(),
            snapshots=kinds.total(),
            displaced=displaced,
            why_here=self.placement.why,
            unfinished=tuple(filter(self.is_mine, self.store.unfinished())),
            at_work=tuple(filter(self.is_mine, self.store.at_work())),
        )

    def inspect(self) -> Inventory:
        """Return what would be captured, without capturing it."""
        if self._inventory is None:
            self._inventory = take_inventory(self.settings, self.store.path)
        return self._inventory

    def snapshot(
        self, operation: Operation, *, kind: str, label: str, progress: Progress | None = None
    ) -> SnapshotReport:
        """Take a snapshot for an operation that was begun.

        Raises:
            CaptureFailed: Nothing of it is kept.
            NoSpace: Nothing of it is kept.
        """
        if progress is not None:
            progress("snapshot", 0, 0)
        with self._say(CaptureFailed, "the snapshot could not be taken, nothing of it is kept"):
            self.store.catalog.upgrade()
            self.store.part_shared()
            self.store.reserve.set_aside()
            write_rescue(self.store)
        wanted = Wanted(self.inspect(), kind, label)
        with self._say(CaptureFailed, "the snapshot is there, but its end failed"):
            report = take_snapshot(self.store, self.settings, operation, self.newest, wanted)
        removed = [snapshot.seq for snapshot in report.removed]
        self.update(operation, {"snapshot_id": report.snapshot.id, "made_room": removed})
        return report

    def drill(
        self,
        snapshot: Snapshot,
        *,
        mode: str = "auto",
        budget_s: float = 300.0,
        progress: Progress | None = None,
    ) -> DrillReport:
        """Rehearse a snapshot and return the verdict; the project is not touched."""
        with self._say(DrillFailed, "the drill could not be made, the project was not touched"):
            return self._drill_of(snapshot, mode, budget_s).run(progress)

    def plan(self, snapshot: Snapshot, selection: Selection) -> RestorePlan:
        """Return what a restore would do; reads only."""
        with self._say(RollbackError, "what differs could not be looked at"):
            work = make_plan(self.store, snapshot, selection, self._obstacles)
        self._planned = (time.monotonic(), work)
        return work.public

    def restore(
        self, plan: RestorePlan, *, kind: str = "rollback", progress: Progress | None = None
    ) -> RestoreOutcome:
        """Carry a plan out, verify the result, and return what was done.

        Raises:
            NoSpace: Nothing was changed.
            StoreCorrupt: Nothing was changed.
            RestoreIncomplete: It stopped half way; running it again resumes it.
        """
        if progress is not None:
            progress(kind, 0, len(plan.steps))
        data = {"target_id": plan.snapshot.id, "target_seq": plan.snapshot.seq}
        data |= selection_data(plan.selection)
        operation = self.begin(kind, data)
        return self._restore(operation, plan)

    def diff(self, old: Snapshot, new: Snapshot | None) -> Difference:
        """Return what differs between two snapshots, or a snapshot and the present."""
        with self._say(RollbackError, "what differs could not be looked at"):
            changes = tuple(describe_changes(self.store, old, new))
            distributions = tuple(describe_distributions(old, new))
        return Difference(old.id, None if new is None else new.id, changes, distributions)

    def verify(self, *, repair: bool, progress: Progress | None = None) -> VerifyReport:
        """Read the whole store and say what is damaged; with `repair`, mend what can be."""
        from rollback.verification import verify_store  # noqa: PLC0415 - one command's

        with self._say(RollbackError, "the store could not be verified"):
            return verify_store(self.store, repair=repair, progress=progress)

    def prune(
        self,
        *,
        keep_last: int | None = None,
        keep_days: float | None = None,
        max_bytes: int | None = None,
        dry_run: bool = False,
    ) -> PruneReport:
        """Delete old snapshots; never the newest good one, nor that of an unfinished operation."""
        from rollback.retention import Rules, prune  # noqa: PLC0415 - one command's

        rules = Rules(keep_last, keep_days, max_bytes)
        with self._say(RollbackError, "pruning stopped half way, what is kept is whole"):
            return prune(self.store, rules, dry_run=dry_run)

    def recover(self) -> list[str]:
        """Finish or take back what died; returns sentences for people.

        Raises:
            StoreBusy: The operation is not dead.
            RestoreIncomplete: A rollback could not be finished.
        """
        told: list[str] = []
        with self._say(RollbackError, "what died could not be finished"):
            dead = [operation for operation in self.store.unfinished() if self.is_mine(operation)]
            applying = [operation for operation in dead if operation.state == "applying"]
            if applying:
                told += self._holding_lock(lambda: self._resume(applying[0]))
            told += [
                self._holding_lock(partial(self._bury, operation))
                for operation in dead
                if operation.state != "applying"
            ]
            if self.store.litter.strays() or self.store.litter.unclean_since() is not None:
                with contextlib.suppress(StoreBusy):
                    self._holding_lock(self.store.litter.sweep)
        return told

    def _holding_lock(self, work: Callable[[], _T]) -> _T:
        reach("recover.start")
        self.store.lock.acquire()
        try:
            return work()
        finally:
            self.store.lock.release()

    def _resume(self, operation: Operation) -> list[str]:
        """Finish the newest restore that died in the middle; older ones it takes the place of.

        What stood in its way and does so still is named: it may not stop all that comes after.
        """
        snapshot = self.find_snapshot(str(operation.data["target_id"]))
        self._remove_stages(operation)
        plan = self.plan(snapshot, selection_from(operation.data))
        intent = {**operation.data, "resumes": operation.seq, "owner": owner()}
        again = self.store.reserve.with_room(
            lambda: self.store.catalog.add_operation(operation.kind, intent)
        )
        os.makedirs(self.store.work(again.seq), mode=0o700, exist_ok=True)
        outcome = self._restore(again, plan)
        told = f"{operation.kind} {operation.seq} had been interrupted; it is finished now"
        if self.store.catalog.operation(again.seq).data.get("undo_below"):
            told += (
                "; what was changed since is kept: guard undo brings it back,"
                " a second guard undo the state before the rollback"
            )
        if not outcome.skipped:
            return [told]
        named = [f"not put back: {s.what}: {s.why}; {s.fix}" for s in outcome.skipped]
        more = [f"not put back: {len(named) - _NAMED} more"] if len(named) > _NAMED else []
        return [f"{told}, but for what follows", *named[:_NAMED], *more]

    def _bury(self, operation: Operation) -> str:
        """End an operation that died before it changed anything in the project."""
        self._remove_stages(operation)
        self._shut_again(operation)
        self._end(operation, "interrupted", {})
        name = f"{operation.kind} {operation.seq}"
        if operation.kind == "run" and operation.data.get("snapshot_id"):
            # Not `--last`: what comes after this sentence may be a newer run.
            back = f"guard rollback --to {operation.seq}"
            return f"{name} did not finish; to put its changes back: {back}"
        return f"{name} did not finish; nothing of it was kept"

    def _restore(self, operation: Operation, plan: RestorePlan) -> RestoreOutcome:
        started = time.monotonic()
        try:
            stopped = self._applying(operation)
            for dead in stopped:
                self._remove_stages(dead)
            work = self._open_shut(operation, self._work(plan))
            for tree in work.trees:
                if not tree.empty and tree.live.captured.present:
                    tree.target.root.prepare()
            environ = self.settings.environ or None
            task = Task(self.store, operation, work, environ, resumed=bool(stopped))
            restorer = Restorer(task)
            undo = restorer.run()
            self._obstacles = task.obstacles
            sound = self._check(work)
        except RestoreIncomplete:
            self.store.lock.release()
            raise
        except (RollbackError, OSError) as error:
            self._give_up(operation, error)
            with self._say(RollbackError, "the rollback could not be made, nothing was changed"):
                raise
        except BaseException:
            self.store.lock.release()
            raise
        elapsed_s = time.monotonic() - started
        steps, skipped = restorer.steps(), restorer.unrestorable()
        identity = self._write_down(
            operation,
            (undo, work.snapshot),
            {
                "elapsed_s": elapsed_s,
                "steps": sum(step.changes for step in steps),
                "verified": restorer.verified,
                "idle": work.idle,
                "unrestorable": [skip.what for skip in skipped[:_NAMED]],
                "problems": list(sound.problems[:_NAMED]),
            },
        )
        return RestoreOutcome(
            operation.id,
            plan.snapshot.id,
            identity,
            tuple(steps),
            elapsed_s,
            verified=restorer.verified,
            kept_aside=tuple(task.kept_aside),
            skipped=tuple(skipped),
            problems=sound.problems,
            unchecked=(*task.by_hand, *sound.skips),
        )

    def _write_down(
        self, operation: Operation, swapped: tuple[Snapshot, Snapshot], done: dict[str, Any]
    ) -> str:
        """End a restore that is verified; return the id of the snapshot that takes it back.

        Args:
            operation: The restore.
            swapped: What it displaced, and what it put back.
            done: What the log keeps of it.

        Raises:
            RestoreIncomplete: That could not be written; the next command does it.
        """
        unwritten = "all is back, but that could not be written down"
        try:
            with self._say(RestoreIncomplete, unwritten):
                reach("restore.finish")
                reached, ids = self.superseded(operation, *swapped)
                *below, identity = ids
                self._end(
                    operation, "done", {**done, "undo_id": identity, "undo_below": below}, reached
                )
        except RestoreIncomplete:
            raise
        except RollbackError as error:
            raise RestoreIncomplete(f"{unwritten}: {error}", hint=error.hint) from error
        finally:
            self.store.lock.release()
        return identity

    def _open_shut(self, operation: Operation, work: Work) -> Work:
        """Open the folders that hide what a plan is about; their modes are in the log before."""
        roots = [plan.target.root.path for plan in work.trees]
        opened: Modes = dict(operation.data.get("opened", {}))
        while found := {path: mode for path, mode in find_shut(work).items() if path not in opened}:
            opened |= found
            self.update(operation, {"opened": opened})
            open_folders(found, roots)
            work = make_plan(self.store, work.snapshot, work.selection, self._obstacles)
        for plan in work.trees:
            below = plan.target.root.path + b"/"
            names = {os.fsencode(path): mode for path, mode in opened.items()}
            plan.live.opened = {
                path[len(below) :]: mode for path, mode in names.items() if path.startswith(below)
            }
        return work

    def _give_up(self, operation: Operation, error: RollbackError | OSError) -> None:
        """End a restore that changed nothing; what cannot be done of it, the next command does."""
        try:
            self._shut_again(operation)
        except (RollbackError, OSError):
            self.store.lock.release()
            return
        with contextlib.suppress(RollbackError):
            self.finish(operation, "failed", {"error": str(error)})

    def _check(self, work: Work) -> Soundness:
        """Ask whether the repositories and environments that were touched work."""
        roots = [p.target.root for p in work.trees if not p.empty and p.target.present]
        return check_roots(roots, self.settings.environ or None)

    def _drill_of(self, snapshot: Snapshot, mode: str, budget_s: float) -> Drill:
        return Drill(self.store, snapshot, mode, budget_s, self.settings.environ or None)

    def _work(self, plan: RestorePlan) -> Work:
        """Return the work behind a plan; looked at again where some time has passed."""
        if self._planned is not None:
            at, work = self._planned
            fresh = time.monotonic() - at < _FRESH_S
            if fresh and (work.snapshot.id, work.selection) == (plan.snapshot.id, plan.selection):
                return work
        return make_plan(self.store, plan.snapshot, plan.selection, self._obstacles)
