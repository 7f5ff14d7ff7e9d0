"""What cannot be read as data is named, whatever it is; nothing passes, nothing hangs."""

from __future__ import annotations

import gzip
import os
import random
import socket
from typing import TYPE_CHECKING

import polars as pl
import pytest

from checks.context import Context
from checks.data import DataCheck, check
from checks.data.source import find_source

if TYPE_CHECKING:
    from pathlib import Path

    from checks.model import CheckReport

ROWS = b"".join(b"%d,x%d\n" % (n, n % 3) for n in range(1000))
PARQUET_START = b"PAR1" + bytes(200)


def check_at(base: Path, path: str, **declared: object) -> CheckReport:
    """Check `path` with the defaults and the given declarations."""
    return check(DataCheck(path=path, **declared), Context(base=base))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "content", "rule", "said"),
    [
        ("empty.csv", b"", "data.empty", "0 bytes"),
        ("header.csv", b"a,b\n", "data.empty", "2 columns and no rows"),
        ("unended.csv", b"a,b", "data.empty", "no rows"),
        ("mac.csv", b"a,b\r1,x\r2,y\r", "data.empty", "no rows"),
        ("latin.csv", b"a,b\n" + ROWS + b"2,caf\xe9\n", "data.encoding", "line 1002"),
        ("early.csv", b"a,caf\xe9\n1,2\n", "data.encoding", "line 1 holds the byte 0xe9"),
        ("utf16.csv", "a,b\n1,x\n".encode("utf-16"), "data.encoding", "UTF-16"),
        ("twice.csv", b"a,a,b\n1,2,3\n", "data.columns", "'a'"),
        ("ragged.csv", b"a,b\n" + ROWS + b"1,2,3\n", "data.columns", "line 1002"),
        ("cut.csv", b"a,b,c\n" + b"1,2,3\n" * 9 + b"1,2", "data.truncated", "2 of 3 fields"),
        ("quote.csv", b"a,b\n" + ROWS + b'1,"x\n' + ROWS, "data.format", "quote.csv"),
        ("binary.csv", random.Random(0).randbytes(5000), "data.", "binary.csv"),
        ("late.csv", b"a,b\n" + ROWS * 20 + b"abc,x\n", "data.types", "1 of 20001"),
        ("early_mix.csv", b"a,b\n1,x\n2,y\nthree,z\n4,x\n", "data.types", "1 of 4"),
        ("cut.csv.gz", gzip.compress(b"a,b\n" + ROWS)[:100], "data.format", "cut.csv.gz"),
        ("cut.parquet", PARQUET_START, "data.format", "truncated"),
        ("text.parquet", b"a,b\n1,2\n", "data.format", "not a whole Parquet"),
        ("hollow.parquet", PARQUET_START + b"PAR1", "data.format", "hollow.parquet"),
        ("cut.arrow", b"ARROW1\0\0" + bytes(90), "data.format", "truncated"),
        ("old.feather", b"FEA1" + bytes(90), "data.format", "version 1"),
        ("mixed.jsonl", b'{"a":1}\n' * 30 + b'{"a":"z"}\n', "data.types", "1 of 31"),
        ("cut.jsonl", b'{"a":1}\n' * 30 + b'{"a":', "data.format", "cut.jsonl"),
        ("lists.jsonl", b"[1,2]\n", "data.format", "lists.jsonl"),
        ("blank.jsonl", b"\n\n", "data.format", "blank.jsonl"),
        ("prose.txt.doc", b"hello", "data.format", "by its name"),
    ],
)
def test_bad_file_is_a_finding(
    tmp_path: Path, name: str, content: bytes, rule: str, said: str
) -> None:
    """Each kind of bad file gives an error that names it, with a hint."""
    (tmp_path / name).write_bytes(content)
    report = check_at(tmp_path, name)
    assert not report.ok
    finding = report.findings[0]
    assert finding.check.startswith(rule)
    assert said in finding.message
    assert finding.hint


def test_missing_file_and_folder_without_data(tmp_path: Path) -> None:
    """Nothing there, a link to nowhere, an empty folder, a glob without a match."""
    (tmp_path / "nowhere.csv").symlink_to(tmp_path / "gone")
    (tmp_path / "folder.csv").mkdir()
    for path in ("absent.csv", "nowhere.csv", "folder.csv", "data/*.csv"):
        report = check_at(tmp_path, path)
        assert [f.check for f in report.findings] == ["data.source"], path
        assert not report.ok


