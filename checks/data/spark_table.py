"""A data set on Spark, through ibis: the same declarations, figures gathered in one query.

Rows have no order there, so samples carry values without row numbers.
"""

from __future__ import annotations

import importlib
import math
import socket
from typing import TYPE_CHECKING, Any, Self

from checks.data.polars_table import readable
from checks.data.schema import unchanged_environment
from checks.data.source import SourceProblem
from checks.data.spark_predicates import fails, repeats
from checks.data.table import SHOWN_ROWS, Column, Kind, Summary
from checks.data.text import NULL_VALUES
from checks.errors import EngineUnavailable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType

    import polars as pl

    from checks.data.declaration import DataCheck
    from checks.data.source import Source
    from checks.data.table import Predicate

_CONNECT_S = 5.0
_EXTRA = "uv tool install 'mlguard[spark]' (Spark needs Java 17 too)"


class SparkData:
    """The `Data` protocol over a table of a Spark session; a context manager that ends it.

    Args:
        source: Files that all workers can read under the same path.
        declaration: Names the master, and how text files are read.
        wanted: polars types by column that a schema asks for.

    Raises:
        EngineUnavailable: ibis, pyspark or Java is not installed, or no master answers.
        SourceProblem: Spark cannot read the files.
    """

    def __init__(
        self, source: Source, declaration: DataCheck, wanted: Mapping[str, Any] | None = None
    ) -> None:
        wanted = wanted or {}
        self.oddity: SourceProblem | None = None
        self._session, backend = _connect(declaration.engine)
        self._first: tuple[int, dict[str, Summary]] | None = None
        try:
            frame = _read(self._session, source, declaration, wanted)
            frame.createOrReplaceTempView("guard_data")
            self._frame, self._table = frame, backend.table("guard_data")
            schema = self._table.schema()
        except Exception as error:  # noqa: BLE001 - Spark raises many kinds
            self._session.stop()
            raise _problem(error) from None
        self.columns = tuple(_describe(name, schema[name]) for name in schema.names)
        self._known = {column.name: column for column in self.columns}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self._session.stop()

    def summarize(
        self, names: Sequence[str] | None = None, unless: Mapping[str, Any] | None = None
    ) -> tuple[int, dict[str, Summary]]:
        """Return the number of rows and the summary of each column, in one query."""
        whole = names is None and unless is None
        if whole and self._first is not None:
            return self._first
        columns = self.columns if names is None else [self._known[n] for n in names]
        wanted = {"rows": self._table.count()}
        for n, column in enumerate(columns):
            figures = self._figures(column, (unless or {}).get(column.name))
            wanted |= {f"{key}_{n}": value for key, value in figures.items()}
        row = self._row(wanted)
        summaries = {}
        for n, column in enumerate(columns):
            own = {key[: -len(f"_{n}")]: v for key, v in row.items() if key.endswith(f"_{n}")}
            summaries[column.name] = _summary(own)
        found = int(row["rows"]), summaries
        if whole:
            self._first = found
        return found

    def count(self, predicates: Sequence[Predicate]) -> list[int]:
        """Return how many rows fail each predicate, in one query."""
        if not predicates:
            return []
        wanted = {f"n{n}": self._counted(p) for n, p in enumerate(predicates)}
        row = self._row(wanted)
        return [int(row[f"n{n}"] or 0) for n in range(len(predicates))]

    def failing(self, predicates: Sequence[Predicate]) -> list[tuple[Mapping[str, Any], ...]]:
        """Return at most ten failing values for each predicate."""
        shown: list[tuple[Mapping[str, Any], ...]] = []
        for predicate in predicates:
            bad = fails(self._table, predicate, self._known[predicate.column])
            rows = self._table.filter(bad).select(predicate.column).limit(SHOWN_ROWS)
            values = self._rows(rows)
            shown.append(tuple({"value": readable(v[predicate.column])} for v in values))
        return shown

    def sample(self, rows: int) -> pl.DataFrame:
        """Return about `rows` rows drawn at random with a fixed seed; all where fewer."""
        import polars as pl  # noqa: PLC0415 - only this method hands rows to the driver

        total = self.summarize()[0]
        frame = self._frame
        if total > rows:
            frame = frame.sample(fraction=rows / total, seed=1)
        try:
            return pl.DataFrame(pl.from_arrow(frame.toArrow()))
        except Exception as error:  # noqa: BLE001 - Spark raises many kinds
            raise _problem(error) from None

    def groups(self, column: str, limit: int) -> dict[Any, int] | None:
        """Return how often each value occurs, missing left out; None for more than `limit`."""
        known = self._known[column]
        present = self._table.filter(~_missing(self._table[column], known))
        grouped = present.group_by(column).aggregate(guard_rows=present.count())
        rows = self._rows(grouped.limit(limit + 1))
        if len(rows) > limit:
            return None
        return {row[column]: int(row["guard_rows"]) for row in rows}

    def repeated(self, columns: Sequence[str], *, exact: bool) -> tuple[int, int]:
        """Return (rows that repeat an earlier one, rows looked at), always over all rows."""
        del exact
        rows = self.summarize()[0]
        chosen = self._table.select(*columns)
        distinct = int(self._row({"distinct": chosen.distinct().count()})["distinct"])
        return rows - distinct, rows

    def _counted(self, predicate: Predicate) -> Any:
        known = self._known[predicate.column]
        if predicate.op == "repeats":
            return repeats(self._table[predicate.column])
        bad = fails(self._table, predicate, known)
        return bad.sum()

    def _figures(self, column: Column, unless: Any) -> dict[str, Any]:
        ibis = importlib.import_module("ibis")
        value = self._table[column.name]
        figures = {"missing": _missing(value, column).sum()}
        if column.kind is Kind.NUMBER:
            inside = value.notnull()
            if column.is_float:
                figures["infinite"] = value.isinf().fill_null(False).sum()
                inside &= ~value.isnan() & ~value.isinf()
            if unless is not None:
                inside &= value != unless
            value = ibis.ifelse(inside, value, ibis.null(value.type()))
            figures |= {"mean": value.mean(), "std": value.std(how="sample")}
        if column.kind is Kind.TEXT:
            figures["longest"] = value.length().max()
        if column.kind not in {Kind.OTHER, Kind.TEXT}:
            figures |= {"minimum": value.min(), "maximum": value.max()}
        return figures

    def _row(self, wanted: Mapping[str, Any]) -> dict[str, Any]:
        """Return the values of aggregates from a single query."""
        if set(wanted) == {"distinct"}:
            return {"distinct": _run(wanted["distinct"].execute)}
        (row,) = self._rows(self._table.aggregate(**wanted))
        return row

    def _rows(self, table: Any) -> list[dict[str, Any]]:
        return list(_run(lambda: table.to_pyarrow().to_pylist()))


