"""Parameters that the run's command line and environment set, over those of the files."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from checks.params.rules import is_secret
from checks.params.values import Value, scalar
from checks.secrets import HIDDEN, without_secrets

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

_ASSIGNMENT = re.compile(r"(\+{0,2})([A-Za-z_][\w.@/-]*)=(.*)", re.DOTALL)
_OPTION = re.compile(r"--?([A-Za-z_][\w.-]*)(?:=(.*))?", re.DOTALL)
_NUMBER = re.compile(r"-\.?\d.*")
_SWEEPS = {"-m", "--multirun"}


@dataclass(frozen=True, slots=True)
class Override:
    """One setting on the command line.

    Attributes:
        name: As written, without dashes and plus signs.
        text: The value as written; None for an option without one.
        origin: How people find it.
        assignment: Whether it is of the form ``name=value``.
        deletes: Whether it removes the parameter (``~name``).
        added: Whether it starts with ``+``.
    """

    name: str
    text: str | None
    origin: str
    assignment: bool = False
    deletes: bool = False
    added: bool = False


def parse(command: Sequence[str]) -> Iterator[Override]:
    """Yield everything on a command line that looks like a setting."""
    for index, word in enumerate(command):
        if not index:
            continue
        if assigned := _ASSIGNMENT.fullmatch(word):
            plus, name, text = assigned.groups()
            yield Override(name, text, f"command line: {word}", assignment=True, added=bool(plus))
        elif option := _OPTION.fullmatch(word):
            name, given = option.groups()
            if given is not None:
                yield Override(name, given, f"command line: {word}")
                continue
            after = command[index + 1] if index + 1 < len(command) else None
            if after is None or (after.startswith("-") and not _NUMBER.fullmatch(after)):
                yield Override(name, None, f"command line: {word}")
            elif not _ASSIGNMENT.fullmatch(after):
                yield Override(name, after, f"command line: {word} {after}")
        elif word.startswith("~") and word[1:2].isidentifier():
            name = word[1:].partition("=")[0]
            yield Override(name, None, f"command line: {word}", assignment=True, deletes=True)


def apply(
    found: dict[str, Value],
    command: Sequence[str],
    declared: Collection[str],
    groups: Collection[str] = (),
) -> dict[str, Value]:
    """Return parameters with those of the command line put over them.

    An option is matched by its whole name, else by the last part of exactly one parameter's
    name (``--lr`` for ``train.lr``); dashes pass for underscores.

    Args:
        found: Parameters of the files.
        command: The run's argv.
        declared: Parameters that rules name; they win where a short name is ambiguous.
        groups: Names that choose a Hydra group and set no value.
    """
    result = dict(found)
    sweep = bool(_SWEEPS & set(command))
    for override in parse(command):
        if override.assignment and override.name.partition("@")[0] in groups:
            continue
        name = resolve(override.name, declared, result)
        if name is None:
            if not override.assignment or override.deletes:
                continue
            name = override.name
        if override.deletes:
            result.pop(name, None)
            continue
        if override.text is None:
            if _is_switch(result.get(name)):
                result[name] = Value(value=True, origin=_origin(override, name))
            continue
        for gone in [key for key in result if key.startswith(f"{name}.")]:
            del result[gone]
        if sweep and override.assignment and "," in override.text:
            values = tuple(scalar(part) for part in override.text.split(","))
            result[name] = Value(values[0], _origin(override, name), alternatives=values[1:])
        else:
            result[name] = Value(scalar(override.text), _origin(override, name))
    return result


def _origin(override: Override, name: str) -> str:
    """Return how people find a setting; never with the value of a secret."""
    text = override.text
    if text and (is_secret(override.name) or is_secret(name)):
        return override.origin.replace(text, HIDDEN)
    return without_secrets(override.origin)


def resolve(name: str, declared: Collection[str], known: Collection[str]) -> str | None:
    """Return which parameter a name on the command line means; None where it cannot be told."""
    plain = name.replace("-", "_")
    for names in (declared, known):
        exact = [each for each in names if name == each or each.replace("-", "_") == plain]
        if exact:
            return exact[0]
    if "." in plain:
        return None
    for names in (declared, known):
        short = [each for each in names if each.rpartition(".")[2].replace("-", "_") == plain]
        if len(short) == 1:
            return short[0]
    return None


def from_environment(variables: Mapping[str, str], environ: Mapping[str, str]) -> dict[str, Value]:
    """Return the parameters that environment variables set.

    Args:
        variables: The variable of each parameter.
        environ: The run's environment.
    """
    return {
        parameter: Value(scalar(environ[variable]), f"environment: {variable}")
        for parameter, variable in variables.items()
        if variable in environ
    }


def _is_switch(value: Value | None) -> bool:
    return value is None or isinstance(value.value, bool)
