"""The rehearsal: a snapshot is restored for real into scratch, read again, and timed.

`full` rebuilds everything. `sample` rebuilds a stratified sample and computes from it what the
whole would take. `auto` rebuilds in full what was never rebuilt on this machine, and afterwards
what is new since, with a sample of the rest; what was measured then stands for the rest.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import random
import time
from collections.abc import Callable, Iterable, Mapping

from rollback.difference import Comparison, find_entry
from rollback.durable import sync_file_system
from rollback.errors import NoSpace, RollbackError, StoreBusy, StoreCorrupt
from rollback.failpoints import reach
from rollback.foretelling import LINKED, OVERHEAD_S, SAMPLED_FILE_S, database_s, tree_s
from rollback.inventory import is_tree, resource_from, target_from
from rollback.lost import Lost, is_lost, say_lost
from rollback.model import Entry, Kind, ResourceState, Snapshot
from rollback.part import SAFETY, Part, guess
from rollback.plan import TreeTarget
from rollback.proving import Prover
from rollback.reclaim import distribution_label
from rollback.rehearsing import Rebuilder, Rebuilt, emptied
from rollback.removal import remove_path
from rollback.reports import DrillPart, DrillReport
from rollback.room import PAGE, ScratchRoom
from rollback.sampling import SAMPLE_PER_STRATUM, Stratum, files_of, strata
from rollback.store.store import Store
from rollback.store.vault import StoreVault
from rollback.trash import discard

AUTO_FULL_FILES = 250_000
AUTO_FULL_BYTES = 16 << 30
_LARGE = 64 << 20
_JITTER_S = 2.0
"""Of what a short rollback takes, this much may double: other work on the machine."""
_FLOOR_S = 0.25


class Drill:
    """One rehearsal of one snapshot.

    Args:
        store: Where the snapshot is.
        snapshot: What is rehearsed.
        mode: ``auto``, ``full`` or ``sample``.
        budget_s: What the bound is held against.
        environ: Variables of the user's command; guard's own where None.
    """

    def __init__(
        self,
        store: Store,
        snapshot: Snapshot,
        mode: str,
        budget_s: float,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self.prover = Prover(store, snapshot, environ, full=mode == "full")
        self.rebuilder = Rebuilder(store.reader, undo=snapshot.kind == "undo")
        self.store = store
        self.snapshot = snapshot
        self.mode = mode
        self.budget_s = budget_s
        # ext4 chooses the place of this folder by its name: not again where much was removed.
        name = b"drill-%d-%s" % (os.getpid(), os.urandom(4).hex().encode())
        self.scratch = os.path.join(store.folder, b"work", name)
        self._proven: dict[str, str] = {}
        self.room = ScratchRoom(store)

    def run(self, progress: Callable[[str, int, int], None] | None = None) -> DrillReport:
        """Rehearse and return the verdict; the scratch folder is gone afterwards."""
        started = time.monotonic()
        self.room = ScratchRoom(self.store)
        reach("drill.scratch")
        remove_path(self.scratch)
        os.makedirs(self.scratch, mode=0o700)
        parts: list[Part] = []
        try:
            for number, state in enumerate(self.snapshot.states):
                if progress is not None:
                    progress("drill", number, len(self.snapshot.states))
                parts.append(self._rehearse(number, state))
            synced = time.monotonic()
            if any(part.unsynced for part in parts):
                sync_file_system(self.scratch)
            sync_s = time.monotonic() - synced
            elapsed_s = time.monotonic() - started
        finally:
            reach("drill.clean")
            self.rebuilder.links.remove()
            discard(self.scratch, self.store.folder, files=sum(part.files for part in parts))
        # What cannot be written down is measured, or read, once more the next time.
        with contextlib.suppress(NoSpace, StoreBusy):
            self._remember()
        guess(parts)
        return self._report(parts, elapsed_s, sync_s)

    def _report(self, parts: list[Part], elapsed_s: float, sync_s: float) -> DrillReport:
        estimate_s = sum(part.estimate_s for part in parts) + sync_s + OVERHEAD_S
        bound_s = sum(part.bound_s for part in parts) + sync_s * SAFETY
        bound_s += min(estimate_s, _JITTER_S) * (2 - SAFETY) + _FLOOR_S
        failures = tuple(failure for part in parts for failure in part.failures)
        sampled = any(part.sampled for part in parts)
        shown = [
            DrillPart(p.name, p.files, p.size, round(p.elapsed_s, 6), round(p.estimate_s, 6))
            for p in sorted(parts, key=lambda p: p.estimate_s, reverse=True)
        ]
        return DrillReport(
            self.snapshot.id,
            "sample" if sampled else "full",
            elapsed_s,
            estimate_s,
            bound_s,
            self.budget_s,
            not failures and bound_s <= self.budget_s,
            sum(part.files for part in parts),
            sum(part.size for part in parts),
            tuple(shown),
            failures,
            tuple(note for part in parts for note in part.notes),
            tuple(skip for part in parts for skip in part.skips),
        )

    def _rehearse(self, number: int, state: ResourceState) -> Part:
        part = Part(state.name)
        started = time.monotonic()
        try:
            if is_tree(state):
                self._tree(number, state, part)
            else:
                self._resource(state, part)
        except (NoSpace, OSError) as error:
            self._out_of_room(number, state, part, error)
        except RollbackError as error:
            part.failures.append(f"{state.name}: {error}")
        part.elapsed_s = time.monotonic() - started
        return part

    def _out_of_room(
        self, number: int, state: ResourceState, part: Part, error: NoSpace | OSError
    ) -> None:
        """Give up on a part for which the room went while it was rehearsed.

        Raises:
            OSError: It failed for another reason.
        """
        if isinstance(error, OSError) and error.errno not in {errno.ENOSPC, errno.EDQUOT}:
            raise error
        for name in (b"%d" % number, b"vault"):
            remove_path(os.path.join(self.scratch, name))
        part.unmeasured = state.bytes
        part.crowded("the disk became full while it was rehearsed")

    def _has_room(
        self, target: TreeTarget, wanted: Mapping[bytes, Entry] | None, part: Part
    ) -> bool:
        """Return whether there is room for files of a tree, for all where None; say if not."""
        files = files_of(self.store.reader, target) if wanted is None else wanted.items()
        linking = self.rebuilder.linking(target, None)
        needed = sum(self.room.takes(path, entry, linking) for path, entry in files)
        room = self.room.left()
        if needed > room:
            part.crowded(f"it needs {needed:,} bytes of space, the disk has {room:,} to spare")
        return needed <= room

    def _resource(self, state: ResourceState, part: Part) -> None:
        key = f"drill:{state.resource}:{state.name}"
        identity = json.dumps(state.data.get("blobs", []))
        known = json.loads(self.store.catalog.value(key, "{}"))
        if self.mode != "full" and known.get("blobs") == identity:
            part.estimate_s, part.sampled = known["elapsed_s"], True
            part.bound_s = part.estimate_s * SAFETY
            return
        room = self.room.left()
        if state.bytes > room:
            part.unmeasured = state.bytes
            part.crowded(f"it needs {state.bytes:,} bytes of space, the disk has {room:,} to spare")
            return
        scratch = os.path.join(self.scratch, b"vault")
        os.makedirs(scratch, mode=0o700, exist_ok=True)
        done = resource_from(state).rehearse(state, StoreVault(self.store.reader, None, scratch))
        remove_path(scratch)
        part.files, part.size = done.files, done.bytes
        part.unsynced = done.bytes > 0
        part.estimate_s = database_s(done.elapsed_s)
        part.bound_s = part.estimate_s * SAFETY
        self._proven[key] = json.dumps({"blobs": identity, "elapsed_s": part.estimate_s})

    def _tree(self, number: int, state: ResourceState, part: Part) -> None:
        target = target_from(state, self.store.reader)
        key = f"drill:tree:{state.name}"
        part.weight = state.bytes + PAGE * state.files
        known = json.loads(self.store.catalog.value(key, "{}"))
        if not known.get("weight"):
            known = {}  # of an earlier version: nobody knows what its time was for
        place = os.path.join(self.scratch, b"%d" % number)
        os.makedirs(place, mode=0o700)
        record: dict[str, object] | None = None
        if self.mode == "full" or (self.mode == "auto" and not known and _fits(state)):
            if part.weight <= self.room.left() or self._has_room(target, None, part):
                record = self._full(target, place, part)
        elif self.mode == "auto" and known:
            record = self._increment(target, place, part, known)
        if record is None:
            self._stratified(target, place, part)
        reach("drill.build")
        if record is not None and not part.failures:
            record = {"weight": part.weight} | record  # an increment keeps that of the whole
            if not part.lost:  # else the next rehearsal would not say so any more
                self._proven[key] = json.dumps(record)
            self._prove(target, None if part.sampled or part.lost else place, part)

    def _prove(self, target: TreeTarget, copy: bytes | None, part: Part) -> None:
        """Ask whether what was rebuilt works, where that is a question."""
        proof = self.prover.prove(target, copy, self.scratch)
        part.failures += proof.failures
        part.notes += proof.notes
        part.skips += proof.skips
        part.estimate_s += proof.elapsed_s
        part.bound_s += proof.elapsed_s * SAFETY
        if proof.record:
            self._proven[self.prover.key(target)] = proof.record

    def _full(self, target: TreeTarget, place: bytes, part: Part) -> dict[str, object]:
        lost: dict[bytes, Lost] = {}
        try:
            rebuilt, sample = self._whole(target, place, lost)
            if rebuilt.wrong:
                # Whether the store or the disk is to blame: a proven rebuild names what is damaged.
                rebuilt, sample = self._whole(target, emptied(place), lost, prove=True)
        except StoreCorrupt:
            lost = self._lost(target, files_of(self.store.reader, target), part)
            if not lost:
                raise
            rebuilt, sample = self._whole(target, emptied(place), lost, prove=True)
        part.failures += rebuilt.wrong
        part.name_unset(target.root.path, rebuilt.notes)
        part.files, part.size = rebuilt.files, rebuilt.size
        part.estimate_s = tree_s(rebuilt)
        part.bound_s = part.estimate_s * SAFETY
        return {
            "tree": target.tree.hex(), "files": part.files, "size": part.size,
            "elapsed_s": part.estimate_s,
            "sample": [os.fsdecode(path) for path, _ in sample.chosen],
        }  # fmt: skip

    def _whole(
        self, target: TreeTarget, place: bytes, lost: Mapping[bytes, Lost], *, prove: bool = False
    ) -> tuple[Rebuilt, Stratum]:
        """Rebuild a whole tree; return what came of it, and some files to look at the next time."""
        sample = Stratum(random.Random(self.snapshot.id), SAMPLE_PER_STRATUM)  # noqa: S311

        def choose(path: bytes, entry: Entry) -> bool:
            if entry.kind is Kind.FILE and path not in lost:
                sample.add(path, entry)
            return path not in lost

        return self.rebuilder.whole(target, place, lost, choose, prove=prove), sample

    def _lost(
        self, target: TreeTarget, files: Iterable[tuple[bytes, Entry]], part: Part
    ) -> dict[bytes, Lost]:
        """Return the files whose content went by a write through their link, and say so.

        A rollback puts everything else back, so a rehearsal does too. To look at each link takes
        time: it is asked only where a rebuild failed.
        """
        found: dict[bytes, Lost] = {}
        for path, entry in files:
            if is_lost(self.store.reader, target.root, path, entry):
                recorded = target.recorded
                owner = None if recorded is None else recorded.pristine(path, entry)
                found[path] = Lost(entry, owner)
        part.lost = bool(found)
        for path, lost in found.items():
            label = distribution_label(target, lost)
            fix = f"a rollback asks for {label} again" if label else "guard snapshot keeps it anew"
            shown = os.fsdecode(os.path.join(target.root.path, path))
            part.skips.append(say_lost(shown, lost, fix))
        return found

    def _increment(
        self, target: TreeTarget, place: bytes, part: Part, known: dict[str, object]
    ) -> dict[str, object] | None:
        """Rebuild what is new since the last rehearsal, and a sample of what is not.

        None where there is no room for that.
        """
        load = self.store.reader.tree
        wanted = self._new_since(bytes.fromhex(str(known["tree"])), target.tree)
        if wanted is None:
            return self._full(target, place, part) if self._has_room(target, None, part) else None
        names = [os.fsencode(name) for name in known["sample"]]  # type: ignore[attr-defined]
        for path in random.Random(self.snapshot.id).sample(names, min(len(names), 16)):  # noqa: S311
            entry = find_entry(load, target.tree, path)
            if entry is not None and entry.kind is Kind.FILE and entry.size < _LARGE:
                wanted.setdefault(path, entry)
        if not self._has_room(target, wanted, part):
            return None
        started = time.monotonic()
        part.failures += self._rebuild(target, place, wanted, part)
        part.sampled = True
        # Always held against the time of the whole: what changes each time adds up to nothing.
        growth = max(1.0, part.weight / int(str(known["weight"])))
        whole_s = float(known["elapsed_s"]) * growth  # type: ignore[arg-type]
        part.estimate_s = max(whole_s, time.monotonic() - started)
        part.bound_s = part.estimate_s * SAFETY
        return {**known, "tree": target.tree.hex()}

    def _new_since(self, proven: bytes, tree: bytes) -> dict[bytes, Entry] | None:
        """Return the files that a tree has and a rehearsed one had not; None where that is lost."""
        if proven == tree:
            return {}
        if self.store.catalog.place(proven) is None:
            return None
        try:
            pairs = list(Comparison(self.store.reader.records, expand=True).compare(proven, tree))
        except StoreCorrupt:  # of either: where it is the new one, its own rehearsal says so
            return None
        new = ((pair.path, pair.new) for pair in pairs)
        return {path: entry for path, entry in new if entry and entry.kind is Kind.FILE}

    def _stratified(self, target: TreeTarget, place: bytes, part: Part) -> None:
        """Rebuild a sample of each size class; the whole is its mean times the number."""
        part.sampled = part.unsynced = True
        for number, stratum in enumerate(strata(self.store.reader, target, self.snapshot.id)):
            if not stratum.count:
                continue
            chosen = self.room.fitting(stratum.chosen, self.rebuilder.linking(target, None))
            if not chosen:
                part.unmeasured += stratum.weight
                continue
            folder = os.path.join(place, b"s%d" % number)
            os.makedirs(folder, mode=0o700)
            started = time.monotonic()
            part.failures += self._rebuild(target, folder, chosen, part)
            spent = time.monotonic() - started
            share = stratum.weight / max(1, sum(e.size + 4096 for e in chosen.values()))
            share *= 1.0 if number else LINKED
            part.estimate_s += spent * share + SAMPLED_FILE_S * stratum.count
            doubt = 1.0 if len(chosen) == stratum.count else 1.0 + 1.0 / len(chosen) ** 0.5
            part.bound_s += spent * share * doubt * SAFETY

    def _rebuild(
        self, target: TreeTarget, place: bytes, wanted: dict[bytes, Entry], part: Part
    ) -> list[str]:
        """Rebuild single files under flat names."""
        try:
            try:
                rebuilt = self.rebuilder.some(target, place, wanted)
            except StoreCorrupt:
                lost = self._lost(target, wanted.items(), part)
                if not lost:
                    raise
                rest = {path: entry for path, entry in wanted.items() if path not in lost}
                rebuilt = self.rebuilder.some(target, emptied(place), rest)
        except RollbackError as error:
            return [f"{target.root.name}: {error}"]
        part.files += rebuilt.files
        part.size += rebuilt.size
        part.name_unset(target.root.path, rebuilt.notes)
        return [f"{target.root.name}: {item}" for item in rebuilt.wrong]

    def _remember(self) -> None:
        if self._proven or self.rebuilder.links:
            with self.store.catalog.transaction() as db:
                for key, value in self._proven.items():
                    self.store.catalog.set_value(key, value)
                self.rebuilder.links.take_over(db)


def _fits(state: ResourceState) -> bool:
    return state.files <= AUTO_FULL_FILES and state.bytes <= AUTO_FULL_BYTES
