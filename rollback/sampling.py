"""A stratified sample of the files of a tree: what a rehearsal rebuilds in place of all."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field

from rollback.difference import contents
from rollback.model import Entry, Kind, Policy
from rollback.plan import TreeTarget
from rollback.store.blobs import BlobReader
from rollback.store.catalog import BlobKind

SAMPLE_PER_STRATUM = 48
_STRATA = (4 << 10, 64 << 10, 1 << 20, 64 << 20, 1 << 62)


@dataclass(slots=True)
class Stratum:
    """Files of one size class, counted, and a uniform sample of them (algorithm R, Vitter 1985).

    Attributes:
        dice: Where chance comes from.
        most: Size of the sample.
        count: Number of files.
        weight: Their bytes, with a page for each.
        chosen: The sample.
    """

    dice: random.Random
    most: int
    count: int = 0
    weight: int = 0
    chosen: list[tuple[bytes, Entry]] = field(default_factory=list)

    def add(self, path: bytes, entry: Entry) -> None:
        """Count one more file."""
        self.count += 1
        self.weight += entry.size + 4096
        if len(self.chosen) < self.most:
            self.chosen.append((path, entry))
        elif (at := self.dice.randrange(self.count)) < self.most:
            self.chosen[at] = (path, entry)


def strata(reader: BlobReader, target: TreeTarget, seed: str) -> list[Stratum]:
    """Return the size classes of a tree's files, and before them those that are links.

    Args:
        reader: The store.
        target: The tree.
        seed: Decides which files are chosen.
    """
    dice = random.Random(seed)  # noqa: S311 - a sample, not a secret
    found = [Stratum(dice, SAMPLE_PER_STRATUM) for _ in range(len(_STRATA) + 1)]
    found[-1].most = 1
    for path, entry in files_of(reader, target):
        # Only what may be a link is looked up: a look costs more than all the rest.
        linked = (
            target.root.policy(path) is Policy.LINK
            and reader.place(entry.ref).kind is BlobKind.INODE
        )
        index = 0 if linked else 1 + next(i for i, t in enumerate(_STRATA) if entry.size < t)
        found[index].add(path, entry)
    return found


def files_of(reader: BlobReader, target: TreeTarget) -> Iterator[tuple[bytes, Entry]]:
    """Yield the regular files of a tree with their paths."""
    for path, entry in contents(reader.tree, target.tree):
        if entry.kind is Kind.FILE:
            yield path, entry
