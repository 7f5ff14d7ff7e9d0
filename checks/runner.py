"""Runs declared checks, reuses what is known of unchanged inputs, and joins the reports."""

from __future__ import annotations

import fnmatch
import importlib
import itertools
import os
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from checks.artifacts.declaration import ArtifactCheck
from checks.cache import cache_key
from checks.data.declaration import DataCheck
from checks.declare import FAMILIES, Declarations
from checks.errors import EngineUnavailable
from checks.model import CheckReport, CheckSkip, merge

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from checks.context import Context

#: Families whose result follows from their declaration and their files alone.
CACHED = {"data", "features"}
#: Families of whose inputs anything is kept; artifacts file by file, by themselves.
KEPT = CACHED | {"artifacts"}
#: Attributes of declarations that name what is read: one path or pattern, or several.
_PATHS = ("path", "schema", "reference", "training", "serving", "files", "sha256")
_DATA_SUFFIXES = (
    *(".csv", ".tsv", ".parquet", ".pq", ".arrow", ".arrows", ".ipc", ".feather"),
    *(".jsonl", ".ndjson"),
)


def run(
    declarations: Declarations,
    context: Context,
    families: Collection[str] | None = None,
    files: Sequence[str] = (),
) -> CheckReport:
    """Return what all checks find.

    Args:
        declarations: What the project demands.
        context: Where the checks run.
        families: Only these (see `FAMILIES`); all by default.
        files: Only checks of these files, relative to the project folder; all by default.
            One that nothing declares is held against the defaults where `families` names
            ``data`` or ``artifacts`` and it is such; else the report says that it was left out.

    Returns:
        One report, its findings errors first.
    """
    started = time.monotonic()
    left = [_relative(file, context) for file in files]
    met: set[str] = set()
    reports = [
        _run_one(family, declaration, context)
        for family, declaration in _chosen(declarations, context, families, (left, met))
    ]
    unmet = tuple(_left_out(file, context) for file in left if file not in met)
    reports.append(CheckReport(skipped=unmet))
    return replace(merge(reports), elapsed_s=time.monotonic() - started)


def _chosen(
    declarations: Declarations,
    context: Context,
    families: Collection[str] | None,
    files: tuple[Sequence[str], set[str]],
) -> Iterator[tuple[str, Any]]:
    """Yield the declarations that are asked for, with their family; note the files they read."""
    left, met = files
    for family, declared in declarations.by_family.items():
        if families is not None and family not in families:
            continue
        for declaration in declared:
            touched = [f for f in left if _concerns(declaration, f, context)]
            met.update(touched)
            if touched or not left:
                yield family, declaration
    for file in left:
        kind = _family(file, families or (), context)
        if file not in met and kind is not None:
            met.add(file)
            yield kind, DataCheck(file) if kind == "data" else ArtifactCheck(file)


def _family(file: str, families: Collection[str], context: Context) -> str | None:
    """Return what an undeclared file is held against: ``data``, ``artifacts``, or nothing."""
    if "data" in families and ("artifacts" not in families or _is_data(file, context)):
        whole = file.lower().removesuffix(".gz").removesuffix(".zst")
        return "data" if whole.endswith(_DATA_SUFFIXES) or _is_folder(file, context) else None
    return "artifacts" if "artifacts" in families else None


def _is_data(file: str, context: Context) -> bool:
    names = [file]
    if _is_folder(file, context):
        walked = os.walk(context.resolve(file))
        names = [name for _at, _below, found in itertools.islice(walked, 100) for name in found]
    compressed = tuple(ending + more for ending in _DATA_SUFFIXES for more in ("", ".gz", ".zst"))
    return any(name.lower().endswith(compressed) for name in names)


def _is_folder(file: str, context: Context) -> bool:
    return context.resolve(file).is_dir()


def _left_out(file: str, context: Context) -> CheckSkip:
    return CheckSkip(
        context.subject(context.resolve(file)),
        "no declared check reads it, so it was not checked",
        "declare it in guard.toml, or name what it is: guard check data FILE",
    )


def _run_one(family: str, declaration: Any, context: Context) -> CheckReport:
    module = importlib.import_module(FAMILIES[family][1])
    key = cache_key(declaration, context) if family in CACHED and context.cache else None
    if key is not None and context.cache is not None:
        known = context.cache.get(key)
        if known is not None:
            return replace(known, cached=len(known.checked), elapsed_s=0.0)
    try:
        report: CheckReport = module.check(declaration, context)
    except EngineUnavailable as error:
        what = f"{family} check of {getattr(declaration, 'path', family)}"
        return CheckReport(skipped=(CheckSkip(what, str(error), error.hint),))
    if key is not None and context.cache is not None:
        context.cache.put(key, report)
    return report


def _concerns(declaration: Any, file: str, context: Context) -> bool:
    """Return whether a declaration reads `file`, by any of the paths that it names."""
    for name in _PATHS:
        named = getattr(declaration, name, None) or ()
        for each in (named,) if isinstance(named, str) else named:
            pattern = _relative(each.rpartition(":")[0] or each, context)
            if file == pattern or fnmatch.fnmatch(file, pattern):
                return True
            if file.startswith(pattern + os.sep):
                return True
    return False


def _relative(file: str, context: Context) -> str:
    whole = os.path.normpath(context.resolve(file))
    inside = os.path.relpath(whole, context.base)
    return whole if inside.startswith("..") else inside
