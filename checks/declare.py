"""Reads all declarations of checks from the ``check`` table of a configuration."""

from __future__ import annotations

import importlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from checks.tables import Table

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Family → (key of the configuration, module, declaration, whether it is an array).
FAMILIES: Mapping[str, tuple[str, str, str, bool]] = {
    "data": ("data", "checks.data", "DataCheck", True),
    "features": ("features", "checks.features", "FeaturesCheck", True),
    "artifacts": ("artifact", "checks.artifacts", "ArtifactCheck", True),
    "params": ("params", "checks.params", "ParamsCheck", True),
    "machine": ("machine", "checks.machine", "MachineCheck", False),
}


@dataclass(frozen=True, slots=True)
class Declarations:
    """Everything that a project demands of its inputs.

    Attributes:
        by_family: The declarations of each family that has any, in the order of `FAMILIES`.
    """

    by_family: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)

    def __bool__(self) -> bool:
        """Return whether anything is declared."""
        return any(self.by_family.values())


def parse(values: Mapping[str, Any]) -> Declarations:
    """Return the declarations in the ``check`` table of a configuration.

    Args:
        values: The table as `tomllib` gives it.

    Raises:
        DeclarationError: A key is unknown, missing, or has a value that cannot be.
    """
    table = Table(values, "[check]")
    found: dict[str, tuple[Any, ...]] = {}
    for family, (key, module, name, many) in FAMILIES.items():
        if many:
            tables = table.tables(key)
        else:
            single = table.table(key)
            tables = [] if single is None else [single]
        if tables:
            declaration = getattr(importlib.import_module(module), name)
            found[family] = tuple(declaration.from_table(t) for t in tables)
    table.finish()
    return Declarations(found)


def with_defaults(declarations: Declarations | None) -> Declarations:
    """Return what is held of a project that declares this, or nothing: the machine, always."""
    declared = {} if declarations is None else declarations.by_family
    if declared.get("machine"):
        return Declarations(declared)
    from checks.machine import DEFAULT  # noqa: PLC0415  # only where checks run

    return Declarations({**declared, "machine": (DEFAULT,)})