def _connect(master: str) -> tuple[Any, Any]:
    """Return a Spark session on `master` and ibis over it."""
    host, _, port = master.removeprefix("spark://").rpartition(":")
    if master.startswith("spark://"):
        try:
            socket.create_connection((host, int(port)), timeout=_CONNECT_S).close()
        except (OSError, ValueError):
            raise EngineUnavailable(
                f"no Spark master answers at {master}",
                hint="start it, correct `engine`, or leave `engine` out to check here",
            ) from None
    with unchanged_environment():
        try:
            ibis = importlib.import_module("ibis")
            sql = importlib.import_module("pyspark.sql")
        except ImportError as error:
            raise EngineUnavailable(
                f"engine {master} needs {error.name}, which is not installed", hint=_EXTRA
            ) from None
        try:
            builder = sql.SparkSession.builder.master(master).appName("guard")
            builder = builder.config("spark.ui.enabled", "false")
            builder = builder.config("spark.ui.showConsoleProgress", "false")
            if host in {"127.0.0.1", "localhost"}:
                builder = builder.config("spark.driver.host", "127.0.0.1")
                builder = builder.config("spark.driver.bindAddress", "127.0.0.1")
            session = builder.config("spark.sql.session.timeZone", "UTC").getOrCreate()
            session.sparkContext.setLogLevel("ERROR")
            return session, ibis.pyspark.connect(session)
        except Exception as error:  # noqa: BLE001 - Spark raises many kinds
            text = str(error).strip().partition("\n")[0][:200]
            raise EngineUnavailable(f"Spark does not start: {text}", hint=_EXTRA) from None


