"""The example project: every way in which its training can fail is rolled back."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from e2e.guard_command import Guard
from e2e.projects import assert_repository_whole, commit_all, git
from manifest import Entry, assert_back, differences, manifest

pytestmark = pytest.mark.timeout(300)

_EXAMPLE = Path(__file__).parents[2] / "examples" / "wine"
_STATUS = {"half-written-model": 137}
_MODES = (
    "half-written-model",
    "delete-artifacts",
    "spoil-database",
    "edit-config",
    "git-clean",
    "git-destroy",
    "rm-rf",
    "truncate-notebook",
    "overwrite-env",
)


@dataclasses.dataclass
class Workshop:
    """One trained copy of the example that the tests spoil one after the other.

    They share the snapshots, so each but the first finds the environment kept already. A test
    that does not bring everything back spoils the copy for itself alone: the next gets a new one.
    """

    template: Path
    python: Path
    base: Path
    guard: Guard | None = None
    before: dict[bytes, Entry] = dataclasses.field(default_factory=dict)

    def open(self) -> Guard:
        """Return guard for a copy in which everything is as it was at first."""
        if self.guard is None or differences(self.before, self._now()):
            self.guard = self._make()
            self.before = self._now()
        return self.guard

    def _now(self) -> dict[bytes, Entry]:
        assert self.guard is not None
        return manifest(self.guard.project) if self.guard.project.exists() else {}

    def _make(self) -> Guard:
        folder = self.base / f"copy-{len(list(self.base.iterdir()))}"
        folder.mkdir()
        project = folder / "wine"
        shutil.copytree(self.template, project)
        git(project, "init", "-q")
        commit_all(project, "Train on wines")
        with open(project / "wine.py", "a") as file:
            file.write("\n# an idea\n")
        git(project, "stash", "-q")
        environment = {
            "GUARD_STORE": str(folder / "store"),
            "VIRTUAL_ENV": str(self.python.parent.parent),
            "PATH": f"{self.python.parent}{os.pathsep}{os.environ['PATH']}",
        }
        return Guard(project, env=environment)


@pytest.fixture(scope="module")
def workshop(mlflow_python: Path, tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    """Train the example once, with its own MLflow database, runs and models."""
    base = tmp_path_factory.mktemp("wine")
    template = base / "template"
    shutil.copytree(_EXAMPLE, template, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copyfile(template / ".env.example", template / ".env")
    (template / ".env").chmod(0o600)
    environment = os.environ | {"GIT_PYTHON_REFRESH": "quiet", "PYTHONDONTWRITEBYTECODE": "1"}
    subprocess.run([mlflow_python, "train.py"], cwd=template, check=True, env=environment)
    # One test looks at the probes; the others need not wait for twenty-seven of them.
    config = (template / "guard.toml").read_text()
    (template / "guard.toml").write_text(config.partition("[[probe]]")[0])
    return Workshop(template, mlflow_python, base)


@pytest.fixture
def wine(workshop: Workshop, isolated_home: Path) -> Guard:
    """Return guard for the trained example, with its environment activated."""
    return workshop.open()


@pytest.mark.parametrize("mode", _MODES)
def test_each_way_to_fail_is_rolled_back(mode: str, wine: Guard) -> None:
    """Checks pass, the drill fits, the run fails with its own status, everything is back."""
    before = manifest(wine.project)
    run = wine("run", "--", "python", "train.py", "--fail", mode)
    assert run.status == _STATUS.get(mode, 1), run.said
    after = manifest(wine.project) if wine.project.exists() else {}
    assert differences(before, after), f"no damage done: {run.said}"
    assert_back(before, wine.roll_back())
    assert_repository_whole(wine.project)


def test_a_good_training_and_its_rollback(wine: Guard) -> None:
    """A training that logs to MLflow is reported, its run is taken back, the probes pass."""
    shutil.copyfile(_EXAMPLE / "guard.toml", wine.project / "guard.toml")
    before = manifest(wine.project)
    report = wine.project.parent / "report.json"
    run = wine("run", "--report", report, "--", "python", "train.py")
    assert run.status == 0, run.said
    assert run.out.startswith("accuracy 0."), "standard output is not the child's alone"
    data = json.loads(report.read_text())["data"]
    assert data["child_exit"] == 0
    assert data["checks"]["failed"] == 0
    assert data["checks"]["passed"] >= 3
    assert data["drill"]["passed"]
    assert data["drill"]["elapsed_s"] < data["drill"]["budget_s"] == 300
    kinds = {entry["resource"] for entry in data["protected"]}
    assert {"files", "git", "sqlite"} <= kinds, kinds
    assert any("python" in kind or "env" in kind for kind in kinds), kinds

    result = wine("--json", "rollback", "--last", "--yes")
    assert result.status == 0, result.said
    rollback = result.data()
    assert rollback["verified"]
    assert rollback["within_budget"]
    assert [probe["passed"] for probe in rollback["probes"]] == [True, True, True], result.said
    assert_back(before, manifest(wine.project))


def test_a_package_of_another_version_is_taken_back(
    wine: Guard, mlflow_python: Path, tmp_path: Path
) -> None:
    """`pip install` into the activated environment is undone in that environment."""
    outside = tmp_path / "environment"
    shutil.copytree(mlflow_python.parent.parent, outside, symlinks=True)
    activated = {
        "VIRTUAL_ENV": str(outside),
        "PATH": f"{outside}/bin{os.pathsep}{os.environ['PATH']}",
        "GUARD_STORE": str(tmp_path / "store"),
    }
    wine = dataclasses.replace(wine, env=wine.env | activated)
    before, packages = manifest(wine.project), manifest(outside)
    run = wine("run", "--", "python", "train.py", "--fail", "pip-install")
    assert run.status == 1, run.said
    assert "training failed" in run.err
    assert differences(packages, manifest(outside))
    assert_back(before, wine.roll_back())
    assert_back(packages, manifest(outside))


def test_bad_input_data_stops_the_run(wine: Guard) -> None:
    """A spoilt column stops the run with 121; column, figure and limit are named."""
    table = wine.project / "data" / "wine.csv"
    lines = table.read_text().splitlines()
    spoilt = [line.split(",") for line in lines]
    for row in spoilt[1:40]:
        row[2] = ""  # 39 of 178 values of `ash` are missing: 21.9 %
    table.write_text("\n".join(",".join(row) for row in spoilt) + "\n")
    before = manifest(wine.project)
    run = wine("run", "--", "touch", "ran.txt")
    assert run.status == 121, run.said
    assert "ash" in run.err
    assert "21.9" in run.err or "0.219" in run.err, run.said
    assert "10" in run.err
    assert_back(before, manifest(wine.project))
    warned = wine("run", "--checks", "warn", "--", "true")
    assert warned.status == 0, warned.said
    assert "ash" in warned.err


@pytest.mark.parametrize(
    ("path", "content", "named"),
    [
        ("models/baseline.npz", b"PK\x03\x04 half", "baseline.npz"),
        ("params.yaml", b"train: {learning_rate: 900, batch_size: 16, epochs: 30}\n", "900"),
    ],
)
def test_a_changed_artifact_or_parameter_stops_the_run(
    path: str, content: bytes, named: str, wine: Guard
) -> None:
    """A sealed artifact that changed, or a parameter out of range, is named: 121."""
    (wine.project / path).write_bytes(content)
    run = wine("run", "--", "touch", "ran.txt")
    assert run.status == 121, run.said
    assert named in run.err
    assert not (wine.project / "ran.txt").exists()
