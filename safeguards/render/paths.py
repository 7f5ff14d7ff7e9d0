"""Paths and commands as people read them."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from safeguards.output import one_line
from safeguards.units import count_text

_OBJECTS = ".git/objects/"
_DEEPEST = 12


def short_path(path: str, project: Path | None = None) -> str:
    """Return a path relative to the project, or with ``~`` for the home, on one line."""
    if project is not None and (path == str(project) or path.startswith(f"{project}{os.sep}")):
        inside = os.path.relpath(path, project)
        return "." if inside == "." else one_line(inside)
    home = os.path.expanduser("~")
    if home != "/" and path.startswith(f"{home}{os.sep}"):
        return one_line(f"~{path[len(home) :]}")
    return one_line(path)


def command_line(words: Iterable[object], width: int = 0) -> str:
    """Return a command's words as they would be typed, cut to `width` columns (0: not cut)."""
    text = one_line(shlex.join(str(word) for word in words))
    return f"{text[: width - 1]}…" if width and len(text) > width else text


def git_objects(path: str) -> str | None:
    """Return the folder of git's objects that a path lies in; None for any other path.

    Nobody reads their names, so that they are shown as one line.
    """
    before, mark, name = path.partition(_OBJECTS)
    return before + _OBJECTS if mark and name else None


def gathered(rows: Iterable[Row]) -> list[Row]:
    """Return rows with git's objects gathered into one for each action and repository."""
    found: list[Row] = []
    place: dict[tuple[str, str], int] = {}
    for row in rows:
        folder = git_objects(row.path)
        if folder is None:
            found.append(row)
            continue
        at = place.setdefault((row.action, folder), len(found))
        if at == len(found):
            found.append(Row(row.action, folder, "", "", 0))
        number = found[at].stands_for + 1
        found[at] = Row(row.action, folder, "", count_text(number, "object"), number)
    return found


def folded(rows: list[Row], most: int) -> list[Row]:
    """Return at most about `most` rows: where there are more, a folder stands for what is in it.

    The deepest folders that are few enough are shown; a folder with one change is that change.

    Args:
        rows: In the order in which they are shown.
        most: How many a reader can take in.
    """
    if len(rows) <= most:
        return rows
    for depth in range(_DEEPEST, -1, -1):
        groups: dict[tuple[str, str], list[Row]] = {}
        for row in rows:
            groups.setdefault((row.action, _folder(row.path, depth)), []).append(row)
        if len(groups) <= most or depth == 0:
            break
    return [_fold(folder, group) for (_, folder), group in groups.items()]


def _folder(path: str, depth: int) -> str:
    """Return the folder of a path, at most `depth` names deep; the path itself where it is near."""
    parts = path.split("/")
    return path if len(parts) <= depth else "/".join(parts[:depth]) + "/" if depth else ""


def _fold(folder: str, rows: list[Row]) -> Row:
    if len(rows) == 1:
        return rows[0]
    number = sum(row.stands_for for row in rows)
    return Row(rows[0].action, folder or "./", count_text(number, "file"), "", number)


@dataclass(frozen=True, slots=True)
class Row:
    """One change as a line: what happens, where, how large, what else."""

    action: str
    path: str
    size: str
    detail: str
    stands_for: int = 1
