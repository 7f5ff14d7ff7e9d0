"""The checks of a commit: what is staged, not what lies in the work tree; nothing is written there.

`guard hook pre-commit` calls this, from the pre-commit framework or as a plain git hook. What
no staged file concerns is not even imported.
"""

from __future__ import annotations

import os
import posixpath
import tempfile
import time
import tomllib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from checks.model import CheckReport, CheckSkip, Finding, Severity, merge
from safeguards.errors import WrongUsage
from safeguards.integrations.mirror import Mirror, concerns, patterns
from safeguards.integrations.staged import Entry, Index
from safeguards.integrations.staged_files import (
    DEFAULT_MAX_BYTES,
    Job,
    check_models,
    check_secrets,
    check_sizes,
    check_tracking,
    shown,
    unscanned,
)
from safeguards.project import CONFIGURATION

FAMILIES = ("data", "artifacts", "params", "secrets")
"""What can be asked for with ``--only``."""
_KEYS = {"data": ("data", "features"), "artifacts": ("artifact",), "params": ("params",)}
_CONFIGURATIONS = (CONFIGURATION, "pyproject.toml")


@dataclass(frozen=True, slots=True)
class Settings:
    """How a commit is checked.

    Attributes:
        only: Families out of `FAMILIES`; all where empty.
        max_bytes: Largest file that belongs into git.
        trusted: Whether schemas that are Python code may be imported; off, for a commit may
            bring code that nobody has read.
    """

    only: Collection[str] = ()
    max_bytes: int = DEFAULT_MAX_BYTES
    trusted: bool = False

    def wants(self, family: str) -> bool:
        """Return whether a family is to be checked."""
        return not self.only or family in self.only


def run_pre_commit(
    project: Path,
    files: Sequence[str] = (),
    settings: Settings | None = None,
    environ: Mapping[str, str] | None = None,
) -> CheckReport:
    """Check what is staged.

    Args:
        project: The project's folder, in a git work tree.
        files: Paths from the current folder; only these are looked at, as they are staged. All
            that differs from the last commit where empty.
        settings: What is checked.
        environ: The environment; git names the index of a commit of chosen paths in it.

    Returns:
        One report, errors first; its subjects are paths from the top of the repository.

    Raises:
        WrongUsage: This is no git work tree, or the staged configuration is wrong.
    """
    started = time.monotonic()
    chosen = settings or Settings()
    environ = os.environ if environ is None else environ
    with Index(project, environ) as index:
        entries, missing = index.named(files, os.getcwd()) if files else (index.staged(), [])
        regular = [entry for entry in entries if entry.regular]
        reports = [CheckReport(findings=tuple(map(_not_staged, missing)))]
        if regular:
            commit = _Commit(project, index, entries, chosen, environ)
            values = commit.configuration()
            reports.append(_check_files(commit, regular, values))
            reports += _check_declared(commit, values)
    return replace(_distinct(merge(reports)), elapsed_s=time.monotonic() - started)


@dataclass(frozen=True, slots=True)
class _Commit:
    """The commit that is being made, and how it is checked."""

    project: Path
    index: Index
    entries: Sequence[Entry]
    settings: Settings
    environ: Mapping[str, str]

    @property
    def prefix(self) -> str:
        """The project's folder from the top of the repository, with a slash where it is below."""
        inside = self.index.relative(os.path.join(os.path.realpath(self.project), "x"))
        return inside.removesuffix("x")

    def inside(self) -> list[str]:
        """Return the staged paths below the project, from its folder."""
        prefix = self.prefix
        return [e.path.removeprefix(prefix) for e in self.entries if e.path.startswith(prefix)]

    def configuration(self) -> Mapping[str, Any]:
        """Return the `check` tables of the configuration as it is staged, without judging them."""
        for name in _CONFIGURATIONS:
            document = self._document(name)
            table = document if name == CONFIGURATION else document.get("tool", {}).get("guard")
            if document and isinstance(table, Mapping):
                found = table.get("check")
                return found if isinstance(found, Mapping) else {}
        return {}

    def _document(self, name: str) -> Mapping[str, Any]:
        entry = self.index.all().get(self.prefix + name)
        try:
            if entry is not None:
                return tomllib.loads(self.index.read(entry).decode("utf-8"))
            with open(self.project / name, "rb") as file:
                return tomllib.load(file)
        except OSError:
            return {}
        except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            if name != CONFIGURATION:
                return {}
            hint = f"correct it, then: git add {name}"
            raise WrongUsage(f"the staged {name} cannot be read: {error}", hint=hint) from None


