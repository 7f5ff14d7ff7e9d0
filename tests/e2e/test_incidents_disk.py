"""Incidents 6 and 10: the disk is nearly full, or fills up during the run.

Each test lives on a small tmpfs of its own, in a mount namespace that ends with it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from e2e.guard_command import Guard, assert_clear
from e2e.projects import make_small_project
from manifest import assert_back, differences, manifest
from small_disk import mounted

_MIB = 1 << 20


@pytest.fixture(params=[48])
def small_disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """Return a folder on a tmpfs of a given size in MiB."""
    with mounted(tmp_path / "disk", request.param) as place:
        yield place


def _on(disk: Path, guard: Guard, monkeypatch: pytest.MonkeyPatch, *, model_mib: int) -> Guard:
    project = disk / "project"
    make_small_project(project)
    (project / "models" / "best.ckpt").write_bytes(os.urandom(model_mib * _MIB))
    monkeypatch.setenv("GUARD_STORE", str(disk / "store"))
    return Guard(project, guard.wrapper, guard.env)


def _fill(path: Path) -> None:
    """Take what guard's reserve has freed at the end of the run, as another process would."""
    with contextlib.suppress(OSError), open(path, "wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))


def _free(disk: Path) -> int:
    return shutil.disk_usage(disk).free


@pytest.mark.parametrize("small_disk", [900, 48], indirect=True)
def test_10_the_disk_fills_up_during_the_run(
    small_disk: Path, guard: Guard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The old checkpoint is back, and log, status and rollback work on the full disk."""
    crowded = _on(small_disk, guard, monkeypatch, model_mib=6)
    before = manifest(crowded.project)
    run = crowded.shell("cat /dev/zero > models/best.ckpt ; exit 1")
    assert run.status == 1, run.said
    assert "No space left" in run.err, "the disk was not full: the test shows nothing"

    for command in ("log", "status"):
        result = crowded(command)
        assert result.status == 0, f"{command}: {result.said}"
    assert_back(before, crowded.roll_back())


@pytest.mark.parametrize("small_disk", [900, 48], indirect=True)
def test_10_the_disk_fills_up_with_new_files(
    small_disk: Path, guard: Guard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """New files fill the disk and the old ones are gone: all is back."""
    crowded = _on(small_disk, guard, monkeypatch, model_mib=6)
    before = manifest(crowded.project)
    run = crowded.shell("rm -r models params.yaml ; cat /dev/zero > junk.bin ; exit 1")
    assert run.status == 1, run.said
    assert "No space left" in run.err, "the disk was not full: the test shows nothing"
    assert_back(before, crowded.roll_back())


def test_10_somebody_else_takes_the_reserve(
    small_disk: Path, guard: Guard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was free after the run is gone too: a rollback works with not one byte left."""
    crowded = _on(small_disk, guard, monkeypatch, model_mib=6)
    before = manifest(crowded.project)
    run = crowded.shell("cat /dev/zero > junk.bin ; rm params.yaml ; exit 1")
    assert run.status == 1, run.said
    _fill(small_disk / "late")
    assert_back(before, crowded.roll_back())


@pytest.mark.parametrize("small_disk", [24], indirect=True)
def test_6_what_cannot_be_kept_is_named_before_the_run(
    small_disk: Path, guard: Guard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With no room for the checkpoint, it is named, and either nothing runs or all else is back."""
    crowded = _on(small_disk, guard, monkeypatch, model_mib=15)
    before = manifest(crowded.project)
    run = crowded.shell("echo the child runs >&2 ; echo lr: 9 > params.yaml")
    told = run.err.partition("the child runs")[0]
    assert "best.ckpt" in told, run.said
    if "the child runs" not in run.err:
        assert_clear(run, 13, 122)
        assert_back(before, manifest(crowded.project))
    else:
        assert run.status == 0, run.said
        assert_back(before, crowded.roll_back())


@pytest.mark.parametrize("small_disk", [1], indirect=True)
def test_a_store_on_a_full_disk_stops_the_run(
    small_disk: Path, messy: Guard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store's disk is full: the command is not started, and nothing is lost."""
    (small_disk / "filler").write_bytes(bytes(_free(small_disk)))
    monkeypatch.setenv("GUARD_STORE", str(small_disk / "store"))
    before = manifest(messy.project)
    run = messy.shell("echo ran > ran.txt")
    assert_clear(run, 13, 122)
    assert_back(before, manifest(messy.project))
    (small_disk / "filler").unlink()
    monkeypatch.setenv("GUARD_STORE", str(messy.project.parent / "store"))
    assert messy.shell("rm -r src").status == 0
    assert_back(before, messy.roll_back())


def test_a_full_disk_does_not_spoil_older_snapshots(
    small_disk: Path, guard: Guard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A snapshot that does not fit leaves the one before it usable."""
    crowded = _on(small_disk, guard, monkeypatch, model_mib=6)
    before = manifest(crowded.project)
    assert crowded.shell("rm params.yaml").status == 0
    first = manifest(crowded.project)
    filler = crowded.project / "filler.bin"
    filler.write_bytes(os.urandom(_free(small_disk) - _MIB))
    assert differences(first, manifest(crowded.project))
    second = crowded.shell("true", "--drill", "off")
    assert second.status in {0, 13, 122}, second.said
    filler.unlink()
    result = crowded("rollback", "--to", "1", "--yes")
    assert result.status == 0, result.said
    assert_back(before, manifest(crowded.project))


def test_this_machine_can_mount(small_disk: Path) -> None:
    """The tests above ran on a file system of their own."""
    assert small_disk.stat().st_dev != small_disk.parent.stat().st_dev
    assert sys.platform == "linux"