@pytest.mark.timeout(20)
def test_pattern_ends_where_links_lead_in_circles(tmp_path: Path) -> None:
    """Two links to their own folder neither hang nor multiply; a project's name is no pattern."""
    base = tmp_path / "pro[j]ect"
    (base / "data" / "day").mkdir(parents=True)
    (base / "data" / "day" / "a.csv").write_bytes(b"a,b\n" + ROWS)
    (base / "data" / "one").symlink_to(".")
    (base / "data" / "two").symlink_to(".")
    source = find_source("data/**/*.csv", Context(base=base))
    assert source.files == (base / "data" / "day" / "a.csv",)


@pytest.mark.timeout(20)
def test_special_files_are_never_opened(tmp_path: Path) -> None:
    """A FIFO without a writer, a socket and a device neither hang nor pass."""
    os.mkfifo(tmp_path / "pipe.csv")
    with socket.socket(socket.AF_UNIX) as server:
        old = os.open(".", os.O_RDONLY)
        try:
            os.chdir(tmp_path)
            server.bind("sock.csv")
        finally:
            os.fchdir(old)
            os.close(old)
        for path, kind in (("pipe.csv", "FIFO"), ("sock.csv", "socket"), ("/dev/zero", "device")):
            (finding,) = check_at(tmp_path, path).findings
            assert kind in finding.message


def test_unreadable_file_is_named(tmp_path: Path) -> None:
    """A file without read permission is a finding with the command that mends it."""
    path = tmp_path / "closed.csv"
    path.write_bytes(b"a\n1\n")
    path.chmod(0)
    if os.geteuid() == 0:
        tmp_path.chmod(0o755)
        os.seteuid(65534)
    try:
        if os.access(path, os.R_OK, effective_ids=True):
            pytest.skip("this user may read everything")
        report = check_at(tmp_path, "closed.csv")
    finally:
        if os.getuid() == 0:
            os.seteuid(0)
    assert "cannot be read" in report.findings[0].message
    assert not report.ok


def test_link_to_outside_the_project_is_fine(tmp_path: Path) -> None:
    """Data often lies elsewhere; a link to it is followed."""
    outside = tmp_path / "elsewhere.csv"
    outside.write_text("a,b\n1,2\n2,3\n")
    project = tmp_path / "project"
    project.mkdir()
    (project / "train.csv").symlink_to(outside)
    assert check_at(project, "train.csv").ok


def test_a_hundred_megabyte_value_is_named(tmp_path: Path) -> None:
    """One endless value passes no check in silence; nor does an endless header."""
    (tmp_path / "long.csv").write_bytes(b'a,b\n1,x\n2,"' + b"y" * 100_000_000 + b'"\n3,z\n')
    (finding,) = check_at(tmp_path, "long.csv").findings
    assert (finding.check, finding.value) == ("data.length", 100_000_004)
    assert "line 3" in finding.message
    assert len(str(finding.samples)) < 200
    (tmp_path / "head.csv").write_bytes(b"a,b" * 33_000_000)
    (finding,) = check_at(tmp_path, "head.csv").findings
    assert "no header" in finding.message


def test_ten_thousand_columns_are_checked(tmp_path: Path) -> None:
    """A very wide file works, and the one spoilt column of it is found."""
    names = [f"k{n}" for n in range(10_000)]
    lines = [",".join(names)]
    for row in range(50):
        cells = [str((row * 7 + n) % 50) for n in range(10_000)]
        cells[1234] = "" if row % 2 else "5"
        lines.append(",".join(cells))
    (tmp_path / "wide.csv").write_text("\n".join(lines) + "\n")
    report = check_at(tmp_path, "wide.csv", max_missing=0.1)
    assert [(f.check, f.column) for f in report.findings if f.severity == "error"] == [
        ("data.missing", "k1234")
    ]


