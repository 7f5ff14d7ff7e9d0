"""Linked files that were written in place: noticed, named, fetched again, and nothing else lost."""

from __future__ import annotations

import base64
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from gitrepo import repository
from manifest import assert_back, differences, manifest
from rollback.capture import Job, Resolving
from rollback.engine import Engine
from rollback.errors import StoreCorrupt
from rollback.inventory import EngineSettings
from rollback.keeping import KeepingResolver
from rollback.model import Kind, Snapshot
from rollback.reading import Kept
from rollback.reports import RestoreOutcome, Selection
from rollback.resources.python import records
from wheels import wheel

UV = shutil.which("uv")
needs_uv = pytest.mark.skipif(UV is None, reason="uv is not installed")


def run(*command: str | Path, environ: Mapping[str, str] | None = None) -> str:
    """Run a command that has to succeed and return what it writes."""
    done = subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, check=False,
        env=None if environ is None else dict(environ),
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose environment has one distribution that pip installed from a wheel."""
    project = tmp_path_factory.mktemp("template") / "p"
    project.mkdir()
    subprocess.run(
        [sys.executable, "-m", "venv", "--without-pip", str(project / ".venv")], check=True
    )
    package = wheel(project.parent / "wheels", "tiny", "1.0")
    base = [sys.executable, "-m", "pip", "--python", str(project / ".venv"), "install"]
    run(*base, "--quiet", "--no-index", "--no-compile", package)
    (project / "train.py").write_text("import tiny\n")
    (project / "data.csv").write_text("a,b\n1,2\n")
    return project


@pytest.fixture
def project(template: Path, tmp_path: Path) -> Path:
    """A copy of the template whose wheel lies where its `direct_url.json` says."""
    project = tmp_path / "p"
    shutil.copytree(template, project, symlinks=True, copy_function=shutil.copy2)
    for path in (project / ".venv").rglob("direct_url.json"):
        kept = path.stat()
        path.write_text(path.read_text().replace(str(template.parent), str(tmp_path)))
        os.utime(path, ns=(kept.st_atime_ns, kept.st_mtime_ns))
    shutil.copytree(template.parent / "wheels", tmp_path / "wheels")
    return project


def settings(project: Path) -> EngineSettings:
    """Return settings whose command uses the project's environment."""
    command = (str(project / ".venv" / "bin" / "python"), "train.py")
    store = project.parent / "store"
    return EngineSettings(project, store, command=command, environ=dict(os.environ))


def take(chosen: EngineSettings) -> Snapshot:
    """Take a snapshot."""
    with Engine(chosen) as engine:
        operation = engine.begin("snapshot", {})
        snapshot = engine.snapshot(operation, kind="manual", label="").snapshot
        engine.finish(operation, "done", {})
    return snapshot


def put_back(chosen: EngineSettings, snapshot: Snapshot) -> RestoreOutcome:
    """Plan a rollback and carry it out."""
    with Engine(chosen) as engine:
        return engine.restore(engine.plan(snapshot, Selection()))


def source(project: Path) -> Path:
    """Return the file of the distribution."""
    return next((project / ".venv").glob("lib/python3*/site-packages/tiny/__init__.py"))


def append(path: Path, text: str = "x = 1\n") -> None:
    """Write to a file in place."""
    with path.open("a") as file:
        file.write(text)


def test_the_file_is_linked(project: Path) -> None:
    """The weakness is there to be mended: a write would reach the store's copy."""
    take(settings(project))
    assert source(project).stat().st_nlink == 2


def test_a_plan_names_it_and_changes_nothing(project: Path) -> None:
    """The path, why, and the exact command that mends it; the plan only reads."""
    snapshot = take(settings(project))
    append(source(project))
    before = manifest(project)
    with Engine(settings(project)) as engine:
        plan = engine.plan(snapshot, Selection())
        difference = engine.diff(snapshot, None)
    skip = plan.unrestorable[0]
    assert [s.what for s in plan.unrestorable] == [str(source(project))]
    assert "written in place through its link" in skip.why
    assert "install" in skip.fix
    assert "tiny" in skip.fix
    assert str(project / ".venv/bin/python") in skip.fix
    assert [(c.action, c.path.rpartition("/")[2]) for c in difference.changes] == [
        ("modified", "__init__.py")
    ]
    assert_back(before, manifest(project))


