"""pandera schemas: read in each dialect, judged as pandera judges, code only where trusted."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import pandera.polars as pa
import polars as pl
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pandera.config import ValidationDepth, config_context
from pandera.errors import SchemaErrors

from checks.context import Context
from checks.data import DataCheck, check, infer_schema
from checks.data.schema import build_schema
from checks.errors import CheckError

if TYPE_CHECKING:
    from pathlib import Path

    from checks.model import CheckReport

DATA = "a,b,f\n1,x1,1.5\n2,y1,\n3,x1,2\n9,xlonger,4\n9,xlonger,4\n"
CODE = """
import pandera.polars as pa
import polars as pl

print("noise on standard output")
Schema = pa.DataFrameSchema(
    {
        "a": pa.Column(
            pl.Int64,
            [
                pa.Check.in_range(0, 5),
                pa.Check(lambda d: d.lazyframe.select(pl.col(d.key) > 1), name="over_one"),
                pa.Check(lambda v: v != 3, element_wise=True, name="not_three"),
                pa.Check(lambda d: 1 / 0, name="explodes"),
            ],
        ),
        "b": pa.Column(pl.String, pa.Check.str_length(1, 2)),
        "f": pa.Column(pl.Float64, nullable=True),
    },
    checks=[pa.Check(lambda d: d.lazyframe.select(pl.col("a") < pl.col("f")), name="a_below_f")],
    unique=["a", "b"],
)


class Model(pa.DataFrameModel):
    a: int = pa.Field(ge=2)
    b: str
    f: float = pa.Field(nullable=True)
"""


def check_with(base: Path, schema: str, data: str = DATA, *, trusted: bool = True) -> CheckReport:
    """Check CSV data against a schema, missing values aside."""
    (base / "d.csv").write_text(data)
    declared = DataCheck("d.csv", schema=schema, max_missing=1.0)
    return check(declared, Context(base=base, trusted=trusted))


def counts(report: CheckReport) -> dict[tuple[str, str | None], int | None]:
    """Return how many rows fail each schema rule of each column."""
    return {
        (f.check.removeprefix("data.schema."), f.column): f.count
        for f in report.findings
        if f.check.startswith("data.schema")
    }


FLAT = {
    "columns": {
        "a": {"dtype": "Int64", "greater_than_or_equal_to": 2, "isin": [1, 2, 9]},
        "b": {"dtype": "String", "str_matches": "x", "unique": True},
        "f": {"dtype": "Float64"},
    },
    "strict": True,
}
TABLES = {
    "schema_type": "dataframe",
    "version": "0.20",
    "columns": {
        "a": {
            "dtype": "int64",
            "checks": {"greater_than_or_equal_to": 2, "isin": {"value": [1, 2, 9]}},
        },
        "b": {"dtype": "object", "checks": {"str_matches": "x"}, "unique": True},
        "f": {"dtype": "float64", "checks": None, "nullable": False},
    },
    "index": None,
    "strict": True,
}
LISTS = {
    "columns": {
        "a": {
            "dtype": "int64",
            "checks": [
                {"value": 2, "options": {"check_name": "greater_than_or_equal_to"}},
                {"value": [1, 2, 9], "options": {"check_name": "isin"}},
            ],
        },
        "b": {
            "dtype": "str",
            "checks": [{"value": "x", "options": {"check_name": "str_matches"}}],
            "unique": True,
        },
        "f": {"dtype": "float64", "nullable": False},
    },
    "strict": True,
}


@pytest.mark.parametrize("values", [FLAT, TABLES, LISTS])
@pytest.mark.parametrize("suffix", ["yaml", "json"])
def test_each_dialect_is_read(tmp_path: Path, values: dict[str, Any], suffix: str) -> None:
    """What pandera writes for polars, for pandas, and in older versions means the same."""
    dump = json.dumps if suffix == "json" else yaml.safe_dump
    (tmp_path / f"s.{suffix}").write_text(dump(values))
    assert counts(check_with(tmp_path, f"s.{suffix}")) == {
        ("greater_than_or_equal_to", "a"): 1,
        ("isin", "a"): 1,
        ("str_matches", "b"): 1,
        ("unique", "b"): 2,
        ("nullable", "f"): 1,
    }


def test_missing_unexpected_unordered_and_mistyped_columns(tmp_path: Path) -> None:
    """Each way in which columns can differ is a finding."""
    values = {
        "columns": {
            "b": {"dtype": "String"},
            "a": {"dtype": "Date"},
            "gone": {"dtype": "Int64"},
            "may_go": {"dtype": "Int64", "required": False},
        },
        "strict": True,
        "ordered": True,
    }
    (tmp_path / "s.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
    report = check_with(tmp_path, "s.yaml")
    messages = " ".join(f.message for f in report.findings)
    assert "'gone' of the schema is not there" in messages
    assert "not in the schema: f" in messages
    assert "come in another order" in messages
    assert ("type", "a") in counts(report)


def test_csv_cells_that_do_not_fit_the_type_are_counted(tmp_path: Path) -> None:
    """A schema gives a text file its types; what does not parse is shown."""
    (tmp_path / "s.yaml").write_text("columns: {a: {dtype: Int64}, code: {dtype: String}}\n")
    report = check_with(tmp_path, "s.yaml", "a,code\n1,007\ntwo,008\n3,009\n")
    (finding,) = [f for f in report.findings if f.check == "data.schema.type"]
    assert (finding.column, finding.count) == ("a", 1)
    assert finding.samples == ({"row": 2, "value": "two"},)
    assert report.figures["d.csv"]["columns"]["code"]["type"] == "String"


def test_python_schema_with_functions(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Functions are called with the lazy frame; one that explodes is a finding."""
    (tmp_path / "schemas.py").write_text(CODE)
    report = check_with(tmp_path, "schemas.py:Schema")
    assert counts(report) == {
        ("in_range", "a"): 2,
        ("over_one", "a"): 1,
        ("not_three", "a"): 1,
        ("explodes", "a"): None,
        ("str_length", "b"): 2,
        ("unique", "a, b"): 1,
        ("a_below_f", None): 3,
    }
    assert capfd.readouterr().out == ""
    assert not (tmp_path / "__pycache__").exists()
    model = check_with(tmp_path, "schemas.py:Model")
    assert counts(model) == {("greater_than_or_equal_to", "a"): 1}


