"""Runs declared checks, reuses what is known of unchanged inputs, and joins the reports."""

from __future__ import annotations

import fnmatch
import importlib
import os
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

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
#: Attributes of declarations that name what is read: one path or pattern, or several.
_PATHS = ("path", "schema", "reference", "training", "serving", "files", "sha256")
_DATA_SUFFIXES = (".csv", ".tsv", ".parquet", ".pq", ".arrow", ".feather", ".jsonl", ".ndjson")


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
            A data file that nothing declares is held against the defaults where `families`
            names ``data``.

    Returns:
        One report, its findings errors first.
    """
    started = time.monotonic()
    reports = [
        _run_one(family, declaration, context)
        for family, declaration in _chosen(declarations, context, families, files)
    ]
    return replace(merge(reports), elapsed_s=time.monotonic() - started)


def _chosen(
    declarations: Declarations,
    context: Context,
    families: Collection[str] | None,
    files: Sequence[str],
) -> Iterator[tuple[str, Any]]:
    """Yield the declarations that are asked for, with their family."""
    left = [_relative(file, context) for file in files]
    met: set[str] = set()
    for family, declared in declarations.by_family.items():
        if families is not None and family not in families:
            continue
        for declaration in declared:
            touched = [f for f in left if _concerns(declaration, f, context)]
            met.update(touched)
            if touched or not files:
                yield family, declaration
    if families is not None and "data" in families:
        for file in left:
            if file not in met and file.endswith(_DATA_SUFFIXES):
                yield "data", DataCheck(path=file)


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
