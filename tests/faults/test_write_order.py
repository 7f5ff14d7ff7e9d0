"""The order of writes, read off a trace: data, then its name, then its folder, then the commit.

A kill cannot show a missing fsync; only power loss would. So what guard asks of the kernel is
held against the order that `docs/design.md` writes down.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from driving import Project
from faults.states import STATES
from faults.traced import Call, trace, why_not

pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not() or "never")
_CALLS = (
    "openat,write,pwrite64,fsync,fdatasync,syncfs,rename,renameat,renameat2,link,linkat,"
    "ftruncate,unlink,unlinkat"
)
_RENAMES = {"rename", "renameat", "renameat2"}
_SYNCS = {"fsync", "fdatasync"}


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A project with small files, large ones, a database and a git repository."""
    project = Project(tmp_path.resolve())
    for state in STATES:
        if state.name in {"git repository", "large and sparse files", "SQLite, rollback journal"}:
            state.make(project)
    return project.base


def _first(calls: list[Call], name: set[str], *parts: str, after: int = 0) -> int:
    """Return where the first such call is, after a place; every part is in its arguments."""
    for at in range(after, len(calls)):
        call = calls[at]
        if call.name in name and all(part in call.arguments for part in parts):
            return at
    raise AssertionError(f"there is no {name} of {parts} after {after}")


def _last(calls: list[Call], name: set[str], *parts: str) -> int:
    found = [
        at
        for at, call in enumerate(calls)
        if call.name in name and all(part in call.arguments for part in parts)
    ]
    assert found, f"there is no {name} of {parts}"
    return found[-1]


def _commit_of_the_snapshot(calls: list[Call]) -> int:
    """Return where the transaction that makes the snapshot visible first writes its database."""
    document = _first(calls, _RENAMES, "/snapshots/")
    return _first(calls, {"pwrite64", "write"}, "/catalog.db>", after=document)


def test_a_snapshot_is_durable_before_it_is_visible(base: Path) -> None:
    """Packs, large blobs, links and the document are synced, named and their folders synced."""
    calls = trace("first snapshot", base, _CALLS)
    commit = _commit_of_the_snapshot(calls)
    for kind in ("/packs/", "/loose/"):
        renames = [
            at for at, call in enumerate(calls) if call.name in _RENAMES and kind in call.arguments
        ]
        assert renames, f"nothing was put into {kind}"
        for at in renames:
            assert at < commit
            partial = _source_of(calls[at])
            synced = _last(calls[:at], _SYNCS, partial)
            assert synced > _last(calls[:at], {"write", "pwrite64"}, partial)
            _first(calls[:commit], _SYNCS, _folder_of(calls[at]), after=at)
    document = _first(calls, _RENAMES, "/snapshots/")
    assert _last(calls[:document], _SYNCS, "/snapshots/") < document
    assert _first(calls, _SYNCS, "/snapshots>", after=document) < commit


def test_the_bytes_of_linked_files_are_durable_too(base: Path) -> None:
    """A link names bytes that git or pip wrote and nobody synced: the file system is synced."""
    calls = trace("first snapshot", base, _CALLS)
    commit = _commit_of_the_snapshot(calls)
    links = [
        call.arguments.split('"')[3].rpartition("/")[2]
        for call in calls[:commit]
        if call.name in {"link", "linkat"} and "/links/" in call.arguments and call.result == 0
    ]
    assert len(links) >= 3
    for name in links:
        at = _first(calls, {"link", "linkat"}, name)
        bytes_synced = _first(calls, _SYNCS, f"/{name}>", after=at)
        assert bytes_synced < _first(calls, _SYNCS, f"/links/{name[:2]}>", after=at) < commit


def test_the_catalog_syncs_its_journal_before_itself(base: Path) -> None:
    """SQLite with synchronous=EXTRA: journal, database, and the folder of the journal."""
    calls = trace("first snapshot", base, _CALLS)
    commit = _commit_of_the_snapshot(calls)
    assert _last(calls[:commit], _SYNCS, "/catalog.db-journal>") < commit
    _first(calls, _SYNCS, "/catalog.db>", after=commit)


def test_a_rollback_syncs_what_it_stages_before_it_renames(base: Path) -> None:
    """Staged content is durable, then the intent, then names change, then the disk is synced."""
    project = Project(base)
    project.snapshot()
    for state in STATES:
        if state.name == "large and sparse files":
            state.spoil(project)
    calls = trace("rollback", base, _CALLS)
    place = f"{project.root}>"
    first = _first(calls, _RENAMES, "/stage-", place)
    intent = _last(calls[:first], {"pwrite64", "write"}, "/catalog.db>")
    staged = _last(calls[:first], {"write", "pwrite64"}, "/stage-")
    synced = _first(calls, {"syncfs"}, after=staged)
    assert staged < synced < first
    assert intent < first
    assert _last(calls[:first], _SYNCS, "/catalog.db>") > intent
    last = _last(calls, _RENAMES, "/stage-", place)
    done = _last(calls, {"pwrite64", "write"}, "/catalog.db>")
    assert last < _first(calls, {"syncfs"}, after=last) < done


def _source_of(rename: Call) -> str:
    """Return the base name of what is renamed."""
    return rename.arguments.split('"')[1].rpartition("/")[2]


def _folder_of(rename: Call) -> str:
    """Return the end of the path of the folder that gets the new name."""
    target = rename.arguments.split('"')[3]
    return "/".join(target.split("/")[-3:-1]) + ">"
