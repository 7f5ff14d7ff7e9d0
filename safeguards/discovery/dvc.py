"""Where DVC keeps the content of tracked data: a cache outside the project is not protected.

Configuration: https://doc.dvc.org/user-guide/project-structure/configuration; a relative path
starts in the folder of the file that names it.
"""

from __future__ import annotations

import configparser
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

_LARGEST = 1 << 20


def cache_folder(project: Path, environ: Mapping[str, str]) -> Path | None:
    """Return the cache that a project's DVC uses, as its configuration names it.

    Args:
        project: The project's folder.
        environ: For the place of the user's own configuration.

    Returns:
        None where it is the default, inside the project, or there is no DVC.
    """
    if not (project / ".dvc").is_dir():
        return None
    for file in _files(project, environ):
        named = _named(file)
        if named is not None:
            folder = os.path.join(file.parent, os.path.expanduser(named))
            return Path(os.path.normpath(folder))
    return None


def _files(project: Path, environ: Mapping[str, str]) -> Iterator[Path]:
    """Yield the configuration files, the one that wins first."""
    yield project / ".dvc" / "config.local"
    yield project / ".dvc" / "config"
    own = environ.get("XDG_CONFIG_HOME") or os.path.join(environ.get("HOME") or "/", ".config")
    yield Path(environ.get("DVC_GLOBAL_CONFIG_DIR") or os.path.join(own, "dvc")) / "config"


def _named(file: Path) -> str | None:
    reader = configparser.ConfigParser(interpolation=None, strict=False)
    try:
        if not file.is_file() or os.path.getsize(file) > _LARGEST:
            return None
        reader.read_string(file.read_text("utf-8", "replace"))
    except (OSError, configparser.Error):
        return None
    value = reader.get("cache", "dir", fallback="").strip().strip("'\"")
    return value or None
