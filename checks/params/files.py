"""Parameters from YAML, TOML and JSON files, each with the line that sets it where known."""

from __future__ import annotations

import json
import tomllib
from typing import TYPE_CHECKING, Any

from checks.artifacts.source import Unreadable, opened
from checks.params.values import Unusable, Value, flatten

if TYPE_CHECKING:
    from pathlib import Path

_LIMIT_BYTES = 32 << 20


def read(path: Path, shown: str) -> dict[str, Value]:
    """Return the parameters of a file by dotted name.

    Args:
        path: The file; its ending tells the format, YAML where it tells none.
        shown: How people know it.

    Raises:
        Unusable: It is missing, empty, no text, or not of its format.
    """
    text = read_text(path)
    if not text.strip():
        raise Unusable("empty", "is empty: it holds no parameters", "fill it, or correct `file`")
    if path.suffix.lower() == ".toml":
        return flatten(_toml(text), shown)
    if path.suffix.lower() == ".json":
        return flatten(_json(text), shown)
    return parse_yaml(text, shown)


def parse_yaml(text: str, shown: str) -> dict[str, Value]:
    """Return the parameters of a YAML text by dotted name.

    Raises:
        Unusable: It cannot be read.
    """
    from checks.params.yaml_files import parse  # noqa: PLC0415  # imports yaml: 20 ms

    return parse(text, shown)


def read_text(path: Path) -> str:
    """Return the text of a file.

    Raises:
        Unusable: It cannot be read, is too large, or is not UTF-8.
    """
    try:
        with opened(path) as (file, status):
            if status.st_size > _LIMIT_BYTES:
                message = f"is too large for parameters ({status.st_size:,} bytes)"
                raise Unusable("unreadable", message, "name the file that holds the parameters")
            raw = file.read()
    except Unreadable as error:
        raise Unusable(error.rule, str(error), error.hint) from None
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        message = f"is not UTF-8: byte {error.start:,} is 0x{raw[error.start]:02x}"
        raise Unusable("unreadable", message, "save it as UTF-8") from None


def _toml(text: str) -> Any:
    try:
        return tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise Unusable("unreadable", f"is no TOML: {error}", "correct the file") from None


def _json(text: str) -> Any:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        table = dict(pairs)
        if len(table) < len(pairs):
            names = [name for name, _value in pairs]
            twice = next(name for name in names if names.count(name) > 1)
            message = f"sets {twice!r} twice; readers differ in which they take"
            raise Unusable("duplicate", message, "remove one of the two")
        return table

    try:
        document = json.loads(text, object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        raise Unusable("unreadable", f"is no JSON: {error}", "correct the file") from None
    if not isinstance(document, dict):
        raise Unusable("unreadable", "is no table of parameters", "correct the file")
    return document
