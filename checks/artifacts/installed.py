"""What is installed in a Python environment, read from its files; nothing of it is started."""

from __future__ import annotations

import glob
import os
import re
from functools import lru_cache
from pathlib import Path

_HEADER_BYTES = 1 << 16
_VERSION = re.compile(r"^version(?:_info)?\s*=\s*(\d+\.\d+(?:\.\d+)?)", re.MULTILINE)


def normalize(name: str) -> str:
    """Return a distribution's name as PyPI compares them."""
    return re.sub(r"[-_.]+", "-", name).lower()


def distributions(prefix: Path) -> dict[str, str]:
    """Return the versions of the distributions in an environment, by normalized name.

    Args:
        prefix: The environment's folder (`sys.prefix`).
    """
    start = glob.escape(str(prefix))
    patterns = ("lib/python3*/*-packages", "lib64/python3*/*-packages", "Lib/*-packages")
    roots = [root for each in patterns for root in sorted(glob.glob(os.path.join(start, each)))]
    return _distributions(tuple((root, os.stat(root).st_mtime_ns) for root in roots))


@lru_cache(maxsize=8)
def _distributions(roots: tuple[tuple[str, int], ...]) -> dict[str, str]:
    """Read an environment once; installing changes the time of its folder, so it is the key."""
    found: dict[str, str] = {}
    for root, _changed in roots:
        for kind in ("*.dist-info/METADATA", "*.egg-info/PKG-INFO"):
            for path in sorted(glob.glob(os.path.join(glob.escape(root), kind))):
                name, version = _identity(path)
                if name and version:
                    found.setdefault(normalize(name), version)
    return found


def python_version(prefix: Path) -> str | None:
    """Return the Python version of an environment such as ``3.11.7``, or as far as it shows."""
    try:
        found = _VERSION.search((prefix / "pyvenv.cfg").read_text("utf-8", "replace"))
    except OSError:
        found = None
    if found:
        return found[1]
    folders = sorted(path.name for path in prefix.glob("lib/python3.*") if path.is_dir())
    return folders[-1].removeprefix("python") if folders else None


def _identity(path: str) -> tuple[str | None, str | None]:
    try:
        with open(path, "rb") as file:
            head = file.read(_HEADER_BYTES).decode("utf-8", "replace")
    except OSError:
        return None, None
    fields: dict[str, str] = {}
    for line in head.splitlines():
        if not line.strip():
            break
        key, colon, value = line.partition(":")
        if colon and key.lower() in {"name", "version"}:
            fields.setdefault(key.lower(), value.strip())
    return fields.get("name"), fields.get("version")