def test_untrusted_context_runs_no_code(tmp_path: Path) -> None:
    """A hook imports nothing of the project, and says so."""
    canary = tmp_path / "fired"
    (tmp_path / "schemas.py").write_text(f"open({str(canary)!r}, 'w')\n")
    report = check_with(tmp_path, "schemas.py:Schema", trusted=False)
    assert not canary.exists()
    assert "does not run" in report.skipped[0].why


@pytest.mark.parametrize(
    ("schema", "content", "said"),
    [
        ("gone.yaml", None, "cannot be read"),
        ("s.yaml", "columns: [", "malformed"),
        ("s.json", "{", "malformed"),
        ("s.yaml", "just text", "no table `columns`"),
        ("s.yaml", "columns: {a: {dtype: Int65}}", "Int65"),
        ("s.yaml", "columns: {a: {dtype: Int64, is_prime: true}}", "is_prime"),
        ("s.py", "Schema = 1", "which name"),
        ("s.py:Schema", "Schema = 1", "not a pandera schema"),
        ("s.py:Gone", "Schema = 1", "Gone"),
        ("s.py:Schema", "import not_installed_here", "not_installed_here"),
        ("s.py:Schema", "1 / 0", "ZeroDivisionError"),
        ("gone.py:Schema", None, "missing"),
    ],
)
def test_wrong_schema_is_a_finding(
    tmp_path: Path, schema: str, content: str | None, said: str
) -> None:
    """A schema that cannot be used never passes; the other rules still run."""
    if content is not None:
        (tmp_path / schema.partition(":")[0]).write_text(content)
    report = check_with(tmp_path, schema)
    (finding,) = [f for f in report.findings if f.check == "data.schema"]
    assert said in finding.message
    assert finding.hint
    assert not report.ok
    assert "data.missing" in {rule for rule, _ in report.checked}


