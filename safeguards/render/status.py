"""The overview of a project."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rollback.inventory import Inventory
from rollback.model import Operation, Skip
from rollback.reports import StoreStatus
from safeguards.config import Config
from safeguards.output import Style, Tone, aligned
from safeguards.record import skip_data
from safeguards.render.log import operation_data, run_line
from safeguards.render.paths import short_path
from safeguards.render.snapshot import skip_lines
from safeguards.units import bytes_text, count_text, seconds_text


@dataclass(frozen=True, slots=True)
class Protected:
    """One thing that a snapshot would capture."""

    resource: str
    name: str
    category: str
    location: str

    @staticmethod
    def of(inventory: Inventory, inside: Sequence[str] = ()) -> tuple[Protected, ...]:
        """Return what an inventory has found, and databases inside the project.

        Args:
            inventory: The file trees and the databases outside of them.
            inside: Paths of SQLite files, absolute.
        """
        roots = [
            Protected(root.resource, root.name, str(root.category), os.fsdecode(root.path))
            for root in inventory.roots
        ]
        databases = [
            Protected("sqlite", os.path.basename(path), "databases", path)
            for path in (*inside, *map(str, inventory.databases))
        ]
        return (*roots, *databases)


@dataclass(frozen=True, slots=True)
class Overview:
    """What `guard status` knows.

    Attributes:
        project: The project's folder.
        missing: Whether that folder is gone.
        config: Its configuration.
        store_path: Where the store is, or would be.
        store_why: Why there.
        store: What is in it, None where there is none yet.
        protected: What a snapshot would capture.
        skips: What it would not.
        facts: What git and Python are at.
        last_run: The newest run, None for none.
        at_work: Operations that are under way, with who does them.
        unfinished: Operations that did not end.
        next_command: What mends that, empty for nothing.
    """

    project: Path
    missing: bool
    config: Config
    store_path: str
    store_why: str
    store: StoreStatus | None
    protected: tuple[Protected, ...]
    skips: tuple[Skip, ...]
    facts: Mapping[str, Any]
    last_run: Operation | None
    at_work: tuple[str, ...]
    unfinished: tuple[str, ...]
    next_command: str


def as_text(value: Overview, style: Style) -> list[str]:
    """Return the overview in aligned lines."""
    rows = [("project", short_path(str(value.project)) + (" (gone)" if value.missing else ""))]
    rows.append(("config", _config(value.config)))
    rows.append(("store", short_path(value.store_path)))
    rows.append(("", value.store_why))
    rows.append(("", _contents(value)))
    rows.append(("last run", "none yet" if value.last_run is None else run_line(value.last_run)))
    lines = [*aligned(rows), *value.at_work]
    lines += [style.paint(name, Tone.WARN) for name in value.unfinished]
    if value.next_command:
        lines.append(f"to put everything back: {value.next_command}")
    if value.protected:
        lines += ["", style.paint("protected", Tone.STRONG)]
        lines += aligned(
            [
                (p.resource, p.category, short_path(p.location, value.project))
                for p in value.protected
            ],
            "  ",
        )
    if value.skips:
        lines += ["", style.paint("not protected", Tone.STRONG), *skip_lines(value.skips, style)]
    if style.verbose and value.config.origins:
        lines += ["", style.paint("set", Tone.STRONG)]
        lines += aligned(sorted(value.config.origins.items()), "  ")
    return lines


def _config(config: Config) -> str:
    name = "none; guard init writes one" if config.file is None else config.file.name
    if config.problem:
        name = "left aside, it is wrong"
    return f"{name} (budget {seconds_text(config.budget_s)}, {config.environment})"


def _contents(value: Overview) -> str:
    if value.store is None:
        return "nothing yet; guard run -- COMMAND takes the first snapshot"
    limit = bytes_text(value.config.max_store_bytes)
    number = count_text(value.store.snapshots, "snapshot")
    if value.store.displaced:
        number += f" and {value.store.displaced:,} of what rollbacks displaced"
    return f"{number}, {bytes_text(value.store.bytes)} of {limit}"


def as_data(value: Overview) -> dict[str, Any]:
    """Return the overview as JSON."""
    store = value.store
    return {
        "project": str(value.project),
        "project_exists": not value.missing,
        "configuration": None if value.config.file is None else str(value.config.file),
        "origins": dict(value.config.origins),
        "environment": value.config.environment,
        "budget_s": value.config.budget_s,
        "store": {
            "path": value.store_path,
            "why": value.store_why,
            "exists": store is not None,
            "bytes": 0 if store is None else store.bytes,
            "max_bytes": value.config.max_store_bytes,
            "snapshots": 0 if store is None else store.snapshots,
            "displaced": 0 if store is None else store.displaced,
        },
        "protected": [
            {"resource": p.resource, "name": p.name, "category": p.category, "location": p.location}
            for p in value.protected
        ],
        "skipped": [skip_data(skip) for skip in value.skips],
        "facts": dict(value.facts),
        "last_run": None if value.last_run is None else operation_data(value.last_run),
        "at_work": list(value.at_work),
        "unfinished": list(value.unfinished),
    }
