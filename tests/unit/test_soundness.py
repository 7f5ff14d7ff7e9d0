"""After a restore and in a drill: does the environment start, is the repository whole?"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from gitrepo import commit, git, repository
from rollback import proving, soundness
from rollback.engine import Engine
from rollback.inventory import EngineSettings
from rollback.model import Snapshot
from rollback.reports import DrillReport, RestoreOutcome, Selection
from rollback.resources.python import Environment, environment_roots


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A repository with an environment in it."""
    project = repository(tmp_path / "p")
    venv = [sys.executable, "-m", "venv", "--without-pip", str(project / ".venv")]
    subprocess.run(venv, check=True)
    return project


def settings(project: Path, **environ: str) -> EngineSettings:
    """Return settings whose command uses the project's environment."""
    command = (str(project / ".venv" / "bin" / "python"), "train.py")
    return EngineSettings(
        project, project.parent / "store", command=command, environ={**os.environ, **environ}
    )


def take(chosen: EngineSettings, mode: str = "auto") -> tuple[Snapshot, DrillReport]:
    """Take a snapshot and rehearse it."""
    with Engine(chosen) as engine:
        operation = engine.begin("snapshot", {})
        snapshot = engine.snapshot(operation, kind="manual", label="").snapshot
        report = engine.drill(snapshot, mode=mode)
        engine.finish(operation, "done", {})
    return snapshot, report


def put_back(chosen: EngineSettings, snapshot: Snapshot) -> RestoreOutcome:
    """Roll back."""
    with Engine(chosen) as engine:
        return engine.restore(engine.plan(snapshot, Selection()))


def lose_objects(project: Path) -> None:
    """Delete every loose object: no commit can be read any more."""
    for path in (project / ".git" / "objects").glob("??/*"):
        path.unlink()


def test_what_works_is_said_to(project: Path) -> None:
    """Nothing to report, in the drill and after the rollback."""
    snapshot, report = take(settings(project))
    assert (report.failures, report.notes, report.skips) == ((), (), ())
    commit(project, "train.py", "two\n")
    (project / ".venv" / "pyvenv.cfg").unlink()
    outcome = put_back(settings(project), snapshot)
    assert (outcome.problems, outcome.unchecked, outcome.skipped) == ((), (), ())


def test_a_repository_that_was_broken_before_is_named_and_stops_nothing(project: Path) -> None:
    """An exact restore brings the damage back; nobody shall think that guard did it."""
    lose_objects(project)
    snapshot, report = take(settings(project))
    assert report.passed
    assert report.failures == ()
    assert any("git" in note for note in report.notes)
    git(project, "symbolic-ref", "HEAD", "refs/heads/other")
    outcome = put_back(settings(project), snapshot)
    assert any("git" in problem for problem in outcome.problems)
    assert outcome.skipped == ()


def test_an_interpreter_that_does_not_start_is_named(project: Path) -> None:
    """The environment is back as it was; that it does not work is said."""
    config = project / ".venv" / "pyvenv.cfg"
    config.write_text("home = /nowhere/at/all\n")
    snapshot, report = take(settings(project))
    assert any("/nowhere/at/all" in note for note in report.notes)
    config.write_text("home = /usr/bin\n")
    assert any("/nowhere/at/all" in p for p in put_back(settings(project), snapshot).problems)


