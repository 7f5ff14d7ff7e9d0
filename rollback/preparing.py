"""Preparing a restore: all that it needs is staged and proven before anything changes."""

from __future__ import annotations

import contextlib
import os
from dataclasses import replace

from rollback.atomic import top_of
from rollback.build import TreeBuilder
from rollback.damage import damaged_paths
from rollback.errors import NoSpace, StoreCorrupt
from rollback.model import Entry, Skip
from rollback.needs import Needs
from rollback.obstacles import (
    bar_above,
    leave_out,
)
from rollback.plan import TreePlan
from rollback.planning import BRING_BACK
from rollback.removal import remove_path
from rollback.snapshots import blobs_of
from rollback.staging import (
    folders_mounted_below,
    make_stage,
    remove_stages,
)
from rollback.task import Task
from rollback.work import DatabaseWork, put_in
from rollback.writing import Linking


class Preparation:
    """Stages the content of one restore.

    Args:
        task: The restore.
    """

    def __init__(self, task: Task) -> None:
        self.task = task
        self.store = task.store
        self.operation = task.operation
        self.work = task.work

    def run(self) -> None:
        """Stage all that is needed, proven; nothing in the project changes."""
        with self.store.catalog.remembering():
            self._check_space()
            for number, plan in enumerate(self.work.trees):
                if not plan.empty or self.task.databases_in(plan):
                    self._stage(number, plan)
            self._prove_databases()

    def is_given_up(self) -> bool:
        """Return whether all that is damaged is what a repair found nothing to mend from."""
        known = self.store.catalog.unmended()
        if not known:
            return False
        try:
            self._prove_databases()
            needed = [damaged_paths(plan, self.store.reader) for plan in self.work.trees]
        except StoreCorrupt:
            return False  # a folder's record, or a database: nobody asked to go without it
        return all(known.issuperset(blobs.values()) for blobs in needed)

    def leave_damaged(self) -> None:
        """Name what the store does not give back any more: the rest is not to wait for it."""
        mend, why = "guard verify --repair", "its stored content is damaged"
        known = self.store.catalog.unmended()
        for plan in self.work.trees:
            for path, blob in damaged_paths(plan, self.store.reader).items():
                if blob in known:
                    plan.give_up(path, f"{why} and cannot be mended", BRING_BACK)
                else:
                    plan.bar(path, why, mend)
            bar_above(plan, put_in(plan, self.work.databases))
            leave_out(plan)
        for work in list(self.work.databases):
            try:
                self._prove_database(work)
            except StoreCorrupt as error:
                self.task.notes.append(Skip(os.fsdecode(work.path), str(error), mend))
                self.work.databases.remove(work)

    def _check_space(self) -> None:
        """Hold what staging needs against what the disk has, before anything is written.

        Where copies do not fit, large blobs are put in place themselves, and so is what a
        rollback moved into the store.
        """
        needs = Needs(self.store, undo=self.work.snapshot.kind == "undo")
        for plan in self.work.trees:
            root = plan.target.root.path
            folders = {top: os.path.join(root, top) for top in folders_mounted_below(root)}
            needs.add_tree(plan, {b"": self._home(root), **folders})
        for work in self.work.databases:
            if work.state is not None:
                needs.add_database(work.path, work.resource.needs(work.state))
        self.store.reserve.release(needs.of_store)
        self.task.share = needs.is_tight
        for disk in needs.disks.values():
            free = needs.free(disk)
            missing = disk.copied - free
            if missing > 0:
                raise NoSpace(
                    f"the rollback needs {disk.copied:,} bytes, the disk of "
                    f"{os.fsdecode(disk.folder)} has {free:,}: {missing:,} are missing",
                    hint="free some space (move new results elsewhere), or roll back a part: "
                    "guard rollback --last PATH",
                    missing_bytes=missing,
                )

    def _stage(self, number: int, plan: TreePlan) -> None:
        """Write everything that one root needs into its staging folders, verified."""
        root = plan.target.root.path
        tops = [b"", *folders_mounted_below(root)]
        items = [
            (kind + b"%d" % index, path, entry)
            for kind, group in ((b"f", plan.places + plan.specials), (b"d", plan.folders))
            for index, (path, entry) in enumerate(group)
        ]
        stages = self.task.stages[number] = {}
        for at, top in enumerate(tops):
            mine = [item for item in items if top_of(item[1], tops) == top]
            if mine or not top:
                folder = os.path.join(root, top) if top else self._home(root)
                name = number * len(tops) + at
                work = self.store.work(self.operation.seq)
                stages[top] = make_stage(folder, work, name, self.operation.seq)
                self._build(plan, stages[top], mine)

    def _home(self, root: bytes) -> bytes:
        """Return the folder whose file system a root is on, or will be on."""
        around = [plan.target.root.path for plan in self.work.trees]
        home = root
        while not os.path.isdir(home):
            outer = [path for path in around if home.startswith(path + b"/")]
            if not outer:
                return root
            home = max(outer, key=len)
        return home

    def _build(self, plan: TreePlan, stage: bytes, items: list[tuple[bytes, bytes, Entry]]) -> None:
        names = {name: path for name, path, _ in items}

        def path_of(staged: bytes) -> bytes:
            top, _, below = staged.partition(b"/")
            return names[top] + (b"/" + below if below else b"")

        def choose(staged: bytes, _entry: Entry) -> bool:
            path = path_of(staged)
            return not (path in plan.lost or path in plan.later or plan.is_barred(path))

        group_of = {path: n for n, group in enumerate(plan.target.links) for path in group}

        def one_file(one: bytes, other: bytes) -> bool:
            return group_of.get(path_of(one), -1) == group_of.get(path_of(other), -2)

        undo = self.work.snapshot.kind == "undo"
        linking = Linking.of(plan.target.root, undo=undo, path_of=path_of)
        # What lies on another file system can only be copied.
        share = self.task.share and stage.startswith(self.store.folder + b"/")
        linking = replace(linking, share_large=share, one_file=one_file)
        with TreeBuilder(self.store.reader, stage, linking) as builder:
            for name, _, entry in items:
                if name.startswith(b"f"):
                    builder.add_file(name, entry)
                else:
                    builder.add_folder(name, entry, choose)
            builder.finish()
        self.task.shared |= builder.shared
        for path, why in builder.built.notes:
            self.task.note(plan, path_of(path), why)

    def _prove_databases(self) -> None:
        """Read what databases will be made of: damage has to show before anything changes."""
        for work in self.work.databases:
            self._prove_database(work)

    def _prove_database(self, work: DatabaseWork) -> None:
        with open(os.devnull, "wb") as nowhere:
            for blob in blobs_of(work.state) if work.state is not None else ():
                self.store.reader.copy_to(blob, nowhere)

    def clean(self) -> None:
        """Remove what was staged; what lies in the store's work folder goes with it anyway."""
        for stage in (stage for stages in self.task.stages.values() for stage in stages.values()):
            with contextlib.suppress(OSError):
                remove_path(stage)
        remove_stages(plan.target.root.path for plan in self.work.trees)
