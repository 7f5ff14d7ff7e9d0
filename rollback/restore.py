"""Putting a snapshot back: stage → keep what is displaced → apply → verify → done.

Order of writes, which `docs/design.md` explains:

1. All content that is needed is staged beside the store, verified while it is read.
2. What will be displaced is linked into the store and committed as an undo snapshot, in the same
   commit that marks the operation as applying. From here on a crash is resumed forward.
3. Staged content is synced, then renamed into place, path by path.
4. Databases are put back, then the metadata of folders, then the file system is synced.
5. Everything is read again and compared; only then the operation is done.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial

from rollback.agreement import Verifier
from rollback.atomic import LiveWriter, remove_path, top_of
from rollback.build import TreeBuilder
from rollback.damage import damaged_paths, explain
from rollback.difference import find_entry
from rollback.displace import Displacer
from rollback.durable import sync_file_system
from rollback.errors import NoSpace, RestoreIncomplete, RollbackError, StoreCorrupt
from rollback.failpoints import reach
from rollback.folders import split
from rollback.inventory import is_absent
from rollback.lost import say_later
from rollback.model import Entry, Kind, Operation, Skip, Snapshot, Step
from rollback.obstacles import (
    SYSTEM,
    Obstacle,
    bar_above,
    describe,
    leave_out,
    needed_places,
)
from rollback.plan import TreePlan, show_path
from rollback.reclaim import Reclaimer, lost_skips
from rollback.shut import looked_into
from rollback.snapshots import blobs_of, gather
from rollback.staging import (
    folders_mounted_below,
    is_one_file_system,
    make_stage,
    refuse_link,
    remove_stages,
)
from rollback.store.catalog import BlobKind, translated
from rollback.store.owned import aside_path
from rollback.store.store import Store
from rollback.store.vault import StoreVault
from rollback.work import RECLAIM, DatabaseWork, Work, put_in
from rollback.writing import Linking

_AS_OWNER = "run the rollback as the file's owner, or as root"


class Restorer:
    """Carries one restore out.

    Args:
        store: Its lock is held.
        operation: The line in the log; it has been begun.
        work: From `make_plan`.
        environ: Variables of the user's command; guard's own where None.
        resumed: Whether this finishes what stopped half way: what stands in the way now stays
            there, so it is named, and everything else is put back.

    Attributes:
        obstacles: What stood in the way of a step.
        verified: Whether everything that is not named was found as it shall be.
    """

    def __init__(
        self,
        store: Store,
        operation: Operation,
        work: Work,
        environ: Mapping[str, str] | None = None,
        *,
        resumed: bool = False,
    ) -> None:
        self.environ = environ
        self.resumed = resumed
        self.obstacles: list[Obstacle] = []
        self.verified = True
        self.store = store
        self.operation = operation
        self.work = work
        self.kept_aside: list[str] = []
        self.notes: list[Skip] = []
        self.by_hand: list[Skip] = []
        self.undo: Snapshot | None = None
        self.shared: set[bytes] = set()
        self._share = False
        self._stages: dict[int, dict[bytes, bytes]] = {}

    def run(self) -> Snapshot:
        """Put everything back and verify it; returns the undo snapshot.

        Raises:
            NoSpace: Staging does not fit; nothing was changed.
            StoreCorrupt: Content that is needed is damaged; nothing was changed.
            RestoreIncomplete: It stopped half way; running it again resumes it.
        """
        refuse_link(os.fsencode(self.work.snapshot.project))
        self._prove_catalog()
        try:
            try:
                self._prepare()
            except StoreCorrupt:
                if not self.resumed:
                    raise
                self._unstage()
                self._leave_damaged()
                self._prepare()
            reach("stage.done")
            undo = self._keep_displaced()
        except OSError as error:
            self._unstage()
            raise _before_change(error) from error
        except StoreCorrupt as error:
            self._unstage()
            project = os.fsencode(self.work.snapshot.project)
            raise explain(error, self.work.trees, self.store.reader, project) from error
        except BaseException:
            self._unstage()
            raise
        with self._incomplete():
            reach("restore.applying")
            self._sync_stages()
            self._apply()
            reach("restore.verify")
            self._verify()
            self.by_hand += self._written_later()
        self._unstage()
        return undo

    def _prepare(self) -> None:
        """Stage all that is needed, proven; nothing in the project changes."""
        self._check_space()
        for number, plan in enumerate(self.work.trees):
            if not plan.empty or self._databases_in(plan):
                self._stage(number, plan)
        self._prove_databases()

    def _leave_damaged(self) -> None:
        """Name what the store does not give back any more: the rest is not to wait for it."""
        mend = "guard verify --repair"
        for plan in self.work.trees:
            for path in damaged_paths(plan, self.store.reader):
                plan.bar(path, "its stored content is damaged", mend)
            bar_above(plan, put_in(plan, self.work.databases))
            leave_out(plan)
        for work in list(self.work.databases):
            try:
                self._prove_database(work)
            except StoreCorrupt as error:
                self.notes.append(Skip(os.fsdecode(work.path), str(error), mend))
                self.work.databases.remove(work)

    def _verify(self) -> None:
        """Read everything again; what differs although it was put back once more is named."""
        noted = list(self.notes)
        verifier = Verifier(self.store, self.operation, self.work, noted, self._vault)
        try:
            with looked_into(self.work) as shut:
                verifier.noted.update(shut)
                verifier.run()
        except RollbackError as error:
            if not self.resumed:
                raise
            self.verified = False
            what = verifier.wrong or [str(error)]
            self.notes += [Skip(one, "it was found after the rollback", error.hint) for one in what]

    def _check_space(self) -> None:
        """Hold what staging needs against what the disk has, before anything is written.

        Where copies do not fit, large blobs are put in place themselves, and so is what a
        rollback moved into the store.
        """
        small = large = 0
        for plan in self.work.trees:
            here = is_one_file_system(plan.target.root.path, self.store.folder)
            for entry in plan.contents_needed():
                place = self.store.reader.place(entry.ref)
                if place.kind is BlobKind.LOOSE or (place.moved and here):
                    large += entry.size
                elif place.kind is not BlobKind.INODE or self.work.snapshot.kind == "undo":
                    small += entry.size
        small += sum(w.state.bytes for w in self.work.databases if w.state is not None)
        self.store.release_reserve(small + large)
        free = self.store.free()
        self._share = small + large > free
        if small > free:
            raise NoSpace(
                f"the rollback needs {small:,} bytes, the disk has {free:,}: "
                f"{small - free:,} are missing",
                hint="free some space (move new results elsewhere), or roll back a part: "
                "guard rollback --last PATH",
                missing_bytes=small - free,
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
        stages = self._stages[number] = {}
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
        linking = replace(linking, share_large=self._share, one_file=one_file)
        with TreeBuilder(self.store.reader, stage, linking) as builder:
            for name, _, entry in items:
                if name.startswith(b"f"):
                    builder.add_file(name, entry)
                else:
                    builder.add_folder(name, entry, choose)
            builder.finish()
        self.shared |= builder.shared
        for path, why in builder.built.notes:
            self._note(plan, path_of(path), why)

    def _prove_catalog(self) -> None:
        """Let SQLite look at the pages of the catalog, which says where everything lies."""
        with translated(self.store.catalog.path):
            found = self.store.catalog.db.execute("PRAGMA quick_check(1)").fetchone()[0]
        if found != "ok":
            raise StoreCorrupt(
                f"the catalog {self.store.catalog.path} is damaged, nothing was changed: {found}",
                hint="guard verify --repair",
            )

    def _prove_databases(self) -> None:
        """Read what databases will be made of: damage has to show before anything changes."""
        for work in self.work.databases:
            self._prove_database(work)

    def _prove_database(self, work: DatabaseWork) -> None:
        with open(os.devnull, "wb") as nowhere:
            for blob in blobs_of(work.state) if work.state is not None else ():
                self.store.reader.copy_to(blob, nowhere)

    def _keep_displaced(self) -> Snapshot:
        """Commit the undo snapshot and the intent to change the project, together."""
        with self.store.catalog.transaction():
            displacer = Displacer(self.store, self.operation, self.work.snapshot)
            try:
                for plan in self.work.trees:
                    databases = put_in(plan, self.work.databases)
                    displacer.keep_tree(plan, self.work.selection, databases)
                present = [w.resource for w in self.work.databases if w.present]
                displacer.keep_databases(present, self.work.unchanged)
                self.undo = displacer.commit()
            except BaseException:
                displacer.abandon()
                raise
            self.store.catalog.change_operation_within(
                self.operation.seq,
                {"undo_id": self.undo.id, "undo_seq": self.undo.seq},
                state="applying",
            )
            self.store.note_shared(self.shared)
        return self.undo

    def _sync_stages(self) -> None:
        reach("stage.sync")
        for number, plan in enumerate(self.work.trees):
            if plan.places or plan.folders or plan.specials:
                for stage in self._stages[number].values():
                    sync_file_system(stage)

    def _apply(self) -> None:
        """Change the project: what goes, innermost root first; what comes, outermost first."""
        mine = [n for n, p in enumerate(self.work.trees) if not p.empty or self._databases_in(p)]
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
            for root in self._changed_devices():
                sync_file_system(root)
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
            if not self.resumed or getattr(error, "errno", None) in SYSTEM:
                raise
            why, fix = describe(error)
            if only:
                self._note(plan, path, why, fix)
                return
            plan.bar(path, why, fix)
            self.obstacles.append(Obstacle(plan.target.root.path, path, why, fix))

    def _writer(self, number: int) -> LiveWriter:
        root = self.work.trees[number].target.root.path
        aside = aside_path(self.store.folder, self.operation.seq)
        return LiveWriter(root, self._stages[number], aside)

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
        removed = dict(plan.removes)
        for at, path in enumerate(plan.parts):
            self._do(plan, path, partial(writer.part, path, b"p%d" % at))
        for path, _ in plan.makes:
            self._do(plan, path, partial(writer.make_folder, path))
        for index, (path, _) in enumerate(plan.folders):
            writer.folders.forget()
            self._do(plan, path, partial(writer.move_folder, path, b"d%d" % index))
        writer.remove_bytecode(path for path, _ in plan.places if not plan.is_barred(path))
        for index, (path, entry) in enumerate(plan.places + plan.specials):
            staged = b"f%d" % index
            if entry.kind is Kind.FILE or writer.has_staged(path, staged):
                kept = plan.replaced.get(path) or removed.get(path)
                self._do(plan, path, partial(writer.replace, path, staged, kept))

    def _hear(self, plan: TreePlan, writer: LiveWriter) -> None:
        """Take over what a writer has to say."""
        for path, why in writer.notes:
            self._note(plan, path, why)
        for path, place in writer.set_aside:
            shown = os.fsdecode(os.path.join(plan.target.root.path, path))
            self.kept_aside.append(f"{shown} → {os.fsdecode(place)}")

    def _changed_devices(self) -> list[bytes]:
        """Return one folder of each file system on which something was changed."""
        folders = [
            os.path.join(self.work.trees[number].target.root.path, top)
            for number, stages in self._stages.items()
            for top in stages
        ]
        found = [folder for folder in folders if os.path.isdir(folder)]
        return list({os.stat(folder).st_dev: folder for folder in found}.values())

    def _reclaim(self, plan: TreePlan, writer: LiveWriter) -> None:
        """Fetch lost content from where it may still be had; what cannot be had is named."""
        if plan.lost:
            number = self.work.trees.index(plan)
            Reclaimer(plan, writer, self._stages[number][b""], self.environ).run()

    def unrestorable(self) -> list[Skip]:
        """Return what could not be put back, as far as that is known by now."""
        skips: list[Skip] = []
        for plan in self.work.trees:
            skips += gather(plan.unrestorable, plan.target.root)
            skips += lost_skips(plan, self.store.reader)
        return skips + self.notes

    def _written_later(self) -> list[Skip]:
        """Return what to say of files that are back with more than the rollback took away."""
        return [
            say_later(os.fsdecode(os.path.join(plan.target.root.path, path)))
            for plan in self.work.trees
            for path, _ in plan.places
            if path in plan.later and not plan.is_barred(path)
        ]

    def steps(self) -> list[Step]:
        """Return what was changed."""
        project = os.fsencode(self.work.snapshot.project)
        failed: set[str] = set()
        barred: set[str] = set()
        for plan in self.work.trees:
            failed |= {show_path(plan.target.root, path, project) for path in plan.lost}
            barred |= {show_path(plan.target.root, path, project) for path in plan.barred}
        return [
            step
            for step in self.work.steps
            if step.path.rstrip("/") not in barred
            and (step.action != RECLAIM or step.path not in failed)
        ]

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
        back = self._databases_in(plan)
        return [
            group
            for group in plan.target.links
            if group not in plan.relinks and not back.isdisjoint(group)
        ]

    def _databases_in(self, plan: TreePlan) -> set[bytes]:
        """Return the paths of databases in a root that are put back or removed."""
        below = plan.target.root.path + b"/"
        paths = {work.path for work in self.work.databases if work.path.startswith(below)}
        return {path[len(below) :] for path in paths}

    def _apply_metadata(self, plan: TreePlan, writer: LiveWriter) -> None:
        folders = {**self._around_databases(plan), **plan.touched}
        for path, entry in plan.metas + [(path, folders[path]) for path in sorted(folders)[::-1]]:
            if not plan.is_barred(path):
                with self._step(plan, path, only=True):
                    writer.set_metadata(path, entry)

    def _around_databases(self, plan: TreePlan) -> dict[bytes, Entry]:
        """Return the folders in which a database was put back or removed, which touched them."""
        target = plan.target
        found: dict[bytes, Entry] = {}
        for path in {split(path)[0] for path in self._databases_in(plan)}:
            entry = find_entry(plan.live.load, target.tree, path) if path else target.meta
            if entry is not None and entry.kind is Kind.DIRECTORY:
                found[path] = entry
        return found if target.present else {}

    def _remove_databases(self) -> None:
        for work in list(self.work.databases):
            if work.state is None or is_absent(work.state):
                with self._database_step(work):
                    work.resource.remove(self._vault())

    def _restore_databases(self) -> None:
        for work in list(self.work.databases):
            if work.state is not None and not is_absent(work.state):
                with self._database_step(work):
                    reach("restore.database")
                    self.by_hand += work.resource.restore(work.state, self._vault())
        reach("restore.databases_done")

    @contextlib.contextmanager
    def _database_step(self, work: DatabaseWork) -> Iterator[None]:
        """Name a database that cannot be put back where that was so before."""
        try:
            yield
        except (OSError, RollbackError) as error:
            if not self.resumed or getattr(error, "errno", None) in SYSTEM:
                raise
            why, fix = describe(error)
            self.notes.append(Skip(os.fsdecode(work.path), why, fix))
            self.work.databases.remove(work)

    def _vault(self) -> StoreVault:
        scratch = os.path.join(self.store.work(self.operation.seq), b"vault")
        os.makedirs(scratch, mode=0o700, exist_ok=True)
        return StoreVault(self.store.reader, None, scratch)

    def _note(self, plan: TreePlan, path: bytes, why: str, fix: str = _AS_OWNER) -> None:
        shown = os.fsdecode(os.path.join(plan.target.root.path, path))
        skip = Skip(shown, why, fix)
        if skip not in self.notes:
            self.notes.append(skip)

    def _unstage(self) -> None:
        """Remove what was staged; what lies in the store's work folder goes with it anyway."""
        for stage in (stage for stages in self._stages.values() for stage in stages.values()):
            with contextlib.suppress(OSError):
                remove_path(stage)
        remove_stages(plan.target.root.path for plan in self.work.trees)

    @contextlib.contextmanager
    def _incomplete(self) -> Iterator[None]:
        """Say of any error that the rollback stopped half way and can be resumed."""
        hint = "mend what the message names, then: guard rollback --last"
        try:
            yield
        except RestoreIncomplete:
            raise
        except RollbackError as error:
            raise RestoreIncomplete(
                f"the rollback is incomplete: {error}", hint=error.hint
            ) from error
        except OSError as error:
            raise RestoreIncomplete(f"the rollback is incomplete: {error}", hint=hint) from error


def _before_change(error: OSError) -> RollbackError:
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return NoSpace(
            f"the rollback could not be prepared, nothing was changed: {error.strerror}",
            hint="free some space, then run it again",
        )
    return RollbackError(
        f"the rollback could not be prepared, nothing was changed: {error}",
        hint="mend what the message names, then run it again",
    )
