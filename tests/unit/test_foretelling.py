"""What a rollback takes longer than a rebuild: more for links, for bytes, for databases."""

from __future__ import annotations

from rollback.foretelling import DATABASE_S, FILE_S, LINKED, database_s, tree_s
from rollback.rehearsing import Rebuilt


def _rebuilt(*, linked: int = 0, size: int = 0) -> Rebuilt:
    return Rebuilt(100, linked, size, 2.0, [])


def test_what_was_copied_without_bytes_takes_as_long_as_its_rebuild() -> None:
    """Only finding the files comes on top."""
    assert tree_s(_rebuilt()) == 2.0 + 100 * FILE_S


def test_links_are_looked_at_again() -> None:
    """In the share that they have."""
    assert tree_s(_rebuilt(linked=100)) == 2.0 * LINKED + 100 * FILE_S
    half = tree_s(_rebuilt(linked=50))
    assert tree_s(_rebuilt()) < half < tree_s(_rebuilt(linked=100))


def test_content_is_proven_before_it_is_put_in_place() -> None:
    """By its bytes: ten times as many take ten times as long."""
    none, some, more = (tree_s(_rebuilt(size=size)) for size in (0, 1 << 30, 10 << 30))
    assert 0.02 < some - none < 20
    assert abs((more - none) / (some - none) - 10) < 0.001


def test_an_empty_tree_takes_no_time() -> None:
    """And divides by nothing."""
    assert tree_s(Rebuilt(0, 0, 0, 0.0, [])) == 0


def test_a_database_is_read_once_more_and_swapped() -> None:
    """However small it is."""
    assert database_s(0.0) == DATABASE_S
    assert database_s(2.0) == 3.0 + DATABASE_S