def test_it_is_fetched_from_where_it_was_installed(project: Path) -> None:
    """The wheel is at hand: byte for byte, with its time, and nothing is unrestorable."""
    snapshot = take(settings(project))
    before = manifest(project)
    append(source(project))
    (project / "data.csv").write_text("spoilt")
    outcome = put_back(settings(project), snapshot)
    assert outcome.skipped == ()
    assert outcome.kept_aside == ()
    assert "reinstall" in {step.action for step in outcome.steps}
    assert_back(before, manifest(project))
    assert put_back(settings(project), snapshot).steps == ()  # it is known again
    with Engine(settings(project)) as engine:
        assert engine.diff(snapshot, None).changes == ()


def test_an_undo_brings_the_edit_back_and_a_redo_the_original(project: Path) -> None:
    """What was written in place is work of somebody."""
    snapshot = take(settings(project))
    before = manifest(project)
    append(source(project))
    edited = manifest(project)
    put_back(settings(project), snapshot)
    with Engine(settings(project)) as engine:
        engine.restore(engine.plan(engine.undo_target(), Selection()), kind="undo")
        assert_back(edited, manifest(project))
        engine.restore(engine.plan(engine.redo_target(), Selection()), kind="redo")
    assert_back(before, manifest(project))


def test_the_whole_environment_was_removed_after_the_edit(project: Path) -> None:
    """The folder is built anew around the missing file, which then comes from the wheel."""
    snapshot = take(settings(project))
    before = manifest(project)
    append(source(project))
    shutil.rmtree(project / ".venv")
    assert put_back(settings(project), snapshot).skipped == ()
    assert_back(before, manifest(project))


@pytest.mark.parametrize("removed", [False, True])
def test_everything_else_is_back_where_nothing_has_it(project: Path, *, removed: bool) -> None:
    """The one path is named; the verification accepts it and nothing else."""
    shutil.rmtree(project.parent / "wheels")
    snapshot = take(settings(project))
    before, path = manifest(project), source(project)
    append(path)
    (project / "data.csv").unlink()
    if removed:
        shutil.rmtree(project / ".venv")
    outcome = put_back(settings(project), snapshot)
    assert [skip.what for skip in outcome.skipped] == [str(path)]
    assert {step.action for step in outcome.steps} == {"create"}
    lines = differences(before, manifest(project))
    assert lines
    assert all(line.startswith(f"{path.relative_to(project)}: ") for line in lines), lines
    assert path.exists() is not removed


