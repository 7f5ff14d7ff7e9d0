"""Which of the six categories a path of the project belongs to."""

from __future__ import annotations

import functools

from rollback.model import Category

_LOCKS = frozenset(
    {
        b"uv.lock", b"poetry.lock", b"pdm.lock", b"pipfile.lock", b"pipfile", b"conda-lock.yml",
        b"environment.yml", b"environment.yaml", b"pixi.lock", b"pixi.toml", b"pylock.toml",
        b"constraints.txt",
    }
)  # fmt: skip
_CONFIGURATION = frozenset(b"toml yaml yml ini cfg conf env properties json tfvars".split())
_CODE = frozenset(
    b"py pyi pyx ipynb sh sql r jl c h cc cpp cu rs go js ts scala java md rst html css mk".split()
)
_ARTIFACT_FOLDERS = frozenset(
    {
        b"mlruns", b"mlartifacts", b"models", b"model", b"checkpoints", b"ckpt", b"artifacts",
        b"outputs", b"output", b"lightning_logs", b"wandb", b"runs", b"data", b"datasets", b"dist",
        b"build", b"results", b".dvc",
    }
)  # fmt: skip
_DATABASES = frozenset({b"db", b"sqlite", b"sqlite3", b"duckdb"})


@functools.lru_cache(maxsize=65_536)
def _of_folder(folder: bytes) -> Category | None:
    parts = folder.lower().split(b"/")
    if parts[0] == b".git":
        return Category.CODE
    return Category.ARTIFACTS if not _ARTIFACT_FOLDERS.isdisjoint(parts) else None


def categorize(path: bytes) -> Category:
    """Return the category of a path relative to the project.

    A folder that holds artifacts decides for all that is in it; else the name does.
    """
    folder, _, name = path.rpartition(b"/")
    name = name.lower()
    _, dot, suffix = name.rpartition(b".")
    if dot and suffix in _DATABASES:
        return Category.DATABASES
    if folder and (found := _of_folder(folder)) is not None:
        return found
    if name in _LOCKS or (name.startswith(b"requirements") and suffix in {b"txt", b"lock", b"in"}):
        return Category.DEPENDENCIES
    if name.startswith(b".") or (dot and suffix in _CONFIGURATION):
        return Category.CONFIGURATION
    return Category.CODE if not dot or suffix in _CODE else Category.ARTIFACTS
