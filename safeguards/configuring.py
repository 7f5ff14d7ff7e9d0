"""Reads `guard.toml` (or ``[tool.guard]``), the environment and the options into a `Config`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from checks.errors import DeclarationError
from checks.tables import Table
from safeguards.config import (
    CHECKS,
    DEFAULT_BUDGET_S,
    DEFAULT_MAX_STORE_BYTES,
    DEFAULT_RETRY_WINDOW_S,
    DRILLS,
    MOST_RETRIES,
    ON_FAILURE,
    VERDICTS,
    Config,
    Probe,
    RunConfig,
    Service,
)
from safeguards.errors import WrongUsage
from safeguards.project import CONFIGURATION, configuration_file

if TYPE_CHECKING:
    from checks.declare import Declarations


def load(
    project: Path, environ: Mapping[str, str], options: Mapping[str, Any] | None = None
) -> Config:
    """Return the configuration of a project: options over environment over file over defaults.

    Args:
        project: Absolute path of the project; need not exist any more.
        environ: ``GUARD_BUDGET``, ``GUARD_CHECKS`` and the like, named after the keys.
        options: Dotted key (``run.drill``) → value from the command line; None is no value.

    Raises:
        WrongUsage: A key is unknown, a value is impossible, or the file cannot be read; the
            message names the file, the key and, for an unknown key, the nearest known one.
    """
    file = configuration_file(project)
    values = _read(file) if file is not None else {}
    name = file.name if file is not None else CONFIGURATION
    try:
        return _Reader(project, file, environ, options or {}).read(values)
    except DeclarationError as error:
        raise _wrong_usage(error, name) from error


def load_leniently(
    project: Path, environ: Mapping[str, str], options: Mapping[str, Any] | None = None
) -> Config:
    """Return the configuration, or without the file where that cannot be understood.

    For commands that mend: a run that has spoilt `guard.toml` must not disable the rollback.
    `Config.problem` then says what is wrong.

    Raises:
        WrongUsage: An option or a variable has an impossible value.
    """
    try:
        return load(project, environ, options)
    except WrongUsage as error:
        problem = str(error)
    try:
        return replace(_Reader(project, None, environ, options or {}).read({}), problem=problem)
    except DeclarationError as error:
        raise _wrong_usage(error, CONFIGURATION) from error


def _wrong_usage(error: DeclarationError, name: str) -> WrongUsage:
    """Return what the user is told: the file is to blame, or an option, or a variable."""
    origin, _, rest = str(error).partition(": `")
    why = rest.partition("` ")[2].removeprefix(": ")
    if origin.startswith("--"):
        return WrongUsage(f"{origin} {_sentence(why)}", hint="guard run --help")
    if origin.startswith("GUARD_"):
        hint = f"correct {origin}, or: unset {origin}"
        return WrongUsage(f"{origin} {_sentence(why)}", hint=hint)
    return WrongUsage(f"{name}: {error}", hint=f"{error.hint}, then: guard status")


def _sentence(why: str) -> str:
    """Return a reason as it follows a name: a verb follows bare, a value behind a colon."""
    return why if why.startswith(("is ", "has ", "cannot ")) else f"is wrong: {why}"


def validate(text: str, project: Path) -> Config:
    """Return the configuration that a text of `guard.toml` stands for.

    Raises:
        WrongUsage: It is not valid.
    """
    import tomllib  # noqa: PLC0415 - only where there is a text

    try:
        return _Reader(project, project / CONFIGURATION, {}, {}).read(tomllib.loads(text))
    except (DeclarationError, tomllib.TOMLDecodeError) as error:
        raise WrongUsage(f"{CONFIGURATION}: {error}", hint="guard init --dry-run") from error


def _read(file: Path) -> Mapping[str, Any]:
    import tomllib  # noqa: PLC0415 - only where there is a file

    try:
        with file.open("rb") as stream:
            values = tomllib.load(stream)
    except tomllib.TOMLDecodeError as error:
        raise WrongUsage(
            f"{file.name} is not valid TOML: {error}",
            hint=f"correct {file}; if a run has spoilt it: guard rollback --last",
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8"
        raise WrongUsage(
            f"{file} cannot be read: {reason}", hint=f"make {file} readable, or remove it"
        ) from error
    if file.name == CONFIGURATION:
        return values
    tool = values.get("tool", {}).get("guard", {})
    if not isinstance(tool, Mapping):
        raise WrongUsage(f"{file}: tool.guard has to be a table", hint="write it as [tool.guard]")
    # In pyproject.toml the keys of [guard] stand in [tool.guard] itself.
    sections = {"protect", "database", "check", "probe", "service", "run"}
    own = {key: value for key, value in tool.items() if key not in sections}
    return {"guard": own, **{key: value for key, value in tool.items() if key in sections}}


class _Reader:
    """Reads one configuration, noting the origin of each value."""

    def __init__(
        self,
        project: Path,
        file: Path | None,
        environ: Mapping[str, str],
        options: Mapping[str, Any],
    ) -> None:
        self.project = project
        self.file = file
        self.environ = environ
        self.options = options
        self.origins: dict[str, str] = {}

    def read(self, values: Mapping[str, Any]) -> Config:
        """Return the whole configuration."""
        top = Table(values, CONFIGURATION if self.file is None else self.file.name)
        guard = self._section(top, "guard")
        protect = self._section(top, "protect")
        run = self._section(top, "run")
        config = Config(
            project=self.project,
            file=self.file,
            environment=self._text(guard, "environment", "local"),
            budget_s=self._duration(guard, "budget", DEFAULT_BUDGET_S) or DEFAULT_BUDGET_S,
            store=self._store(guard),
            max_store_bytes=self._size(guard, "max_store", DEFAULT_MAX_STORE_BYTES),
            keep_last=self._count(guard, "keep_last", None),
            keep_days=self._count(guard, "keep_days", None),
            exclude=self._strings(protect, "exclude"),
            watch=self._strings(protect, "watch"),
            also=tuple(self._path(text) for text in self._strings(protect, "also")),
            variables=self._strings(protect, "variables"),
            databases=self._databases(top),
            declarations=self._declarations(top),
            probes=tuple(_probe(table) for table in top.tables("probe")),
            services=tuple(_service(table) for table in top.tables("service")),
            run=self._run(run),
            origins=self.origins,
        )
        for table in (guard, protect, run, top):
            table.finish()
        return config

    def _run(self, table: Table) -> RunConfig:
        retries = self._count(table, "retries", 0) or 0
        if retries > MOST_RETRIES:
            raise self._to_blame(table, "retries").wrong(
                "retries", f"is at most {MOST_RETRIES}, not {retries}"
            )
        return RunConfig(
            on_failure=self._choice(table, "on_failure", ON_FAILURE, "keep"),
            drill=self._choice(table, "drill", DRILLS, "auto"),
            checks=self._choice(table, "checks", CHECKS, "enforce"),
            over_budget=self._choice(table, "over_budget", VERDICTS, "error"),
            target=self._choice(table, "target", VERDICTS, "error"),
            retries=retries,
            retry_window_s=self._duration(table, "retry_window", DEFAULT_RETRY_WINDOW_S)
            or DEFAULT_RETRY_WINDOW_S,
            timeout_s=self._duration(table, "timeout", None),
            max_memory=self._share(table, "max_memory"),
        )

    def _section(self, top: Table, key: str) -> Table:
        found = top.table(key)
        return Table({}, f"[{key}]") if found is None else Table(found.values, f"[{key}]")

    def _override(self, table: Table, key: str) -> tuple[str, Any] | None:
        """Return what an option or the environment says for a key, with its origin."""
        section = table.where.strip("[]")
        dotted = key if section == "guard" else f"{section}.{key}"
        option = self.options.get(dotted)
        if option is not None:
            return self._note(dotted, f"--{key.replace('_', '-')}"), option
        variable = f"GUARD_{key.upper()}"
        # GUARD_STORE is read by the engine itself; naming it here too keeps one origin.
        if self.environ.get(variable):
            return self._note(dotted, variable), self.environ[variable]
        if key in table.values and self.file is not None:
            self._note(dotted, self.file.name)
        return None

    def _to_blame(self, table: Table, key: str) -> Table:
        """Return where a value came from: the option or variable that decided, else the file."""
        override = self._override(table, key)
        return table if override is None else Table({}, override[0])

    def _note(self, dotted: str, origin: str) -> str:
        self.origins[dotted] = origin
        return origin

    def _text(self, table: Table, key: str, default: str) -> str:
        override = self._override(table, key)
        own: str = table.get(key, str, default)
        return own if override is None else str(override[1])

    def _choice(self, table: Table, key: str, choices: tuple[str, ...], default: str) -> str:
        override = self._override(table, key)
        own = table.choice(key, choices, default)
        if override is None:
            return own
        return Table({key: override[1]}, override[0]).choice(key, choices, default)

    def _duration(self, table: Table, key: str, default: float | None) -> float | None:
        override = self._override(table, key)
        own = table.duration(key, default) if default is not None or key in table.values else None  # type: ignore[arg-type]
        table.optional(key, object)
        if override is not None:
            own = Table({key: override[1]}, override[0]).duration(key, 0.0)
        if own is not None and own <= 0:
            raise self._to_blame(table, key).wrong(
                key, f"has to be longer than nothing, not {own:g} s"
            )
        return own

    def _size(self, table: Table, key: str, default: int) -> int:
        override = self._override(table, key)
        own = table.size(key, default)
        return own if override is None else Table({key: override[1]}, override[0]).size(key, 0)

    def _count(self, table: Table, key: str, default: int | None) -> int | None:
        override = self._override(table, key)
        own: int | None = table.get(key, int, default)
        if override is not None:
            try:
                own = int(override[1])
            except ValueError:
                raise Table({}, override[0]).wrong(
                    key, f"has to be a whole number, not {override[1]!r}"
                ) from None
        if own is not None and own < 0:
            raise self._to_blame(table, key).wrong(key, f"cannot be negative, not {own}")
        return own

    def _share(self, table: Table, key: str) -> float | None:
        override = self._override(table, key)
        value: Any = table.get(key, object, None) if override is None else override[1]
        table.optional(key, object)
        if value is None:
            return None
        try:
            return parse_share(value)
        except ValueError as error:
            raise self._to_blame(table, key).wrong(key, f": {error}") from None

    def _strings(self, table: Table, key: str) -> tuple[str, ...]:
        if key in table.values and self.file is not None:
            self._note(f"{table.where.strip('[]')}.{key}", self.file.name)
        return table.strings(key)

    def _store(self, guard: Table) -> Path | None:
        own: str = guard.get("store", str, "auto")
        option = self.options.get("store")
        if option is not None:
            self._note("store", "--store")
            return Path(os.path.abspath(os.path.expanduser(option)))
        if self.environ.get("GUARD_STORE"):
            self._note("store", "GUARD_STORE")
            return self._path(self.environ["GUARD_STORE"])
        if own == "auto":
            return None
        self._note("store", self.file.name if self.file else CONFIGURATION)
        return self._path(own)

    def _path(self, text: str) -> Path:
        """Return a path as written: ``~`` is the home, the rest starts in the project."""
        return Path(os.path.normpath(self.project / os.path.expanduser(text)))

    def _databases(self, top: Table) -> tuple[str, ...]:
        found = []
        for table in top.tables("database"):
            found.append(table.get("url", str))
            table.finish()
        return tuple(found)

    def _declarations(self, top: Table) -> Declarations | None:
        table = top.table("check")
        if table is None or not table.values:
            return None
        from checks.declare import parse  # noqa: PLC0415 - only where checks are declared

        return parse(table.values)


def parse_share(value: Any) -> float:
    """Return the share that ``80%``, ``0.8`` or 0.8 stands for.

    Raises:
        ValueError: It is none, or not above 0 and at most 1.
    """
    text = str(value).strip()
    try:
        share = float(text[:-1]) / 100 if text.endswith("%") else float(text)
    except ValueError:
        raise ValueError(f"{value!r} is not a share such as 80% or 0.8") from None
    if not 0.0 < share <= 1.0 or isinstance(value, bool):
        raise ValueError(f"{value!r} is not above 0% and at most 100%")
    return share


def _probe(table: Table) -> Probe:
    command: str = table.get("command", str)
    probe = Probe(
        name=table.get("name", str, command),
        command=command,
        timeout_s=table.duration("timeout", 60.0),
    )
    table.finish()
    return probe


def _service(table: Table) -> Service:
    service = Service(
        name=table.get("name", str),
        stop=table.get("stop", str, ""),
        start=table.get("start", str, ""),
        health=table.get("health", str, ""),
        timeout_s=table.duration("timeout", 60.0),
    )
    if service.health and not service.health.startswith(("http://", "https://")):
        raise table.wrong("health", f"has to be an http URL, not {service.health!r}")
    table.finish()
    return service
