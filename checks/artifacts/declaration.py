"""What `[[check.artifact]]` may say."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from checks.model import Severity

if TYPE_CHECKING:
    from checks.tables import Table

_LEVELS = ("error", "warning", "off")


@dataclass(frozen=True, slots=True)
class ArtifactCheck:
    """Which artifacts are checked, and how strictly.

    Attributes:
        path: A file, a model folder, or a glob, from the project folder.
        sha256: Manifest in `sha256sum` format; empty for none.
        severity: The most that a finding may weigh.
        pickle: What an import that can run code weighs: error, warning or off.
        allow: Imports that are accepted: a module (``cloudpickle``) or ``module.name``.
        extension: What content that differs from the file's ending weighs.
        versions: What a framework version that differs from the environment weighs.
        required: Whether a pattern that matches nothing is an error.
    """

    path: str
    sha256: str = ""
    severity: Severity = Severity.ERROR
    pickle: str = "error"
    allow: tuple[str, ...] = ()
    extension: str = "warning"
    versions: str = "error"
    required: bool = True

    @classmethod
    def from_table(cls, table: Table) -> ArtifactCheck:
        """Return the declaration in a table of the configuration.

        Raises:
            DeclarationError: A key is missing, unknown or of the wrong type.
        """
        declaration = cls(
            path=table.get("path", str),
            sha256=table.get("sha256", str, ""),
            severity=Severity(table.choice("severity", ("error", "warning"), "error")),
            pickle=table.choice("pickle", _LEVELS, "error"),
            allow=table.strings("allow"),
            extension=table.choice("extension", _LEVELS, "warning"),
            versions=table.choice("versions", _LEVELS, "error"),
            required=table.get("required", bool, default=True),
        )
        if not declaration.path:
            raise table.wrong("path", "is empty")
        table.finish()
        return declaration
