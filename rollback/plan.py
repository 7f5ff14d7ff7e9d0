"""What a restore of one root has to do, as a value: computed by comparing, applied elsewhere."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field

from rollback.categories import categorize
from rollback.difference import contents, find_entry
from rollback.folders import split
from rollback.lost import Lost
from rollback.model import Category, Entry, Kind, Skip, Step
from rollback.present import Present
from rollback.recorded import RecordedFiles
from rollback.reports import Selection
from rollback.resources.base import Root
from rollback.store.codec import EMPTY_TREE


@dataclass(frozen=True, slots=True)
class TreeTarget:
    """The state that a root shall have again.

    Attributes:
        root: The root.
        present: False where the root did not exist.
        tree: Id of its tree.
        meta: Entry of the root folder itself.
        links: Groups of paths that are one file.
        recorded: What installers wrote down of its files, None where nothing did.
    """

    root: Root
    present: bool
    tree: bytes
    meta: Entry
    links: list[list[bytes]]
    recorded: RecordedFiles | None = None


@dataclass(slots=True)
class TreePlan:
    """The changes that make one root equal its target, in the order of their application.

    Attributes:
        target: What shall be.
        live: What is.
        number: Sequence number of the snapshot, as a command names it.
        removes: Files and folders to remove, contents before their folder.
        folders: Missing folders that are built whole and moved into place.
        makes: Missing folders that are created empty (a selection puts back a part only).
        places: Files whose content is put back.
        specials: Links, FIFOs and devices to make.
        metas: Entries whose metadata alone differs.
        relinks: Groups whose members become one file again.
        parts: Databases that become files of their own, apart from other names of theirs.
        touched: Folders whose metadata is set at the end: path → entry.
        altered: Those of them of which more than the time differs.
        unrestorable: What the snapshot does not hold.
        lost: Files whose content the store had by a link that was written through.
        known: SHA-256 of such content where it is in place again, by path.
        same: Files whose content is what it was, although their signature is not.
        replaced: Live entries that a placed one takes the place of.
        later: Files whose content a process went on writing after it was moved into the store:
            path → what they became.
        alike: Files whose content was not kept, and that look as they did.
        named: Paths that `unrestorable` names.
        vanish: Whether the root's folder itself shall be gone.
        barred: Paths that something stands in the way of: nothing is done there and below.
    """

    target: TreeTarget
    live: Present
    number: int
    removes: list[tuple[bytes, Entry]] = field(default_factory=list)
    folders: list[tuple[bytes, Entry]] = field(default_factory=list)
    makes: list[tuple[bytes, Entry]] = field(default_factory=list)
    places: list[tuple[bytes, Entry]] = field(default_factory=list)
    specials: list[tuple[bytes, Entry]] = field(default_factory=list)
    metas: list[tuple[bytes, Entry]] = field(default_factory=list)
    relinks: list[list[bytes]] = field(default_factory=list)
    parts: list[bytes] = field(default_factory=list)
    touched: dict[bytes, Entry] = field(default_factory=dict)
    altered: set[bytes] = field(default_factory=set)
    unrestorable: list[Skip] = field(default_factory=list)
    lost: dict[bytes, Lost] = field(default_factory=dict)
    known: dict[bytes, bytes] = field(default_factory=dict)
    same: dict[bytes, Entry] = field(default_factory=dict)
    replaced: dict[bytes, Entry] = field(default_factory=dict)
    later: dict[bytes, Entry] = field(default_factory=dict)
    alike: set[bytes] = field(default_factory=set)
    named: set[bytes] = field(default_factory=set)
    vanish: bool = False
    barred: set[bytes] = field(default_factory=set)

    @property
    def empty(self) -> bool:
        """Whether nothing has to be done."""
        return not (
            self.removes or self.folders or self.makes or self.places
            or self.specials or self.metas or self.relinks or self.parts or self.touched
            or self.vanish or self.lost
        )  # fmt: skip

    def is_barred(self, path: bytes) -> bool:
        """Return whether something stands in the way of a path, or of a folder that it lies in."""
        if not self.barred:
            return False
        while path and path not in self.barred:
            path = split(path)[0]
        return path in self.barred or b"" in self.barred

    def bar(self, path: bytes, why: str, mend: str) -> None:
        """Name what stands in the way of a path; nothing is done there and below any more."""
        if not self.is_barred(path):
            shown = os.fsdecode(self.whole(path))
            again = f"{mend}, then: guard rollback --to {self.number} {shlex.quote(shown)}"
            self.unrestorable.append(Skip(shown, why, again))
        self.barred.add(path)

    def give_up(self, path: bytes, why: str, mend: str) -> None:
        """Name what no later rollback will put back either; nothing is done there any more."""
        self.unrestorable.append(Skip(os.fsdecode(self.whole(path)), why, mend))
        self.barred.add(path)

    def whole(self, path: bytes) -> bytes:
        """Return the absolute path of a path in the root."""
        return os.path.join(self.target.root.path, path) if path else self.target.root.path

    def touch(self, paths: list[bytes]) -> None:
        """Restore the metadata of the folders of some paths, in which something comes or goes."""
        for folder in {split(path)[0] for path in paths} - self.touched.keys():
            tree = self.target.tree
            entry = find_entry(self.live.load, tree, folder) if folder else self.target.meta
            if entry is not None and entry.kind is Kind.DIRECTORY:
                self.touched[folder] = entry

    def displaced(self) -> Iterator[tuple[bytes, Entry]]:
        """Yield the live files that will be removed or replaced; nothing else has content."""
        for path, entry in (*self.removes, *self.replaced.items()):
            if entry.kind is Kind.FILE:
                yield path, entry

    def contents_needed(self) -> Iterator[tuple[bytes, Entry]]:
        """Yield the files whose content staging will write.

        Each comes with the path that is moved into place: its own, or that of the missing folder
        that it is in.
        """
        yield from self.places
        for path, folder in self.folders:
            for below, entry in contents(self.live.load, folder.ref, path):
                if entry.kind is Kind.FILE and not self.is_barred(below):
                    yield path, entry


def is_selected(root: Root, path: bytes, selection: Selection) -> bool:
    """Return whether a path relative to a root is part of a selection."""
    if selection.paths:
        absolute = os.path.join(root.path, path)
        if not any(
            absolute == chosen or absolute.startswith(chosen.rstrip(b"/") + b"/")
            for chosen in selection.paths
        ):
            return False
    if selection.categories:
        category = categorize(path) if root.resource == "files" else root.category
        return category in selection.categories
    return True


def steps_of(plan: TreePlan, project: bytes) -> list[Step]:
    """Return a plan's changes as people read them, in the order of paths."""
    name, load = plan.target.root.name, plan.live.load
    steps: list[tuple[bytes, Step]] = []

    def add(action: str, path: bytes, size: int = 0, detail: str = "", changes: int = 1) -> None:
        shown = show_path(plan.target.root, path, project)
        steps.append((path, Step(action, name, shown, detail, size, changes)))

    for path, entry in plan.removes:
        if entry.kind is not Kind.DIRECTORY:
            add("remove", path)
        elif entry.ref == EMPTY_TREE:
            add("remove", path + b"/", 0, "folder")
    for path, entry in plan.folders:
        below = [e for _, e in contents(load, entry.ref, path) if e.kind is not Kind.DIRECTORY]
        inside = [e for e in below if e.kind is Kind.FILE]
        add(
            "create",
            path + b"/",
            sum(e.size for e in inside),
            f"{len(inside):,} file{'s' * (len(inside) != 1)}",
            max(1, len(below)),
        )
    for path, _ in plan.makes:
        add("create", path + b"/", 0, "folder")
    for path, entry in plan.places + plan.specials:
        add("replace" if path in plan.replaced else "create", path, entry.size)
    for path, detail in _metadata_of(plan):
        add("metadata", path, 0, detail)
    return [step for _, step in sorted(steps, key=lambda item: item[0])]


def _metadata_of(plan: TreePlan) -> Iterator[tuple[bytes, str]]:
    """Yield what changes without any content, with what else is worth saying."""
    yield from ((path, "") for path, _ in plan.metas)
    yield from ((path + b"/", "") for path in plan.altered & plan.touched.keys())
    yield from ((group[0], f"{len(group)} hard links") for group in plan.relinks)
    yield from ((path, "a file of its own") for path in plan.parts)


def show_path(root: Root, path: bytes, project: bytes) -> str:
    """Return a path as people read it: relative to the project where it is inside."""
    absolute = os.path.join(root.path, path)
    inside = absolute.startswith(project + b"/")
    return os.fsdecode(absolute[len(project) + 1 :] if inside else absolute)


def category_of(root: Root, path: bytes) -> Category:
    """Return the category of a path of a root."""
    return categorize(path) if root.resource == "files" else root.category
