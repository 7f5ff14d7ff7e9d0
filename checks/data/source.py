"""Finds the files of a data set and recognises, without parsing them, what cannot be read."""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING

from checks.globs import expand, is_pattern

if TYPE_CHECKING:
    from pathlib import Path

    from checks.context import Context

FORMATS = {
    ".csv": "csv",
    ".tsv": "csv",
    ".txt": "csv",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".arrow": "arrow",
    ".arrows": "arrow",
    ".ipc": "arrow",
    ".feather": "arrow",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
}
COMPRESSED = (".gz", ".zst")
STREAM_MARK = b"\xff\xff\xff\xff"
"""What each message of an Arrow stream begins with."""
_MAGIC_BYTES = 16
_SPECIAL = (
    (stat.S_ISFIFO, "a FIFO"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


class SourceProblem(Exception):
    """An input that cannot be checked at all; it becomes a finding, never a traceback.

    Args:
        rule: The rule that the finding names, such as ``data.source``.
        message: What is wrong with which file.
        hint: What to type next.
        figures: The measured figure and its limit, where there are any.
    """

    def __init__(
        self, rule: str, message: str, hint: str, figures: tuple[int, int] | None = None
    ) -> None:
        super().__init__(message)
        self.rule = rule
        self.hint = hint
        self.figures = figures


@dataclass(frozen=True, slots=True)
class Source:
    """The files of one data set.

    Attributes:
        files: Regular, readable files with content, in the order of their paths.
        format: ``csv``, ``parquet``, ``arrow``, ``arrow stream`` or ``jsonl``.
        root: The partitioned folder, where there is one.
        size_bytes: The sum of the sizes.
    """

    files: tuple[Path, ...]
    format: str
    root: Path | None
    size_bytes: int

    def partitions(self) -> list[dict[str, str]]:
        """Return the ``key=value`` folders above each file; empty where they do not agree."""
        if self.root is None:
            return []
        found = []
        for file in self.files:
            folders = file.relative_to(self.root).parts[:-1]
            found.append(dict(part.split("=", 1) for part in folders if "=" in part))
        agree = bool(found[0]) and all(f.keys() == found[0].keys() for f in found)
        return found if agree else []

    @property
    def compressed(self) -> bool:
        """Whether any file has to be decompressed as a whole."""
        return any(file.suffix in COMPRESSED for file in self.files)


def find_source(path: str, context: Context) -> Source:
    """Return the files that `path` names.

    Args:
        path: A file, a folder or a glob, relative to the project folder.
        context: Where the check runs.

    Raises:
        SourceProblem: Nothing is there, or something there cannot be read as data.
    """
    target = context.resolve(path)
    root = None
    if os.path.isdir(target):
        root, files = target, _below(target, context)
    elif not os.path.lexists(target) and is_pattern(path):
        found = expand(context.pattern(path), hidden=False)
        files = [target.__class__(f) for f in found if not os.path.isdir(f)]
        if not files:
            raise SourceProblem(
                "data.source", f"no file matches {path}", "correct `path`, or make the data first"
            )
    else:
        files = [target]
    size_bytes = sum(_require_readable(file, context) for file in files)
    formats = set()
    for file in files:
        try:
            formats.add(recognise(file, context))
        except OSError as error:
            raise _unreadable(context.subject(file), error) from None
    if len(formats) > 1:
        raise SourceProblem(
            "data.format",
            f"{path} mixes formats: {', '.join(sorted(formats))}",
            "declare each format as a [[check.data]] of its own",
        )
    return Source(tuple(files), formats.pop(), root, size_bytes)


def recognise(file: Path, context: Context) -> str:
    """Return the format of `file` by its first and last bytes, then by its name.

    Raises:
        SourceProblem: It is truncated, in an unreadable variant, or not a data file.
    """
    shown = context.subject(file)
    with file.open("rb") as handle:
        head = handle.read(_MAGIC_BYTES)
        handle.seek(max(0, file.stat().st_size - _MAGIC_BYTES))
        tail = handle.read()
    named = _named_format(file)
    if named == "parquet" or head.startswith(b"PAR1"):
        _require_magic(shown, "Parquet", head=head.startswith(b"PAR1"), tail=tail.endswith(b"PAR1"))
        return "parquet"
    if head.startswith(b"FEA1"):
        raise SourceProblem(
            "data.format",
            f"{shown} is Feather version 1, which no longer has readers that stream",
            "write it as Feather version 2 or Parquet",
        )
    if named == "arrow" or head.startswith(b"ARROW1"):
        if head.startswith(STREAM_MARK):
            return "arrow stream"
        _require_magic(
            shown, "Arrow", head=head.startswith(b"ARROW1"), tail=tail.endswith(b"ARROW1")
        )
        return "arrow"
    if named is None:
        raise SourceProblem(
            "data.format",
            f"{shown} is neither CSV, Parquet, Arrow nor JSON lines by its name or first bytes",
            f"name it by its format: {' '.join(FORMATS)}",
        )
    return named


def _named_format(file: Path) -> str | None:
    suffixes = [s.lower() for s in file.suffixes]
    if suffixes and suffixes[-1] in COMPRESSED:
        suffixes.pop()
        kind = FORMATS.get(suffixes[-1]) if suffixes else None
        return kind if kind in {"csv", "jsonl"} else None
    return FORMATS.get(suffixes[-1]) if suffixes else None


def _require_magic(shown: str, kind: str, *, head: bool, tail: bool) -> None:
    if head and tail:
        return
    what = "ends without its footer: it is truncated" if head else "does not start as one"
    raise SourceProblem(
        "data.format",
        f"{shown} is not a whole {kind} file; it {what}",
        "write it again; `guard log` shows which run touched it last",
    )


def _below(folder: Path, context: Context) -> list[Path]:
    files: list[Path] = []
    for at, folders, names in os.walk(folder):
        folders[:] = sorted(f for f in folders if not f.startswith((".", "_")))
        found = (folder.__class__(at, n) for n in names if not n.startswith((".", "_")))
        files += [f for f in found if _named_format(f) is not None]
    if not files:
        raise SourceProblem(
            "data.source",
            f"{context.subject(folder)} is a folder without data files",
            f"name a file, or a folder that holds {' '.join(FORMATS)}",
        )
    return sorted(files)


def _require_readable(file: Path, context: Context) -> int:
    """Return the size of `file` in bytes; nothing but a regular file is ever opened."""
    shown = context.subject(file)
    try:
        status = file.stat()
    except FileNotFoundError:
        dangling = " (a link to nowhere)" if file.is_symlink() else ""
        raise SourceProblem(
            "data.source", f"{shown} is missing{dangling}", "correct `path`, or make the data first"
        ) from None
    except OSError as error:
        raise _unreadable(shown, error) from None
    for test, kind in _SPECIAL:
        if test(status.st_mode):
            raise SourceProblem(
                "data.source", f"{shown} is {kind}, not a file", "name a regular file"
            )
    if status.st_size == 0:
        raise SourceProblem("data.empty", f"{shown} is empty (0 bytes)", "make the data again")
    try:
        os.close(os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC))
    except OSError as error:
        raise _unreadable(shown, error) from None
    return status.st_size


def _unreadable(shown: str, error: OSError) -> SourceProblem:
    hint = "look at the folder and the disk"
    if error.errno in {errno.EACCES, errno.EPERM}:
        hint = f"chmod u+r {shown}"
    return SourceProblem(
        "data.source", f"{shown} cannot be read: {os.strerror(error.errno or 0)}", hint
    )
