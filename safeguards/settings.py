"""Turns a configuration, and what discovery adds to it, into the engine's settings."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from rollback.engine import Engine
from rollback.inventory import EngineSettings
from rollback.model import Skip
from rollback.reports import VerifyReport
from safeguards import discovery, places
from safeguards.config import Config
from safeguards.output import Progress


def engine_for(
    config: Config,
    environ: Mapping[str, str],
    command: Sequence[str] = (),
    *,
    create: bool = True,
) -> Engine:
    """Return the engine of a project; to be used as a context manager.

    Args:
        config: The project's configuration.
        environ: The environment of the guarded command.
        command: Its words; empty where nothing will be run.
        create: Whether to make the store where there is none.

    Raises:
        RollbackError: The store cannot be used.
    """
    return Engine(_located(config, environ, command, create=create), create=create)


def repair(
    config: Config, environ: Mapping[str, str], progress: Progress | None
) -> tuple[VerifyReport, list[str]]:
    """Read the whole store of a project and mend what can be mended; see `repair_store`."""
    from rollback.repairing import repair_store  # noqa: PLC0415 - one command's

    return repair_store(_located(config, environ, (), create=False), progress)


def _located(
    config: Config, environ: Mapping[str, str], command: Sequence[str], *, create: bool
) -> EngineSettings:
    """Return the settings for a store that is there: who looks back looks where the past is."""
    settings = engine_settings(config, environ, command)
    elsewhere = None if create else places.find(config, environ)
    return settings if elsewhere is None else replace(settings, store=elsewhere)


def engine_settings(
    config: Config, environ: Mapping[str, str], command: Sequence[str] = ()
) -> EngineSettings:
    """Return what the engine is told: the configuration, and state outside that is in use."""
    outside = discovery.outside(config, environ)
    store = config.store
    if store is None and (config.file is None or config.problem):
        store = places.recall(config.project, environ)
    return EngineSettings(
        project=config.project,
        store=store,
        max_store_bytes=config.max_store_bytes,
        exclude=config.exclude,
        watch=config.watch,
        also=_without_nested((*config.also, *outside.folders), config.project),
        databases=outside.databases,
        command=tuple(command),
        environ=environ,
        variables=config.variables,
    )


def skips(config: Config, environ: Mapping[str, str]) -> tuple[Skip, ...]:
    """Return what is in use and cannot be protected: remote trackers, artifacts elsewhere."""
    return discovery.outside(config, environ).skips


def _without_nested(folders: Sequence[Path], project: Path) -> tuple[Path, ...]:
    """Return folders of which none lies inside another or in the project."""
    kept: list[Path] = []
    for folder in sorted(set(folders), key=lambda path: len(path.parts)):
        inside = any(folder == other or other in folder.parents for other in (*kept, project))
        if not inside and os.path.lexists(folder):
            kept.append(folder)
    return tuple(kept)