def test_what_differs_otherwise_is_still_refused(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another file of the same distribution that does not come back right is an error."""
    from rollback.applying import Application  # noqa: PLC0415 - patched here
    from rollback.errors import RestoreIncomplete  # noqa: PLC0415

    shutil.rmtree(project.parent / "wheels")
    snapshot = take(settings(project))
    append(source(project))

    def spoil(self: Application, *_: object) -> None:
        (project / "data.csv").write_text("other")

    monkeypatch.setattr(Application, "_reclaim", spoil)
    with pytest.raises(RestoreIncomplete, match=r"data\.csv"):
        put_back(settings(project), snapshot)


def test_the_named_command_mends_it(project: Path) -> None:
    """After the user's own reinstallation a rollback makes it exact and says no more."""
    hidden = project.parent / "hidden"
    (project.parent / "wheels").rename(hidden)
    snapshot = take(settings(project))
    before = manifest(project)
    append(source(project))
    outcome = put_back(settings(project), snapshot)
    hidden.rename(project.parent / "wheels")
    command, _, _ = outcome.skipped[0].fix.partition(";")
    assert "tiny @ file://" in command
    subprocess.run(command, shell=True, check=True, capture_output=True)  # noqa: S602 - as typed
    again = put_back(settings(project), snapshot)
    assert again.skipped == ()
    assert_back(before, manifest(project))
    with Engine(settings(project)) as engine:
        assert engine.diff(snapshot, None).changes == ()


def test_an_upgrade_does_not_vouch_for_other_content(project: Path) -> None:
    """The RECORD that counts is the snapshot's: a copy over the file fits only the new one."""
    snapshot = take(settings(project))
    before = manifest(project)
    new = wheel(project.parent / "new", "tiny", "2.0")
    site = source(project).parents[1]
    unpacked = project.parent / "unpacked"
    shutil.unpack_archive(new, unpacked, "zip")
    shutil.rmtree(site / "tiny-1.0.dist-info")
    shutil.copytree(unpacked / "tiny-2.0.dist-info", site / "tiny-2.0.dist-info")
    source(project).write_text((unpacked / "tiny" / "__init__.py").read_text())  # in place
    outcome = put_back(settings(project), snapshot)
    assert outcome.skipped == ()
    assert '"1.0"' in source(project).read_text()
    assert_back(before, manifest(project))


@pytest.mark.parametrize("place", ["reclaim.file", "restore.verify", "restore.finish"])
def test_a_kill_in_the_middle_is_finished_by_the_next_command(project: Path, place: str) -> None:
    """Everything else is back by then: the file is fetched again, and the undo has the edit."""
    snapshot = take(settings(project))
    before = manifest(project)
    append(source(project))
    edited = manifest(project)
    program = (
        "import os, sys; from pathlib import Path; from rollback.engine import Engine\n"
        "from rollback.inventory import EngineSettings; from rollback.reports import Selection\n"
        "chosen = EngineSettings(Path(sys.argv[1]), Path(sys.argv[2]), environ=dict(os.environ))\n"
        "with Engine(chosen) as engine:\n"
        "    engine.restore(engine.plan(engine.find_snapshot(sys.argv[3]), Selection()))\n"
    )
    store = project.parent / "store"
    done = subprocess.run(
        [sys.executable, "-c", program, project, store, snapshot.id],
        env={**os.environ, "GUARD_FAILPOINT": f"{place}:kill"},
        check=False,
    )
    assert done.returncode == -9
    with Engine(settings(project)) as engine:
        assert "finished now" in " ".join(engine.recover())
        assert_back(before, manifest(project))
        engine.restore(engine.plan(engine.undo_target(), Selection()), kind="undo")
    assert_back(edited, manifest(project))


def test_a_file_that_was_edited_before_the_snapshot_is_copied(project: Path) -> None:
    """No installer has what a person wrote, so a link would be the only copy."""
    path = source(project)
    path.write_text(path.read_text() + "PATCHED = True\n")
    later = path.stat().st_mtime_ns + 3600 * 10**9
    os.utime(path, ns=(later, later))
    snapshot = take(settings(project))
    assert path.stat().st_nlink == 1
    before = manifest(project)
    append(path)
    assert put_back(settings(project), snapshot).skipped == ()
    assert_back(before, manifest(project))


def test_an_interpreter_that_the_command_does_not_use_is_not_started(
    project: Path, tmp_path: Path
) -> None:
    """It merely lies in the project: it could be anybody's."""
    chosen = settings(project)
    other = EngineSettings(project, chosen.store, command=(sys.executable,), environ={})
    snapshot = take(other)
    append(source(project))
    python = project / ".venv" / "bin" / "python"
    mark = tmp_path / "started"
    python.unlink()
    python.write_text(f"#!/bin/sh\ntouch {mark}\n")
    python.chmod(0o755)
    outcome = put_back(other, snapshot)
    assert [skip.what for skip in outcome.skipped] == [str(source(project))]
    assert not mark.exists()


@needs_uv
@pytest.mark.parametrize("at_hand", [True, False])
def test_an_edited_cache_is_not_believed(
    project: Path, monkeypatch: pytest.MonkeyPatch, *, at_hand: bool
) -> None:
    """The cache of uv shares the file, edit included; only a wheel at hand is unpacked again."""
    monkeypatch.setenv("UV_CACHE_DIR", str(project.parent / "uv-cache"))
    monkeypatch.setenv("UV_LINK_MODE", "hardlink")
    monkeypatch.setenv("UV_FIND_LINKS", str(project.parent / "wheels"))
    monkeypatch.setenv("UV_NO_INDEX", "1")
    python = project / ".venv" / "bin" / "python"
    assert UV is not None
    run(UV, "pip", "install", "--quiet", "--python", python, "--reinstall", "tiny")
    assert source(project).stat().st_nlink == 2  # with the cache
    snapshot = take(settings(project))
    before = manifest(project)
    append(source(project))
    if not at_hand:
        shutil.rmtree(project.parent / "wheels")
    outcome = put_back(settings(project), snapshot)
    if at_hand:
        assert outcome.skipped == ()
        assert_back(before, manifest(project))
    else:
        assert [skip.what for skip in outcome.skipped] == [str(source(project))]
        assert "uv pip install" in outcome.skipped[0].fix


def test_a_displaced_file_that_is_still_written_to_spoils_no_undo(tmp_path: Path) -> None:
    """A process that kept the file open writes into what the undo holds: that comes back, too."""
    project = repository(tmp_path / "p")
    (project / "log.txt").write_text("one\n")
    chosen = EngineSettings(project, tmp_path / "store", command=("true",), environ={"PATH": ""})
    snapshot = take(chosen)
    (project / "train.py").write_text("edited\n")
    with (project / "log.txt").open("a") as file:
        file.write("two\n")
        file.flush()
        put_back(chosen, snapshot)
        file.write("three\n")
    with Engine(chosen) as engine:
        outcome = engine.restore(engine.plan(engine.undo_target(), Selection()), kind="undo")
    assert outcome.skipped == ()
    assert [s.what for s in outcome.unchecked] == [str(project / "log.txt")]
    assert (project / "train.py").read_text() == "edited\n"
    assert (project / "log.txt").read_text() == "one\ntwo\nthree\n"
    with Engine(chosen) as engine:
        assert engine.verify(repair=False).damage == ()


def test_new_files_that_are_still_written_to_come_back_whole(tmp_path: Path) -> None:
    """In a new folder, large, under two names; and what follows finds everything in place."""
    project = repository(tmp_path / "p")
    chosen = EngineSettings(project, tmp_path / "store", command=("true",), environ={"PATH": ""})
    snapshot = take(chosen)
    (project / "out").mkdir()
    (project / "out/log").write_text("one\n")
    (project / "big").write_bytes(b"x" * (2 << 20))
    (project / "second").hardlink_to(project / "big")
    with (project / "out/log").open("a") as log, (project / "big").open("r+b") as big:
        put_back(chosen, snapshot)
        log.write("two\n")
        big.write(b"later")
    with Engine(chosen) as engine:
        target = engine.undo_target()
        outcome = engine.restore(engine.plan(target, Selection()), kind="undo")
    assert outcome.skipped == ()
    assert (project / "out/log").read_text() == "one\ntwo\n"
    assert (project / "big").read_bytes()[:7] == b"laterxx"
    assert (project / "second").samefile(project / "big")
    assert len(outcome.unchecked) >= 2
    assert put_back(chosen, target).steps == ()


def test_a_link_that_is_missing_in_the_store_is_still_damage(project: Path) -> None:
    """Only a write through a link is excused; anything else stops before the first change."""
    snapshot = take(settings(project))
    inode = source(project).stat().st_ino
    links = (project.parent / "store" / "links").rglob("*")
    next(path for path in links if path.is_file() and path.stat().st_ino == inode).unlink()
    source(project).unlink()
    (project / "data.csv").unlink()
    with pytest.raises(StoreCorrupt):
        put_back(settings(project), snapshot)
    assert not (project / "data.csv").exists()


def test_verify_reads_what_an_installer_wrote_down_once(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not once for each link whose time differs: a store that was copied has thousands of them."""
    folder = source(project).parent
    for number in range(20):
        (folder / f"m{number}.py").write_text(f"{number}\n")
    record = next(folder.parent.glob("tiny-1.0.dist-info/RECORD"))
    with record.open("a") as file:
        for path in folder.glob("m*.py"):
            digest = base64.urlsafe_b64encode(hashlib.sha256(path.read_bytes()).digest())
            file.write(f"tiny/{path.name},sha256={digest.decode().rstrip('=')},2\n")
    take(settings(project))
    take(settings(project))
    links = [p for p in (project.parent / "store" / "links").rglob("*") if p.is_file()]
    assert len(links) > 20
    for path in links:
        os.utime(path, ns=(1, 1))
    read: list[bytes] = []

    def counted(site: bytes, ask: Callable[[bytes], Iterator[Any]] = records.records) -> Any:
        read.append(site)
        return ask(site)

    monkeypatch.setattr(records, "records", counted)
    with Engine(settings(project)) as engine:
        report = engine.verify(repair=False)
    assert report.ok, report.damage
    assert 1 <= len(read) <= 2


@pytest.mark.parametrize("mode", ["full", "auto", "sample"])
def test_a_drill_of_an_old_snapshot_names_it_and_goes_on(project: Path, mode: str) -> None:
    """A rollback puts everything else back, so that is rehearsed; nothing calls it damage."""
    snapshot = take(settings(project))
    append(source(project))
    newer = take(settings(project))
    with Engine(settings(project)) as engine:
        report = engine.drill(snapshot, mode=mode)
        again = engine.drill(snapshot, mode=mode)
        fine = engine.drill(newer, mode=mode)
    assert report.failures == again.failures == fine.failures == ()
    assert [skip.what for skip in report.skips] == [str(source(project))]
    assert "written in place through its link" in report.skips[0].why
    assert "tiny 1.0" in report.skips[0].fix
    assert again.skips == report.skips
    assert fine.skips == ()


@pytest.mark.parametrize("mode", ["full", "auto", "sample"])
def test_a_drill_still_calls_a_missing_link_damage(project: Path, mode: str) -> None:
    """A file that was lost excuses itself alone."""
    snapshot = take(settings(project))
    append(source(project))
    links = (project.parent / "store" / "links").rglob("*")
    inode = source(project).stat().st_ino
    next(p for p in links if p.is_file() and p.stat().st_ino != inode).unlink()
    with Engine(settings(project)) as engine:
        report = engine.drill(snapshot, mode=mode)
    assert len(report.failures) == 1
    assert "missing" in report.failures[0]


@pytest.fixture
def unkept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let there be no space for one file of the distribution, where nothing can be linked."""
    real = KeepingResolver.begin
    none = Kept(Kind.UNPROTECTED, note="there is not enough space to keep its 66 bytes")

    def short(self: KeepingResolver, root_fd: int, jobs: list[Job]) -> Resolving:
        begun = real(self, root_fd, jobs)

        def finish() -> list[Kept]:
            return [
                none if job.path.endswith(b"tiny/__init__.py") else one
                for job, one in zip(jobs, begun.finish(), strict=True)
            ]

        return Resolving(finish, begun.abandon)

    monkeypatch.setattr(KeepingResolver, "begin", short)


@pytest.mark.usefixtures("unkept")
def test_content_that_could_not_be_kept_is_proven_to_be_at_hand(project: Path) -> None:
    """The drill installs it into scratch; the rollback fetches it; unchanged, it is no loss."""
    chosen = settings(project)
    snapshot = take(chosen)
    before = manifest(project)
    with Engine(chosen) as engine:
        assert engine.drill(snapshot).skips == ()
    assert put_back(chosen, snapshot).skipped == ()
    append(source(project))
    edited = manifest(project)
    assert put_back(chosen, snapshot).skipped == ()
    assert_back(before, manifest(project))
    with Engine(chosen) as engine:
        engine.restore(engine.plan(engine.undo_target(), Selection()), kind="undo")
    assert_back(edited, manifest(project))


@pytest.mark.usefixtures("unkept")
def test_content_that_could_not_be_kept_and_is_nowhere_is_told_before_the_run(
    project: Path,
) -> None:
    """The drill says which packages a rollback could not bring back."""
    shutil.rmtree(project.parent / "wheels")
    chosen = settings(project)
    snapshot = take(chosen)
    with Engine(chosen) as engine:
        report = engine.drill(snapshot)
    assert [skip.what for skip in report.skips] == ["packages tiny"]
    append(source(project))
    assert [skip.why for skip in put_back(chosen, snapshot).skipped] == ["its content was not kept"]
