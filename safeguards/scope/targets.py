"""Addresses of trackers, registries and databases: on this machine, or beyond it."""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Sequence
from urllib.parse import parse_qs, urlsplit

from safeguards.scope.model import Concern, Reach

TRACKING_NAMES = ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI")
"""Variables that decide where MLflow writes."""

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://?")
_BARE = {"databricks": Reach.MANAGED, "databricks-uc": Reach.MANAGED, "uc": Reach.MANAGED}
_LOCAL_SCHEMES = {"file", "sqlite", "duckdb"}
_MANAGED_SCHEMES = {"databricks", "databricks-uc", "azureml", "sagemaker", "uc", "vertexai"}
_STORAGE_SCHEMES = frozenset(
    {"s3", "s3a", "gs", "gcs", "wasb", "wasbs", "abfs", "abfss", "adl", "hdfs", "viewfs", "dbfs"}
)
_SCHEMES = (
    dict.fromkeys(_LOCAL_SCHEMES, Reach.LOCAL)
    | dict.fromkeys(_MANAGED_SCHEMES, Reach.MANAGED)
    | dict.fromkeys(_STORAGE_SCHEMES, Reach.STORAGE)
)
_WEB_SCHEMES = frozenset({"http", "https", "grpc", "grpcs"})
_DATABASE_SCHEMES = frozenset(
    {"postgresql", "postgres", "mysql", "mariadb", "mssql", "oracle", "redis", "rediss", "mongodb"}
    | {"snowflake", "trino"}
)
_LOCAL_HOSTS = {"localhost", "localhost.localdomain", "ip6-localhost", "host.docker.internal"}


def judge(uri: str) -> Reach:
    """Return where a tracking, registry, database or storage address lies.

    A path is local, and so is a database behind a socket; loopback addresses and this machine's
    own name are. What holds a placeholder (``${HOST}``) is not known.
    """
    text = uri.strip()
    match = _SCHEME.match(text)
    if match is None:
        unknown = Reach.UNKNOWN if text.startswith(("$", "{{")) else Reach.LOCAL
        return _BARE.get(text.lower(), unknown)
    scheme = match[1].lower().partition("+")[0]
    if scheme in _WEB_SCHEMES | _DATABASE_SCHEMES:
        return _judge_host(text, scheme)
    return _SCHEMES.get(scheme, Reach.UNKNOWN)


def shown(uri: str) -> str:
    """Return scheme and host of an address: no user, password, path or query."""
    text = uri.strip()
    match = _SCHEME.match(text)
    if match is None:
        return text if text.lower() in _BARE else "(an address)"
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError:
        return f"{match[1]}://…"
    return f"{match[1]}://{host or ''}{f':{port}' if port else ''}"


def tracker_concern(name: str, uri: str, where: str, *, certain: bool = True) -> Concern | None:
    """Return what is to be said of a tracker or registry at `uri`; None where it is local."""
    reach = judge(uri)
    if reach is Reach.LOCAL:
        return None
    return Concern(
        what=f"{name} at {shown(uri)}",
        where=where,
        why=f"it is {reach.value}, and what is written there cannot be put back",
        fix="use a tracker on this machine, for example MLFLOW_TRACKING_URI=sqlite:///mlflow.db",
        certain=certain and reach in {Reach.REMOTE, Reach.MANAGED},
    )


def option_value(words: Sequence[str], *names: str) -> str | None:
    """Return the value that a command's words give an option (``--name v``, ``--name=v``)."""
    for number, word in enumerate(words):
        option, has_value, value = word.partition("=")
        if option in names:
            return value if has_value else next(iter(words[number + 1 : number + 2]), None)
    return None


def is_local_host(host: str) -> bool:
    """Return whether a host name or address is this machine."""
    name = host.lower().rstrip(".").strip("[]")
    if name in _LOCAL_HOSTS or name.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(name.partition("%")[0])
    except ValueError:
        own = socket.gethostname().lower()
        return bool(own) and name in {own, own.partition(".")[0]}
    mapped = getattr(address, "ipv4_mapped", None) or address
    return bool(mapped.is_loopback or mapped.is_unspecified)


def _judge_host(text: str, scheme: str) -> Reach:
    try:
        parts = urlsplit(text)
        hosts = _hosts(parts.netloc, parts.hostname)
    except ValueError:
        return Reach.UNKNOWN
    hosts += parse_qs(parts.query).get("host", [])
    named = [host for host in hosts if not host.startswith(("/", "%2F", "%2f"))]
    if any(mark in host for host in named for mark in "${}<>"):
        return Reach.UNKNOWN
    if not named:
        # A database without a host is behind a local socket; a web address needs one.
        return Reach.UNKNOWN if scheme in _WEB_SCHEMES else Reach.LOCAL
    return Reach.LOCAL if all(is_local_host(host) for host in named) else Reach.REMOTE


def _hosts(netloc: str, hostname: str | None) -> list[str]:
    if "," not in netloc:
        return [hostname] if hostname else []
    # libpq and Redis allow several: user@one:5432,two:5432
    return [part.partition(":")[0] for part in netloc.rpartition("@")[2].split(",")]