def test_formats_give_the_same_figures(tmp_path: Path) -> None:
    """CSV, compressed CSV, Parquet, Arrow and JSON lines are read alike."""
    frame = pl.DataFrame({"a": [1.5, None, 3.0] * 40, "b": ["x", "y", None] * 40})
    frame.write_csv(tmp_path / "t.csv")
    (tmp_path / "t.csv.gz").write_bytes(gzip.compress((tmp_path / "t.csv").read_bytes()))
    frame.write_parquet(tmp_path / "t.parquet")
    frame.write_ipc(tmp_path / "t.arrow")
    frame.write_ndjson(tmp_path / "t.jsonl")
    found = set()
    for name in ("t.csv", "t.csv.gz", "t.parquet", "t.arrow", "t.jsonl"):
        report = check_at(tmp_path, name)
        found.add(repr([(f.check, f.column, f.value, f.count, f.samples) for f in report.findings]))
    assert len(found) == 1
    assert repr(("data.missing", "a", 1 / 3, 40))[:-1] in found.pop()


@pytest.mark.parametrize("suffix", ["csv", "parquet", "jsonl"])
def test_partitioned_folder_has_its_keys_as_columns(tmp_path: Path, suffix: str) -> None:
    """``year=2020/part.csv`` is one data set with a column `year`."""
    for year in (2020, 2021):
        folder = tmp_path / "data" / f"year={year}"
        folder.mkdir(parents=True)
        frame = pl.DataFrame({"v": list(range(100))})
        getattr(frame, {"jsonl": "write_ndjson"}.get(suffix, f"write_{suffix}"))(
            folder / f"part.{suffix}"
        )
    report = check_at(tmp_path, "data", target="year")
    assert report.ok
    assert report.figures["data"]["rows"] == 200
    assert report.figures["data"]["classes"] == {"2020": 0.5, "2021": 0.5}


def test_glob_joins_files_and_names_the_one_that_differs(tmp_path: Path) -> None:
    """All matches are one data set; a header of its own is a finding."""
    (tmp_path / "a1.csv").write_text("x,y\n1,2\n")
    (tmp_path / "a2.csv").write_text("x,y\n3,4\n")
    assert check_at(tmp_path, "a*.csv").figures["a*.csv"]["rows"] == 2
    (tmp_path / "a3.csv").write_text("x,z\n3,4\n")
    (finding,) = check_at(tmp_path, "a*.csv").findings
    assert "a3.csv has other columns than a1.csv: y, z" in finding.message


def test_odd_column_names_are_names(tmp_path: Path) -> None:
    """Names that look like patterns to a library are columns like others."""
    frame = pl.DataFrame({"^a.*$": [1.0, None], "*": [1, 2], "c0": ["x", "y"], "": [2, 3]})
    frame.write_parquet(tmp_path / "odd.parquet")
    report = check_at(tmp_path, "odd.parquet")
    assert [(f.check, f.column) for f in report.findings] == [("data.missing", "^a.*$")]


def test_types_settle_on_what_all_values_are(tmp_path: Path) -> None:
    """A fraction far down makes a column of whole numbers a float, not a failure."""
    (tmp_path / "t.csv").write_bytes(b"a,b\n" + ROWS * 20 + b"1.5,x\n")
    report = check_at(tmp_path, "t.csv")
    assert report.figures["t.csv"]["columns"]["a"]["type"] == "Float64"


@pytest.mark.parametrize("spelling", ["", "NA", "N/A", "null", "NaN", "None"])
def test_missing_is_what_pandas_reads_as_missing(tmp_path: Path, spelling: str) -> None:
    """The words for missing count as missing among numbers, texts and flags, early and late."""
    rows = ["1,x,true"] * 80 + [f"{spelling},{spelling},{spelling}"] * 20
    for name, lines in (("late.csv", rows), ("early.csv", rows[::-1])):
        (tmp_path / name).write_text("\n".join(["n,t,f", *lines]) + "\n")
        report = check_at(tmp_path, name)
        found = {f.column: f.count for f in report.findings if f.check == "data.missing"}
        assert found == {"n": 20, "t": 20, "f": 20}
        assert {f.check for f in report.findings if f.severity == "error"} == {"data.missing"}


def test_declared_words_for_missing_replace_the_usual_ones(tmp_path: Path) -> None:
    """With `null_values = ["?"]` the country NA is a country."""
    (tmp_path / "t.csv").write_text("c,n\n" + "NA,1\nDE,2\n" * 40 + "?,?\n" * 20)
    report = check_at(tmp_path, "t.csv", null_values=("?",))
    found = {f.column: f.count for f in report.findings if f.check == "data.missing"}
    assert found == {"c": 20, "n": 20}
