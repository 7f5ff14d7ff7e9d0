"""Strict reading of configuration tables: each value typed, each unknown key named."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from checks.errors import DeclarationError

_T = TypeVar("_T")
_MISSING: Any = object()
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)?")
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(i?)B?", re.IGNORECASE)
_SECONDS = {"ms": 0.001, "s": 1.0, None: 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def parse_duration(text: str) -> float:
    """Return the seconds that a text such as ``90``, ``30s``, ``5m`` or ``2h`` stands for.

    Raises:
        ValueError: The text is not a duration.
    """
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is not a duration such as 30s, 5m or 2h")
    return float(match[1]) * _SECONDS[match[2]]


def parse_size(text: str) -> int:
    """Return the bytes that a text such as ``512MB``, ``20GB`` or ``1GiB`` stands for.

    Raises:
        ValueError: The text is not a size.
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is not a size such as 500MB or 20GB")
    base = 1024 if match[3] else 1000
    return int(float(match[1]) * base ** " KMGT".index(match[2].upper() or " "))


class Table:
    """One configuration table, read key by key; `finish` names what nobody asked for.

    Args:
        values: The table as `tomllib` gives it.
        where: How people find it: ``[[check.data]] number 2``.
    """

    def __init__(self, values: Any, where: str) -> None:
        if not isinstance(values, Mapping):
            raise DeclarationError(
                f"{where} has to be a table, not {type(values).__name__}",
                hint=f"write it as {where}",
            )
        self.values: Mapping[str, Any] = values
        self.where = where
        self._known: set[str] = set()

    def get(self, key: str, kind: type[_T], default: Any = _MISSING) -> _T:
        """Return the value of `key`, which has to be of type `kind` (an int passes for a float).

        Raises:
            DeclarationError: It is missing without a default, or of another type.
        """
        self._known.add(key)
        if key not in self.values:
            if default is _MISSING:
                raise DeclarationError(f"{self.where} lacks `{key}`", hint=f"add `{key} = …`")
            return default  # type: ignore[no-any-return]
        value: Any = self.values[key]
        if kind is float and type(value) is int:
            value = float(value)
        if not isinstance(value, kind) or (kind is not bool and isinstance(value, bool)):
            raise self.wrong(key, f"has to be {_name(kind)}, not {value!r}")
        return value

    def optional(self, key: str, kind: type[_T]) -> _T | None:
        """Return the value of `key`, or None where it is absent."""
        return self.get(key, kind, None)

    def share(self, key: str, default: float) -> float:
        """Return a share between 0 and 1."""
        value: float = self.get(key, float, default)
        if not 0.0 <= value <= 1.0:
            raise self.wrong(key, f"has to be a share between 0 and 1, not {value}")
        return value

    def choice(self, key: str, choices: tuple[str, ...], default: str) -> str:
        """Return one of `choices`."""
        value: str = self.get(key, str, default)
        if value not in choices:
            near = difflib.get_close_matches(value, choices, 1)
            meant = f"; did you mean {near[0]!r}?" if near else ""
            raise self.wrong(key, f"has to be one of {', '.join(choices)}, not {value!r}{meant}")
        return value

    def strings(self, key: str, default: tuple[str, ...] = ()) -> tuple[str, ...]:
        """Return a list of texts; a single text passes for a list of one."""
        self._known.add(key)
        value = self.values.get(key, default)
        if isinstance(value, str):
            return (value,)
        if not isinstance(value, (list, tuple)) or not all(isinstance(v, str) for v in value):
            raise self.wrong(key, f"has to be a list of texts, not {value!r}")
        return tuple(value)

    def duration(self, key: str, default: float) -> float:
        """Return a duration in seconds; a bare number is seconds."""
        self._known.add(key)
        return self._parsed(key, default, parse_duration)

    def size(self, key: str, default: int) -> int:
        """Return a size in bytes; a bare number is bytes."""
        self._known.add(key)
        return int(self._parsed(key, default, parse_size))

    def tables(self, key: str) -> list[Table]:
        """Return the tables of an array of tables; empty where absent."""
        self._known.add(key)
        value = self.values.get(key, [])
        if isinstance(value, Mapping):
            value = [value]
        if not isinstance(value, list):
            raise self.wrong(key, "has to be an array of tables")
        name = f"{self.where.strip('[]')}.{key}" if self.where.startswith("[") else key
        return [Table(v, f"[[{name}]] number {n}") for n, v in enumerate(value, 1)]

    def table(self, key: str) -> Table | None:
        """Return the table below `key`, or None where it is absent."""
        self._known.add(key)
        if key not in self.values:
            return None
        name = f"{self.where.strip('[]')}.{key}" if self.where.startswith("[") else key
        return Table(self.values[key], f"[{name}]")

    def wrong(self, key: str, why: str) -> DeclarationError:
        """Return the error that says what is wrong with the value of `key`."""
        return DeclarationError(f"{self.where}: `{key}` {why}", hint=f"correct `{key}`")

    def finish(self) -> None:
        """Raise for the first key that nobody asked for, naming the nearest known one."""
        for key in self.values:
            if key not in self._known:
                near = difflib.get_close_matches(key, sorted(self._known), 1, 0.5)
                hint = (
                    f"did you mean `{near[0]}`?"
                    if near
                    else f"known here: {', '.join(sorted(self._known))}"
                )
                raise DeclarationError(f"{self.where} has no key `{key}`", hint=hint)

    def _parsed(self, key: str, default: float, parse: Callable[[str], float]) -> float:
        value = self.values.get(key, default)
        if isinstance(value, bool) or not isinstance(value, (str, int, float)):
            raise self.wrong(key, f"has to be a text or a number, not {value!r}")
        try:
            return parse(value) if isinstance(value, str) else value
        except ValueError as error:
            raise self.wrong(key, f": {error}") from None


def _name(kind: type) -> str:
    return {str: "a text", int: "a whole number", float: "a number", bool: "true or false"}.get(
        kind, f"a {kind.__name__}"
    )
