"""Mending a store, whatever state it is in: the catalog first where that is lost."""

from __future__ import annotations

from rollback.engine import Engine, Progress
from rollback.errors import CatalogCorrupt, RollbackError, StoreUnusable, speaking
from rollback.inventory import EngineSettings
from rollback.rebuilding import rebuild_catalog
from rollback.reports import VerifyReport
from rollback.store import placement


def repair_store(
    settings: EngineSettings, progress: Progress | None = None
) -> tuple[VerifyReport, list[str]]:
    """Read the whole store and mend what can be mended; a lost catalog is made again.

    Returns:
        What was read and what is damaged; and what else was done, as sentences for people.

    Raises:
        StoreBusy: Another operation holds the store.
        NothingToDo: There is no store.
    """
    place = placement.choose(settings.project, settings.store, settings.environ)
    marked = ["the marker of the store was made again"] * placement.mend_marker(place.path)
    try:
        report, said = _repair(settings, progress)
    except CatalogCorrupt:
        with speaking(StoreUnusable, "the catalog could not be made again"):
            marked += rebuild_catalog(place.path)
        report, said = _repair(settings, progress)
    return report, [*marked, *said]


def _repair(settings: EngineSettings, progress: Progress | None) -> tuple[VerifyReport, list[str]]:
    with Engine(settings, create=False) as engine:
        report = engine.verify(repair=True, progress=progress)
        # What died may need what was damaged until now.
        try:
            return report, engine.recover()
        except CatalogCorrupt:
            raise
        except RollbackError as error:
            return report, [f"{error} (next: {error.hint})"]
