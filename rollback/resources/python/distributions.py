"""What is installed, read from names and small files; nothing of it is imported.

Formats: `*.dist-info` (packaging.python.org, "Recording installed projects"), `direct_url.json`
(PEP 610), name normalization (PEP 503).
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping
from typing import NotRequired, TypedDict
from urllib.parse import urlsplit, urlunsplit

_EGG = re.compile(r"(?P<name>.+?)-(?P<version>[^-]+)(?:-py\d[\d.]*.*)?\.egg(?:-info)?\Z")


class Distribution(TypedDict):
    """An installed distribution; JSON as it stands.

    Attributes:
        version: As its folder says, local part included: ``2.1.0+cpu``.
        origin: Where it came from if not from an index: a URL without credentials, preceded
            by ``editable`` where it is one.
    """

    version: str
    origin: NotRequired[str]


def installed(site_packages: Iterable[str]) -> dict[str, Distribution]:
    """Return the distributions of an environment by normalized name, sorted.

    pip, setuptools and wheel are included, unlike in `pip freeze`. What an earlier folder has
    hides the same name in a later one, as on Python's path.

    Args:
        site_packages: Folders, in the order of Python's path.
    """
    found: dict[str, Distribution] = {}
    for site in site_packages:
        for name, distribution in _of_site(site).items():
            found.setdefault(name, distribution)
    return dict(sorted(found.items()))


def changed_distributions(
    old: Mapping[str, Distribution], new: Mapping[str, Distribution]
) -> list[tuple[str, str | None, str | None]]:
    """Return name and version (with its origin, where that matters) before and after.

    Returns:
        Sorted by name; None for a side that does not have it.
    """
    found = []
    for name in sorted(old.keys() | new.keys()):
        before, after = old.get(name), new.get(name)
        if before == after:
            continue
        same = before is not None and after is not None and before["version"] == after["version"]
        shown = _shown if same or None in (before, after) else _version
        found.append(
            (
                name,
                None if before is None else shown(before),
                None if after is None else shown(after),
            )
        )
    return found


def normalized(name: str) -> str:
    """Return the name under which an index knows a distribution (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _shown(distribution: Distribution) -> str:
    origin = distribution.get("origin")
    return f"{distribution['version']} ({origin})" if origin else distribution["version"]


def _version(distribution: Distribution) -> str:
    return distribution["version"]


def _of_site(site: str) -> dict[str, Distribution]:
    try:
        names = sorted(os.listdir(site))
    except OSError:
        return {}
    found: dict[str, Distribution] = {}
    for entry in names:
        if entry.startswith(("~", ".")):
            continue  # what pip leaves behind when it is killed
        if entry.endswith(".dist-info"):
            name, _, version = entry.removesuffix(".dist-info").rpartition("-")
            origin = _origin(os.path.join(site, entry))
        elif entry.endswith((".egg-info", ".egg")):
            match = _EGG.match(entry)
            if match is None:
                continue
            name, version, origin = match["name"], match["version"], ""
        elif entry.endswith(".egg-link"):
            name, version, origin = entry.removesuffix(".egg-link"), "", _linked(site, entry)
        else:
            continue
        if not name:
            continue
        distribution = Distribution(version=version)
        if origin:
            distribution["origin"] = origin
        _add(found, normalized(name), distribution)
    return found


def _add(found: dict[str, Distribution], name: str, distribution: Distribution) -> None:
    """Add a distribution; two folders of one name are a broken upgrade and both are named."""
    present = found.get(name)
    if present is not None and present["version"] != distribution["version"]:
        distribution["version"] = f"{present['version']} and {distribution['version']}"
    found[name] = distribution


def _origin(folder: str) -> str:
    try:
        with open(os.path.join(folder, "direct_url.json"), "rb") as file:
            return origin_of(file.read())
    except OSError:
        return ""


def origin_of(direct_url: bytes) -> str:
    """Return the origin that a `direct_url.json` names; empty where it names none."""
    try:
        data = json.loads(direct_url)
    except ValueError:
        return ""
    if not isinstance(data, dict) or not isinstance(data.get("url"), str):
        return ""
    url = _without_credentials(data["url"])
    vcs, directory = data.get("vcs_info"), data.get("dir_info")
    if isinstance(vcs, dict):
        return f"{vcs.get('vcs', 'git')}+{url}@{vcs.get('commit_id', '')}"
    if isinstance(directory, dict) and directory.get("editable"):
        return f"editable {url}"
    return url


def _without_credentials(url: str) -> str:
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], query=""))


def _linked(site: str, entry: str) -> str:
    try:
        with open(os.path.join(site, entry), errors="surrogateescape") as file:
            return f"editable file://{file.readline().strip()}"
    except OSError:
        return ""
