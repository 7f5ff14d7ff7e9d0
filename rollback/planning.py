"""Comparing the live state of one root with its target: differences sorted into a plan."""

from __future__ import annotations

import os
from collections.abc import Mapping

from rollback.difference import Comparison, Pair, contents, find_entry, metadata_differs
from rollback.folders import join, split
from rollback.lost import Lost, expected_digest, is_lost, later_entry, stands_in
from rollback.model import Entry, Kind, Skip, Snapshot
from rollback.plan import TreePlan, TreeTarget, is_selected
from rollback.present import Present
from rollback.reports import Selection
from rollback.sameness import is_known_by_time, same_content

NOT_KEPT = "its content was not kept"
BRING_BACK = "bring it back from where it came from"
_UNTOUCHED = (Kind.WATCHED, Kind.UNPROTECTED, Kind.SOCKET)
STAYS = {
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
        for pair in self.live.reader.looking_ahead(pairs, _wanted):
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
        unknown = old.kind in STAYS
        if new.kind not in _UNTOUCHED and not unknown:
            return False
        if self._concerns(path, old, new) and new.kind in _UNTOUCHED:
            self._cannot_kind(path, new, old)
            if path not in self.plan.lost:
                self.plan.barred.add(path)
        elif self._concerns(path, old, new):
            self.plan.bar(path, *STAYS[old.kind])
        return True

    def _both(self, path: bytes, old: Entry, new: Entry) -> None:
        plan = self.plan
        if new.kind is Kind.DATABASE:
            return
        if new.kind is Kind.DIRECTORY:
            plan.touched[path] = new
            if metadata_differs(old._replace(mtime_ns=new.mtime_ns), new):
                plan.altered.add(path)
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
        if gone and old.kind in STAYS:
            self.plan.bar(path, *STAYS[old.kind])
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
        inside = contents(self.live.load, folder.ref, path)
        for here, entry in self.live.reader.looking_ahead(inside, lambda item: item[1].ref):
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
        self.plan.unrestorable.append(Skip(shown, why, BRING_BACK))
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


def _wanted(pair: Pair) -> bytes:
    return b"" if pair.new is None else pair.new.ref


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
