"""Environment variables of a run: which there were and whether they changed, not what they said.

A value is kept as HMAC-SHA256 under the store's key (RFC 2104), so that a snapshot that leaks
cannot be searched for a password; in clear only where the project lists the name.
"""

from __future__ import annotations

import hmac
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

_SECRET = re.compile(
    r"(?:^|[_-])(?:API_?KEY|ACCESS_?KEY(?:_?ID)?|AUTH|BEARER|COOKIE|CREDENTIALS?|DSN|JWT|KEY"
    r"|PASS|PASSPHRASE|PASSWD|PASSWORD|PAT|PRIVATE|PWD|SALT|SECRETS?|SESSION|SIGNATURE|TOKENS?)"
    r"(?:$|[_\-\d])"
    r"|(?:PASSWORD|PASSWD|SECRET|TOKEN|APIKEY|CREDENTIAL)",
    re.IGNORECASE,
)
_URL_SECRET = re.compile(r"\w+://[^/\s:@]*:[^/\s@]+@")
_KEY_BYTES = 16
_HARMLESS = frozenset({"PWD", "OLDPWD"})
_VOLATILE = frozenset(
    {"_", "PWD", "OLDPWD", "SHLVL", "COLUMNS", "LINES", "WINDOWID", "TERM_SESSION_ID"}
    | {"SSH_AUTH_SOCK", "SSH_CLIENT", "SSH_CONNECTION", "SSH_TTY", "GPG_TTY", "RANDOM"}
)
"""Names that differ from shell to shell and decide nothing about a run."""


@dataclass(frozen=True, slots=True)
class VariableChange:
    """One variable that differs between two captures.

    Attributes:
        action: ``added``, ``modified`` or ``deleted``.
        name: Name of the variable.
        old: Value before, None unless it was captured in clear.
        new: Value after, None unless it was captured in clear.
    """

    action: str
    name: str
    old: str | None = None
    new: str | None = None


def capture_variables(
    environ: Mapping[str, str], listed: Sequence[str], key: bytes
) -> dict[str, dict[str, Any]]:
    """Return what a snapshot keeps of the environment variables, as JSON.

    Args:
        environ: The child's variables.
        listed: Names whose values may be kept; shell patterns (``MLFLOW_*``) may, but a name
            that looks like a secret has to be spelt out.
        key: The store's secret key, at least 16 bytes.

    Returns:
        Each name with ``hash`` (hexadecimal HMAC-SHA256), and ``value`` where it is listed.

    Raises:
        ValueError: The key is too short to protect anything.
    """
    if len(key) < _KEY_BYTES:
        raise ValueError("the key for environment variables needs at least 16 bytes")
    captured: dict[str, dict[str, Any]] = {}
    for name in sorted(environ):
        if name in _VOLATILE and name not in listed:
            continue
        value = environ[name]
        entry = {"hash": _digest(name, value, key)}
        if _may_show(name, value, listed):
            entry["value"] = value
        captured[_text(name)] = entry
    return captured


def changed_variables(
    old: Mapping[str, Mapping[str, Any]], new: Mapping[str, Mapping[str, Any]]
) -> list[VariableChange]:
    """Return the variables that differ between two captures under the same key, by name."""
    changes = []
    for name in sorted(old.keys() | new.keys()):
        before, after = old.get(name), new.get(name)
        if before is None and after is not None:
            changes.append(VariableChange("added", name, None, after.get("value")))
        elif after is None and before is not None:
            changes.append(VariableChange("deleted", name, before.get("value"), None))
        elif before is not None and after is not None and before["hash"] != after["hash"]:
            changes.append(
                VariableChange("modified", name, before.get("value"), after.get("value"))
            )
    return changes


def looks_secret(name: str) -> bool:
    """Return whether a variable's name says that its value is nobody's business."""
    return name not in _HARMLESS and _SECRET.search(name) is not None


def _may_show(name: str, value: str, listed: Sequence[str]) -> bool:
    if name in listed:
        return True
    if looks_secret(name) or _URL_SECRET.search(value):
        return False
    return any(fnmatchcase(name, pattern) for pattern in listed)


def _digest(name: str, value: str, key: bytes) -> str:
    """Return the keyed hash; the name is part of it, so that equal values do not show."""
    message = os.fsencode(name) + b"\0" + os.fsencode(value)
    return hmac.digest(key, message, "sha256").hex()


def _text(name: str) -> str:
    """Return a name that JSON can carry: bytes that are no text are escaped."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")