def _check_files(
    commit: _Commit, entries: Sequence[Entry], values: Mapping[str, Any]
) -> CheckReport:
    index, settings = commit.index, commit.settings
    tables = [table for table in _tables(values.get("artifact")) if settings.wants("artifacts")]
    job = Job(
        index,
        entries,
        index.sizes(entries),
        settings.max_bytes,
        declared=_declared(tables, commit),
        sealed=_declared([table for table in tables if table.get("sha256")], commit),
    )
    findings: list[Finding] = []
    skipped: list[CheckSkip] = []
    rules = []
    if settings.wants("secrets"):
        findings += check_secrets(job)
        skipped += unscanned(job)
        rules.append("secrets.likely")
    if settings.wants("artifacts"):
        findings += [*check_sizes(job), *check_models(job), *check_tracking(job)]
        rules += ["staged.large", "staged.unsealed", "staged.dvc"]
    return CheckReport(
        checked=tuple((rule, shown(entry.path)) for rule in rules for entry in entries),
        findings=tuple(findings),
        skipped=tuple(skipped),
    )


def _declared(tables: Sequence[Mapping[str, Any]], commit: _Commit) -> frozenset[str]:
    """Return the staged paths that tables of artifacts name, from the top of the repository."""
    wanted = [posixpath.normpath(str(table.get("path", ""))) for table in tables]
    return frozenset(
        commit.prefix + path
        for path in commit.inside()
        if any(concerns(pattern, path) for pattern in wanted)
    )


def _check_declared(commit: _Commit, values: Mapping[str, Any]) -> Iterator[CheckReport]:
    """Yield the reports of declared checks that a staged file concerns."""
    inside = commit.inside()
    wanted = [
        pair
        for family, keys in _KEYS.items()
        if commit.settings.wants(family)
        for pair in _concerned(values, keys, inside)
    ]
    if not wanted and not set(inside) & set(_CONFIGURATIONS):
        return
    with tempfile.TemporaryDirectory(prefix="guard-staged-") as folder:
        mirror = Mirror(Path(folder), commit.project, commit.index)
        mirror.add(_CONFIGURATIONS)
        _refuse_wrong(mirror.folder, commit.environ)
        mirror.add(pattern for _key, table in wanted for pattern in patterns(table))
        for key, table in wanted:
            yield _run(key, table, mirror, commit)


def _concerned(
    values: Mapping[str, Any], keys: Sequence[str], paths: Sequence[str]
) -> list[tuple[str, Mapping[str, Any]]]:
    """Return the tables that name one of the staged files, each with its key."""
    return [
        (key, table)
        for key in keys
        for table in _tables(values.get(key))
        if any(concerns(pattern, path) for pattern in patterns(table) for path in paths)
    ]


def _tables(value: Any) -> list[Mapping[str, Any]]:
    many = value if isinstance(value, list) else [value]
    return [table for table in many if isinstance(table, Mapping)]


def _refuse_wrong(folder: Path, environ: Mapping[str, str]) -> None:
    """Read the staged configuration strictly: a wrong key is refused before it is committed."""
    from safeguards import configuring  # noqa: PLC0415 - only where a staged file is concerned

    clean = {name: value for name, value in environ.items() if not name.startswith("GUARD_")}
    configuring.load(folder, clean)


def _run(key: str, table: Mapping[str, Any], mirror: Mirror, commit: _Commit) -> CheckReport:
    from checks import runner  # noqa: PLC0415 - only where a staged file is concerned
    from checks.context import Context  # noqa: PLC0415
    from checks.declare import parse  # noqa: PLC0415

    context = Context(mirror.folder, commit.environ, trusted=commit.settings.trusted)
    return runner.run(parse({key: [table]}), context)


def _not_staged(file: str) -> Finding:
    message = "is not in the index, so it is no part of the commit"
    return Finding(
        "staged.missing", Severity.WARNING, shown(file), message, hint=f"git add {shown(file)}"
    )


def _distinct(report: CheckReport) -> CheckReport:
    """Return a report in which a file that two rules have met is named once for each problem."""
    seen: dict[tuple[str, str, str], Finding] = {}
    for finding in report.findings:
        seen.setdefault((finding.check, finding.subject, finding.message), finding)
    return replace(report, findings=tuple(seen.values()))
