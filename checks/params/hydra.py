"""Hydra's configuration folders, composed as Hydra composes them, without Hydra.

Covered: the primary configuration, its defaults list (groups, nested lists, `_self_`,
`optional`, `override`, packages), and groups and values set on the command line. Source:
https://hydra.cc/docs/advanced/defaults_list/. Interpolations of other parameters and of
environment variables are resolved; others stay as they are written.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from checks.params import files, overrides
from checks.params.values import FROM_ENVIRONMENT, Unusable, Value, scalar

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from checks.context import Context

_PACKAGE = re.compile(r"^\s*#\s*@package\s+(\S+)", re.MULTILINE)
_ENTRY = re.compile(
    r"(?P<words>(?:(?:optional|override)\s+)*)(?P<group>[^@\s]+)(?:@(?P<package>\S+))?"
)
_REFERENCE = re.compile(r"\$\{([\w.]+)\}")
_FROM_ENVIRONMENT = re.compile(r"\$\{oc\.env:([A-Za-z_]\w*)(?:,([^}]*))?\}")
_DECODED = re.compile(r"\$\{oc\.decode:\s*(\$\{.*\})\}")
_SPREAD_LIMIT = 1000
_NESTING_LIMIT = 40
_HOPS = 10


@dataclass(frozen=True, slots=True)
class _Default:
    """One line of a defaults list."""

    path: str
    package: str | None = None
    optional: bool = False


@dataclass(slots=True)
class _Composer:
    folder: Path
    shown: str
    choices: dict[str, str | None]
    found: dict[str, Value] = field(default_factory=dict)
    loaded: int = 0
    open: list[str] = field(default_factory=list)

    def add(self, default: _Default, parent_package: str = "", *, primary: bool = False) -> None:
        """Compose one configuration file and all that its defaults list names."""
        self.loaded += 1
        self.open.append(default.path)
        if self.loaded > _SPREAD_LIMIT or len(self.open) > _NESTING_LIMIT:
            raise Unusable("unreadable", "has a defaults list without end", "break the circle")
        path = self.folder / f"{default.path}.yaml"
        if not path.exists():
            if default.optional:
                self.open.pop()
                return
            if primary:
                message = f"is a folder without {path.name}, its primary configuration"
                hint = f"correct `config_name` (or `file`), or create {default.path}.yaml in it"
                raise Unusable("missing", message, hint)
            message = (
                f"is asked for {default.path!r} by its defaults or the command line, but "
                f"{path.name} is not there"
            )
            raise Unusable("missing", message, f"name another, or create {default.path}.yaml in it")
        shown = f"{self.shown}/{default.path}.yaml"
        text = files.read_text(path)
        entries = files.parse_yaml(text, shown) if text.strip() else {}
        own = {
            k: v for k, v in entries.items() if k != "defaults" and not k.startswith("defaults.")
        }
        package = self._package(default, text, parent_package, primary=primary)
        lines = list(_lines(entries))
        if not any(line == "_self_" for line in lines):
            lines.append("_self_")
        group = default.path.rpartition("/")[0]
        for line in lines:
            if line == "_self_":
                self._put(own, package)
            else:
                for inner in self._defaults(line, group, "" if primary else package):
                    self.add(inner, package if not primary else "")
        self.open.pop()

    def _package(self, default: _Default, text: str, parent: str, *, primary: bool) -> str:
        """Return where the values of a file go: the folders above it, unless it says otherwise."""
        if primary:
            return ""
        named = default.package
        if named is None:
            header = _PACKAGE.search(text)
            named = header[1] if header else None
        group = default.path.rpartition("/")[0].replace("/", ".")
        if named is None:
            return group
        if named == "_global_":
            return ""
        if named.startswith("_global_."):
            return named.removeprefix("_global_.")
        named = named.replace("_group_", group)
        here = named in {"_here_", "."}
        absolute = default.package is None
        if here:
            return parent
        return named if absolute or not parent else f"{parent}.{named}"

    def _put(self, own: Mapping[str, Value], package: str) -> None:
        for name, value in own.items():
            whole = f"{package}.{name}" if package else name
            if isinstance(value.value, list) or not isinstance(value.value, (list, dict)):
                for gone in [k for k in self.found if k.startswith(f"{whole}.")]:
                    del self.found[gone]
            self.found[whole] = value

    def _defaults(self, line: Any, group: str, package: str) -> Iterator[_Default]:
        """Return what one line of a defaults list loads, with the command line's choice."""
        if isinstance(line, str):
            name, _, own_package = line.partition("@")
            yield _Default(_below(group, name), own_package or None)
            return
        for key, value in line.items() if isinstance(line, dict) else ():
            match = _ENTRY.fullmatch(str(key).strip())
            if match is None or "override" in match["words"].split():
                continue
            path = _below(group, match["group"])
            chosen = self.choices.get(_choice_key(path, match["package"], package), value)
            for option in chosen if isinstance(chosen, list) else [chosen]:
                if option is not None:
                    optional = "optional" in match["words"].split()
                    yield _Default(f"{path}/{option}", match["package"], optional)


