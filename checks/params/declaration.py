"""What `[[check.params]]` may say about the parameters of a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from checks.model import Severity
from checks.tables import Table

if TYPE_CHECKING:
    from collections.abc import Iterator

TYPES = ("float", "int", "str", "bool", "list")
RELATIONS = ("less_than", "at_most", "equal", "multiple_of")
_RULE_KEYS = {
    *("min", "max", "above", "below", "choices", "type", "optional"),
    *("exclusive_min", "exclusive_max"),
}


@dataclass(frozen=True, slots=True)
class Rule:
    """What one parameter may be.

    Attributes:
        name: The parameter, dotted: ``train.lr``.
        minimum: Smallest value.
        maximum: Largest value.
        above: The value has to be greater.
        below: The value has to be smaller.
        choices: The values that are allowed.
        kind: ``float``, ``int``, ``str``, ``bool``, ``list``; empty where limits imply a number.
        optional: Whether it may be absent.
    """

    name: str
    minimum: float | None = None
    maximum: float | None = None
    above: float | None = None
    below: float | None = None
    choices: tuple[Any, ...] | None = None
    kind: str = ""
    optional: bool = False

    @property
    def numeric(self) -> bool:
        """Whether the parameter has to be a number."""
        limits = (self.minimum, self.maximum, self.above, self.below)
        return self.kind in {"float", "int"} or any(limit is not None for limit in limits)


@dataclass(frozen=True, slots=True)
class Relation:
    """What parameters have to do with one another.

    Attributes:
        when: The rule holds only where these parameters have these values.
        requires: Parameters that have to be there.
        forbids: Parameters that must not be there.
        compare: ``less_than``, ``at_most``, ``equal`` or ``multiple_of``, with the two sides; a
            side is a parameter or a number.
    """

    when: Mapping[str, Any] = field(default_factory=dict)
    requires: tuple[str, ...] = ()
    forbids: tuple[str, ...] = ()
    compare: tuple[tuple[str, Any, Any], ...] = ()


@dataclass(frozen=True, slots=True)
class Batch:
    """How much memory a batch may take.

    Attributes:
        parameter: The parameter with the number of samples in a batch.
        sample_bytes: Size of one sample in memory; 0 to measure it from `data`.
        data: A data file whose rows are the samples.
        share: Largest share of the memory that a batch may take.
        copies: How many times a batch lies in memory at once (input, gradients, prefetch).
        memory: ``machine`` or ``gpu``.
    """

    parameter: str
    sample_bytes: int = 0
    data: str = ""
    share: float = 0.5
    copies: float = 1.0
    memory: str = "machine"


@dataclass(frozen=True, slots=True)
class ParamsCheck:
    """Which parameters are checked, and where they come from.

    Attributes:
        files: YAML, TOML or JSON files; later ones win. A folder is a Hydra configuration.
        config_name: The primary configuration in a Hydra folder.
        rules: What single parameters may be.
        relations: What parameters have to do with one another.
        environment: Environment variables that set parameters, by parameter.
        batch: How much memory a batch may take.
        command_line: Whether the run's command line overrides the files.
        severity: What a finding weighs.
    """

    files: tuple[str, ...] = ()
    config_name: str = "config"
    rules: tuple[Rule, ...] = ()
    relations: tuple[Relation, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    batch: Batch | None = None
    command_line: bool = True
    severity: Severity = Severity.ERROR

    @classmethod
    def from_table(cls, table: Table) -> ParamsCheck:
        """Return the declaration in a table of the configuration.

        Raises:
            DeclarationError: A key is missing, unknown or of the wrong type.
        """
        environment = table.table("environment")
        batch = table.table("batch")
        ranges = table.table("ranges")
        declaration = cls(
            files=table.strings("file"),
            config_name=table.get("config_name", str, "config"),
            rules=tuple(_rules(ranges)) if ranges is not None else (),
            relations=tuple(_relation(each) for each in table.tables("rules")),
            environment=_texts(environment) if environment is not None else {},
            batch=_batch(batch) if batch is not None else None,
            command_line=table.get("command_line", bool, default=True),
            severity=Severity(table.choice("severity", ("error", "warning"), "error")),
        )
        table.finish()
        if not declaration.files and not declaration.environment and not declaration.command_line:
            raise table.wrong("file", "is missing, and nothing else gives parameters")
        return declaration


def _rules(table: Table, prefix: str = "") -> Iterator[Rule]:
    for key, value in table.values.items():
        below = table.table(key) if isinstance(value, Mapping) else None
        if below is None:
            raise table.wrong(
                key, f"has to be a table such as {{ min = 0, max = 1 }}, not {value!r}"
            )
        if (
            value
            and not _RULE_KEYS & set(value)
            and all(isinstance(v, Mapping) for v in value.values())
        ):
            yield from _rules(below, f"{prefix}{key}.")  # [ranges.train] with lr = {…} inside
        else:
            yield _rule(below, prefix + key)


def _rule(table: Table, name: str) -> Rule:
    table.get("exclusive_min", float, 0.0)
    choices = table.optional("choices", list)
    rule = Rule(
        name,
        minimum=table.optional("min", float),
        maximum=table.optional("max", float),
        above=table.get("above", float, table.values.get("exclusive_min")),
        below=table.get("below", float, table.values.get("exclusive_max")),
        choices=tuple(choices) if choices is not None else None,
        kind=table.choice("type", TYPES, "") if "type" in table.values else "",
        optional=table.get("optional", bool, default=False),
    )
    table.get("exclusive_max", float, 0.0)
    table.get("type", str, "")
    table.finish()
    if rule.choices == ():
        raise table.wrong("choices", "is empty: nothing would be allowed")
    low, high = rule.minimum, rule.maximum
    if low is not None and high is not None and low > high:
        raise table.wrong("min", f"is greater than max: {low} > {high}")
    return rule


def _relation(table: Table) -> Relation:
    when = table.table("when")
    compare = []
    for name in RELATIONS:
        sides = table.optional(name, list)
        if sides is None:
            continue
        good = len(sides) == 2 and all(  # noqa: PLR2004  # left and right
            isinstance(s, (str, int, float)) and not isinstance(s, bool) for s in sides
        )
        if not good:
            raise table.wrong(name, 'has to be two parameters or numbers: ["a.min", "a.max"]')
        compare.append((name, sides[0], sides[1]))
    relation = Relation(
        when=dict(when.values) if when is not None else {},
        requires=table.strings("requires"),
        forbids=table.strings("forbids"),
        compare=tuple(compare),
    )
    table.finish()
    if not (relation.requires or relation.forbids or relation.compare):
        known = ", ".join(("requires", "forbids", *RELATIONS))
        raise table.wrong("requires", f"is missing: a rule needs one of {known}")
    return relation


def _batch(table: Table) -> Batch:
    batch = Batch(
        parameter=table.get("parameter", str),
        sample_bytes=table.size("sample", 0),
        data=table.get("data", str, ""),
        share=table.share("share", 0.5),
        copies=table.get("copies", float, 1.0),
        memory=table.choice("memory", ("machine", "gpu"), "machine"),
    )
    table.finish()
    if bool(batch.sample_bytes) == bool(batch.data):
        raise table.wrong("sample", "or `data` has to be given, one of the two")
    return batch


def _texts(table: Table) -> dict[str, str]:
    return {name: table.get(name, str) for name in table.values}
