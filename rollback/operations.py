"""Operations from their intent to their end: the lock, the line in the log, what is tidied up."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rollback.errors import NothingToDo, RollbackError, StoreUnusable, speaking
from rollback.failpoints import reach
from rollback.history import History
from rollback.inventory import is_tree, resource_from
from rollback.model import Operation
from rollback.shut import set_modes
from rollback.staging import remove_stages
from rollback.store.catalog import translated


class Operations(History):
    """What a store knows of the past, and what is written and tidied up of what is done now."""

    def begin(self, kind: str, data: Mapping[str, Any]) -> Operation:
        """Take the project's lock and write the intent of an operation, durably.

        Raises:
            StoreBusy: Another operation is at work; it is named.
            StoreUnusable: The intent cannot be written.
        """
        depth = self.store.lock.depth
        try:
            with self._say(StoreUnusable, f"the {kind} could not be begun, nothing was changed"):
                return self.store.begin(kind, {"project": self.project, **data})
        except BaseException:
            self.store.lock.release_to(depth)
            raise

    def update(self, operation: Operation, data: Mapping[str, Any]) -> Operation:
        """Merge `data` into an operation's line of the log, durably."""
        catalog = self.store.catalog
        with self._say(StoreUnusable, "the log could not be written"):
            return self.store.reserve.with_room(
                lambda: catalog.change_operation(operation.seq, data)
            )

    @contextlib.contextmanager
    def parked(self) -> Iterator[None]:
        """Leave the store to other projects for a block, but for `update`: others are at work.

        Packs are written anew by others meanwhile: one that stays open would keep its space.
        """
        self.store.reader.close()
        with self.store.lock.parked():
            yield

    def finish(self, operation: Operation, state: str, data: Mapping[str, Any]) -> Operation:
        """End an operation: its line says so, its private files are gone, the lock is free."""
        try:
            with self._say(StoreUnusable, "the end of the operation could not be written down"):
                return self._end(operation, state, data)
        finally:
            self.store.lock.release()

    def _end(
        self,
        operation: Operation,
        state: str,
        data: Mapping[str, Any],
        finished: Sequence[Operation] = (),
    ) -> Operation:
        """End an operation, and with it those that died and that it finished: all or none."""
        reach("operation.finish")
        catalog = self.store.catalog
        since = min(ended.started_at for ended in (operation, *finished))

        def write() -> Operation:
            with catalog.transaction():
                for other in finished:
                    catalog.change_operation_within(
                        other.seq, {"resumed_by": operation.seq}, state="interrupted", ended=True
                    )
                if finished or state != "done":
                    self.store.litter.note_unclean(since)
                return catalog.change_operation_within(operation.seq, data, state=state, ended=True)

        done = self.store.reserve.with_room(write)
        # What stays behind here is removed by the next recovery; the operation has ended.
        with contextlib.suppress(OSError, ValueError, RollbackError):
            for ended in (operation, *finished):
                self.store.litter.clean(ended.seq)
            if self.store.lock.held:  # else another project may be writing
                self.store.litter.drop_unknown()
        return done

    def _remove_stages(self, operation: Operation) -> None:
        """Remove what a restore that died had staged outside of the store."""
        if not operation.data.get("target_id"):
            return
        with contextlib.suppress(NothingToDo):
            target = self.find_snapshot(str(operation.data["target_id"]))
            remove_stages(os.fsencode(s.location) for s in target.states if is_tree(s))
            for state in target.states:
                if not is_tree(state):
                    # What cannot be cleaned now is by the restore that takes its place.
                    with contextlib.suppress(OSError, RollbackError):
                        resource_from(state).clean()

    def _shut_again(self, operation: Operation) -> None:
        """Give folders that were opened for a restore their modes back: it changed nothing."""
        opened = self.store.catalog.operation(operation.seq).data.get("opened")
        if opened:
            target = self.find_snapshot(str(operation.data["target_id"]))
            roots = [os.fsencode(state.location) for state in filter(is_tree, target.states)]
            set_modes(opened, roots)

    @contextlib.contextmanager
    def _say(self, kind: type[RollbackError], what: str) -> Iterator[None]:
        with speaking(kind, what), translated(self.store.catalog.path):
            yield
