"""Putting a snapshot back: stage → keep what is displaced → apply → verify → done.

Order of writes, which `docs/design.md` explains:

1. All content that is needed is staged beside the store, verified while it is read.
2. What will be displaced is linked into the store and committed as an undo snapshot, in the same
   commit that marks the operation as applying. From here on a crash is resumed forward.
3. Staged content, whose sync began beside 2, is durable; it is renamed into place, path by path.
4. Databases are put back, then the metadata of folders; the file system begins to sync.
5. Everything is read again and compared; that and the sync have ended when the operation is done.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shlex
from collections.abc import Iterator, Mapping

from rollback.agreement import Verifier
from rollback.applying import Application
from rollback.damage import explain
from rollback.displace import Displacer
from rollback.durable import sync_beside
from rollback.errors import NoSpace, RestoreIncomplete, RollbackError, StoreCorrupt, told
from rollback.failpoints import reach
from rollback.lost import say_later
from rollback.model import Skip, Snapshot, Step
from rollback.obstacles import bar_above
from rollback.plan import show_path
from rollback.preparing import Preparation
from rollback.reclaim import lost_skips
from rollback.replaced import refuse_replaced
from rollback.shut import looked_into
from rollback.snapshots import gather
from rollback.store.catalog import translated
from rollback.task import Task
from rollback.work import RECLAIM, bars, inside, put_in


class Restorer:
    """Carries one restore out.

    Args:
        task: The restore.

    Attributes:
        verified: Whether everything that is not named was found as it shall be.
    """

    def __init__(self, task: Task) -> None:
        self.task = task
        self.store = task.store
        self.operation = task.operation
        self.work = task.work
        self.undo: Snapshot | None = None
        self.verified = True

    def run(self) -> Snapshot:
        """Put everything back and verify it; returns the undo snapshot.

        Raises:
            NoSpace: Staging does not fit; nothing was changed.
            StoreCorrupt: Content that is needed is damaged; nothing was changed.
            RestoreIncomplete: It stopped half way; running it again resumes it.
        """
        refuse_replaced(os.fsencode(self.work.snapshot.project))
        self._prove_catalog()
        preparation = Preparation(self.task)
        try:
            try:
                preparation.run()
            except StoreCorrupt:
                if not self.task.resumed and not preparation.is_given_up():
                    raise
                preparation.clean()
                preparation.leave_damaged()
                preparation.run()
            reach("stage.done")
            staged = sync_beside(self._stages())
            undo = self._keep_displaced()
        except OSError as error:
            preparation.clean()
            raise _before_change(error) from error
        except StoreCorrupt as error:
            preparation.clean()
            snapshot = self.work.snapshot
            raise explain(error, self.work.trees, self.store.reader, snapshot) from error
        except BaseException:
            preparation.clean()
            raise
        with self._incomplete():
            reach("restore.applying")
            reach("stage.sync")
            staged.result()
            applied = Application(self.task).run()
            reach("restore.verify")
            self._verify()
            applied.result()
            self.task.by_hand += self._written_later()
        preparation.clean()
        return undo

    def _verify(self) -> None:
        """Read everything again; what differs although it was put back once more is named."""
        noted = list(self.task.notes)
        verifier = Verifier(self.store, self.operation, self.work, noted, self.task.vault)
        try:
            with looked_into(self.work) as shut:
                verifier.noted.update(shut)
                verifier.run()
        except RollbackError as error:
            if not self.task.resumed:
                raise
            self.verified = False
            what = verifier.wrong or [str(error)]
            self.task.notes += [
                Skip(one, "it was found after the rollback", error.hint) for one in what
            ]

    def _prove_catalog(self) -> None:
        """Let SQLite look at the pages of the catalog, which says where everything lies."""
        with translated(self.store.catalog.path):
            found = self.store.catalog.db.execute("PRAGMA quick_check(1)").fetchone()[0]
        if found != "ok":
            raise StoreCorrupt(
                f"the catalog {self.store.catalog.path} is damaged, nothing was changed: {found}",
                hint="guard verify --repair",
            )

    def _keep_displaced(self) -> Snapshot:
        """Commit the undo snapshot and the intent to change the project, together."""
        with self.store.catalog.transaction():
            displacer = Displacer(self.store, self.operation, self.work.snapshot)
            try:
                for plan in self.work.trees:
                    databases = put_in(plan, self.work.databases)
                    displacer.keep_tree(plan, self.work.selection, databases)
                present = [w.resource for w in self.work.databases if w.present]
                refused = displacer.keep_databases(present, self.work.unchanged)
                self._leave_databases(refused)
                self.undo = displacer.commit()
            except BaseException:
                displacer.abandon()
                raise
            self.store.catalog.change_operation_within(
                self.operation.seq,
                {"undo_id": self.undo.id, "undo_seq": self.undo.seq},
                state="applying",
            )
            self.store.note_shared(self.task.shared)
        return self.undo

    def _leave_databases(self, refused: Mapping[str, str]) -> None:
        """Leave databases where they are that the undo does not hold, and name them.

        Args:
            refused: Path → why.
        """
        fix = f"free some space, then: guard rollback --to {self.work.snapshot.seq}"
        for path, why in refused.items():
            stays = f"what is there now stays, for an undo could not bring it back: {why}"
            self.task.notes.append(Skip(path, stays, f"{fix} {shlex.quote(path)}"))
        left = {os.fsencode(path) for path in refused}
        for plan in self.work.trees:
            plan.barred |= inside(plan, left)
            bar_above(plan, put_in(plan, self.work.databases))
        self.work.databases[:] = [
            work
            for work in self.work.databases
            if work.path not in left and not any(bars(plan, work.path) for plan in self.work.trees)
        ]

    def _stages(self) -> list[bytes]:
        """Return the staging folders with something in them that will be put in place."""
        return [
            stage
            for number, plan in enumerate(self.work.trees)
            if plan.places or plan.folders or plan.specials
            for stage in self.task.stages[number].values()
        ]

    def unrestorable(self) -> list[Skip]:
        """Return what could not be put back, as far as that is known by now."""
        skips = [*self.work.stay]
        for plan in self.work.trees:
            skips += gather(plan.unrestorable, plan.target.root)
            skips += lost_skips(plan, self.store.reader)
        return skips + self.task.notes

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
            raise RestoreIncomplete(
                f"the rollback is incomplete: {told(error)}", hint=hint
            ) from error


def _before_change(error: OSError) -> RollbackError:
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return NoSpace(
            f"the rollback could not be prepared, nothing was changed: {error.strerror}",
            hint="free some space, then run it again",
        )
    return RollbackError(
        f"the rollback could not be prepared, nothing was changed: {told(error)}",
        hint="mend what the message names, then run it again",
    )
