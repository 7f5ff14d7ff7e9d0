"""The runner chooses by family and file, and reuses what is known of unchanged inputs."""

from __future__ import annotations

import gzip
import hashlib
import importlib.util
import os
import pickle
import subprocess
import sys
import time
from importlib.machinery import ModuleSpec
from typing import TYPE_CHECKING

import pytest

from checks.context import Context
from checks.declare import Declarations, parse
from checks.model import CheckReport
from checks.runner import run

if TYPE_CHECKING:
    from pathlib import Path

GOOD = "a,b\n" + "".join(f"{n},{n % 7}\n" for n in range(50))
HOLES = "a,b\n" + "".join(f"{n},\n" for n in range(50))


class Kept:
    """A cache in memory that counts what it is asked."""

    def __init__(self) -> None:
        self.reports: dict[str, CheckReport] = {}
        self.hits = 0

    def get(self, key: str) -> CheckReport | None:
        """Return what was put."""
        self.hits += key in self.reports
        return self.reports.get(key)

    def put(self, key: str, report: CheckReport) -> None:
        """Keep a report."""
        self.reports[key] = report


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Return a project with good and bad data, old enough to be told apart by its times."""
    (tmp_path / "good.csv").write_text(GOOD)
    (tmp_path / "bad.csv").write_text(HOLES)
    return tmp_path


def declare(*paths: str) -> Declarations:
    """Declare data sets with the defaults."""
    return parse({"data": [{"path": path} for path in paths]})


def by_content(path: Path) -> str | None:
    """Give a content hash, as the snapshot engine would."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_all_reports_are_joined(project: Path) -> None:
    """Errors come first, and every data set is there."""
    report = run(declare("good.csv", "bad.csv"), Context(base=project))
    assert {subject for _, subject in report.checked} == {"good.csv", "bad.csv"}
    assert report.findings[0].check == "data.missing"
    assert not report.ok
    assert report.elapsed_s > 0


def test_families_and_files_choose(project: Path) -> None:
    """Only what is asked for runs; an undeclared file has the defaults where data is asked."""
    declared = declare("good.csv", "bad.csv")
    context = Context(base=project)
    assert run(declared, context, families=("machine",)).checked == ()
    assert run(declared, context, files=("good.csv",)).ok
    assert not run(declared, context, files=("bad.csv",)).ok
    assert not run(declared, context, files=(str(project / "bad.csv"),)).ok
    assert run(declare("*.csv"), context, files=("bad.csv",)).checked
    nothing = Declarations()
    assert run(nothing, context, files=("bad.csv",)).checked == ()
    assert not run(nothing, context, families=("data",), files=("bad.csv",)).ok


def test_named_file_that_nothing_reads_is_said_to_be_left_out(project: Path) -> None:
    """A file that somebody names is never passed over in silence."""
    (project / "notes.md").write_text("hello")
    report = run(declare("good.csv"), Context(base=project), files=("notes.md", "good.csv"))
    assert report.checked
    assert [skip.what for skip in report.skipped] == ["notes.md"]
    assert "not checked" in report.skipped[0].why


def test_undeclared_files_are_held_against_the_defaults(project: Path) -> None:
    """Folders, compressed files and models as well as plain tables."""
    context, nothing = Context(base=project), Declarations()
    (project / "year=1").mkdir()
    (project / "year=1" / "bad.csv").write_text(HOLES)
    (project / "bad.csv.gz").write_bytes(gzip.compress(HOLES.encode()))
    (project / "models").mkdir()
    (project / "models" / "m.pkl").write_bytes(pickle.dumps({"a": 1})[:-1])
    for name in ("year=1", "bad.csv.gz"):
        assert not run(nothing, context, families=("data",), files=(name,)).ok, name
        assert not run(nothing, context, families=("data", "artifacts"), files=(name,)).ok, name
    for name in ("models", "models/m.pkl"):
        report = run(nothing, context, families=("data", "artifacts"), files=(name,))
        assert [finding.check for finding in report.findings] == ["artifacts.damaged"], name


