"""What is staged: the content of git's index, never the work tree, and no repository code.

Only plumbing is started that runs nothing of the repository (`diff-index --cached`, `ls-files`,
`cat-file`), under an environment in which every setting that names a program is taken away.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import IO, Self

from rollback.resources.git.layout import GitLayout, find_git
from rollback.resources.git.process import GitFailed, find_program, safe_environment
from safeguards.errors import WrongUsage

_CHUNK_BYTES = 1 << 20
_LINK, _SUBMODULE = "120000", "160000"


@dataclass(frozen=True, slots=True)
class Entry:
    """One staged file.

    Attributes:
        path: From the top of the work tree; bytes that are not UTF-8 as surrogates.
        oid: Name of its content in the object database.
        mode: As git writes it: 100644, 100755, 120000 (a link).
    """

    path: str
    oid: str
    mode: str

    @property
    def regular(self) -> bool:
        """Whether it is a plain file, neither a link nor a submodule."""
        return self.mode not in {_LINK, _SUBMODULE}


class Index:
    """The index of a repository, as the commit that is being made will take it.

    Args:
        project: A folder in the work tree.
        environ: Gives `GIT_INDEX_FILE`, which git sets for a commit of chosen paths.

    Raises:
        WrongUsage: There is no work tree, or its index cannot be read.
    """

    def __init__(self, project: os.PathLike[str], environ: Mapping[str, str]) -> None:
        layout = find_git(project)
        if layout is None or layout.worktree is None:
            raise WrongUsage(f"{project} is in no git work tree", hint="git init, or change folder")
        self.layout: GitLayout = layout
        self.top = os.fsdecode(layout.worktree)
        try:
            self.environment = safe_environment(layout, environ)
        except GitFailed as error:
            raise WrongUsage(str(error), hint=error.hint) from error
        self.environment |= {"GIT_LITERAL_PATHSPECS": "1", "GIT_NO_REPLACE_OBJECTS": "1"}
        if chosen := environ.get("GIT_INDEX_FILE"):
            self.environment["GIT_INDEX_FILE"] = os.path.join(self.top, chosen)
        if quarantine := environ.get("GIT_OBJECT_DIRECTORY"):
            self.environment["GIT_OBJECT_DIRECTORY"] = os.path.join(self.top, quarantine)
        self._all: dict[str, Entry] | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()

    def staged(self) -> list[Entry]:
        """Return what differs from the last commit: added, changed, of another type."""
        try:
            raw = self._git(
                *("diff-index", "--cached", "--raw", "-z", "--no-renames", "--no-abbrev"),
                *("--no-ext-diff", "--no-textconv", "--ignore-submodules=all"),
                *("--diff-filter=d", "HEAD", "--"),
            )
        except GitFailed:
            if self._has_commit():
                raise
            return [entry for entry in self.all().values() if entry.mode != _SUBMODULE]
        return [entry for entry in _parse_raw(raw) if entry.mode != _SUBMODULE]

    def all(self) -> dict[str, Entry]:
        """Return every entry of the index by path; read once."""
        if self._all is None:
            self._all = {
                entry.path: entry for entry in _parse_stages(self._git("ls-files", "-s", "-z"))
            }
        return self._all

    def named(self, files: Sequence[str], folder: str) -> tuple[list[Entry], list[str]]:
        """Return the entries of named files, and the names that are not in the index.

        Args:
            files: Paths from `folder`; a folder stands for all entries below it.
            folder: Absolute path.
        """
        found: dict[str, Entry] = {}
        missing: list[str] = []
        entries = self.all()
        for file in files:
            path = self.relative(os.path.join(folder, file))
            below = "" if path == "." else f"{path}/"
            matches = [entries[path]] if path in entries else []
            matches += (
                [e for name, e in entries.items() if name.startswith(below)] if not matches else []
            )
            if not matches:
                missing.append(file)
            found.update((entry.path, entry) for entry in matches if entry.mode != _SUBMODULE)
        return list(found.values()), missing

    def relative(self, path: str) -> str:
        """Return an absolute path as the index names it, its folder's links resolved."""
        folder, name = os.path.split(os.path.abspath(path))
        return os.path.relpath(os.path.join(os.path.realpath(folder), name), self.top)

    def sizes(self, entries: Sequence[Entry]) -> dict[str, int]:
        """Return the sizes in bytes of entries' contents, by object name."""
        if not entries:
            return {}
        asked = "".join(f"{entry.oid}\n" for entry in entries).encode()
        done = self._start(["cat-file", "--batch-check=%(objectname) %(objectsize)"], asked)
        sizes = {}
        for line in done.decode().splitlines():
            oid, _, size = line.partition(" ")
            sizes[oid] = int(size) if size.isdecimal() else 0
        return sizes

    def read(self, entry: Entry, limit: int = 1 << 62) -> bytes:
        """Return at most the first `limit` bytes of an entry's content."""
        parts: list[bytes] = []
        have = 0
        for chunk in self.chunks(entry):
            if have < limit:
                parts.append(chunk)
                have += len(chunk)
        return b"".join(parts)[:limit]

    def copy(self, entry: Entry, target: IO[bytes]) -> None:
        """Write an entry's content into an open file."""
        for chunk in self.chunks(entry):
            target.write(chunk)

    def chunks(self, entry: Entry) -> Iterator[bytes]:
        """Yield an entry's content in pieces; it has to be consumed to its end.

        Raises:
            WrongUsage: The object is not there.
        """
        process = self._batch()
        assert process.stdin is not None  # noqa: S101 - both are pipes
        assert process.stdout is not None  # noqa: S101
        process.stdin.write(f"{entry.oid}\n".encode())
        process.stdin.flush()
        header = process.stdout.readline().split()
        if len(header) != 3:  # noqa: PLR2004 - name, type, size
            raise WrongUsage(f"the staged content of {entry.path!r} is missing", hint="git fsck")
        left = int(header[2])
        while left:
            chunk = process.stdout.read(min(left, _CHUNK_BYTES))
            if not chunk:
                raise WrongUsage("git cat-file ended before its time", hint="git fsck")
            left -= len(chunk)
            yield chunk
        process.stdout.read(1)

    def _batch(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            self._process = subprocess.Popen(
                [self._program(), "cat-file", "--batch"],
                env=self.environment,
                cwd=self.top,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
        return self._process

    def _start(self, arguments: Sequence[str], given: bytes) -> bytes:
        # From the top of the work tree: `ls-files` names nothing from inside the git folder.
        done = subprocess.run(
            [self._program(), *arguments],
            env=self.environment,
            cwd=self.top,
            input=given,
            capture_output=True,
            check=False,
        )
        if done.returncode != 0:
            said = done.stderr.decode("utf-8", "replace").strip()[-500:]
            raise GitFailed(f"git {arguments[0]} failed: {said}", hint="git status; git fsck")
        return done.stdout

    def _program(self) -> str:
        program = find_program(self.environment, self.layout)
        if program is None:
            raise WrongUsage("there is no git program on the PATH", hint="install git")
        return program

    def _git(self, *arguments: str) -> bytes:
        return self._start(arguments, b"")

    def _has_commit(self) -> bool:
        try:
            self._git("rev-parse", "--verify", "--quiet", "HEAD^{commit}")
        except GitFailed:
            return False
        return True


def _parse_raw(raw: bytes) -> Iterator[Entry]:
    """Yield entries of `git diff-index --raw -z`: ``:mode mode oid oid status NUL path NUL``."""
    fields = raw.split(b"\0")
    for about, path in zip(fields[::2], fields[1::2], strict=False):
        _old, mode, _old_oid, oid, _status = about.decode().lstrip(":").split(" ")
        yield Entry(os.fsdecode(path), oid, mode)


def _parse_stages(raw: bytes) -> Iterator[Entry]:
    """Yield entries of `git ls-files -s -z`: ``mode oid stage TAB path NUL``."""
    for line in raw.split(b"\0"):
        about, tab, path = line.partition(b"\t")
        if tab:
            mode, oid, stage = about.decode().split(" ")
            if stage in {"0", "2"}:  # 2: ours, while a merge is not resolved
                yield Entry(os.fsdecode(path), oid, mode)
