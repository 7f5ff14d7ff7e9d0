"""What a check may know of where it runs; everything else it reads from its inputs."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from checks.model import CheckReport


class ResultCache(Protocol):
    """Keeps reports of inputs that have not changed since; the caller owns where."""

    def get(self, key: str) -> CheckReport | None:
        """Return the report kept under `key`, or None."""

    def put(self, key: str, report: CheckReport) -> None:
        """Keep `report` under `key`."""


def _unknown(_path: Path) -> str | None:
    return None


@dataclass(frozen=True, slots=True)
class Context:
    """Where checks run.

    Attributes:
        base: The project folder; relative paths of declarations start here.
        environ: The environment of the guarded command.
        command: The guarded command's argv; empty where checks run alone.
        env_prefix: Prefix of the Python environment that the command will use.
        cache: Where results of unchanged inputs are kept; None switches that off.
        digest: Gives the SHA-256 (hex) of a file's content where the caller already
            knows it, else None.
        trusted: Whether schemas of the form ``file.py:Name`` may be imported, which runs
            their code; false in hooks.
    """

    base: Path
    environ: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    command: tuple[str, ...] = ()
    env_prefix: Path | None = None
    cache: ResultCache | None = None
    digest: Callable[[Path], str | None] = _unknown
    trusted: bool = True

    def resolve(self, path: str) -> Path:
        """Return `path` as it is found from the project folder; ``~`` is the user's home."""
        expanded = self.environ.get("HOME", "~") if path == "~" else path
        if path.startswith("~/") and "HOME" in self.environ:
            expanded = self.environ["HOME"] + path[1:]
        return self.base / expanded

    def pattern(self, path: str) -> str:
        """Return a glob as it is found from the project folder, whose own name is no pattern."""
        import glob  # noqa: PLC0415  # only where something is expanded

        if os.path.isabs(path) or path == "~" or path.startswith("~/"):
            return str(self.resolve(path))
        return os.path.join(glob.escape(str(self.base)), path)

    def subject(self, path: Path) -> str:
        """Return how people know `path`: relative to the project where it lies inside.

        Whatever the name, it is one line of text that a terminal shows and does not act on.
        """
        try:
            shown = str(path.relative_to(self.base))
        except ValueError:
            shown = str(path)
        if shown.isprintable():
            return shown
        return "".join(c if c.isprintable() else _escape(c) for c in shown)


def _escape(character: str) -> str:
    """Return the escape of a character; of a byte that is not UTF-8 (PEP 383) its number."""
    if "\udc80" <= character <= "\udcff":
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("unicode_escape", "surrogatepass").decode()
