"""Parameters as values that remember where they come from."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

_INTEGER = re.compile(r"[-+]?\d[\d_]*")
_FLOAT = re.compile(r"[-+]?(\d[\d_]*\.?\d*|\.\d+)([eE][-+]?\d+)?")
_WORDS: dict[str, Any] = {
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys(("null", "None", "~"), None),
    **dict.fromkeys(("nan", ".nan", "NaN", ".NaN", "NAN"), float("nan")),
    **dict.fromkeys(("inf", ".inf", "+inf", "Infinity"), float("inf")),
    **dict.fromkeys(("-inf", "-.inf", "-Infinity"), float("-inf")),
}
FROM_ENVIRONMENT = ", environment: "
"""What the origin of a value says that a file takes from the environment."""
ENTRIES_LIMIT = 100_000
"""The most entries of a configuration that are looked at."""
_DEPTH_LIMIT = 60


class Unusable(Exception):
    """A source of parameters cannot be used.

    Attributes:
        rule: The last part of the finding's name.
        hint: What to do about it.
    """

    def __init__(self, rule: str, message: str, hint: str) -> None:
        super().__init__(message)
        self.rule = rule
        self.hint = hint


@dataclass(frozen=True, slots=True)
class Value:
    """One parameter.

    Attributes:
        value: What it is.
        origin: Where it was set: ``params.yaml:3``, ``command line: --lr=0.1``.
        misread: Set where common readers take the text for something else: how they read it.
        alternatives: The other values of a sweep (`--multirun`).
    """

    value: Any
    origin: str
    misread: str = ""
    alternatives: tuple[Any, ...] = ()


class Scientific(float):
    """A number such as ``1e-3`` that YAML 1.1 readers take for a text."""


def scalar(text: str) -> Any:
    """Return what a text from a command line or the environment stands for."""
    stripped = text.strip()
    if stripped in _WORDS:
        return _WORDS[stripped]
    if _INTEGER.fullmatch(stripped) and len(stripped) < 400:  # noqa: PLR2004  # int() has a limit
        return int(stripped)
    if _FLOAT.fullmatch(stripped):
        return float(stripped.replace("_", ""))
    if len(stripped) > 1 and stripped[0] == stripped[-1] and stripped[0] in "'\"":
        return stripped[1:-1]
    return text


def flatten(document: Any, origin: str) -> dict[str, Value]:
    """Return the entries of a nested document by dotted name; lists count as one value, too.

    Raises:
        Unusable: It has too many entries, or is nested too deep.
    """
    found: dict[str, Value] = {}
    for name, value in _walk(document, "", 0):
        if len(found) >= ENTRIES_LIMIT:
            hint = "name the file that holds the parameters only"
            raise Unusable("unreadable", f"has more than {ENTRIES_LIMIT:,} entries", hint)
        found[name] = Value(value, origin)
    return found


def _walk(value: Any, name: str, depth: int) -> Iterator[tuple[str, Any]]:
    if depth > _DEPTH_LIMIT:
        raise Unusable("unreadable", "is nested too deep", "make it flatter")
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _walk(inner, f"{name}.{key}" if name else str(key), depth + 1)
        return
    if name:
        yield name, value
    if isinstance(value, Sequence) and not isinstance(value, (str, bytes)):
        for index, inner in enumerate(value):
            yield from _walk(inner, f"{name}.{index}" if name else str(index), depth + 1)
