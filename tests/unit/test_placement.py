"""Where a store is made that nobody placed: in the state folder, where that can be used."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rollback.errors import StoreUnusable
from rollback.store.placement import choose
from rollback.store.store import Store
from unprivileged import IS_ROOT, as_nobody, give_away


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """An empty project, of the user without rights where there is one."""
    made = tmp_path.resolve() / "project"
    made.mkdir()
    if IS_ROOT:
        give_away([made])
        for folder in (made, *made.parents[:4]):
            folder.chmod(0o755)
    return made


def _made(project: Path, home: Path) -> str:
    place = choose(project, None, {"HOME": str(home)})
    Store(place.path, create=True).close()
    return f"{place.path}\n{place.why}"


def _homes(base: Path) -> dict[str, Path]:
    (base / "file").touch()
    for name, mode in (("read-only", 0o555), ("shut", 0o000)):
        (base / name).mkdir()
        (base / name).chmod(mode)
    return {"nowhere": base / "read-only/new", **{p.name: p for p in base.iterdir()}}


@pytest.mark.parametrize("home", ["file", "read-only", "nowhere", "shut"])
def test_a_home_that_cannot_be_written_to_stops_nothing(project: Path, home: str) -> None:
    """As in a container for a user whom it does not know: the store is in the project then."""
    place = _homes(project.parent)[home]
    for _ in range(2):
        path, why = as_nobody(lambda: _made(project, place)).splitlines()
        assert path == str(project / ".guard")
    assert why == "in the project, where it was made"


def test_a_home_that_can_be_written_to_is_used(project: Path) -> None:
    """Whether it is there already or not."""
    home = project / "home"
    path, _ = as_nobody(lambda: _made(project, home)).splitlines()
    assert Path(path).is_relative_to(home / ".local/state/guard")


@pytest.mark.skipif(not IS_ROOT, reason="needs folders of two users")
def test_the_state_folder_of_another_users_guard_is_refused(project: Path) -> None:
    """As `sudo` leaves it that keeps HOME: the past is there, and not to be mistaken for none."""
    home = project.parent / "home"
    _made(project, home)
    os.chmod(home / ".local/state/guard", 0o700)

    def refused() -> str:
        for create in (True, False):
            place = choose(project, None, {"HOME": str(home)})
            with pytest.raises(StoreUnusable, match="Permission denied") as told:
                Store(place.path, create=create)
        return told.value.hint

    assert "run guard as the user whose it is" in as_nobody(refused)