def compose(
    folder: Path, config_name: str, command: Sequence[str], context: Context
) -> dict[str, Value]:
    """Return the parameters of a Hydra configuration by dotted name.

    Args:
        folder: The configuration's folder (`config_path`).
        config_name: The primary configuration, unless the command line names another.
        command: The run's argv; it chooses groups (values are put over them by the caller).
        context: Tells how people know the folder.

    Raises:
        Unusable: A file is missing or cannot be read.
    """
    settings = list(overrides.parse(command))
    for each in settings:
        if each.name in {"config-name", "cn"} and each.text is not None:
            config_name = each.text
    name = config_name.removesuffix(".yaml")
    primary = _Default(name)
    choices = _overridden(folder, name)
    added: list[_Default] = []
    for each in settings:
        if each.assignment and (folder / each.name.partition("@")[0]).is_dir():
            group, _, package = each.name.partition("@")
            if each.added and each.text is not None:
                added.append(_Default(f"{group}/{each.text}", package or None))
                choices |= _overridden(folder, f"{group}/{each.text}")
            else:
                choices[each.name] = None if each.deletes else each.text
    composer = _Composer(folder, context.subject(folder), choices)
    composer.add(primary, primary=True)
    for default in added:
        composer.add(default)
    return composer.found


def groups(folder: Path) -> set[str]:
    """Return the configuration groups of a folder: its folders, by their path inside it."""
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_dir()}


def _overridden(folder: Path, name: str) -> dict[str, str | None]:
    """Return the choices that `override group: option` lines of the primary file make."""
    path = folder / f"{name}.yaml"
    text = files.read_text(path) if path.exists() else ""
    entries = files.parse_yaml(text, name) if text.strip() else {}
    choices: dict[str, str | None] = {}
    for line in _lines(entries):
        for key, value in line.items() if isinstance(line, dict) else ():
            match = _ENTRY.fullmatch(str(key).strip())
            if match and "override" in match["words"].split():
                group = match["group"].removeprefix("/")
                choices[_choice_key(group, match["package"], "")] = value
    return choices


def _lines(entries: Mapping[str, Value]) -> Iterator[Any]:
    """Yield the lines of a defaults list from flattened entries."""
    index = 0
    count = len(entries["defaults"].value) if "defaults" in entries else 0
    while index < count:
        whole = entries.get(f"defaults.{index}")
        if whole is not None:
            yield whole.value
        else:
            prefix = f"defaults.{index}."
            yield {
                key.removeprefix(prefix): value.value
                for key, value in entries.items()
                if key.startswith(prefix) and not key.rpartition(".")[2].isdecimal()
            }
        index += 1


def _choice_key(group: str, package: str | None, parent: str) -> str:
    """Return how the command line names a choice: ``group``, or ``group@package``."""
    if package is None or package == "_global_":
        return group
    return f"{group}@{parent}.{package}" if parent else f"{group}@{package}"


def _below(group: str, name: str) -> str:
    if name.startswith("/") or not group:
        return name.removeprefix("/")
    return f"{group}/{name}"


def interpolate(found: dict[str, Value], context: Context) -> dict[str, Value]:
    """Return parameters with references to others and to environment variables resolved.

    Args:
        found: Parameters by dotted name, overrides included.
        context: Gives environment variables; they stay texts, as OmegaConf leaves them.
    """
    result: dict[str, Value] = {}
    for name, value in found.items():
        current, origin = value.value, value.origin
        for _hop in range(_HOPS):
            variable = isinstance(current, str) and _FROM_ENVIRONMENT.fullmatch(current)
            resolved = _resolve(current, name, found, context)
            if resolved is current:
                break
            if variable:
                origin = f"{value.origin}{FROM_ENVIRONMENT}{variable[1]}"
            current = resolved
        result[name] = replace(value, value=current, origin=origin, misread="")
    return result


def _resolve(value: Any, name: str, found: Mapping[str, Value], context: Context) -> Any:
    """Return the value that an interpolation stands for; the text itself where it cannot be."""
    if not isinstance(value, str) or "${" not in value:
        return value
    if match := _DECODED.fullmatch(value):
        inner = _resolve(match[1], name, found, context)
        return value if inner is match[1] else scalar(inner) if isinstance(inner, str) else inner
    if match := _FROM_ENVIRONMENT.fullmatch(value):
        text = context.environ.get(match[1], match[2])
        return value if text is None else text
    if match := _REFERENCE.fullmatch(value):
        target = match[1]
        if target.startswith("."):
            dots = len(target) - len(target.lstrip("."))
            parents = name.split(".")[:-dots]
            target = ".".join([*parents, target.lstrip(".")])
        return found[target].value if target in found and target != name else value
    return value
