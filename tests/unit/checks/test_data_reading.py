"""Readers of data: streams, JSON lines, folders; what is half written never passes."""

from __future__ import annotations

import io
import json
import os
import random
import subprocess
import sys
from typing import TYPE_CHECKING

import polars as pl
import pytest

from checks.context import Context
from checks.data import DataCheck, check, infer_schema, json_reading
from checks.data.long_lines import LIMIT_BYTES, require_short_lines
from checks.data.source import SourceProblem, find_source

if TYPE_CHECKING:
    from pathlib import Path

    from checks.model import CheckReport

NUMBERS = b"".join(b'{"a":%d,"b":"z%d"}\n' % (n, n) for n in range(1000))


def check_at(base: Path, path: str, **declared: object) -> CheckReport:
    """Check `path` with the defaults and the given declarations."""
    return check(DataCheck(path=path, **declared), Context(base=base))  # type: ignore[arg-type]


def make_stream(batches: int = 5) -> bytes:
    """Return an Arrow stream of several batches, with a dictionary."""
    size = 100
    frame = pl.DataFrame(
        {
            "n": range(batches * size),
            "x": [None if n % 50 == 0 else n / 3 for n in range(batches * size)],
            "c": pl.Series(["red", "green", "blue", "red"] * (batches * size // 4)),
        }
    ).with_columns(pl.col("c").cast(pl.Categorical))
    buffer = io.BytesIO()
    frame.write_ipc_stream(buffer)
    return buffer.getvalue()


def test_a_stream_is_read_like_a_file(tmp_path: Path) -> None:
    """Figures and findings of an Arrow stream are those of the same table in a file."""
    (tmp_path / "t.arrow").write_bytes(make_stream())
    pl.read_ipc_stream(tmp_path / "t.arrow").write_ipc(tmp_path / "u.arrow")
    found = []
    for name in ("t.arrow", "u.arrow"):
        report = check_at(tmp_path, name, max_missing=0.01, target="c", ranges={"n": (0, 400)})
        assert {f.check for f in report.findings if f.severity == "error"} == {
            "data.missing",
            "data.range",
        }
        figures = report.figures[name]
        every = [figures["columns"], figures["classes"], [f.samples for f in report.findings]]
        found.append(json.loads(json.dumps(every), parse_float=lambda text: round(float(text), 9)))
    assert found[0] == found[1]
    assert find_source("t.arrow", Context(base=tmp_path)).format == "arrow stream"


def test_a_stream_that_is_cut_anywhere_never_passes(tmp_path: Path) -> None:
    """Neither inside a message nor between two, nor without its end mark."""
    whole = make_stream()
    seen = set()
    for length in [*range(8, len(whole), 97), len(whole) - 8, len(whole) - 1]:
        (tmp_path / "cut.arrow").write_bytes(whole[:length])
        report = check_at(tmp_path, "cut.arrow")
        assert not report.ok, length
        seen.add(report.findings[0].check)
    assert "data.truncated" in seen
    (tmp_path / "cut.arrow").write_bytes(whole[:-8] + b"garbage.")
    assert not check_at(tmp_path, "cut.arrow").ok


def test_streams_in_partitioned_folders(tmp_path: Path) -> None:
    """The folders' keys become columns, as with other formats."""
    for year in (2020, 2021):
        folder = tmp_path / "data" / f"year={year}"
        folder.mkdir(parents=True)
        (folder / "part.arrow").write_bytes(make_stream(2))
    report = check_at(tmp_path, "data", target="year")
    assert report.ok
    assert report.figures["data"]["classes"] == {"2020": 0.5, "2021": 0.5}


@pytest.mark.parametrize(
    ("line", "rule", "said"),
    [
        (b'{"a":"7","b":"q"}\n', "data.types", "line 1001 of t.jsonl has a text for 'a', line 1"),
        (b'{"a":[1],"b":"q"}\n', "data.types", "has a list for 'a'"),
        (b'{"a":{"x":1},"b":"q"}\n', "data.types", "has a table for 'a'"),
        (b'{"a":true,"b":"q"}\n', "data.types", "has true or false for 'a'"),
        (b'{"a":1,"b":7}\n', "data.types", "has a number for 'b'"),
        (b'{"a":\n', "data.format", "line 1001 of t.jsonl is no JSON"),
        (b'{"a":1} {"a":2}\n', "data.format", "line 1001 of t.jsonl is no JSON"),
        (b"[1, 2]\n", "data.format", "line 1001 of t.jsonl is a list, not an object"),
        (b'{"a":1,"b":"' + bytes(50), "data.truncated", "line 1001 of t.jsonl holds NUL bytes"),
        (b'{"a":1,"b":"cu', "data.format", "cut short"),
    ],
)
@pytest.mark.parametrize("pieces", [1, 1000])
def test_bad_json_line_is_named(
    tmp_path: Path, line: bytes, rule: str, said: str, pieces: int
) -> None:
    """The number of the line and what is wrong with it; also where it comes in a later piece."""
    (tmp_path / "t.jsonl").write_bytes(NUMBERS + line)
    report = check_at(tmp_path, "t.jsonl")
    (finding,) = [f for f in report.findings if f.severity == "error"]
    assert finding.check == rule
    assert said in finding.message
    assert finding.hint
    if pieces > 1:
        (tmp_path / "t.jsonl").write_bytes(NUMBERS * 300 + line)
        assert not check_at(tmp_path, "t.jsonl").ok


def test_large_json_lines_are_read_in_pieces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the same figures and samples as a file that is mapped into memory."""
    lines = [
        json.dumps({"n": n, "x": None if n % 30 == 0 else n / 7, "c": "abc"[n % 3], "l": [n]})
        for n in range(20_000)
    ]
    (tmp_path / "t.jsonl").write_text("\n".join(lines) + "\n\n")
    declared = {"max_missing": 0.01, "ranges": {"n": (0, 19_000)}, "target": "c"}
    whole = check_at(tmp_path, "t.jsonl", **declared)
    monkeypatch.setattr(json_reading, "_MAPPED_BYTES", 0)
    monkeypatch.setattr(json_reading, "_PIECE_BYTES", 5_000)
    pieces = check_at(tmp_path, "t.jsonl", **declared)
    assert [(f.check, f.count, f.samples) for f in pieces.findings] == [
        (f.check, f.count, f.samples) for f in whole.findings
    ]
    assert len(whole.findings) == 2
    every = [whole.figures["t.jsonl"], pieces.figures["t.jsonl"]]
    rounded = [json.loads(json.dumps(e), parse_float=lambda t: round(float(t), 7)) for e in every]
    assert rounded[0] == rounded[1]


def test_json_array_gets_the_command_that_mends_it(tmp_path: Path) -> None:
    """The usual mistake: a JSON file that was renamed."""
    (tmp_path / "t.jsonl").write_text('[{"a": 1}, {"a": 2}]')
    (finding,) = check_at(tmp_path, "t.jsonl").findings
    assert "jq" in finding.hint


def test_texts_that_look_like_numbers_are_texts(tmp_path: Path) -> None:
    """Quoted numbers throughout are one type."""
    (tmp_path / "t.jsonl").write_text("".join(f'{{"id": "{n:06}"}}\n' for n in range(500)))
    assert check_at(tmp_path, "t.jsonl").findings == ()


def test_file_that_was_reserved_and_not_written(tmp_path: Path) -> None:
    """A tail of NUL bytes is what a crash leaves behind; a text column would take it."""
    text = b"a,t\n" + b"".join(b"%d,x%d\n" % (n, n) for n in range(1000))
    (tmp_path / "half.csv").write_bytes(text + bytes(len(text)))
    (finding,) = check_at(tmp_path, "half.csv").findings
    assert finding.check == "data.truncated"
    assert "NUL" in finding.message


def test_last_line_without_a_newline_is_noted(tmp_path: Path) -> None:
    """Nothing tells whether its value is whole: a note, which stops nobody."""
    (tmp_path / "t.csv").write_text("a,b\n1,2\n3,4\n5,10")
    report = check_at(tmp_path, "t.csv")
    assert report.ok
    assert [(f.check, str(f.severity)) for f in report.findings] == [("data.truncated", "info")]
    (tmp_path / "t.csv").write_text("a,b\n1,2\n3,4\n5,10\n")
    assert check_at(tmp_path, "t.csv").findings == ()


def test_open_quote_is_named(tmp_path: Path) -> None:
    """Not by the words of a parser."""
    rows = "".join(f"{n},y\n" for n in range(1000))
    (tmp_path / "t.csv").write_text('a,b\n1,"x\n' + rows)
    (finding,) = check_at(tmp_path, "t.csv").findings
    assert "a quote that is not closed" in finding.message


def test_folders_of_hive_and_spark(tmp_path: Path) -> None:
    """Their values are percent-encoded, and a missing one has a name of its own."""
    for key in ("kind=a%20b", "kind=__HIVE_DEFAULT_PARTITION__"):
        folder = tmp_path / "data" / key
        folder.mkdir(parents=True)
        (folder / "part.csv").write_text("".join(["v\n", *(f"{n}\n" for n in range(50))]))
    report = check_at(tmp_path, "data", categories={"kind": ("a b",)})
    assert [(f.check, f.column, f.count) for f in report.findings if f.severity != "info"] == [
        ("data.missing", "kind", 50)
    ]


def test_line_search_finds_long_lines_alone(tmp_path: Path) -> None:
    """Compared with reading everything, on random lines around the limit."""
    chance = random.Random(4)
    context = Context(base=tmp_path)
    for _ in range(200):
        limit = chance.randrange(3, 40)
        lines = [b"x" * chance.randrange(2 * limit) for _ in range(chance.randrange(1, 30))]
        (tmp_path / "t.csv").write_bytes(b"\n".join(lines) + b"\n")
        long = [n for n, line in enumerate(lines, 1) if len(line) > limit]
        source = find_source("t.csv", context)
        if not long:
            require_short_lines(source, context, limit)
            continue
        with pytest.raises(SourceProblem, match=rf"line {long[0]} of"):
            require_short_lines(source, context, limit)


def test_line_of_gigabytes_is_not_read(tmp_path: Path) -> None:
    """A value without end is named in bounded memory, in JSON lines as well."""
    for name, start in (("t.csv", b"a,b\n1,"), ("t.jsonl", b'{"a":1}\n{"a":"')):
        with (tmp_path / name).open("wb") as file:
            file.write(start)
            file.write(b"x" * (LIMIT_BYTES + 1))
            file.truncate(3_000_000_000)
        code = (
            "import sys; from pathlib import Path; from checks.context import Context;"
            "from checks.data import DataCheck, check;"
            "report = check(DataCheck(sys.argv[1]), Context(Path(sys.argv[2])));"
            "status = Path('/proc/self/status').read_text().partition('VmHWM:')[2];"
            "print(report.findings[0].check, status.split()[0])"
        )
        command = [sys.executable, "-c", code, name, str(tmp_path)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        rule, peak_kib = done.stdout.split()
        assert rule in {"data.length", "data.truncated"}
        assert int(peak_kib) < 200_000


def test_categories_of_arrow_are_texts_to_the_rules(tmp_path: Path) -> None:
    """Pandas writes its categories as dictionaries; the rules see texts."""
    kinds = pl.Series("c", ["a"] * 90 + ["b"] * 10).cast(pl.Categorical)
    frame = kinds.to_frame()
    frame.write_parquet(tmp_path / "before.parquet")
    frame.with_columns(pl.col("c").reverse()).head(60).write_parquet(tmp_path / "now.parquet")
    report = check_at(tmp_path, "now.parquet", reference="before.parquet", target="c")
    figures = report.figures["now.parquet"]
    assert figures["classes"] == pytest.approx({"a": 5 / 6, "b": 1 / 6})
    assert figures["columns"]["c"]["psi"] > 0
    assert "data.duplicates" in {f.check for f in report.findings}


@pytest.mark.parametrize("dtype", [pl.String, pl.Categorical, pl.Enum(["same", "x"])])
def test_constant_texts(tmp_path: Path, dtype: pl.DataType) -> None:
    """Told by a sample first, then by all values: one other in a million is enough."""
    rows = 250_000
    same = pl.Series("c", ["same"] * rows)
    frame = pl.DataFrame({"c": same.cast(dtype), "n": range(rows)})
    frame.write_parquet(tmp_path / "t.parquet")
    (finding,) = check_at(tmp_path, "t.parquet").findings
    assert (finding.check, finding.column, finding.value) == ("data.constant", "c", "same")
    frame[123_456, "c"] = "x"
    frame.write_parquet(tmp_path / "t.parquet")
    assert check_at(tmp_path, "t.parquet").findings == ()


def test_a_panic_is_a_finding_and_not_a_trace(tmp_path: Path) -> None:
    """What polars' threads print when they panic stays off the terminal; all else comes through."""
    code = (
        "import os, polars as pl; from checks.data.panics import panics_unseen\n"
        "with panics_unseen():\n"
        "    os.write(2, b'a word\\n')\n"
        "    try:\n"
        "        pl.select(pl.lit(10**8).cast(pl.Date)).to_series().cast(pl.String)\n"
        "    except pl.exceptions.PanicException:\n"
        "        print('panicked')\n"
        "os.write(2, b'after\\n')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "panicked\n"
    assert done.stderr == "a word\nafter\n"


@pytest.mark.parametrize("dtype", [pl.Datetime("ms"), pl.Datetime("ns", "UTC"), pl.Date])
def test_moments_beyond_all_calendars(tmp_path: Path, dtype: pl.DataType) -> None:
    """Seconds that were taken for milliseconds: a finding with rows, never a traceback."""
    whole = pl.Int32 if dtype == pl.Date else pl.Int64
    far = 2**31 - 1 if dtype == pl.Date else 2**62
    frame = pl.DataFrame({"when": pl.Series([*range(50), far], dtype=whole).cast(dtype)})
    frame.write_parquet(tmp_path / "t.parquet")
    report = check_at(tmp_path, "t.parquet")
    if dtype == pl.Datetime("ns", "UTC"):
        assert report.findings == ()  # 292 years from 1970 are all that nanoseconds reach
        return
    (finding,) = report.findings
    assert (finding.check, finding.count) == ("data.time", 1)
    assert finding.samples[0]["row"] == 51
    assert "from 1970" in finding.samples[0]["value"]


def test_moments_are_shown_as_such(tmp_path: Path) -> None:
    """A constant one is told by date and time."""
    moment = pl.datetime(2024, 5, 17, 12, 30, time_unit="ms", time_zone="UTC")
    frame = pl.select(pl.repeat(moment, 20).alias("when"), pl.int_range(20).alias("n"))
    frame.write_parquet(tmp_path / "t.parquet")
    (finding,) = check_at(tmp_path, "t.parquet").findings
    assert (finding.check, finding.value) == ("data.constant", "2024-05-17 12:30:00+00:00")


def test_spoilt_files_are_findings_or_fine(tmp_path: Path) -> None:
    """Bits flipped, blocks zeroed, ends cut off: never an exception, nothing on the terminal."""
    chance = random.Random(7)
    frame = pl.DataFrame(
        {
            "n": range(400),
            "x": [n / 7 for n in range(400)],
            "t": [f"k{n % 9}" for n in range(400)],
            "l": [[n, n + 1] for n in range(400)],
        }
    ).with_columns(pl.col("n").cast(pl.Datetime("us")).alias("when"))
    frame.write_parquet(tmp_path / "0.parquet")
    frame.write_ipc(tmp_path / "0.arrow", compression="lz4")
    frame.write_ipc_stream(tmp_path / "0s.arrow")
    frame.write_ndjson(tmp_path / "0.jsonl")
    passed = 0
    for name in ("0.parquet", "0.arrow", "0s.arrow", "0.jsonl"):
        whole = (tmp_path / name).read_bytes()
        for _ in range(40):
            spoilt = bytearray(whole)
            at = chance.randrange(len(whole))
            if chance.random() < 0.5:
                spoilt[at] ^= 1 << chance.randrange(8)
            else:
                spoilt[at : at + 64] = bytes(len(spoilt[at : at + 64]))
            (tmp_path / f"spoilt{name}").write_bytes(spoilt)
            passed += check_at(tmp_path, f"spoilt{name}").ok
    assert 0 < passed < 160


@pytest.mark.parametrize(
    "series",
    [
        pl.Series("v", ["1.25", None, "3.50"], dtype=pl.String).cast(pl.Decimal(10, 2)),
        pl.Series("v", [1000, 2000, 3000]).cast(pl.Duration("ms")),
        pl.Series("v", [1, 2, 3]).cast(pl.Datetime("ns", "Europe/Berlin")),
        pl.Series("v", [[1], [2, 3], []]),
        pl.Series("v", [{"a": 1, "b": "x"}, {"a": 2, "b": "y"}, {"a": 3, "b": "z"}]),
        pl.Series("v", [b"x", b"y", b"z"]),
        pl.Series("v", ["a", "b", "a"]).cast(pl.Enum(["a", "b"])),
        pl.Series("v", ["a", "b", "a"]).cast(pl.Categorical),
        pl.Series("v", [[1, 2], [3, 4], [5, 6]]).cast(pl.Array(pl.Int64, 2)),
        pl.Series("v", [1, 2, 3], dtype=pl.UInt8),
        pl.Series("v", [1.5, float("inf"), float("nan")], dtype=pl.Float32),
        pl.Series("v", [1, 2, 3]).cast(pl.Time),
    ],
    ids=lambda series: str(series.dtype),
)
def test_inferred_schema_fits_what_it_was_inferred_from(tmp_path: Path, series: pl.Series) -> None:
    """Whatever the type, the schema that guard writes passes on the same data."""
    series.to_frame().with_columns(pl.int_range(3).alias("n")).write_parquet(tmp_path / "t.parquet")
    (tmp_path / "s.yaml").write_text(infer_schema(tmp_path / "t.parquet"))
    report = check_at(tmp_path, "t.parquet", schema="s.yaml", max_missing=1.0)
    assert [f for f in report.findings if f.check.startswith("data.schema")] == []


@pytest.mark.parametrize(
    ("name", "unit", "zone", "fits"),
    [
        ("datetime64[ns]", "ns", None, True),
        ("datetime64[ns]", "us", None, False),
        ("datetime64[ns, UTC]", "ns", "UTC", True),
        ("datetime64[us, Europe/Berlin]", "us", "Europe/Berlin", True),
        ("datetime64[ns, UTC]", "ns", "Europe/Berlin", False),
        ("datetime", "ns", None, True),
        ("Datetime(time_unit='ms', time_zone=None)", "ms", None, True),
        ("Datetime(time_unit='ms', time_zone='UTC')", "ms", "UTC", True),
        ("Datetime(time_unit='ms', time_zone='UTC')", "ms", None, False),
    ],
)
def test_units_of_time_in_schemas(
    tmp_path: Path, name: str, unit: str, zone: str | None, *, fits: bool
) -> None:
    """A unit or a zone that a schema names is held to; one that it leaves out is not."""
    moments = pl.Series("when", range(20)).cast(pl.Datetime(unit, zone))  # type: ignore[arg-type]
    moments.to_frame().write_parquet(tmp_path / "t.parquet")
    (tmp_path / "s.yaml").write_text(f'columns: {{when: {{dtype: "{name}"}}}}')
    report = check_at(tmp_path, "t.parquet", schema="s.yaml")
    assert report.ok is fits, report.findings


def test_environment_is_left_as_it_was(tmp_path: Path) -> None:
    """Holding back standard error leaves no descriptor behind."""
    (tmp_path / "t.csv").write_text("a\n1\n2\n")
    check_at(tmp_path, "t.csv")
    before = sorted(os.listdir("/proc/self/fd"))
    check_at(tmp_path, "t.csv")
    assert sorted(os.listdir("/proc/self/fd")) == before
