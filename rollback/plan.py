"""What a restore of one root has to do, as a value: computed by comparing, applied elsewhere."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from rollback.categories import categorize
from rollback.difference import Comparison, Pair, contents, find_entry, metadata_differs
from rollback.folders import join, split
from rollback.lost import Lost, expected_digest, is_lost, later_entry, stands_in
from rollback.model import Category, Entry, Kind, Skip, Snapshot, Step
from rollback.present import Present
from rollback.recorded import RecordedFiles
from rollback.reports import Selection
from rollback.resources.base import Root
from rollback.sameness import is_known_by_time, same_content

NOT_KEPT = "its content was not kept"
_UNTOUCHED = (Kind.WATCHED, Kind.UNPROTECTED, Kind.SOCKET)
_STAYS = {
    Kind.WATCHED: (
        "what is there now is watched: it is not kept, so it stays",
        "remove it yourself where it is not wanted",
    ),
    Kind.UNPROTECTED: (
        "what is there now cannot be read, so it stays",
        "give yourself read permission or move it away",
    ),
}
"""Why something that is there now is not touched, and the mend."""


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

    def contents_needed(self) -> Iterator[Entry]:
        """Yield the files whose content staging will write."""
        yield from (entry for _, entry in self.places)
        for path, folder in self.folders:
            for below, entry in contents(self.live.load, folder.ref, path):
                if entry.kind is Kind.FILE and not self.is_barred(below):
                    yield entry


class _Planner:
    """Sorts differences into a `TreePlan`."""

    def __init__(
        self, target: TreeTarget, live: Present, selection: Selection, snapshot: Snapshot
    ) -> None:
        self.target = target
        self.live = live
        self.plan = TreePlan(target, live, snapshot.seq)
        self.root = target.root
        self.partial = bool(selection.paths or selection.categories)
        self.selection = selection
        self.undo = snapshot.kind == "undo"
        self.comparison = Comparison(live.records, expand=False)

    def run(self) -> TreePlan:
        plan, target = self.plan, self.target
        pairs = list(self.comparison.compare(self.live.tree, target.tree))
        for pair in pairs:
            self._sort(pair)
        gone = self.live.captured.present and not target.present
        plan.vanish = gone and (not self.partial or bool(plan.removes))
        if target.present and not self.partial:
            self._mend_links()
            if self._anything() or metadata_differs(self.live.captured.meta, target.meta):
                plan.touched[b""] = target.meta
        elif target.present:
            self._join_selected(pairs)
        self._touch_parents()
        plan.removes.reverse()
        return plan

    def _anything(self) -> bool:
        p = self.plan
        changes = p.removes or p.folders or p.makes or p.places or p.specials or p.lost
        return bool(changes or p.relinks or p.parts)

    def _sort(self, pair: Pair) -> None:
        old, new = pair.old, pair.new
        excluded = self.root.excluded
        if excluded is not None and excluded(pair.path):
            return
        if old is not None and new is not None and old.kind is new.kind:
            if self._selected(pair.path):
                self._both(pair.path, old, new)
            return
        if old is not None and new is not None and self._incomparable(pair.path, old, new):
            return
        cleared = True
        if old is not None:
            since = self._made_since(pair.path)
            cleared = self._remove(pair.path, old, replaced=new is not None or since)
        if old is not None and new is not None and not self._selected(pair.path):
            self._around_part(pair.path, (old, new), cleared=cleared)
        elif new is not None:
            if old is not None and old.kind is Kind.SOCKET:
                self.plan.removes.append((pair.path, old))
            self._create(pair.path, new)

    def _around_part(self, path: bytes, kinds: tuple[Entry, Entry], *, cleared: bool) -> None:
        """Make way for a part below a path at which one state has a folder and the other has none.

        Args:
            path: It is not selected itself.
            kinds: What is there, and what was there.
            cleared: Whether all that is there goes with the part.
        """
        old, new = kinds
        if not self._concerns(path, old, new):
            return
        if new.kind is Kind.DIRECTORY:
            self.plan.removes.append((path, old))
            self._create(path, new)
        elif self.undo and cleared:
            self._create(path, new, chosen=True)
        elif self.undo:
            shown = os.fsdecode(os.path.join(self.root.path, path))
            why = "a folder is there now with what was made since"
            self.plan.unrestorable.append(Skip(shown, why, "move it away, then: guard undo"))

    def _concerns(self, path: bytes, old: Entry, new: Entry) -> bool:
        """Return whether a path is selected, or something in it on either side."""
        inside = (
            contents(self.live.load, side.ref, path)
            for side in (old, new)
            if side.kind is Kind.DIRECTORY
        )
        return self._selected(path) or any(self._selected(p) for both in inside for p, _ in both)

    def _made_since(self, path: bytes) -> bool:
        """Return whether an extra folder is outside every repository that the snapshot has.

        Objects are kept for repositories that were there, not for a clone made since.
        """
        return self.root.resource != "git" and b".git" not in split(path)[0].split(b"/")

    def _incomparable(self, path: bytes, old: Entry, new: Entry) -> bool:
        """Return whether one side does not know what is there: nothing is touched then."""
        if new.kind is Kind.UNPROTECTED and self._is_alike(path, old, new):
            self.plan.alike.add(path)
            return True
        unknown = old.kind in _STAYS
        if new.kind not in _UNTOUCHED and not unknown:
            return False
        if self._concerns(path, old, new) and new.kind in _UNTOUCHED:
            self._cannot_kind(path, new, old)
            if path not in self.plan.lost:
                self.plan.barred.add(path)
        elif self._concerns(path, old, new):
            self.plan.bar(path, *_STAYS[old.kind])
        return True

    def _both(self, path: bytes, old: Entry, new: Entry) -> None:
        plan = self.plan
        if new.kind is Kind.DATABASE:
            return
        if new.kind is Kind.DIRECTORY:
            plan.touched[path] = new
        elif new.kind in _UNTOUCHED:
            if new.kind is Kind.WATCHED:
                self._cannot(path, "it is watched: it changed and was not kept")
        elif new.kind is Kind.FILE:
            self._both_files(path, old, new)
        elif old.ref != new.ref:
            plan.specials.append((path, new))
            plan.replaced[path] = old
        else:
            plan.metas.append((path, new))

    def _both_files(self, path: bytes, old: Entry, new: Entry) -> None:
        plan, later = self.plan, later_entry(self.live.reader, new)
        wanted = later or new
        if not same_content(self.live, path, old, wanted):
            plan.replaced[path] = old
            self._place(path, new, old)
            return
        if later is not None:
            plan.later[path] = later
        if not metadata_differs(old, wanted):
            plan.same[path] = wanted
        elif old.mtime_ns != wanted.mtime_ns and is_known_by_time(self.live, path, old):
            plan.replaced[path] = old
            plan.places.append((path, wanted))
        else:
            plan.same[path] = wanted
            plan.metas.append((path, wanted))

    def _place(self, path: bytes, new: Entry, old: Entry | None) -> None:
        """Put a file back, as far as its content is to be had."""
        later = later_entry(self.live.reader, new)
        if later is not None:
            self.plan.later[path] = later
            self.plan.places.append((path, later))
        elif not self._lost(path, new, old):
            self.plan.places.append((path, new))

    def _remove(self, path: bytes, old: Entry, *, replaced: bool) -> bool:
        """Plan to remove what is selected at a path and below; return whether nothing is left."""
        gone = self._selected(path) and (replaced or not self._kept(path))
        if old.kind is Kind.DIRECTORY:
            at = len(self.plan.removes)
            # What goes as a whole takes along what would be kept elsewhere: a submodule's objects.
            inside = [
                self._remove(join(path, entry.name), entry, replaced=gone)
                for entry in self.live.load(old.ref)
            ]
            # A folder that only held what is selected was made for it.
            gone = gone or (self.partial and bool(inside) and all(inside))
            if gone:
                self.plan.removes.insert(at, (path, old))
            return gone and all(inside)
        if gone and old.kind in _STAYS:
            self.plan.bar(path, *_STAYS[old.kind])
            return False
        if gone and old.kind not in (Kind.DATABASE, Kind.SOCKET):
            self.plan.removes.append((path, old))
        return gone and old.kind is not Kind.SOCKET

    def _create(self, path: bytes, new: Entry, *, chosen: bool = False) -> None:
        if new.kind is Kind.DIRECTORY:
            if not self.partial:
                self.plan.folders.append((path, new))
                self._note_inside(path, new)
                return
            inside = [p for p, e in contents(self.live.load, new.ref, path) if self._selected(p)]
            if self._selected(path) or inside:
                self.plan.makes.append((path, new))
                for entry in self.live.load(new.ref):
                    self._create(join(path, entry.name), entry)
        elif new.kind is Kind.DATABASE or not (chosen or self._selected(path)):
            return
        elif new.kind in _UNTOUCHED:
            self._cannot_kind(path, new)
        elif new.kind is Kind.FILE:
            self._place(path, new, None)
        else:
            self.plan.specials.append((path, new))

    def _note_inside(self, path: bytes, folder: Entry) -> None:
        for here, entry in contents(self.live.load, folder.ref, path):
            if entry.kind in _UNTOUCHED:
                self._cannot_kind(here, entry)
            elif later_entry(self.live.reader, entry) is not None:
                self._place(here, entry, None)
            else:
                self._lost(here, entry, None)

    def _lost(self, path: bytes, new: Entry, old: Entry | None) -> bool:
        """Return whether a file's content is not in the store any more, and note that."""
        reader, recorded = self.live.reader, self.target.recorded
        if not is_lost(reader, self.root, path, new):
            return False
        owner = None if recorded is None else recorded.pristine(path, new)
        digest = expected_digest(reader, new, owner)
        if old is not None and digest is not None and stands_in(self.live, path, digest):
            self.plan.known[path] = digest
            if metadata_differs(old, new):
                self.plan.metas.append((path, new))
        else:
            self.plan.lost[path] = Lost(new, owner)
        return True

    def _is_alike(self, path: bytes, old: Entry, new: Entry) -> bool:
        """Return whether a file whose content was not kept is as it was, as far as can be told.

        By its time, or by the hash that its owner wrote down: git touches what it has already.
        """
        if old.kind is not Kind.FILE or old.size != new.size:
            return False
        own = self.target.recorded is None
        return old.mtime_ns == new.mtime_ns or (own and self.live.is_intact(path))

    def _cannot_kind(self, path: bytes, entry: Entry, old: Entry | None = None) -> None:
        if entry.kind is Kind.WATCHED:
            self._cannot(path, "it is watched: it was not kept")
        elif entry.kind is Kind.UNPROTECTED:
            recorded = self.target.recorded
            owner = None if recorded is None else recorded.pristine(path, entry)
            if owner is None or (old is not None and old.kind is not Kind.FILE):
                self._cannot(path, NOT_KEPT)
                return
            self.plan.lost[path] = Lost(entry._replace(kind=Kind.FILE), owner, NOT_KEPT)
            if old is not None:
                self.plan.replaced[path] = old

    def _cannot(self, path: bytes, why: str) -> None:
        shown = os.fsdecode(os.path.join(self.root.path, path))
        fix = "bring it back from where it came from"
        self.plan.unrestorable.append(Skip(shown, why, fix))
        self.plan.named.add(path)

    def _kept(self, path: bytes) -> bool:
        """Return whether an extra entry stays; of a root that shall be gone, nothing does."""
        return self.target.present and self.root.keep_extra(path)

    def _selected(self, path: bytes) -> bool:
        return is_selected(self.root, path, self.selection)

    def _touch_parents(self) -> None:
        """Restore the mtime of each folder in which something is about to change."""
        plan = self.plan
        for path, entry in plan.makes:
            plan.touched.setdefault(path, entry)
        if self.partial and not self.undo:
            return
        changes = (plan.removes, plan.folders, plan.makes, plan.places, plan.specials)
        plan.touch([*plan.lost, *plan.later])
        for path in {split(path)[0] for group in changes for path, _ in group}:
            if path and path in self.comparison.folders:
                plan.touched.setdefault(path, self.comparison.folders[path])
            elif not path and self.target.present:
                plan.touched.setdefault(b"", self.target.meta)

    def _mend_links(self) -> None:
        """Find groups of hard links that are not the same partition as in the snapshot."""
        plan = self.plan
        placed = {path for path, _ in plan.places} | {path for path, _ in plan.specials}
        built = [path + b"/" for path, _ in plan.folders]
        live = {path: n for n, group in enumerate(self.live.captured.links) for path in group}
        group_of = {path: n for n, group in enumerate(self.target.links) for path in group}
        kept = [[path for path in g if path not in self.plan.named] for g in self.target.links]
        for group in (group for group in kept if len(group) > 1):
            moved = any(p in placed or p.startswith(tuple(built)) for p in group)
            if moved or len({live.get(path, path) for path in group}) > 1:
                plan.relinks.append(group)
                self.plan.touch(group)
        for group in self.live.captured.links:
            if len({group_of.get(path, path) for path in group if path not in placed}) > 1:
                self._part(group, placed, group_of)

    def _join_selected(self, pairs: list[Pair]) -> None:
        """Make selected files again names of those outside the selection that are as they were."""
        placed = {path for path, _ in self.plan.places}
        differing = {pair.path for pair in pairs} - self.plan.same.keys()
        gone = tuple(pair.path + b"/" for pair in pairs if pair.old is None)
        for group in self.target.links:
            mine = [path for path in group if path in placed]
            steady = [p for p in group if p not in differing and not p.startswith(gone)]
            if mine and len(steady[:1] + mine) > 1:
                self.plan.relinks.append(steady[:1] + mine)

    def _part(self, group: list[bytes], placed: set[bytes], group_of: Mapping[bytes, int]) -> None:
        """Give each member of a live group that does not belong together a file of its own."""
        removed = {path for path, _ in self.plan.removes}
        seen: list[bytes | int] = []
        for path in group:
            if path in placed or path in removed:
                continue
            key = group_of.get(path, path)
            if not seen or key == seen[0]:
                seen.append(key)
                continue
            if key in seen:
                together = self.target.links[int(key)]
                if together not in self.plan.relinks:
                    self.plan.relinks.append(together)
                    self.plan.touch(together)
                continue
            seen.append(key)
            wanted = find_entry(self.live.load, self.target.tree, path)
            if wanted is not None and wanted.kind is Kind.FILE:
                self.plan.places.append((path, wanted))
                here = find_entry(self.live.load, self.live.tree, path)
                if here is not None:
                    self.plan.replaced.setdefault(path, here)
                self.plan.metas = [m for m in self.plan.metas if m[0] != path]
                self.plan.touch([path])
            elif wanted is not None and wanted.kind is Kind.DATABASE:
                self.plan.parts.append(path)
                self.plan.touch([path])


