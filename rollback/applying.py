"""Changing the project: the steps of one restore, in an order that a crash can resume."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from functools import partial

from rollback.atomic import LiveWriter, top_of
from rollback.durable import sync_beside
from rollback.errors import RestoreIncomplete, RollbackError
from rollback.failpoints import reach
from rollback.folders import split
from rollback.inventory import is_absent
from rollback.model import Kind, Skip
from rollback.obstacles import (
    SYSTEM,
    Obstacle,
    describe,
    needed_places,
    paths_of,
)
from rollback.plan import TreePlan
from rollback.reclaim import Reclaimer
from rollback.sqlitefiles import SIDE_SUFFIXES
from rollback.staging import folders_mounted_below
from rollback.store.owned import aside_path
from rollback.task import Task
from rollback.work import DatabaseWork, folders_around, put_in


class Application:
    """Carries the steps of one restore out; all that they need is staged and kept.

    Args:
        task: The restore.
    """

    def __init__(self, task: Task) -> None:
        self.task = task
        self.store = task.store
        self.operation = task.operation
        self.work = task.work

    def run(self) -> Future[None]:
        """Change the project: what goes, innermost root first; what comes, outermost first.

        Returns:
            Ends when all of it is durable.
        """
        mine = [
            n for n, p in enumerate(self.work.trees) if not p.empty or self.task.databases_in(p)
        ]
        mine.sort(key=lambda number: self.work.trees[number].target.root.path)
        writers: dict[int, LiveWriter] = {}
        try:
            self._remove_databases()
            for number in reversed(mine):
                with self._step(self.work.trees[number], b""):
                    self._remove_from(number, writers)
            for number in mine:
                with self._step(self.work.trees[number], b""):
                    self._put_into(number, writers)
            self._restore_databases()
            for number in mine:
                with self._step(self.work.trees[number], b""):
                    self._put_beside(number, writers)
            pairs = [(self.work.trees[number], writer) for number, writer in writers.items()]
            pairs.sort(key=lambda pair: pair[0].target.root.path)
            for plan, writer in pairs:
                self._reclaim(plan, writer)
            for plan, writer in pairs:
                self._relink(plan, writer)
            reach("restore.folders")
            for plan, writer in reversed(pairs):
                self._apply_metadata(plan, writer)
            reach("restore.sync")
            return sync_beside(self._changed_devices())
        finally:
            for number, writer in writers.items():
                self._hear(self.work.trees[number], writer)
                writer.close()

    def _do(self, plan: TreePlan, path: bytes, act: Callable[[], object]) -> None:
        """Make one step, unless something stands in its way."""
        if not plan.is_barred(path):
            with self._step(plan, path):
                act()

    @contextlib.contextmanager
    def _step(self, plan: TreePlan, path: bytes, *, only: bool = False) -> Iterator[None]:
        """Name what stands in the way of a step where it stood there before; else it is an error.

        Args:
            plan: Of one root.
            path: What the step changes; nothing is done there and below any more.
            only: Whether the failure says nothing of what lies below the path.
        """
        try:
            yield
        except (OSError, RestoreIncomplete) as error:
            if not self.task.resumed or getattr(error, "errno", None) in SYSTEM:
                raise
            why, fix = describe(error)
            if only:
                self.task.note(plan, path, why, fix)
                return
            plan.bar(path, why, fix)
            self.task.obstacles.append(Obstacle(plan.target.root.path, path, why, fix))

    def _writer(self, number: int) -> LiveWriter:
        root = self.work.trees[number].target.root.path
        aside = aside_path(self.store.folder, self.operation.seq)
        return LiveWriter(root, self.task.stages[number], aside)

    def _remove_from(self, number: int, writers: dict[int, LiveWriter]) -> None:
        """Remove from one root what shall not be there."""
        plan = self.work.trees[number]
        if not plan.live.captured.present or not os.path.isdir(plan.target.root.path):
            return
        writer = writers[number] = self._writer(number)
        taken = needed_places(plan, put_in(plan, self.work.databases))
        for path, entry in plan.removes:
            if entry.kind is not Kind.DIRECTORY:
                self._do(plan, path, partial(writer.remove_file, path, entry))
            else:
                give_way = path in taken
                self._do(plan, path, partial(writer.remove_folder, path, give_way=give_way))
        if plan.vanish:
            self._do(plan, b"", partial(writer.vanish, give_way=self._is_needed(plan)))

    def _is_needed(self, plan: TreePlan) -> bool:
        """Return whether something else is put where the folder of a root is."""
        path = plan.target.root.path
        return any(
            os.path.join(other.target.root.path, place) == path
            for other in self.work.trees
            for place in needed_places(other, ())
        )

    def _put_into(self, number: int, writers: dict[int, LiveWriter]) -> None:
        """Put into one root what shall be there."""
        plan = self.work.trees[number]
        if plan.vanish or plan.is_barred(b""):
            return
        if number not in writers:
            if plan.target.present:
                os.makedirs(plan.target.root.path, exist_ok=True)
            writers[number] = self._writer(number)
        writer = writers[number]
        self._put(plan, writer, beside=False)
        writer.remove_bytecode(path for path, _ in plan.places if not plan.is_barred(path))
        self._put_files(plan, writer, beside=False)

    def _put_beside(self, number: int, writers: dict[int, LiveWriter]) -> None:
        """Put what has the name of a side file beside databases that are back.

        Before, it would part a live database from its log.
        """
        plan = self.work.trees[number]
        if number in writers and self._sides(plan):
            self._put(plan, writers[number], beside=True)
            self._put_files(plan, writers[number], beside=True)

    def _sides(self, plan: TreePlan) -> frozenset[bytes]:
        """Return the names of side files of the databases that are put back in a root."""
        return frozenset(
            path + suffix for path in put_in(plan, self.work.databases) for suffix in SIDE_SUFFIXES
        )

    def _put(self, plan: TreePlan, writer: LiveWriter, *, beside: bool) -> None:
        """Put folders into one root, and part what was one file with a database."""
        sides = self._sides(plan)
        for at, path in enumerate(plan.parts):
            if _is_of(sides, path) is beside:
                self._do(plan, path, partial(writer.part, path, b"p%d" % at))
        for path, _ in plan.makes:
            if _is_of(sides, path) is beside:
                self._do(plan, path, partial(writer.make_folder, path))
        for index, (path, _) in enumerate(plan.folders):
            if _is_of(sides, path) is beside:
                writer.folders.forget()
                self._do(plan, path, partial(writer.move_folder, path, b"d%d" % index))

    def _put_files(self, plan: TreePlan, writer: LiveWriter, *, beside: bool) -> None:
        """Put files, links and special files into one root."""
        sides, removed = self._sides(plan), dict(plan.removes)
        for index, (path, entry) in enumerate(plan.places + plan.specials):
            staged = b"f%d" % index
            if _is_of(sides, path) is not beside:
                continue
            if entry.kind is Kind.FILE or writer.has_staged(path, staged):
                kept = plan.replaced.get(path) or removed.get(path)
                self._do(plan, path, partial(writer.replace, path, staged, kept))

    def _hear(self, plan: TreePlan, writer: LiveWriter) -> None:
        """Take over what a writer has to say."""
        for path, why in writer.notes:
            self.task.note(plan, path, why)
        for path, place in writer.set_aside:
            shown = os.fsdecode(os.path.join(plan.target.root.path, path))
            self.task.kept_aside.append(f"{shown} → {os.fsdecode(place)}")

    def _changed_devices(self) -> list[bytes]:
        """Return one folder of each file system on which something was changed."""
        folders: list[bytes] = []
        for number, stages in self.task.stages.items():
            plan = self.work.trees[number]
            tops = [b"", *folders_mounted_below(plan.target.root.path)]
            changed = {*paths_of(plan), *plan.touched} if len(tops) > 1 else set()
            found = {*stages, *(top_of(path, tops) for path in changed)}
            folders += [plan.whole(top) for top in found]
        there = [folder for folder in folders if os.path.isdir(folder)]
        return list({os.stat(folder).st_dev: folder for folder in there}.values())

    def _reclaim(self, plan: TreePlan, writer: LiveWriter) -> None:
        """Fetch lost content from where it may still be had; what cannot be had is named."""
        if plan.lost:
            number = self.work.trees.index(plan)
            Reclaimer(plan, writer, self.task.stages[number][b""], self.task.environ).run()

    def _relink(self, plan: TreePlan, writer: LiveWriter) -> None:
        """Make hard links again; databases among them have to be in their places by now."""
        groups = [
            [path for path in group if path not in plan.lost and not plan.is_barred(path)]
            for group in plan.relinks + self._parted(plan)
        ]
        for number, group in enumerate(group for group in groups if group):
            leader = group[0]
            for path in group[1:]:
                self._do(plan, path, partial(writer.relink, leader, path, b"l%d" % number))

    def _parted(self, plan: TreePlan) -> list[list[bytes]]:
        """Return the groups that putting databases back took apart, each name for itself."""
        back = self.task.databases_in(plan)
        return [
            group
            for group in plan.target.links
            if group not in plan.relinks and not back.isdisjoint(group)
        ]

    def _apply_metadata(self, plan: TreePlan, writer: LiveWriter) -> None:
        folders = {**folders_around(plan, self.work.databases), **plan.touched}
        for path, entry in plan.metas + [(path, folders[path]) for path in sorted(folders)[::-1]]:
            if not plan.is_barred(path):
                with self._step(plan, path, only=True):
                    writer.set_metadata(path, entry)

    def _remove_databases(self) -> None:
        for work in list(self.work.databases):
            if work.state is None or is_absent(work.state):
                with self._database_step(work):
                    work.resource.remove(self.task.vault())

    def _restore_databases(self) -> None:
        for work in list(self.work.databases):
            if work.state is not None and not is_absent(work.state):
                with self._database_step(work):
                    reach("restore.database")
                    self.task.by_hand += work.resource.restore(work.state, self.task.vault())
        reach("restore.databases_done")

    @contextlib.contextmanager
    def _database_step(self, work: DatabaseWork) -> Iterator[None]:
        """Name a database that cannot be put back where that was so before."""
        try:
            yield
        except (OSError, RollbackError) as error:
            if not self.task.resumed or getattr(error, "errno", None) in SYSTEM:
                raise
            why, fix = describe(error)
            self.task.notes.append(Skip(os.fsdecode(work.path), why, fix))
            self.work.databases.remove(work)


def _is_of(tops: frozenset[bytes], path: bytes) -> bool:
    """Return whether a path is one of some, or lies below one."""
    while tops and path:
        if path in tops:
            return True
        path = split(path)[0]
    return False