def test_a_shared_interpreter_is_not_looked_for_in_the_copy(tmp_path: Path) -> None:
    """Of an interpreter for everybody, packages and scripts are kept; it starts where it is."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    site = tmp_path / "installed" / "lib" / f"python{version}" / "site-packages"
    scripts = tmp_path / "installed" / "bin"
    site.mkdir(parents=True)
    scripts.mkdir()
    (scripts / "python").symlink_to(sys.executable)
    environment = Environment(
        prefix=str(tmp_path / "installed"),
        kind="system",
        interpreter=str(scripts / "python"),
        version=version,
        site_packages=(str(site),),
        scripts=str(scripts),
        why="",
        used=True,
        inside_project=False,
    )
    roots = environment_roots(environment)
    assert [root.path for root in roots] == [os.fsencode(site), os.fsencode(scripts)]
    copy = tmp_path / "copy"
    copy.mkdir()
    for root in roots:
        assert soundness.check_root(root, os.environ, os.fsencode(copy)) == soundness.Soundness()
    (scripts / "python").unlink()
    assert "does not start" in soundness.check_root(roots[1], os.environ).problems[0]


def test_without_git_the_check_is_skipped_loudly(project: Path) -> None:
    """What could not be found out is named, with its mend."""
    snapshot, report = take(settings(project, PATH="/nowhere"))
    assert [skip.fix for skip in report.skips] == ["install git"]
    git(project, "checkout", "--quiet", "-b", "other")
    outcome = put_back(settings(project, PATH="/nowhere"), snapshot)
    assert [skip.fix for skip in outcome.unchecked] == ["install git"]
    assert outcome.skipped == ()


def test_a_walk_that_takes_too_long_is_skipped(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A large repository does not hold the rollback up."""
    slow = tmp_path / "bin" / "git"
    slow.parent.mkdir()
    slow.write_text('#!/bin/sh\ncase "$*" in *fsck*) exec sleep 20;; esac\n')
    slow.chmod(0o755)
    monkeypatch.setattr(soundness, "GIT_S", 0.3)
    snapshot, _ = take(settings(project))
    git(project, "checkout", "--quiet", "-b", "other")
    outcome = put_back(settings(project, PATH=f"{slow.parent}:/usr/bin:/bin"), snapshot)
    assert "took longer than 0.3 s" in outcome.unchecked[0].why
    assert outcome.problems == ()


def test_a_git_of_the_project_is_never_started(project: Path, tmp_path: Path) -> None:
    """A repository may bring a program of that name and a PATH that leads to it."""
    planted = project / "bin" / "git"
    planted.parent.mkdir()
    planted.write_text(f"#!/bin/sh\ntouch {tmp_path}/started\n")
    planted.chmod(0o755)
    path = f"{planted.parent}:{os.environ['PATH']}"
    snapshot, _ = take(settings(project, PATH=path))
    git(project, "checkout", "--quiet", "-b", "other")
    assert put_back(settings(project, PATH=path), snapshot).problems == ()
    assert not (tmp_path / "started").exists()


def test_a_copy_that_works_less_than_the_live_state_fails_the_drill(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rehearsal is there to find exactly this."""
    real = soundness.check_root

    def spoilt(root: object, environ: object, place: bytes | None = None) -> soundness.Soundness:
        if place is not None:
            (Path(os.fsdecode(place)) / "HEAD").unlink(missing_ok=True)
        return real(root, environ, place)  # type: ignore[arg-type]

    monkeypatch.setattr(proving, "check_root", spoilt)
    _, report = take(settings(project))
    assert not report.passed
    assert any("HEAD" in failure for failure in report.failures)


def test_what_was_proven_is_not_proven_again(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the warm path no process is started; a change of the repository asks again."""
    asked: list[str] = []
    real = soundness.check_root

    def counted(root: object, environ: object, place: bytes | None = None) -> soundness.Soundness:
        asked.append(str(getattr(root, "resource", "")))
        return real(root, environ, place)  # type: ignore[arg-type]

    monkeypatch.setattr(proving, "check_root", counted)
    take(settings(project))
    assert sorted(asked) == ["git", "python"]
    asked.clear()
    take(settings(project))
    assert asked == []
    git(project, "branch", "other")
    take(settings(project))
    assert asked == ["git"]
    asked.clear()
    take(settings(project), mode="full")
    assert sorted(asked) == ["git", "python"]
    asked.clear()
    monkeypatch.setattr(proving, "CHEAP_S", 0.0)
    git(project, "branch", "third")
    take(settings(project))
    assert asked == []
