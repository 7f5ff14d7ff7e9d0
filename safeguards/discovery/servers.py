"""Finds the MLflow server that listens on a port of this machine, through `/proc`."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

_LISTENING = "0A"  # TCP_LISTEN in /proc/net/tcp
_STORES = ("_MLFLOW_SERVER_FILE_STORE", "_MLFLOW_SERVER_REGISTRY_STORE")
_ARTIFACTS = ("_MLFLOW_SERVER_ARTIFACT_DESTINATION", "_MLFLOW_SERVER_ARTIFACT_ROOT")


@dataclass(frozen=True, slots=True)
class Server:
    """A tracking server that runs here.

    Attributes:
        pid: One of its processes.
        folder: Its current folder: what relative paths start from.
        stores: URIs of its tracking and registry stores.
        artifacts: URIs of its artifacts.
    """

    pid: int
    folder: Path
    stores: tuple[str, ...]
    artifacts: tuple[str, ...]


def find(port: int) -> Server | None:
    """Return the MLflow server that listens on `port`; None where none of ours does.

    A server tells its workers where its stores are by environment variables, which can be
    read for processes of the same user.
    """
    sockets = _listening(port)
    if not sockets:
        return None
    for pid in _own_processes():
        if _holds(pid, sockets) and (server := _read(pid)) is not None:
            return server
    return None


def _listening(port: int) -> frozenset[str]:
    """Return the inodes of the sockets that listen on a port."""
    inodes = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with contextlib.suppress(OSError), open(table, encoding="ascii") as lines:
            next(lines, None)
            for line in lines:
                fields = line.split()
                if fields[3] == _LISTENING and int(fields[1].rpartition(":")[2], 16) == port:
                    inodes.add(f"socket:[{fields[9]}]")
    return frozenset(inodes)


def _own_processes() -> list[int]:
    uid = os.getuid()
    found = []
    with contextlib.suppress(OSError):
        for name in os.listdir("/proc"):
            with contextlib.suppress(OSError):
                if name.isdigit() and os.stat(f"/proc/{name}").st_uid == uid:
                    found.append(int(name))
    return found


def _holds(pid: int, sockets: frozenset[str]) -> bool:
    with contextlib.suppress(OSError):
        for fd in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                if os.readlink(f"/proc/{pid}/fd/{fd}") in sockets:
                    return True
    return False


def _read(pid: int) -> Server | None:
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            pairs = file.read().split(b"\0")
        folder = os.readlink(f"/proc/{pid}/cwd")
    except OSError:
        return None
    environ = dict(os.fsdecode(pair).partition("=")[::2] for pair in pairs if b"=" in pair)
    stores = tuple(environ[name] for name in _STORES if environ.get(name))
    artifacts = tuple(environ[name] for name in _ARTIFACTS if environ.get(name))
    return Server(pid, Path(folder), stores, artifacts) if stores or artifacts else None