def test_files_of_parameters_choose(project: Path) -> None:
    """A declaration with several files is chosen by each of them, and by no other."""
    for name in ("base.yaml", "local.yaml", "other.yaml"):
        (project / name).write_text("lr: 5\n")
    ranges = {"lr": {"max": 1.0}}
    declared = parse({"params": [{"file": ["./base.yaml", "local.yaml"], "ranges": ranges}]})
    context = Context(base=project)
    for name in ("base.yaml", "local.yaml"):
        report = run(declared, context, families=("params",), files=(str(project / name),))
        assert not report.ok, name
    assert run(declared, context, families=("params",), files=("other.yaml",)).checked == ()


def test_unchanged_input_is_answered_from_the_cache(project: Path) -> None:
    """Content decides: a touched file is known, a changed one and a new limit are not."""
    cache = Kept()
    context = Context(base=project, cache=cache, digest=by_content)
    first = run(declare("bad.csv"), context)
    os.utime(project / "bad.csv", (1, 1))
    again = run(declare("bad.csv"), context)
    assert (first.cached, again.cached) == (0, len(first.checked))
    assert again.findings == first.findings
    other = parse({"data": [{"path": "bad.csv", "max_missing": 1.0}]})
    assert run(other, context).ok
    (project / "bad.csv").write_text(GOOD)
    changed = run(declare("bad.csv"), context)
    assert changed.ok
    assert changed.cached == 0


def test_another_version_of_what_judges_is_asked_again(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Results of an older polars, pandera or guard are not believed."""
    cache = Kept()
    context = Context(base=project, cache=cache, digest=by_content)
    run(declare("good.csv"), context)
    assert run(declare("good.csv"), context).cached
    other = tmp_path / "polars" / "__init__.py"
    other.parent.mkdir()
    other.touch()
    real = importlib.util.find_spec

    def found(name: str) -> ModuleSpec | None:
        return ModuleSpec(name, None, origin=str(other)) if name == "polars" else real(name)

    monkeypatch.setattr(importlib.util, "find_spec", found)
    assert not run(declare("good.csv"), context).cached
    assert run(declare("good.csv"), context).cached


def test_schema_and_reference_count_as_inputs(project: Path) -> None:
    """A changed schema or reference is looked at again."""
    cache = Kept()
    context = Context(base=project, cache=cache, digest=by_content)
    (project / "s.yaml").write_text("columns: {a: {dtype: Int64}}\n")
    (project / "ref.csv").write_text(GOOD)
    declared = parse({"data": [{"path": "good.csv", "schema": "s.yaml", "reference": "ref.csv"}]})
    assert run(declared, context).ok
    assert run(declared, context).cached
    (project / "s.yaml").write_text("columns: {a: {dtype: Int64, less_than: 10}}\n")
    assert not run(declared, context).ok
    (project / "s.yaml").write_text("columns: {a: {dtype: Int64}}\n")
    (project / "ref.csv").write_text(GOOD.replace("a,", "z,", 1))
    assert not run(declared, context).ok


def test_young_file_is_never_trusted_by_its_times(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Racily clean: a file written a moment ago may change again within one tick."""
    cache = Kept()
    context = Context(base=project, cache=cache)
    run(declare("good.csv"), context)
    assert cache.reports == {}
    later = time.time_ns() + 10_000_000_000
    monkeypatch.setattr(time, "time_ns", lambda: later)
    run(declare("good.csv"), context)
    assert run(declare("good.csv"), context).cached


def test_code_schemas_and_absent_files_are_never_cached(project: Path) -> None:
    """Code may read anything, and what is absent may come."""
    cache = Kept()
    context = Context(base=project, cache=cache, digest=by_content)
    run(declare("absent.csv"), context)
    run(parse({"data": [{"path": "good.csv", "schema": "s.py:S"}]}), context)
    assert cache.reports == {}


def test_reading_declarations_imports_nothing_heavy() -> None:
    """Declarations of all families cost neither libraries nor what carries a check out."""
    heavy = (
        *("polars", "pandera", "numpy", "yaml", "email", "importlib.metadata", "pickletools"),
        *("checks.artifacts.checking", "checks.params.checking", "checks.data.dataset"),
    )
    code = (
        "import sys; from checks.declare import parse; import checks.runner;"
        "parse({'data': [{'path': 'a'}], 'features': [{'path': 'b'}], 'artifact': [{'path': 'c'}],"
        " 'params': [{'file': 'd'}], 'machine': {}});"
        f"print([m for m in {heavy} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