def _read(session: Any, source: Source, declaration: DataCheck, wanted: Mapping[str, Any]) -> Any:
    paths = [str(file.resolve()) for file in source.files]
    reader = session.read
    if source.root is not None:
        reader = reader.option("basePath", str(source.root.resolve()))
    if source.format == "parquet":
        return reader.parquet(*paths)
    if source.format == "jsonl":
        return reader.option("mode", "FAILFAST").json(paths)
    if source.format == "csv":
        reader = reader.option("header", "true").option("inferSchema", "true")
        reader = reader.option("sep", declaration.separator or ",").option("mode", "FAILFAST")
        inferred = reader.csv(paths).schema
        return _without_words(reader.schema(_widened(inferred, wanted)).csv(paths), declaration)
    raise SourceProblem(
        "data.engine",
        "Spark does not read Arrow files",
        "write the data as Parquet, or leave `engine` out",
    )


def _widened(inferred: Any, wanted: Mapping[str, Any]) -> Any:
    """Return the types that the embedded engine gives a CSV file: wide, or as a schema asks."""
    types = importlib.import_module("pyspark.sql.types")
    wide = {"int": types.LongType(), "float": types.DoubleType()}
    asked = {"String": types.StringType(), "Float64": types.DoubleType()}
    fields = []
    for field in inferred.fields:
        kind = wide.get(field.dataType.simpleString(), field.dataType)
        kind = asked.get(str(wanted.get(field.name)), kind)
        fields.append(types.StructField(field.name, kind, nullable=True))
    return types.StructType(fields)


def _without_words(frame: Any, declaration: DataCheck) -> Any:
    """Turn the words for missing in text columns into null."""
    functions = importlib.import_module("pyspark.sql.functions")
    nulls = NULL_VALUES if declaration.null_values is None else declaration.null_values
    for name, kind in frame.dtypes:
        if kind == "string":
            quoted = f"`{name.replace('`', '``')}`"
            value = functions.col(quoted)
            frame = frame.withColumn(name, functions.when(~value.isin(list(nulls)), value))
    return frame


def _describe(name: str, dtype: Any) -> Column:
    if dtype.is_numeric():
        kind = Kind.NUMBER
    elif dtype.is_boolean():
        kind = Kind.BOOLEAN
    elif dtype.is_string():
        kind = Kind.TEXT
    elif dtype.is_temporal():
        kind = Kind.TIME
    else:
        kind = Kind.OTHER
    shown = str(dtype).removeprefix("!").capitalize()
    return Column(name, shown, kind, bool(dtype.is_floating()))


def _missing(value: Any, column: Column) -> Any:
    missing = value.isnull()
    return missing | value.isnan().fill_null(False) if column.is_float else missing


def _summary(figures: dict[str, Any]) -> Summary:
    for key in ("mean", "std"):
        value = figures.get(key)
        if value is not None and not math.isfinite(value):
            figures[key] = None
    figures["missing"] = int(figures["missing"] or 0)
    figures["infinite"] = int(figures.get("infinite") or 0)
    return Summary(**figures)


def _run(query: Any) -> Any:
    try:
        return query()
    except Exception as error:  # noqa: BLE001 - Spark raises many kinds
        raise _problem(error) from None


def _problem(error: Exception) -> Exception:
    """Return the problem behind an error of Spark; its traces run to pages."""
    if isinstance(error, SourceProblem):
        return error
    text = str(error).strip().partition("\n")[0][:200]
    return SourceProblem(
        "data.engine",
        f"Spark cannot answer: {text}",
        "look at the log of the Spark application, or leave `engine` out to check here",
    )
