"""Parameters from YAML: each with its line, duplicate keys seen, ``1e-3`` read as people mean it.

PyYAML follows YAML 1.1, in which a float needs a dot: it reads ``1e-3`` as a text. Hydra's
reader and YAML 1.2 read a number. Such a value is taken as a number here, and marked.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import yaml

from checks.params.values import ENTRIES_LIMIT, Scientific, Unusable, Value

if TYPE_CHECKING:
    from collections.abc import Iterator

_Base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_TAG = "!guard/scientific"
_DOTLESS = re.compile(r"[-+]?(?:\d[\d_]*)(?:\.[\d_]*)?[eE][-+]?\d+|[-+]?\.\d[\d_]*[eE][-+]?\d+")
_DEPTH_LIMIT = 60
_MISREAD = "PyYAML reads it as a text"


class _Loader(_Base):  # type: ignore[misc]
    """PyYAML's safe loader, and floats of YAML 1.2."""


def _scientific(_loader: Any, node: Any) -> Scientific:
    return Scientific(str(node.value).replace("_", ""))


# What the loader itself takes for a float (1.0e-3) is found first and stays as it is.
_Loader.add_implicit_resolver(_TAG, _DOTLESS, list("-+.0123456789"))
_Loader.add_constructor(_TAG, _scientific)


def parse(text: str, shown: str) -> dict[str, Value]:
    """Return the entries of a YAML text by dotted name.

    Raises:
        Unusable: It is no YAML, no table, sets a key twice, or is built to exhaust its reader.
    """
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        if not isinstance(node, yaml.MappingNode):
            raise Unusable("unreadable", "is no table of parameters", "write name: value lines")
        found: dict[str, Value] = {}
        for name, value, line in _entries(loader, node, "", 0):
            if len(found) >= ENTRIES_LIMIT:
                message = f"has more than {ENTRIES_LIMIT:,} entries"
                raise Unusable("unreadable", message, "name the file that holds the parameters")
            misread = _MISREAD if isinstance(value, Scientific) else ""
            plain = float(value) if misread else value
            found[name] = Value(plain, f"{shown}:{line}", misread)
    except yaml.YAMLError as error:
        raise Unusable("unreadable", f"is no YAML: {_first_line(error)}", "correct it") from None
    except (ValueError, RecursionError) as error:
        message = f"has a value that cannot be read ({type(error).__name__})"
        raise Unusable("unreadable", message, "correct the file") from None
    finally:
        loader.dispose()
    return found


def _entries(loader: Any, node: Any, name: str, depth: int) -> Iterator[tuple[str, Any, int]]:
    if depth > _DEPTH_LIMIT:
        raise Unusable("unreadable", "is nested too deep, or in itself", "make it flatter")
    line = node.start_mark.line + 1
    if isinstance(node, yaml.ScalarNode):
        yield name, loader.construct_object(node, deep=True), line
    elif isinstance(node, yaml.SequenceNode):
        items = list(_items(loader, node))
        if name:
            yield name, items, line
        for index, inner in enumerate(node.value):
            yield from _entries(loader, inner, f"{name}.{index}" if name else str(index), depth + 1)
    elif isinstance(node, yaml.MappingNode):
        _refuse_duplicates(node)
        loader.flatten_mapping(node)  # merge keys: <<
        for key_node, inner in node.value:
            key = str(key_node.value)
            yield from _entries(loader, inner, f"{name}.{key}" if name else key, depth + 1)


def _items(loader: Any, node: Any) -> Iterator[Any]:
    """Yield the plain values of a list; nested ones only as their kind."""
    for inner in node.value:
        if isinstance(inner, yaml.ScalarNode):
            value = loader.construct_object(inner, deep=True)
            yield float(value) if isinstance(value, Scientific) else value
        else:
            yield [] if isinstance(inner, yaml.SequenceNode) else {}


def _refuse_duplicates(node: Any) -> None:
    seen: dict[str, int] = {}
    for key_node, _inner in node.value:
        key, line = str(key_node.value), key_node.start_mark.line + 1
        if key in seen and key != "<<":
            message = f"sets {key!r} twice, in lines {seen[key]} and {line}; the last one wins"
            raise Unusable("duplicate", message, "remove one of the two")
        seen[key] = line


def _first_line(error: Any) -> str:
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or str(error).partition("\n")[0]
    return f"{problem} in line {mark.line + 1}" if mark is not None else str(problem)
