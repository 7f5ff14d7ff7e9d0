"""The part of a rehearsal that asks whether what was rebuilt works, not only whether it is equal.

A rebuilt environment is started and a rebuilt repository is read, in scratch. What was proven
once is not proven again while its tree stays the same; where a proof is expensive it is repeated
by a full drill only. What is broken in the live state too was so before: it is told, and stops
nothing.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass

from rollback.difference import contents
from rollback.lost import distribution_of
from rollback.model import Kind, Skip, Snapshot
from rollback.plan import TreeTarget
from rollback.reclaim import installer_of
from rollback.resources.python.distributions import Distribution
from rollback.soundness import Soundness, can_be_checked_apart, check_root
from rollback.store.store import Store

CHEAP_S = 0.5
"""A proof that took longer than this is not repeated for each small change."""


@dataclass(frozen=True, slots=True)
class Proof:
    """What a proof came to.

    Attributes:
        failures: What works in the live state and did not in the rebuilt copy.
        notes: What works in neither.
        skips: What could not be proven.
        record: What is to be remembered, empty for nothing.
        elapsed_s: What it takes, now or when it was last done: a rollback does it too.
    """

    failures: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    skips: tuple[Skip, ...] = ()
    record: str = ""
    elapsed_s: float = 0.0


class Prover:
    """Proves environments and repositories of one snapshot.

    Args:
        store: Where the snapshot is.
        snapshot: What is rehearsed.
        environ: Variables of the user's command; guard's own where None.
        full: Whether everything is proven again.
    """

    def __init__(
        self, store: Store, snapshot: Snapshot, environ: Mapping[str, str] | None, *, full: bool
    ) -> None:
        self.store = store
        self.snapshot = snapshot
        self.environ = environ
        self.full = full
        newest = store.catalog.db.execute(
            "SELECT id FROM snapshot WHERE kind != 'undo' ORDER BY seq DESC LIMIT 1"
        ).fetchone()
        self.current = newest is not None and newest[0] == snapshot.id

    @staticmethod
    def key(target: TreeTarget) -> str:
        """Return the name under which a proof is remembered."""
        return f"proof:{target.root.name}"

    def prove(self, target: TreeTarget, copy: bytes | None, scratch: bytes) -> Proof:
        """Prove one root.

        Args:
            target: Its state in the snapshot.
            copy: The whole root, rebuilt; None where only a part of it was.
            scratch: A private folder.
        """
        if target.root.resource not in {"git", "python"} or not target.present:
            return Proof()
        if any(os.fsdecode(target.root.path) in skip.what for skip in self.snapshot.skipped):
            copy = None  # it lacks what could not be kept: that it does not work says nothing
        known = json.loads(self.store.catalog.value(self.key(target), "{}"))
        same = known.get("tree") == target.tree.hex()
        dear = copy is None and float(known.get("elapsed_s", 0.0)) > CHEAP_S
        if known and not self.full and (same or dear):
            return Proof(notes=tuple(known["problems"]), elapsed_s=known["elapsed_s"])
        started = time.monotonic()
        failures, found = self._check(target, copy)
        skips = found.skips + self._prove_cache(target, scratch)
        elapsed_s = time.monotonic() - started
        if failures or skips or not (copy or self.current):
            return Proof(failures, found.problems, skips, elapsed_s=elapsed_s)
        tree, problems = target.tree.hex(), list(found.problems)
        record = json.dumps({"tree": tree, "problems": problems, "elapsed_s": elapsed_s})
        return Proof((), found.problems, skips, record, elapsed_s)

    def _check(self, target: TreeTarget, copy: bytes | None) -> tuple[tuple[str, ...], Soundness]:
        """Return what is wrong with the copy alone, and what is wrong anyway."""
        root = target.root
        if copy is None or not can_be_checked_apart(root):
            return (), check_root(root, self.environ) if self.current else Soundness()
        found = check_root(root, self.environ, copy)
        if not found.problems or not self.current:
            return (), found
        live = check_root(root, self.environ)
        if live.problems:
            return (), Soundness(live.problems, found.skips)
        return found.problems, Soundness(skips=found.skips)

    def _prove_cache(self, target: TreeTarget, scratch: bytes) -> tuple[Skip, ...]:
        """Prove that a cache has the distributions whose files could not be kept."""
        here = os.fsdecode(target.root.path)
        recorded, environment = target.recorded, installer_of(target)
        if recorded is None or environment is None:
            return ()
        if not any(here in skip.what for skip in self.snapshot.skipped):
            return ()
        wanted: dict[str, Distribution] = {}
        for path, entry in contents(self.store.reader.tree, target.tree):
            if entry.kind is Kind.UNPROTECTED and (owner := recorded.pristine(path, entry)):
                name, distribution = distribution_of(recorded, owner)
                wanted[name] = distribution
        if not wanted:
            return ()
        from rollback.resources.python.reinstall import prove_cache  # noqa: PLC0415 - rare

        done = prove_cache(environment, wanted, os.fsdecode(scratch), self.environ)
        if done.ok:
            return ()
        names = ", ".join(sorted(wanted))
        why = f"files of theirs were not kept, and no cache has them: {done.said or 'no tool'}"
        return (Skip(f"packages {names}", why, "free some space, then snapshot again"),)