def plan_tree(
    target: TreeTarget, live: Present, selection: Selection, snapshot: Snapshot
) -> TreePlan:
    """Return what makes the live root equal its target; reads only.

    Args:
        target: What shall be.
        live: What is.
        selection: Which part is put back.
        snapshot: It has the target. Of what a rollback displaced, folders that came with the part
            go with it, and those around it get their times back.
    """
    return _Planner(target, live, selection, snapshot).run()


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

    def add(action: str, path: bytes, size: int = 0, detail: str = "") -> None:
        shown = show_path(plan.target.root, path, project)
        steps.append((path, Step(action, name, shown, detail, size)))

    for path, entry in plan.removes:
        if entry.kind is not Kind.DIRECTORY:
            add("remove", path)
    for path, entry in plan.folders:
        inside = [e for _, e in contents(load, entry.ref, path) if e.kind is Kind.FILE]
        add("create", path + b"/", sum(e.size for e in inside), f"{len(inside)} files")
    for path, _ in plan.makes:
        add("create", path + b"/", 0, "folder")
    for path, entry in plan.places + plan.specials:
        add("replace" if path in plan.replaced else "create", path, entry.size)
    for path, _ in plan.metas:
        add("metadata", path)
    for group in plan.relinks:
        add("metadata", group[0], 0, f"{len(group)} hard links")
    for path in plan.parts:
        add("metadata", path, 0, "a file of its own")
    return [step for _, step in sorted(steps, key=lambda item: item[0])]


def show_path(root: Root, path: bytes, project: bytes) -> str:
    """Return a path as people read it: relative to the project where it is inside."""
    absolute = os.path.join(root.path, path)
    inside = absolute.startswith(project + b"/")
    return os.fsdecode(absolute[len(project) + 1 :] if inside else absolute)


def category_of(root: Root, path: bytes) -> Category:
    """Return the category of a path of a root."""
    return categorize(path) if root.resource == "files" else root.category
