"""Reads pandera schemas: YAML and JSON as data, ``file.py:Name`` as code where it is trusted.

pandera's own reader needs pandas to be installed; this one needs pandera and polars alone,
and takes schemas that pandera wrote for pandas as well.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import re
import sys
from typing import TYPE_CHECKING, Any, Literal

import polars as pl

from checks.model import CheckSkip

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from checks.context import Context
    from checks.data.judgement import Judgement

_COLUMN_KEYS = {
    "title",
    "description",
    "dtype",
    "nullable",
    "checks",
    "name",
    "unique",
    "coerce",
    "required",
    "regex",
    "default",
    "report_duplicates",
    "drop_invalid_rows",
    "metadata",
}
_SCHEMA_KEYS = ("strict", "ordered", "unique", "coerce", "name")
_OPTION_KEYS = {"ignore_na", "raise_warning", "n_failure_cases", "error", "name", "check_name"}
_TYPES = {
    "int": "Int64",
    "integer": "Int64",
    "float": "Float64",
    "double": "Float64",
    "number": "Float64",
    "object": "String",
    "str": "String",
    "string": "String",
    "text": "String",
    "utf8": "String",
    "string[python]": "String",
    "string[pyarrow]": "String",
    "bool": "Boolean",
    "boolean": "Boolean",
    "category": "Categorical",
    "date": "Date",
    "datetime": "Datetime",
    "timestamp": "Datetime",
}


#: Key in a column's metadata: its type counts moments in whatever unit.
ANY_UNIT = "guard: any unit"
_UNIT = re.compile(r"\b(ns|us|ms)\b")
_UNITS: dict[str, Literal["ns", "us", "ms"]] = {"ns": "ns", "us": "us", "ms": "ms"}
_ZONE = re.compile(r"""time_zone=['"]([^'"]+)['"]|\[\w+,\s*([^\]]+)\]""")
_DECIMAL = re.compile(r"precision=(\d+), scale=(\d+)")


class SchemaProblem(Exception):
    """A schema that cannot be read; it becomes a finding about the data that wants it."""

    rule = "data.schema"

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.hint = hint


def load_schema(judgement: Judgement, context: Context) -> Any | None:
    """Return the declared pandera schema of a data set, or None where there is none.

    Args:
        judgement: Takes the skip where a schema is code that may not run here.
        context: Where the check runs.

    Raises:
        SchemaProblem: The schema is missing, malformed, or no pandera schema.
    """
    declared = judgement.declaration.schema
    if declared is None:
        return None
    path, _, name = declared.rpartition(":")
    if path.endswith(".py"):
        if not context.trusted:
            judgement.skipped.append(
                CheckSkip(
                    f"schema {declared} of {judgement.subject}",
                    "it is Python code, which a hook does not run",
                    "write it as YAML: guard schema infer FILE -o schema.yaml",
                )
            )
            return None
        return _from_code(context.resolve(path), name, declared)
    if declared.endswith(".py"):
        raise SchemaProblem(
            f"schema {declared} does not say which name in the file it is",
            f'write `schema = "{declared}:Schema"`',
        )
    return _from_file(context.resolve(declared), declared)


def wanted_types(schema: Any) -> dict[str, Any]:
    """Return the polars type that `schema` gives each of its columns, by name."""
    types = {}
    for name, column in schema.columns.items():
        dtype = polars_type(column.dtype)
        if dtype is not None and not column.regex:
            types[name] = dtype
    return types


def polars_type(dtype: Any) -> Any | None:
    """Return the polars type behind a pandera type, or None where a schema gives none.

    Raises:
        SchemaProblem: Polars has no such type.
    """
    if dtype is None:
        return None
    kind = getattr(dtype, "type", dtype)
    if isinstance(kind, (pl.DataType, type(pl.Int64))):
        return kind
    return _named_type(str(dtype))


@contextlib.contextmanager
def unchanged_environment() -> Iterator[None]:
    """Put the environment variables back that an import sets for itself."""
    before = dict(os.environ)
    try:
        yield
    finally:
        for name in set(os.environ) - set(before):
            del os.environ[name]
        os.environ.update({n: v for n, v in before.items() if os.environ.get(n) != v})


def _from_file(path: Path, declared: str) -> Any:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is not UTF-8"
        raise SchemaProblem(
            f"schema {declared} cannot be read: {why}",
            "correct `schema`, or make one: guard schema infer FILE -o FILE.yaml",
        ) from None
    try:
        if declared.endswith(".json"):
            values = json.loads(text)
        else:
            import yaml  # noqa: PLC0415 - needed only for this format

            values = yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506
    except Exception as error:  # noqa: BLE001 - yaml and json share no base class
        raise SchemaProblem(
            f"schema {declared} is malformed: {' '.join(str(error).split())[:200]}",
            f"correct {declared}",
        ) from None
    with _explained(declared):
        return build_schema(values)


def build_schema(values: Any) -> Any:
    """Return the pandera schema that a mapping describes, in any of pandera's dialects.

    Args:
        values: What pandera's `to_yaml` or `to_json` writes, for polars or for pandas.

    Raises:
        ValueError: It is no such mapping, or names a type or check that does not exist.
    """
    with unchanged_environment():
        import pandera.polars as pa  # noqa: PLC0415 - slow, needed only for schemas

    if not isinstance(values, dict) or not isinstance(values.get("columns"), dict):
        raise ValueError("it has no table `columns`")  # noqa: TRY004 - one error for callers
    columns = {str(n): _build_column(pa, n, v or {}) for n, v in values["columns"].items()}
    given = {k: values[k] for k in _SCHEMA_KEYS if values.get(k) is not None}
    checks = [_build_check(pa, n, v) for n, v in _list_checks(values.get("checks"))]
    return pa.DataFrameSchema(columns, checks=checks or None, **given)


def _build_column(pa: Any, name: str, values: Mapping[str, Any]) -> Any:
    if not isinstance(values, dict):
        raise ValueError(f"column {name!r} is no table")  # noqa: TRY004 - same
    checks = _list_checks(values.get("checks"))
    checks += [(key, value) for key, value in values.items() if key not in _COLUMN_KEYS]
    dtype = values.get("dtype")
    return pa.Column(
        None if dtype is None else _named_type(str(dtype)),
        [_build_check(pa, check, given) for check, given in checks],
        nullable=bool(values.get("nullable", False)),
        unique=bool(values.get("unique", False)),
        coerce=bool(values.get("coerce", False)),
        required=bool(values.get("required", True)),
        regex=bool(values.get("regex", False)),
        metadata={ANY_UNIT: dtype is not None and _any_unit(str(dtype))},
    )


def _list_checks(values: Any) -> list[tuple[str, Any]]:
    """Return checks as pairs: pandera writes them as a list, as a table, or inline."""
    if not values:
        return []
    if isinstance(values, dict):
        return list(values.items())
    pairs = []
    for value in values:
        options = value.get("options", {}) if isinstance(value, dict) else {}
        if "check_name" not in options:
            raise ValueError(f"a check names itself in options.check_name: {value!r}")
        pairs.append((options["check_name"], value))
    return pairs


def _build_check(pa: Any, name: str, given: Any) -> Any:
    make = getattr(pa.Check, name, None)
    if make is None:
        raise ValueError(f"pandera has no check {name!r}")
    if not isinstance(given, dict):
        return make() if given is None else make(given)
    arguments = {k: v for k, v in given.items() if k != "options" and k not in _OPTION_KEYS}
    options = {**given.get("options", {}), **{k: v for k, v in given.items() if k in _OPTION_KEYS}}
    options = {k: v for k, v in options.items() if k in {"ignore_na", "raise_warning"}}
    if set(arguments) == {"value"} and name not in {"equal_to", "not_equal_to", "eq", "ne"}:
        return make(arguments["value"], **options)
    return make(**arguments, **options)


def _named_type(name: str) -> Any:
    """Return the polars type of a name as polars or pandas write it, its parameters included."""
    found = _bare_type(name)
    unit = _UNIT.search(name)
    if found in {pl.Datetime, pl.Duration} and unit is not None:
        per = _UNITS[unit[1]]
        if found == pl.Duration:
            return pl.Duration(per)
        zone = _ZONE.search(name)
        return pl.Datetime(per, zone[1] or zone[2] if zone else None)
    if found == pl.Decimal and (digits := _DECIMAL.search(name)):
        return pl.Decimal(int(digits[1]), int(digits[2]))
    return found


def _any_unit(name: str) -> bool:
    """Return whether a type counts moments and says not in which unit: all are meant."""
    return _bare_type(name) in {pl.Datetime, pl.Duration} and _UNIT.search(name) is None


def _bare_type(name: str) -> Any:
    base = re.split(r"[\[(]", name, maxsplit=1)[0].strip()
    for candidate in (_TYPES.get(name.lower()), base, _TYPES.get(base.lower()), base.capitalize()):
        found = getattr(pl, candidate, None) if candidate else None
        if isinstance(found, type) and issubclass(found, pl.DataType):
            return found
    if base.lower().startswith(("datetime", "timestamp")):
        return pl.Datetime
    if base.lower().startswith("timedelta"):
        return pl.Duration
    if base.lower().startswith("uint"):
        return _bare_type("UInt" + base[4:])
    raise ValueError(f"there is no type {name!r}")


def _from_code(path: Path, name: str, declared: str) -> Any:
    if not path.is_file():
        raise SchemaProblem(f"schema {declared} is missing", "correct `schema`")
    spec = importlib.util.spec_from_file_location("_guard_project_schema", path)
    if spec is None or spec.loader is None:
        raise SchemaProblem(f"schema {declared} cannot be imported", "correct `schema`")
    module = importlib.util.module_from_spec(spec)
    writes_bytecode, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        with unchanged_environment(), contextlib.redirect_stdout(sys.stderr):
            spec.loader.exec_module(module)
            schema = getattr(module, name)
            if isinstance(schema, type) and hasattr(schema, "to_schema"):
                schema = schema.to_schema()
    except ModuleNotFoundError as error:
        raise SchemaProblem(
            f"schema {declared} imports {error.name}, which guard's environment does not have",
            f"install {error.name} beside guard, or write the schema as YAML",
        ) from None
    except Exception as error:  # noqa: BLE001 - the project's code may raise anything
        raise SchemaProblem(
            f"schema {declared} cannot be imported: {type(error).__name__}: {error}"[:300],
            f"try: python {path.name}",
        ) from None
    finally:
        sys.dont_write_bytecode = writes_bytecode
    if not hasattr(schema, "columns") or not hasattr(schema, "checks"):
        raise SchemaProblem(
            f"schema {declared} is {type(schema).__name__}, not a pandera schema",
            "name a DataFrameSchema or a DataFrameModel",
        )
    with _explained(declared):
        wanted_types(schema)
        return schema


@contextlib.contextmanager
def _explained(declared: str) -> Iterator[None]:
    try:
        yield
    except SchemaProblem:
        raise
    except Exception as error:  # noqa: BLE001 - pandera raises many kinds for a wrong schema
        text = " ".join(str(error).split())[:200]
        raise SchemaProblem(f"schema {declared} is wrong: {text}", f"correct {declared}") from None
