"""Pruning forgets all that the store knew of what goes, and nothing else."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from driving import Project
from faults.states import STATES, project_in
from rollback.store.codec import inode_id

STATE = next(state for state in STATES if state.name == "git repository")


@pytest.fixture
def project() -> Iterator[Project]:
    """A repository, whose objects are kept by their inodes."""
    with project_in(STATE) as made:
        STATE.make(made)
        yield made


def _digests(project: Project) -> dict[bytes, bytes]:
    with project.engine() as engine:
        rows = engine.store.catalog.db.execute("SELECT id, sha256 FROM digest").fetchall()
    return {bytes(blob): bytes(digest) for blob, digest in rows}


def _verify(project: Project) -> None:
    with project.engine() as engine:
        report = engine.verify(repair=True)
    assert report.ok, report.damage


def _prune_to_newest(project: Project) -> None:
    with project.engine() as engine:
        engine.prune(keep_last=1)


def test_the_digest_of_a_linked_file_goes_with_it(project: Project) -> None:
    """What stays is still known; what went could be another file's with the same inode."""
    project.snapshot()
    _verify(project)
    before = _digests(project)
    gone = next((project.root / ".git" / "objects").glob("??/*"))
    identity = inode_id(os.lstat(gone))
    assert identity in before
    gone.unlink()
    project.snapshot()
    _prune_to_newest(project)
    after = _digests(project)
    assert set(before) - set(after) == {identity}


def test_an_inode_that_is_given_out_again_is_no_damage(project: Project) -> None:
    """Same inode, size and time, other content: `verify` believes what it reads now."""
    objects = project.root / ".git" / "objects"
    project.snapshot()
    _verify(project)
    path = next(objects.glob("??/*"))
    info = path.stat()
    held = project.base / "held"  # for no test can ask for a certain inode
    os.link(path, held)
    path.unlink()
    project.snapshot()
    _prune_to_newest(project)
    held.chmod(0o644)
    held.write_bytes(bytes(byte ^ 1 for byte in held.read_bytes()))
    os.utime(held, ns=(info.st_atime_ns, info.st_mtime_ns))
    held.rename(path)
    assert inode_id(path.stat()) == inode_id(info)
    project.snapshot()
    _verify(project)
