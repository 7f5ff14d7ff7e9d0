"""Which path of the project a typed one means."""

from __future__ import annotations

from pathlib import Path

import pytest

from rollback.chosen import whole_path


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project beside a folder that is none of it."""
    root = tmp_path.resolve() / "project"
    (root / "sub").mkdir(parents=True)
    (root.parent / "other/sub").mkdir(parents=True)
    return root


@pytest.mark.parametrize("typed", ["", "../other", "/etc/passwd", "sub/../../other/sub"])
def test_what_is_outside_is_refused(project: Path, typed: str) -> None:
    """Nothing at all is the project no more than what lies beside it."""
    assert whole_path(typed, project, [project]) is None


def test_a_path_through_a_link_means_where_that_leads(project: Path) -> None:
    """The project may be reached through a link."""
    link = project.parent / "link"
    link.symlink_to(project)
    assert whole_path("sub/x", link, [project]) == str(project / "sub/x")


def test_a_link_that_leads_away_stands_for_the_folder_that_was_there(project: Path) -> None:
    """What the snapshot has below it can be named all the same."""
    (project / "data").symlink_to(project.parent / "other")
    assert whole_path("data/sub/x", project, [project]) == str(project / "data/sub/x")


def test_a_link_itself_is_not_followed(project: Path) -> None:
    """It is what the path names."""
    (project / "data").symlink_to(project.parent / "other")
    assert whole_path("data", project, [project]) == str(project / "data")
