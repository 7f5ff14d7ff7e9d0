"""What of a repository is linked instead of copied, what a restore leaves alone.

git writes an object or a pack to a temporary name and renames it; it never rewrites one. So a
hard link of it keeps its content. All else (index, refs, reflogs, configuration, the multi-pack
index, commit graphs) is derived or rewritten in place and copied.

The functions take any path that has a git folder in it: `.git`, a bare repository `x.git`, and
below those the repositories of submodules, `modules/x`.
"""

from __future__ import annotations

import re

from rollback.model import Policy

_HEX = rb"[0-9a-f]"
_LOOSE = rb"objects/%b{2}/(?:%b{38}|%b{62})" % (_HEX, _HEX, _HEX)
_PACK = rb"objects/pack/pack-(?:%b{40}|%b{64})\." % (_HEX, _HEX)
_LARGE = rb"lfs/objects/%b{2}/%b{2}/%b{64}" % (_HEX, _HEX, _HEX)

_LINKED = re.compile(rb"(?:%b|%b(?:pack|idx|rev|bitmap|mtimes)|%b)\Z" % (_LOOSE, _PACK, _LARGE))
_KEPT = re.compile(
    rb"(?:objects(?:/%b{2}|/pack)?|%b|%b(?:pack|idx|rev|mtimes|promisor)" % (_HEX, _LOOSE, _PACK)
    + rb"|lfs/objects(?:/%b{2}(?:/%b{2})?)?|%b)\Z" % (_HEX, _HEX, _LARGE)
)
_TEMPORARY = re.compile(
    rb"(?:objects/%b{2}/tmp_obj_[^/]+|objects/pack/\.?tmp[_-][^/]+" % _HEX
    + rb"|objects/(?:tmp_objdir-|incoming-|quarantine)[^/]*)(?:/.*)?\Z"
)


def git_policy(path: bytes) -> Policy:
    """Return how the content of a regular file of a repository is kept.

    Args:
        path: Any path; below a git folder it has a component that ends in `.git`.

    Returns:
        LINK for loose objects, packs with their indexes, and Git LFS objects; else COPY.
    """
    return Policy.LINK if _LINKED.match(_within(path)) else Policy.COPY


def git_keep_extra(path: bytes) -> bool:
    """Return whether a restore leaves `path` alone though the snapshot does not have it.

    True for objects, packs and the folders that hold them: undone commits stay reachable. A
    bitmap is not kept: it is derived, and git takes one for all packs. Asked of the topmost
    entry that is new: a repository that was cloned since goes as a whole. So the folder that
    Git LFS makes in a repository is kept too, for the objects in it.
    """
    if path.endswith(b"/lfs"):
        return _within(path + b"/objects") == b"lfs/objects"
    return _KEPT.match(_within(path)) is not None


def git_temporary(path: bytes) -> bool:
    """Return whether `path` is an object or pack that git is writing, or gave up writing."""
    return _TEMPORARY.match(_within(path)) is not None


def _within(path: bytes) -> bytes:
    """Return a path relative to the innermost git folder, from `objects` or `lfs` on.

    Empty where it is in none, or where it is a reference: branches may be called `objects/ab`
    or `x.git/objects`, and submodules `a/b`.
    """
    if b"objects" not in path:
        return b""
    parts = path.split(b"/")
    folders = [number for number, part in enumerate(parts[:-1]) if part == b".git"]
    bare = [number for number, part in enumerate(parts[:-1]) if part.endswith(b".git")]
    if not bare:
        return b""
    start = folders[-1] if folders else bare[0]
    rest = parts[start + 1 :]
    if b"objects" not in rest:
        return b""
    at = rest.index(b"objects")
    lead = rest[:at]
    if lead[-1:] == [b"lfs"]:
        lead, at = lead[:-1], at - 1
    if lead[:1] == [b"worktrees"] and lead[2:3] == [b"modules"]:
        lead = lead[2:]
    if lead and (lead[0] != b"modules" or b"refs" in lead or b"logs" in lead):
        return b""
    return b"/".join(rest[at:])
