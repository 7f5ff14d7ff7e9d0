"""The same declarations on a real Spark master and worker give equal figures and findings."""

from __future__ import annotations

import importlib.util
import os
import random
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl
import pytest

from checks.context import Context
from checks.data import DataCheck, check
from checks.errors import EngineUnavailable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from checks.model import CheckReport

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]
START_S = 60.0


def needs_spark() -> None:
    """Skip, and say what is missing, where Spark cannot run."""
    for module in ("pyspark", "ibis"):
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"{module} is not installed: pip install 'mlguard[spark]'")
    if shutil.which("java") is None:
        pytest.skip("Java is not installed: Spark needs Java 17")


def free_port() -> int:
    """Return a port of the loopback that nobody listens on."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return int(server.getsockname()[1])


def wait_for(log: Path, text: str, process: subprocess.Popen[bytes]) -> None:
    """Wait until a daemon's log says `text`."""
    deadline = time.monotonic() + START_S
    while text not in log.read_text(errors="replace"):
        if time.monotonic() > deadline or process.poll() is not None:
            pytest.fail(f"Spark did not start:\n{log.read_text(errors='replace')[-2000:]}")
        time.sleep(0.2)


@pytest.fixture(scope="module")
def master(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Start a standalone master and one worker on loopback, and end them afterwards."""
    needs_spark()

    folder = tmp_path_factory.mktemp("spark")
    spec = importlib.util.find_spec("pyspark")
    assert spec is not None
    assert spec.origin is not None
    home = Path(spec.origin).parent
    settings = {
        **os.environ,
        "SPARK_HOME": str(home),
        "SPARK_LOCAL_IP": "127.0.0.1",
        "PYSPARK_PYTHON": sys.executable,
    }
    port, url = free_port(), ""
    url = f"spark://127.0.0.1:{port}"
    place = ["--host", "127.0.0.1", "--webui-port", str(free_port())]
    daemons = {
        "master.Master": [*place, "--port", str(port)],
        "worker.Worker": [*place, "--cores", "1", "--memory", "1g", "-d", str(folder), url],
    }
    started: list[subprocess.Popen[bytes]] = []
    try:
        for name, arguments in daemons.items():
            log = folder / f"{name}.log"
            command = [str(home / "bin" / "spark-class"), f"org.apache.spark.deploy.{name}"]
            if name.startswith("worker"):
                arguments[3] = str(free_port())
            with log.open("wb") as output:
                daemon = subprocess.Popen(
                    [*command, *arguments], env=settings, stdout=output, stderr=output
                )
            started.append(daemon)
            said = "New state: ALIVE" if name.startswith("master") else "Successfully registered"
            wait_for(log, said, daemon)
        yield url
    finally:
        for daemon in reversed(started):
            daemon.terminate()
            daemon.wait(30)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a project with spoilt data as Parquet, CSV and JSON lines, and a schema."""
    rng = random.Random(2)
    rows = 3000
    frame = pl.DataFrame(
        {
            "x": [1e6 if n % 40 == 0 else rng.gauss(1e6, 10) - 1e6 for n in range(rows)],
            "holes": [None if n % 5 == 0 else rng.random() for n in range(rows)],
            "count": [rng.randint(0, 500) for _ in range(rows)],
            "color": [rng.choice(["red", "green", "mauve"]) for _ in range(rows)],
            "mixed": ["oops" if n % 50 == 0 else str(n) for n in range(rows)],
            "label": ["rare" if n % 100 == 0 else "usual" for n in range(rows)],
        }
    )
    base = tmp_path_factory.mktemp("project")
    frame.write_parquet(base / "data.parquet")
    frame.write_csv(base / "data.csv")
    frame.write_ndjson(base / "data.jsonl")
    (base / "schema.yaml").write_text(
        "columns:\n"
        "  count: {dtype: Int64, in_range: {min_value: 0, max_value: 400}}\n"
        "  color: {dtype: String, str_matches: 'red|green'}\n"
        "  holes: {dtype: Float64, nullable: true, less_than: 0.5}\n"
    )
    return base


def judge(project: Path, name: str, engine: str) -> CheckReport:
    """Check one file on an engine."""
    declared = DataCheck(
        path=name,
        schema="schema.yaml",
        target="label",
        categories={"color": ("red", "green")},
        ranges={"count": (0.0, 450.0)},
        max_duplicates=0.0,
        engine=engine,
    )
    return check(declared, Context(base=project))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["data.parquet", "data.csv", "data.jsonl"])
def test_figures_equal_the_embedded_engine(master: str, project: Path, name: str) -> None:
    """Findings, values, limits, counts and column figures are the same on both engines."""
    here = judge(project, name, "auto")
    there = judge(project, name, master)
    found = [
        sorted((f.check, f.column or "", repr(f.value), f.count or 0) for f in report.findings)
        for report in (here, there)
    ]
    assert [f[:2] for f in found[0]] == [f[:2] for f in found[1]]
    for one, other in zip(found[0], found[1], strict=True):
        assert float(one[2]) == pytest.approx(float(other[2]), rel=1e-9)
        assert one[3] == other[3]
    assert {"data.missing", "data.outliers", "data.types", "data.balance", "data.categories"} <= {
        f.check for f in there.findings
    }
    mine, others = (r.figures[name]["columns"] for r in (here, there))
    for column, figures in mine.items():
        for key in ("missing", "mean", "std", "min", "max", "beyond_sigma", "beyond_robust"):
            ours, theirs = figures.get(key), others[column].get(key)
            same = ours is theirs or theirs == pytest.approx(ours, rel=1e-9)
            assert same, (column, key, ours, theirs)


@pytest.mark.filterwarnings("ignore")
def test_broken_file_is_a_finding_there_too(master: str, tmp_path: Path) -> None:
    """A Parquet file with a whole footer and spoilt pages fails in words."""
    (tmp_path / "bad.parquet").write_bytes(b"PAR1" + bytes(100) + b"PAR1")
    report = check(DataCheck("bad.parquet", engine=master), Context(base=tmp_path))
    assert [f.check for f in report.findings] == ["data.engine"]
    assert "\n" not in report.findings[0].message


def test_no_master_is_named_at_once(tmp_path: Path) -> None:
    """A master that does not answer is unavailable within seconds, and nothing hangs."""
    (tmp_path / "t.csv").write_text("a\n1\n2\n")
    engine = f"spark://127.0.0.1:{free_port()}"
    started = time.monotonic()
    with pytest.raises(EngineUnavailable, match="no Spark master answers"):
        check(DataCheck("t.csv", engine=engine), Context(base=tmp_path))
    assert time.monotonic() - started < 20
