"""Fetching lost content again: from the installers' caches, held against what they wrote down.

The distribution is put together beside the environment and only the lost files are taken from
there, so that everything else stays exactly as the snapshot put it back.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Mapping

from rollback.atomic import LiveWriter
from rollback.failpoints import reach
from rollback.lost import Lost, distribution_of, say_lost
from rollback.metadata import set_metadata
from rollback.model import Skip
from rollback.plan import TreePlan, TreeTarget
from rollback.removal import remove_path
from rollback.resources.python.model import Environment
from rollback.resources.python.records import Owner
from rollback.store.blobs import BlobReader, file_path
from rollback.store.catalog import BlobKind
from rollback.writing import write_all

_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class Reclaimer:
    """Puts lost files of one root back, as far as a cache still has them.

    Args:
        plan: What is being put back; everything else of it is in place.
        writer: Changes the root.
        scratch: A private folder, on the file system of the root.
        environ: Variables of the user's command: where caches and indexes are.
    """

    def __init__(
        self,
        plan: TreePlan,
        writer: LiveWriter,
        scratch: bytes,
        environ: Mapping[str, str] | None,
    ) -> None:
        self.plan = plan
        self.writer = writer
        self.scratch = scratch
        self.environ = environ

    def run(self) -> None:
        """Fetch what can be had; those files leave `plan.lost` for `plan.known`."""
        environment = installer_of(self.plan.target)
        if environment is None:
            return
        groups: dict[bytes, dict[bytes, Lost]] = {}
        for path, lost in self.plan.lost.items():
            if lost.owner is not None:
                groups.setdefault(lost.owner.distribution, {})[path] = lost
        for number, (_, files) in enumerate(sorted(groups.items())):
            apart = os.path.join(self.scratch, b"apart-%d" % number)
            try:
                self._of_distribution(environment, files, apart)
            finally:
                remove_path(apart)

    def _of_distribution(
        self, environment: Environment, files: dict[bytes, Lost], apart: bytes
    ) -> None:
        from rollback.resources.python.reinstall import install_apart  # noqa: PLC0415 - rare

        recorded = self.plan.target.recorded
        owner = next(lost.owner for lost in files.values())
        if recorded is None or owner is None:
            return
        name, distribution = distribution_of(recorded, owner)
        # What can be had of it counts, also where another file of it was edited in the cache.
        install_apart(environment, {name: distribution}, os.fsdecode(apart), self.environ)
        for number, (path, lost) in enumerate(sorted(files.items())):
            if lost.owner is not None:
                staged = b"%b-%d" % (os.path.basename(apart), number)
                self._take(path, lost, (apart, lost.owner), staged)

    def _take(self, path: bytes, lost: Lost, source: tuple[bytes, Owner], staged: bytes) -> None:
        """Copy one file, if it is the one that was lost, and move it into place."""
        apart, owner = source
        content = _read(os.path.join(apart, _placed(owner.row)))
        if content is None or hashlib.sha256(content).digest() != owner.sha256:
            return
        if len(content) != lost.entry.size:
            return
        reach("reclaim.file")
        with contextlib.suppress(FileNotFoundError):
            os.unlink(staged, dir_fd=self.writer.stage_fd(path))
        fd = os.open(staged, _CREATE, 0o600, dir_fd=self.writer.stage_fd(path))
        try:
            write_all(fd, content)
            self.writer.notes += [(path, why) for why in set_metadata(fd, lost.entry)]
            os.fsync(fd)
        finally:
            os.close(fd)
        self.writer.remove_bytecode([path])
        self.writer.replace(path, staged, self.plan.replaced.get(path))
        self.plan.known[path] = owner.sha256
        del self.plan.lost[path]


def installer_of(target: TreeTarget) -> Environment | None:
    """Return the environment whose installer may fetch files of a root again, None for none.

    An interpreter that the guarded command does not use is never started, and what conda
    installed is not pip's.
    """
    if target.root.resource != "python" or target.recorded is None:
        return None
    from rollback.resources.python.roots import environment_from  # noqa: PLC0415 - a plug

    environment = environment_from(target.root.parameters)
    if environment is None or not environment.used or environment.kind == "conda":
        return None
    return environment


def lost_skips(plan: TreePlan, reader: BlobReader) -> list[Skip]:
    """Return what to say of the files of a plan whose content is lost, with the way to mend it."""
    root = plan.target.root.path
    return [
        say_lost(os.fsdecode(os.path.join(root, path)), lost, _mend(plan, path, reader))
        for path, lost in sorted(plan.lost.items())
    ]


def distribution_label(target: TreeTarget, lost: Lost) -> str:
    """Return the distribution that will be asked for a lost file, empty where none will be."""
    if lost.owner is None or target.recorded is None or installer_of(target) is None:
        return ""
    name, distribution = distribution_of(target.recorded, lost.owner)
    return f"{name} {distribution['version']}"


def _mend(plan: TreePlan, path: bytes, reader: BlobReader) -> str:
    """Return the command that brings a lost file back, or its later content at least."""
    lost, recorded = plan.lost[path], plan.target.recorded
    if lost.owner is not None and recorded is not None:
        from rollback.resources.python.reinstall import install_command, pins  # noqa: PLC0415
        from rollback.resources.python.roots import environment_from  # noqa: PLC0415

        name, distribution = distribution_of(recorded, lost.owner)
        requirements = pins({name: distribution})[0]
        environment = environment_from(plan.target.root.parameters)
        if environment is not None and requirements:
            return f"{install_command(environment, requirements[0])}; then roll back again"
    if not lost.entry.ref:
        return "bring it back from where it came from"
    source = file_path(reader.folder, BlobKind.INODE, lost.entry.ref)
    shown = os.fsdecode(os.path.join(plan.target.root.path, path))
    return f"its later content is kept: cp {_word(os.fsdecode(source))} {_word(shown)}"


def _word(text: str) -> str:
    import shlex  # noqa: PLC0415 - only where something is to be typed

    return shlex.quote(text)


def _placed(row: bytes) -> bytes:
    """Return where an installation beside the environment puts a file: all below one folder."""
    while row.startswith(b"../"):
        row = row[3:]
    return row


def _read(path: bytes) -> bytes | None:
    try:
        fd = os.open(path, _READ)
    except OSError:
        return None
    with os.fdopen(fd, "rb") as file:
        return file.read()
