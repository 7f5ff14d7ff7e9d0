"""Looks through a project, without running any of it, for what `guard init` writes down."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from rollback.resources.base import DEFAULT_LEAVE_OUT
from safeguards.discovery.tracking import is_sqlite
from safeguards.discovery.variables import ARTIFACT_ROOTS, TRACKERS, merged, shown

MOST_ENTRIES = 200_000
MOST_SECONDS = 10.0
MOST_LOOK_S = 2.0
_MOST_OF_A_KIND = 12
_LARGEST_SOURCE = 1 << 20
_LEAVE_OUT = {os.fsdecode(name) for name in DEFAULT_LEAVE_OUT} | {
    *(".git", ".venv", "venv", ".tox", ".nox", "site-packages", ".hypothesis"),
}
_DATA = {".csv", ".tsv", ".parquet", ".pq", ".arrow", ".feather", ".jsonl", ".ndjson"}
_MODELS = {
    *(".pkl", ".pickle", ".joblib", ".pt", ".pth", ".ckpt", ".safetensors", ".onnx", ".h5"),
    *(".keras", ".npz", ".gguf", ".bst", ".ubj", ".cbm"),
}
_DATABASES = {".db", ".sqlite", ".sqlite3", ".db3"}
_PARAMETERS = {"params.yaml", "params.yml", "params.toml", "params.json", "hyperparameters.yaml"}
_MANIFESTS = {"SHA256SUMS", "sha256sums.txt", "SHA256SUMS.txt"}
_LOCKS = {
    *("uv.lock", "poetry.lock", "pdm.lock", "Pipfile.lock", "conda-lock.yml", "pixi.lock"),
    *("pylock.toml", "requirements.txt", "requirements.lock", "environment.yml"),
}
_SIGNS = {
    "mlruns": "mlflow",
    "mlartifacts": "mlflow",
    "MLproject": "mlflow",
    "wandb": "wandb",
    ".dvc": "dvc",
    "dvc.yaml": "dvc",
    "dvc.lock": "dvc",
    "feature_store.yaml": "feast",
}
"""Name of a file or folder → the tool that it is a sign of."""
_URI = re.compile(
    r"""(?:set_tracking_uri|set_registry_uri)\(\s*["']([^"'\n]+)["']"""
    r"""|["']((?:sqlite|postgresql|mysql)(?:\+\w+)?://[^"'\n]+)["']"""
)


@dataclass(slots=True)
class Survey:
    """What was found; paths are relative to the project, most telling first.

    Attributes:
        tools: Names of what is in use: ``mlflow``, ``dvc``, ``optuna``, ``feast``, ``wandb`` …
        trackers: Where a tracker is named → its URI without secrets.
        databases: SQLite files.
        data: Data files.
        models: Model artifacts outside of the trackers' own folders.
        manifests: SHA-256 manifests.
        parameters: Files of parameters.
        locks: Lock files.
        notebooks: How many there are.
        complete: Whether everything was looked at.
    """

    tools: set[str] = field(default_factory=set)
    trackers: dict[str, str] = field(default_factory=dict)
    databases: list[str] = field(default_factory=list)
    data: list[str] = field(default_factory=list)
    models: list[str] = field(default_factory=list)
    manifests: list[str] = field(default_factory=list)
    parameters: list[str] = field(default_factory=list)
    locks: list[str] = field(default_factory=list)
    notebooks: int = 0
    complete: bool = True


def survey(project: Path, environ: Mapping[str, str]) -> Survey:
    """Return what a project has; stops after ten seconds or 200,000 entries and says so.

    Args:
        project: Absolute path of the project.
        environ: For variables that name trackers.
    """
    found = Survey()
    for name, value in merged(project, environ).items():
        if name in (*TRACKERS, *ARTIFACT_ROOTS):
            found.tools.add("mlflow")
            found.trackers[name] = shown(value)
    deadline = time.monotonic() + MOST_SECONDS
    for number, (path, folder) in enumerate(_walk(project)):
        if number > MOST_ENTRIES or time.monotonic() > deadline:
            found.complete = False
            break
        _take(found, project, path, folder=folder)
    for kind in (found.databases, found.data, found.models, found.manifests, found.parameters):
        kind.sort(key=lambda path: (path.count("/"), path))
    return found


def find_databases(project: Path) -> list[str]:
    """Return the SQLite files of a project, relative to it; bounded as `survey`, names as there.

    A snapshot finds them by content, whatever their names.
    """
    found: list[str] = []
    deadline = time.monotonic() + MOST_LOOK_S
    for number, (path, folder) in enumerate(_walk(project)):
        if number > MOST_ENTRIES or time.monotonic() > deadline:
            break
        suffix = os.path.splitext(path.lower())[1]
        if not folder and suffix in _DATABASES and is_sqlite(project / path):
            found.append(path)
    return sorted(found)


def _walk(project: Path) -> Iterator[tuple[str, bool]]:
    """Yield paths relative to the project, and whether each is a folder, near ones first."""
    pending = [""]
    for relative in pending:
        try:
            entries = sorted(os.scandir(project / relative), key=lambda entry: entry.name)
        except OSError:
            continue
        for entry in entries:
            if entry.name in _LEAVE_OUT or entry.is_symlink():
                continue
            path = os.path.join(relative, entry.name)
            folder = entry.is_dir(follow_symlinks=False)
            if folder or entry.is_file(follow_symlinks=False):
                yield path, folder
            if folder and entry.name not in {"mlruns", "mlartifacts", "wandb"}:
                pending.append(path)


def _take(found: Survey, project: Path, path: str, *, folder: bool) -> None:
    name = os.path.basename(path)
    tool = _SIGNS.get(name) or ("dvc" if name.endswith(".dvc") else None)
    if tool is not None:
        found.tools.add(tool)
    if folder or tool is not None:
        return
    suffix = os.path.splitext(name.lower())[1]
    if name.lower() in _PARAMETERS:
        found.parameters.append(path)
    elif name in _MANIFESTS:
        found.manifests.append(path)
    elif name in _LOCKS:
        found.locks.append(path)
    elif suffix == ".ipynb":
        found.notebooks += 1
    elif suffix == ".py":
        _scan(found, project / path, path)
    else:
        _take_content(found, project, path, suffix)


def _take_content(found: Survey, project: Path, path: str, suffix: str) -> None:
    """Take what is data, a model or a database."""
    if suffix in _DATABASES and is_sqlite(project / path):
        found.databases.append(path)
        if os.path.basename(path) == "mlflow.db":
            found.tools.add("mlflow")
    elif suffix in _DATA and len(found.data) < _MOST_OF_A_KIND:
        found.data.append(path)
    elif suffix in _MODELS and len(found.models) < _MOST_OF_A_KIND:
        found.models.append(path)


def _scan(found: Survey, file: Path, path: str) -> None:
    """Look for trackers that a source names; nothing of it is run."""
    try:
        with open(file, "rb") as source:
            text = source.read(_LARGEST_SOURCE).decode("utf-8", "replace")
    except OSError:
        return
    for tool in ("mlflow", "optuna", "wandb", "feast", "bentoml"):
        if re.search(rf"^\s*(?:import|from)\s+{tool}\b", text, re.MULTILINE):
            found.tools.add(tool)
    for match in _URI.finditer(text):
        found.trackers.setdefault(path, shown(match[1] or match[2]))
