"""What a project wants of guard, as one frozen value; `safeguards.configuring` reads it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from checks.declare import Declarations

ON_FAILURE = ("keep", "rollback", "ask")
DRILLS = ("auto", "full", "sample", "off")
CHECKS = ("enforce", "warn", "off")
VERDICTS = ("error", "warn")
MOST_RETRIES = 2

DEFAULT_BUDGET_S = 300.0
DEFAULT_MAX_STORE_BYTES = 20_000_000_000
DEFAULT_RETRY_WINDOW_S = 300.0


@dataclass(frozen=True, slots=True)
class Probe:
    """A command that has to pass after a rollback, before success is declared.

    Attributes:
        name: What people call it.
        command: A line for the shell, run in the project.
        timeout_s: Seconds after which it counts as failed.
    """

    name: str
    command: str
    timeout_s: float = 60.0


@dataclass(frozen=True, slots=True)
class Service:
    """A local service that is stopped before a rollback and started after it.

    Attributes:
        name: What people call it.
        stop: A line for the shell; empty where it need not be stopped.
        start: A line for the shell; empty where it starts by itself.
        health: URL that answers with a status below 400 when it is up; empty for none.
        timeout_s: Seconds that stopping, and that starting, may take.
    """

    name: str
    stop: str = ""
    start: str = ""
    health: str = ""
    timeout_s: float = 60.0


@dataclass(frozen=True, slots=True)
class RunConfig:
    """How `guard run` behaves.

    Attributes:
        on_failure: ``keep``, ``rollback`` or ``ask``.
        drill: ``auto``, ``full``, ``sample`` or ``off``.
        checks: ``enforce``, ``warn`` or ``off``.
        over_budget: Whether a drill over budget is an ``error`` or makes guard ``warn``.
        target: Whether a target beyond local, dev and staging is an ``error`` or a warning.
        retries: Further attempts after a failure, each from the restored state, at most 2.
        retry_window_s: Seconds after the first failure in which a further attempt may start.
        timeout_s: Seconds that the command may take, None for no limit.
        max_memory: Share of the machine's memory that its tree may take, None for no limit.
    """

    on_failure: str = "keep"
    drill: str = "auto"
    checks: str = "enforce"
    over_budget: str = "error"
    target: str = "error"
    retries: int = 0
    retry_window_s: float = DEFAULT_RETRY_WINDOW_S
    timeout_s: float | None = None
    max_memory: float | None = None


@dataclass(frozen=True, slots=True)
class Config:
    """Everything that is configured, and where each value came from.

    Attributes:
        project: Absolute path of the project.
        file: The file that was read, None where there is none.
        environment: ``local``, ``dev``, ``staging``, or what the project calls it.
        budget_s: Seconds that a rollback may take.
        store: Where the store is, None for automatic placement.
        max_store_bytes: How large the store may become.
        keep_last: How many snapshots the automatic retention keeps, None for the engine's rule.
        keep_days: It keeps those of the last so many days too, None for the engine's rule.
        exclude: Paths and patterns below the project that are not protected.
        watch: Paths and patterns that are fingerprinted only.
        also: Absolute paths outside the project that are protected too.
        variables: Names of environment variables whose values may be kept.
        databases: URLs of databases.
        declarations: What the inputs have to satisfy.
        probes: What has to pass after a rollback.
        services: What is stopped and started around a rollback.
        run: How `guard run` behaves.
        origins: Dotted key → where its value came from, for those that are not defaults.
        problem: Why the file was left aside by a command that works without it, else empty.
    """

    project: Path
    file: Path | None = None
    environment: str = "local"
    budget_s: float = DEFAULT_BUDGET_S
    store: Path | None = None
    max_store_bytes: int = DEFAULT_MAX_STORE_BYTES
    keep_last: int | None = None
    keep_days: int | None = None
    exclude: tuple[str, ...] = ()
    watch: tuple[str, ...] = ()
    also: tuple[Path, ...] = ()
    variables: tuple[str, ...] = ()
    databases: tuple[str, ...] = ()
    declarations: Declarations | None = None
    probes: tuple[Probe, ...] = ()
    services: tuple[Service, ...] = ()
    run: RunConfig = RunConfig()
    origins: Mapping[str, str] = field(default_factory=dict)
    problem: str = ""
