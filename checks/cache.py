"""Names a check by everything that its result depends on."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import time
from dataclasses import asdict, is_dataclass
from typing import TYPE_CHECKING, Any

from checks.data.source import SourceProblem, find_source

if TYPE_CHECKING:
    from pathlib import Path

    from checks.context import Context

_PACKAGES = ("checks", "pandera", "polars")
_RACY_NS = 2_000_000_000
WORTH_BYTES = 1 << 20
"""Smaller files are read again sooner than looked up."""
_INPUTS = ("path", "reference", "training", "serving")


def cache_key(declaration: Any, context: Context) -> str | None:
    """Return the SHA-256 (hex) over a declaration and its inputs; None where that is unsafe.

    A file counts by its content where the caller knows it, otherwise by size, times and
    inode. A file so young that a later write could leave all of these the same ("racily
    clean", as git calls it) makes the result not reusable, and so does a schema that is
    code, which may read anything.

    Args:
        declaration: A frozen dataclass.
        context: Where the check runs.
    """
    if not is_dataclass(declaration) or isinstance(declaration, type):
        return None
    schema = getattr(declaration, "schema", None)
    if isinstance(schema, str) and ".py" in schema:
        return None
    signatures = []
    for file in _inputs(declaration, context):
        signature = _signature(file, context)
        if signature is None:
            return None
        signatures.append([os.fsencode(file).hex(), signature])
    if not signatures:
        return None
    values = [type(declaration).__name__, asdict(declaration), _judges(), signatures]
    return hashlib.sha256(json.dumps(values, sort_keys=True, default=str).encode()).hexdigest()


def file_key(kind: str, path: Path, status: os.stat_result, about: Any = None) -> str | None:
    """Return the key of what is known of one file; None where that is unsafe.

    Args:
        kind: What is known.
        path: The file.
        status: Of the file when it was opened, before anything was read.
        about: What else the result depends on.
    """
    if status.st_size < WORTH_BYTES or _is_young(status):
        return None
    place = os.fsencode(os.path.abspath(path)).hex()
    values = [kind, place, signature_of(status), _judges(), about]
    return hashlib.sha256(json.dumps(values, sort_keys=True, default=str).encode()).hexdigest()


def signature_of(status: os.stat_result) -> list[int]:
    """Return what is equal where a file has not changed: size, times and inode."""
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino, status.st_dev]


def _is_young(status: os.stat_result) -> bool:
    # By its ctime alone, which nobody sets: an mtime may lie in the future.
    return time.time_ns() - status.st_ctime_ns < _RACY_NS


def _inputs(declaration: Any, context: Context) -> list[Path]:
    """Return all files that a declaration reads; empty where any cannot be read."""
    files: list[Path] = []
    for name in _INPUTS:
        path = getattr(declaration, name, None)
        if isinstance(path, str):
            try:
                files += find_source(path, context).files
            except (SourceProblem, OSError):
                return []
    schema = getattr(declaration, "schema", None)
    if isinstance(schema, str):
        files.append(context.resolve(schema))
    return files


def _signature(file: Path, context: Context) -> Any:
    known = context.digest(file)
    if known is not None:
        return known
    try:
        status = file.stat()
    except OSError:
        return None
    return None if _is_young(status) else signature_of(status)


def _judges() -> list[Any]:
    """Return what tells the versions of the code that judges from others.

    Whoever installs another version writes another file; asking for its number would cost more
    than all the rest.
    """
    found: list[Any] = []
    for package in _PACKAGES:
        spec = importlib.util.find_spec(package)
        try:
            status = os.stat(spec.origin if spec is not None and spec.origin else "")
        except OSError:
            found.append(None)
        else:
            found.append([status.st_size, status.st_mtime_ns, status.st_ino])
    return found
