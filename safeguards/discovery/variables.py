"""Where the environment and `.env` say that trackers, databases and artifacts are."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import unquote, urlsplit

TRACKERS = (
    "MLFLOW_TRACKING_URI",
    "MLFLOW_REGISTRY_URI",
    "MLFLOW_BACKEND_STORE_URI",
    "MLFLOW_REGISTRY_STORE_URI",
    "_MLFLOW_SERVER_FILE_STORE",
    "_MLFLOW_SERVER_REGISTRY_STORE",
)
ARTIFACT_ROOTS = (
    "MLFLOW_DEFAULT_ARTIFACT_ROOT",
    "MLFLOW_ARTIFACT_ROOT",
    "MLFLOW_ARTIFACTS_DESTINATION",
    "_MLFLOW_SERVER_ARTIFACT_ROOT",
    "_MLFLOW_SERVER_ARTIFACT_DESTINATION",
)
_LONGEST = 1 << 20
_LINE = re.compile(r"\s*(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)\s*=\s*(.*)")
_SECRET = re.compile(r"//[^@/]*@")


def dotenv(project: Path) -> dict[str, str]:
    """Return the variables of the project's `.env`; empty where there is none.

    Quotes are taken off and nothing is expanded or run.
    """
    try:
        with open(project / ".env", "rb") as file:
            text = file.read(_LONGEST).decode("utf-8", "surrogateescape")
    except OSError:
        return {}
    found = {}
    for line in text.splitlines():
        match = _LINE.fullmatch(line)
        if match is not None:
            found[match[1]] = _unquoted(match[2].strip())
    return found


def _unquoted(value: str) -> str:
    if value[:1] in {"'", '"'}:
        end = value.find(value[0], 1)
        return value[1:end] if end > 0 else value[1:]
    return re.split(r"\s+#", value, maxsplit=1)[0].strip()


def merged(project: Path, environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment over `.env`, as the loaders of `.env` files do."""
    return {**dotenv(project), **environ}


def sqlite_path(url: str, base: Path) -> Path | None:
    """Return the file of an SQLite URL (SQLAlchemy's form), None for anything else.

    Args:
        url: ``sqlite:///relative.db``, ``sqlite:////absolute.db``, with or without a driver.
        base: What a relative path starts from.
    """
    scheme, separator, rest = url.partition("://")
    if not separator or scheme.partition("+")[0] != "sqlite":
        return None
    path = rest.partition("?")[0]
    if not path.startswith("/") or path in {"/", "/:memory:"}:
        return None
    return Path(os.path.normpath(base / os.path.expanduser(path[1:])))


def local_folder(uri: str, base: Path) -> Path | None:
    """Return the folder that an artifact URI means on this machine, None where it is elsewhere."""
    if not uri:
        return None
    if "://" not in uri and not uri.startswith("file:"):
        return Path(os.path.normpath(base / os.path.expanduser(uri)))
    try:
        parts = urlsplit(uri)
    except ValueError:
        return None
    if parts.scheme != "file" or parts.netloc not in {"", "localhost"}:
        return None
    return Path(os.path.normpath(base / unquote(parts.path)))


def is_remote(uri: str) -> bool:
    """Return whether a URI means something that is not this machine."""
    try:
        parts = urlsplit(uri)
    except ValueError:
        return False
    if parts.scheme in {"", "file", "sqlite", "mlflow-artifacts", "runs", "models"}:
        return False
    return not is_loopback(parts.hostname or "")


def is_loopback(host: str) -> bool:
    """Return whether a host name means this machine."""
    return host in {"localhost", "::1", "0.0.0.0"} or host.startswith("127.")  # noqa: S104


def shown(uri: str) -> str:
    """Return a URI without user and password."""
    return _SECRET.sub("//", uri.partition("?")[0])
