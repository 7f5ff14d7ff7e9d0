"""Holding parameters against their rules; every finding names value, limit and origin."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from checks.model import Finding, Severity
from checks.params.values import FROM_ENVIRONMENT, Value, scalar
from checks.secrets import HIDDEN, is_secret_name, without_secrets

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from checks.params.declaration import Relation, Rule

_SHOWN = 60
_SECRET_WORDS = ("secret", "password", "passwd", "passphrase", "apikey", "api_key", "credential")
_TOLERANCE = 1e-9


def check_rule(rule: Rule, value: Value | None, subject: str) -> Iterator[Finding]:
    """Yield what is wrong with one parameter."""
    if value is None:
        if not rule.optional:
            message = f"{rule.name} is not set"
            hint = f"set it in {subject}, or mark it optional = true"
            yield _finding("missing", subject, rule.name, message, hint=hint)
        return
    if value.misread and rule.numeric:
        message = (
            f"{rule.name} = {show(rule.name, value.value)}: {value.misread}, "
            f"not as a number (from {value.origin})"
        )
        hint = "write it with a dot and a signed exponent, such as 1.0e-3"
        yield Finding(
            "params.type", Severity.WARNING, subject, message, column=rule.name, hint=hint
        )
    for each in (value.value, *value.alternatives):
        yield from _check_value(rule, each, value.origin, subject)


def _check_value(rule: Rule, value: Any, origin: str, subject: str) -> Iterator[Finding]:
    shown = show(rule.name, value)
    base = f"{rule.name} = {shown} (from {origin})"
    if rule.choices is not None and not any(_same(value, choice) for choice in rule.choices):
        allowed = ", ".join(show(rule.name, choice) for choice in rule.choices)
        hint = f"use one of {allowed}"
        if isinstance(value, str) and any(_same(scalar(value), c) for c in rule.choices):
            hint += "; it is a text here: remove its quotes"
        yield _finding(
            "choices", subject, rule.name, f"{base} is none of {allowed}",
            value=value, limit=allowed, hint=hint,
        )  # fmt: skip
        return
    problem = _type_problem(rule, value)
    if problem is not None:
        yield _finding(
            "type", subject, rule.name, f"{base} {problem}",
            value=value, limit=rule.kind or "number", hint=_type_hint(rule, value, origin),
        )  # fmt: skip
        return
    if rule.numeric and isinstance(value, (int, float)):
        yield from _check_limits(rule, value, base, subject)


def _check_limits(rule: Rule, value: float, base: str, subject: str) -> Iterator[Finding]:
    if isinstance(value, float) and math.isnan(value):
        hint = "set it to a number"
        yield _finding("nan", subject, rule.name, f"{base} is not a number", value="nan", hint=hint)
        return
    limits = (
        (rule.minimum, value.__lt__, "smaller than", "at least"),
        (rule.maximum, value.__gt__, "greater than", "at most"),
        (rule.above, value.__le__, "not greater than", "greater than"),
        (rule.below, value.__ge__, "not smaller than", "smaller than"),
    )
    for limit, fails, how, wanted in limits:
        if limit is not None and _holds(fails, value, limit):
            yield _finding(
                "range", subject, rule.name, f"{base} is {how} {limit:g}",
                value=value, limit=limit, hint=f"set it to {wanted} {limit:g}",
            )  # fmt: skip


def _holds(fails: Any, value: float, limit: float) -> bool:
    outcome = fails(limit)
    if outcome is NotImplemented:  # int against float: compare the exact numbers
        return bool(fails.__name__ and getattr(float(value), fails.__name__)(limit))
    return bool(outcome)


def check_relation(
    relation: Relation, found: Mapping[str, Value], subject: str
) -> Iterator[Finding]:
    """Yield where parameters contradict one another."""
    for name, wanted in relation.when.items():
        if name not in found or not _same(found[name].value, wanted):
            return
    condition = " and ".join(f"{n} = {show(n, v)}" for n, v in relation.when.items())
    because = f" where {condition}" if condition else ""
    for name in relation.requires:
        if name not in found or found[name].value is None:
            message = f"{name} is not set, but is needed{because}"
            yield _finding("requires", subject, name, message, hint=f"set {name}")
    for name in relation.forbids:
        if name in found and found[name].value is not None:
            message = f"{name} is set (from {found[name].origin}), which must not be{because}"
            yield _finding("forbids", subject, name, message, hint=f"remove {name}")
    for how, left, right in relation.compare:
        yield from _compare(how, (left, right), found, subject)


_WORDS = {
    "less_than": "smaller than",
    "at_most": "at most",
    "equal": "equal to",
    "multiple_of": "a multiple of",
}


def _compare(
    how: str, sides: tuple[Any, Any], found: Mapping[str, Value], subject: str
) -> Iterator[Finding]:
    numbers: list[float] = []
    texts: list[str] = []
    for side in sides:
        value = found.get(side) if isinstance(side, str) else Value(side, "the rule")
        if value is None:
            message = f"{side} is not set, but a rule compares it"
            yield _finding("missing", subject, str(side), message, hint=f"set {side}")
            return
        if isinstance(value.value, bool) or not isinstance(value.value, (int, float)):
            message = f"{side} = {show(str(side), value.value)} (from {value.origin}) is no number"
            hint = "set it to a number"
            yield _finding("type", subject, str(side), message, hint=hint)
            return
        numbers.append(value.value)
        named = isinstance(side, str)
        shown = show(str(side), float(value.value)) if named else f"{side:g}"
        texts.append(f"{side} = {shown} (from {value.origin})" if named else shown)
    if not _related(how, numbers[0], numbers[1]):
        message = f"{texts[0]} has to be {_WORDS[how]} {texts[1]}"
        yield _finding(
            "relation", subject, str(sides[0]), message,
            value=numbers[0], limit=HIDDEN if is_secret(str(sides[1])) else numbers[1],
            hint=f"change {sides[0]} or {sides[1]}",
        )  # fmt: skip


def _related(how: str, left: float, right: float) -> bool:
    if math.isnan(left) or math.isnan(right):
        return False
    if how == "less_than":
        return left < right
    if how == "at_most":
        return left <= right
    if how == "equal":
        return math.isclose(left, right, rel_tol=_TOLERANCE)
    if not right or math.isinf(left) or math.isinf(right):
        return False
    return math.isclose(left / right, round(left / right), rel_tol=_TOLERANCE)


def _type_problem(rule: Rule, value: Any) -> str | None:
    """Return what is wrong with the type of a value; None where nothing is."""
    if rule.numeric:
        return _number_problem(rule, value)
    kinds: dict[str, tuple[type, str]] = {
        "str": (str, "a text"),
        "bool": (bool, "true or false"),
        "list": (list, "a list"),
    }
    if rule.kind in kinds and not isinstance(value, kinds[rule.kind][0]):
        return f"is {kind_of(value)}, not {kinds[rule.kind][1]}"
    return None


def _number_problem(rule: Rule, value: Any) -> str | None:
    wanted = "a whole number" if rule.kind == "int" else "a number"
    if isinstance(value, bool):
        return f"is {str(value).lower()}, not {wanted}"
    if isinstance(value, str):
        numeric = isinstance(scalar(value), (int, float)) and not isinstance(scalar(value), bool)
        return (
            f"is a text that looks like a number, not {wanted}" if numeric else f"is not {wanted}"
        )
    if not isinstance(value, (int, float)):
        return f"is {kind_of(value)}, not {wanted}"
    if rule.kind == "int" and isinstance(value, float) and not math.isnan(value):
        return "is not a whole number"
    return None


def _type_hint(rule: Rule, value: Any, origin: str) -> str:
    if rule.numeric and isinstance(value, str):
        if FROM_ENVIRONMENT in origin:
            return "decode it: ${oc.decode:${oc.env:NAME}}"
        return "remove its quotes" if isinstance(scalar(value), (int, float)) else "set a number"
    return f"set {rule.name} to a value of the right type"


def kind_of(value: Any) -> str:
    """Return what a value is, in words."""
    if value is None:
        return "empty (null)"
    names = {bool: "true or false", str: "a text", int: "a whole number", float: "a number"}
    names |= {list: "a list", dict: "a table"}
    return names.get(type(value), f"a {type(value).__name__}")


def is_secret(name: str) -> bool:
    """Return whether a parameter is named like a secret."""
    return is_secret_name(name) or any(word in name.lower() for word in _SECRET_WORDS)


def show(name: str, value: Any) -> str:
    """Return a value as it may be shown: short, and never that of a secret."""
    if is_secret(name):
        return HIDDEN
    text = f"{value:g}" if isinstance(value, float) else without_secrets(repr(value))
    plain = text.encode("utf-8", "backslashreplace").decode()
    return plain if len(plain) <= _SHOWN else plain[: _SHOWN - 1] + "…"


def _same(value: Any, choice: Any) -> bool:
    """Return whether values are equal, without taking true for 1."""
    return isinstance(value, bool) == isinstance(choice, bool) and bool(value == choice)


def _finding(rule: str, subject: str, name: str, message: str, **more: Any) -> Finding:
    value = more.pop("value", None)
    if value is not None and (not isinstance(value, (int, float)) or is_secret(name)):
        value = show(name, value) if not isinstance(value, str) or value != "nan" else value
    return Finding(
        f"params.{rule}", Severity.ERROR, subject, message, column=name, value=value, **more
    )
