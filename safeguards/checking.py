"""Runs the declared checks with what guard knows of the project."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from checks.context import Context
from checks.declare import with_defaults
from checks.model import CheckReport
from checks.runner import KEPT, run
from safeguards.config import Config
from safeguards.session import Session

if TYPE_CHECKING:
    from rollback.engine import Engine

CACHE = "checks.json"


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which checks are wanted.

    Attributes:
        command: The guarded command's words.
        families: Only these; all by default.
        files: Only checks of these files; all by default.
        fresh: Whether unchanged files are read again all the same.
    """

    command: tuple[str, ...] = ()
    families: tuple[str, ...] | None = None
    files: tuple[str, ...] = ()
    fresh: bool = False


def run_checks(
    session: Session, config: Config, engine: Engine | None, wanted: Wanted
) -> CheckReport:
    """Return what the declared checks find, and what is held of every machine.

    Args:
        session: This call of guard.
        config: The project's configuration.
        engine: Knows the Python environment and where results can be kept; None where there
            is no store.
        wanted: Which checks.

    Raises:
        CheckError: A declaration cannot be carried out.
    """
    declarations = with_defaults(config.declarations)
    declared = declarations.by_family
    cache = None
    if engine is not None and not declared.keys().isdisjoint(KEPT):
        from safeguards.check_cache import FileCache  # noqa: PLC0415 - as the next

        cache = FileCache(Path(engine.status().path) / CACHE, fresh=wanted.fresh)
    context = Context(
        base=config.project,
        environ=session.environ,
        command=wanted.command,
        # Only models are held against installed packages, and finding those out takes time.
        env_prefix=_environment(engine) if engine is not None and "artifacts" in declared else None,
        cache=cache,
    )
    # Importing pandera sets variables (SPARK_LOCAL_IP and another); they must not stay.
    before = dict(os.environ)
    try:
        return run(declarations, context, wanted.families, wanted.files)
    finally:
        for name in set(os.environ) - set(before):
            del os.environ[name]
        if cache is not None:
            cache.close()


def _environment(engine: Engine) -> Path | None:
    for environment in engine.inspect().facts.get("python") or ():
        prefix = environment.get("prefix")
        if prefix:
            return Path(os.fsdecode(prefix))
    return None
