"""State outside the project that its runs write to: found quickly, before each snapshot."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

from rollback.model import Skip
from safeguards.config import Config
from safeguards.discovery import dvc, servers
from safeguards.discovery.links import links_out
from safeguards.discovery.tracking import artifact_locations, is_sqlite
from safeguards.discovery.variables import (
    ARTIFACT_ROOTS,
    TRACKERS,
    is_loopback,
    is_remote,
    local_folder,
    merged,
    shown,
    sqlite_path,
)

_DEFAULT_DATABASE = "mlflow.db"
_DATABASES = ("sqlite:", "sqlite+", "postgres:", "postgresql:", "postgresql+", "mysql:", "mysql+")
_SYSTEM = frozenset(
    {
        *("/", "/bin", "/boot", "/dev", "/etc", "/home", "/lib", "/lib64", "/media", "/mnt"),
        *("/opt", "/proc", "/root", "/run", "/sbin", "/srv", "/sys", "/usr", "/var", "/var/lib"),
        *("/tmp", "/var/tmp"),  # noqa: S108 - named to be left alone
    }
)
"""Folders that nobody can mean when they name a place for artifacts."""


@dataclass(frozen=True, slots=True)
class Outside:
    """State outside the project.

    Attributes:
        databases: SQLite files.
        folders: Artifact folders.
        skips: What is in use and cannot be protected.
    """

    databases: tuple[Path, ...] = ()
    folders: tuple[Path, ...] = ()
    skips: tuple[Skip, ...] = ()


def outside(config: Config, environ: Mapping[str, str]) -> Outside:
    """Return the databases and folders outside the project that its runs write to.

    Named by the configuration, the environment, `.env`, a tracking server on this machine, or
    the artifact columns of an MLflow database. Reads files only; nothing is connected to.

    Args:
        config: The project's configuration.
        environ: The environment of the guarded command.
    """
    found = _Finder(config.project, environ)
    for url in config.databases:
        found.database(url, "guard.toml")
    variables = merged(config.project, environ)
    for name, value in variables.items():
        if name in TRACKERS:
            found.tracker(value, name)
        elif name in ARTIFACT_ROOTS:
            found.artifacts(value, name)
        elif value.startswith(_DATABASES):
            found.database(value, name)
    found.add_database(config.project / _DEFAULT_DATABASE)
    found.add_data_cache(dvc.cache_folder(config.project, environ), config.also)
    for database in list(found.databases):
        for uri in artifact_locations(database):
            found.artifacts(uri, database.name)
    result = found.result()
    also = [Path(os.path.realpath(path)) for path in config.also]
    left_out = (*config.exclude, *config.watch)
    project = Path(os.path.realpath(config.project))
    leading = links_out(project, left_out, (*also, *result.folders), result.databases)
    return replace(result, skips=(*result.skips, *leading))


class _Finder:
    """Collects what is outside, leaving out what cannot be meant."""

    def __init__(self, project: Path, environ: Mapping[str, str]) -> None:
        self.project = project
        self.home = os.path.realpath(environ.get("HOME") or "/")
        self.bases = tuple(dict.fromkeys((project, _current(project))))
        self.databases: dict[Path, None] = {}
        self.folders: dict[Path, None] = {}
        self.skips: dict[str, Skip] = {}

    def tracker(self, uri: str, name: str) -> None:
        """Take a tracking or registry URI."""
        if uri.startswith(_DATABASES) or is_remote(uri):
            self.database(uri, name)
        elif uri.startswith(("http://", "https://")):
            self._server(uri)
        elif (folder := local_folder(uri, self.project)) is not None:
            self.add_folder(folder)

    def database(self, url: str, name: str) -> None:
        """Take a database URL."""
        for base in self.bases:
            path = sqlite_path(url, base)
            if path is None:
                self._skip_database(url, name)
                return
            self.add_database(path)

    def artifacts(self, uri: str, name: str) -> None:
        """Take an artifact URI."""
        folder = local_folder(uri, self.project)
        if folder is not None:
            self.add_folder(folder)
        elif is_remote(uri):
            where = shown(uri)
            self.skips.setdefault(
                where,
                Skip(
                    f"artifacts in {where}",
                    f"they are not on this machine (named by {name})",
                    "use a local artifact folder while you experiment",
                ),
            )

    def add_database(self, path: Path) -> None:
        """Take an SQLite file if it is one."""
        if is_sqlite(path):
            self.databases[Path(os.path.realpath(path))] = None

    def add_folder(self, folder: Path) -> None:
        """Take a folder unless taking it would be absurd."""
        real = os.path.realpath(folder)
        whole_home = self.home == real or self.home.startswith(f"{real}{os.sep}")
        holds_project = str(self.project).startswith(f"{real}{os.sep}")
        if os.path.isdir(real) and real not in _SYSTEM and not whole_home and not holds_project:
            self.folders[Path(real)] = None

    def add_data_cache(self, folder: Path | None, also: Iterable[Path]) -> None:
        """Take DVC's cache: only said, for nobody knows how large it is, and who shares it."""
        if folder is None or not folder.is_dir():
            return
        real = Path(os.path.realpath(folder))
        protected = [Path(os.path.realpath(path)) for path in (self.project, *also)]
        if not any(path in (real, *real.parents) for path in protected):
            self.skips[str(real)] = Skip(
                f"the DVC cache {real}",
                "it lies outside the project, so what `dvc gc` removes there is not put back",
                f'add it to guard.toml: [protect] also = ["{real}"]',
            )

    def result(self) -> Outside:
        """Return what was found, without what lies in the project."""
        return Outside(
            tuple(self._not_inside(self.databases)),
            tuple(self._not_inside(self.folders)),
            tuple(self.skips.values()),
        )

    def _server(self, uri: str) -> None:
        try:
            parts = urlsplit(uri)
            port = parts.port or (443 if parts.scheme == "https" else 80)
        except ValueError:
            return
        if not is_loopback(parts.hostname or ""):
            return
        server = servers.find(port)
        if server is None:
            where = shown(uri)
            self.skips.setdefault(
                where,
                Skip(
                    f"the tracking server {where}",
                    "no process of yours listens there, so its database is not known",
                    'name it: [[database]] url = "sqlite:////path/to/mlflow.db" in guard.toml',
                ),
            )
            return
        for url in server.stores:
            path = sqlite_path(url, server.folder)
            if path is not None:
                self.add_database(path)
            elif (folder := local_folder(url, server.folder)) is not None and ":" not in url:
                self.add_folder(folder)
            else:
                self._skip_database(url, "the tracking server")
        for uri_ in server.artifacts:
            folder = local_folder(uri_, server.folder)
            if folder is not None:
                self.add_folder(folder)

    def _skip_database(self, url: str, name: str) -> None:
        if "://" not in url:
            return
        where = shown(url)
        kind = url.partition(":")[0].partition("+")[0]
        self.skips.setdefault(
            where,
            Skip(
                f"the database {where}",
                f"{kind} is not kept by this version (named by {name})",
                _dump(kind, where),
            ),
        )

    def _not_inside(self, paths: Iterable[Path]) -> list[Path]:
        return [path for path in paths if self.project not in (path, *path.parents)]


def _dump(kind: str, where: str) -> str:
    """Return what to type so that there is a way back of one's own."""
    if not kind.startswith("postgres"):
        return "make a dump of it before the run"
    # libpq knows no drivers in its URLs; the password comes from ~/.pgpass or PGPASSWORD.
    url = f"postgresql:{where.partition(':')[2]}"
    return f"pg_dump --format=custom --file=before-run.dump {shlex.quote(url)}"


def _current(project: Path) -> Path:
    try:
        return Path(os.getcwd())
    except FileNotFoundError:
        return project