def test_import_leaves_the_environment_alone(tmp_path: Path) -> None:
    """What pandera or a schema sets on import does not reach the child."""
    (tmp_path / "s.py").write_text(
        "import os\nos.environ['LEAKED'] = '1'\nos.environ['HOME'] = '/nowhere'\n" + CODE
    )
    before = dict(os.environ)
    check_with(tmp_path, "s.py:Schema")
    assert dict(os.environ) == before


def test_inferred_schema_accepts_its_data_and_no_other(tmp_path: Path) -> None:
    """`infer` and check agree, and pandera builds the same schema from the text."""
    rows = "".join(f"{n},{'red' if n % 2 else 'blue'},{n / 7}\n" for n in range(50))
    data = "id,color,x\n" + rows
    (tmp_path / "d.csv").write_text(data)
    text = infer_schema(tmp_path / "d.csv")
    (tmp_path / "s.yaml").write_text(text)
    assert counts(check_with(tmp_path, "s.yaml", data)) == {}
    assert set(build_schema(yaml.safe_load(text)).columns) == {"id", "color", "x"}
    worse = data + "99,mauve,-1\n"
    assert counts(check_with(tmp_path, "s.yaml", worse)) == {
        ("in_range", "id"): 1,
        ("isin", "color"): 1,
        ("in_range", "x"): 1,
    }
    with pytest.raises(CheckError, match="missing"):
        infer_schema(tmp_path / "gone.csv")


def test_pattern_with_alternatives_matches_at_the_start(tmp_path: Path) -> None:
    """``a|b`` is anchored as a whole, as the check promises; pandera on polars forgets b."""
    (tmp_path / "s.yaml").write_text('columns: {s: {dtype: String, str_matches: "a|b"}}')
    report = check_with(tmp_path, "s.yaml", "s\nabc\nbcd\ncab\n")
    assert counts(report) == {("str_matches", "s"): 1}


CHECKS = st.sampled_from(
    [
        ("n", {"greater_than": 3}),
        ("n", {"less_than_or_equal_to": 5}),
        ("n", {"in_range": {"min_value": 2, "max_value": 8, "include_max": False}}),
        ("n", {"isin": [1, 2, 3]}),
        ("n", {"notin": [4, 5]}),
        ("n", {"equal_to": 4}),
        ("n", {"not_equal_to": 4}),
        ("s", {"str_matches": "[ab]"}),
        ("s", {"str_contains": "c$"}),
        ("s", {"str_startswith": "a"}),
        ("s", {"str_endswith": "b"}),
        ("s", {"str_length": {"min_value": 1, "max_value": 2}}),
        ("s", {"isin": ["a", "b", "ab"]}),
    ]
)


@settings(deadline=None, max_examples=60, suppress_health_check=list(HealthCheck))
@given(
    CHECKS,
    st.lists(st.tuples(st.integers(0, 10), st.text("abc", max_size=3)), min_size=1, max_size=40),
)
def test_built_in_checks_fail_the_rows_that_pandera_fails(
    tmp_path: Path, rule: tuple[str, dict[str, Any]], rows: list[tuple[int, str]]
) -> None:
    """Every built-in check counts exactly pandera's failure cases."""
    column, declared = rule
    frame = pl.DataFrame(rows, schema={"n": pl.Int64, "s": pl.String}, orient="row")
    frame.write_parquet(tmp_path / "t.parquet")
    values = {"columns": {column: {"dtype": "Int64" if column == "n" else "String", **declared}}}
    (tmp_path / "s.yaml").write_text(yaml.safe_dump(values))
    declaration = DataCheck("t.parquet", schema="s.yaml", min_class_share=0)
    (ours,) = counts(check(declaration, Context(base=tmp_path))).values() or (0,)
    schema: pa.DataFrameSchema = build_schema(values)
    theirs = 0
    with config_context(validation_depth=ValidationDepth.SCHEMA_AND_DATA):
        try:
            schema.validate(frame, lazy=True)
        except SchemaErrors as error:
            theirs = error.failure_cases.height
    assert ours == theirs
