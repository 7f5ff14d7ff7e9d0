"""The bound of a rehearsal follows what there is, not how often it was looked at."""

from __future__ import annotations

import os
from pathlib import Path

from driving import Project


def test_what_changes_in_every_run_makes_no_rollback_slower(tmp_path: Path) -> None:
    """The same checkpoint, written again and again beside a tiny file that was rehearsed whole."""
    project = Project(tmp_path.resolve())
    (project.root / "tiny").write_text("x")
    bounds: list[float] = []
    for _ in range(8):
        taken = project.snapshot().snapshot
        with project.engine() as engine:
            report = engine.drill(taken)
        assert report.passed
        bounds.append(report.bound_s)
        (project.root / "last.ckpt").write_bytes(os.urandom(300_000))
    assert max(bounds) < 10


def test_damage_of_what_was_rehearsed_before_blocks_no_later_snapshot(tmp_path: Path) -> None:
    """What is known of an older state only saves time: where it is lost, all is rehearsed."""
    project = Project(tmp_path.resolve())
    (project.root / "model").write_text("old")
    old = project.snapshot().snapshot
    with project.engine() as engine:
        assert engine.drill(old).passed
    packs = set((project.store / "packs").iterdir())
    (project.root / "model").write_text("new")
    new = project.snapshot().snapshot
    for pack in packs:
        pack.unlink()
    with project.engine() as engine:
        report = engine.drill(new)
        assert report.passed, report.failures
        assert report.files == 1
        assert not engine.drill(old).passed
