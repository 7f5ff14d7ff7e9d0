"""`[[check.artifact]]` on real files: seals, versions, odd files, and what findings say."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import time
from pathlib import Path
from typing import BinaryIO

import pytest

from checks.artifacts import ArtifactCheck, check, sealed
from checks.context import Context
from checks.errors import DeclarationError
from checks.model import CheckReport, Finding, Severity
from checks.seal import seal
from checks.tables import Table

FIXTURES = Path(__file__).parents[2] / "fixtures" / "artifacts"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with two good models."""
    (tmp_path / "models").mkdir()
    for name in ("forest.joblib", "two.safetensors"):
        shutil.copy(FIXTURES / name, tmp_path / "models" / name)
    return tmp_path


def run(project: Path, prefix: Path | None = None, **keys: object) -> CheckReport:
    """Check a project's artifacts by a declaration."""
    table = Table({"path": "models/*", **keys}, "[[check.artifact]] number 1")
    return check(ArtifactCheck.from_table(table), Context(project, {}, env_prefix=prefix))


def only(report: CheckReport) -> Finding:
    """Return the one finding of a report."""
    assert len(report.findings) == 1, report.findings
    return report.findings[0]


def test_good_models_pass(project: Path) -> None:
    """Two whole models: checked, nothing found."""
    report = run(project)
    assert report.findings == ()
    assert ("artifacts.whole", "models/forest.joblib") in report.checked


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("pth", "x", "no key `pth`"),
        ("pickle", "never", "has to be one of"),
        ("path", "", "is empty"),
        ("allow", [1], "list of texts"),
    ],
)
def test_wrong_declarations(project: Path, key: str, value: object, said: str) -> None:
    """A declaration that cannot be meant is an error with the key's name."""
    with pytest.raises(DeclarationError, match=said):
        run(project, None, **{key: value})


def odd_files(models: Path) -> None:
    """Put everything that is no whole regular file into a folder."""
    (models / "empty.pkl").touch()
    os.mkfifo(models / "pipe.pkl")
    os.symlink("round.pkl", models / "round.pkl")
    os.symlink("nowhere", models / "dangling.pkl")
    (models / os.fsdecode(b"odd\xff\n.pkl")).write_bytes(b"\x80\x04K")
    with open(models / "hole.pkl", "wb") as file:
        file.truncate(100 << 30)


def test_odd_files_are_named_and_nothing_hangs(project: Path) -> None:
    """Each odd file has one error; a FIFO without a writer and a hole of 100 GB take no time."""
    odd_files(project / "models")
    report = run(project)
    found = {finding.subject: finding.message for finding in report.findings}
    assert {key: found[f"models/{key}"] for key in ("empty.pkl", "pipe.pkl", "round.pkl")} == {
        "empty.pkl": "is empty (0 bytes)",
        "pipe.pkl": "is a FIFO, not a file",
        "round.pkl": "is a symbolic link that leads round in a circle",
    }
    assert "does not exist" in found["models/dangling.pkl"]
    assert "mostly a hole" in found["models/hole.pkl"]
    assert "cut short" in found["models/odd\\xff\\n.pkl"]
    assert len(found) == 6
    assert report.elapsed_s < 5


def test_a_folder_where_a_file_was_named(project: Path) -> None:
    """A folder stands for the files inside; an empty one is said to hold none."""
    (project / "models" / "empty").mkdir()
    assert run(project, path="models").findings == ()
    assert only(run(project, path="models/empty")).check == "artifacts.missing"


def test_nothing_matches(project: Path) -> None:
    """A pattern without a file is an error, unless the declaration allows it."""
    assert only(run(project, path="nothing/*.pt")).message == "no file is there"
    assert run(project, path="nothing/*.pt", required=False).findings == ()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_unreadable(project: Path) -> None:
    """A file without read permission is named as such."""
    (project / "models" / "forest.joblib").chmod(0)
    assert "may not be read" in only(run(project)).message


def test_severity_and_levels(project: Path) -> None:
    """Levels weigh single rules, severity caps them all."""
    target = project / "models" / "evil.pkl"
    target.write_bytes(pickle.dumps(os.system))
    assert only(run(project)).severity is Severity.ERROR
    assert only(run(project, pickle="warning")).severity is Severity.WARNING
    assert only(run(project, severity="warning")).severity is Severity.WARNING
    assert run(project, pickle="off").findings == ()
    module = os.system.__module__
    assert run(project, allow=[module]).findings == ()
    assert run(project, allow=[f"{module}.system"]).findings == ()
    assert run(project, allow=[module[:-1]]).findings != ()


def test_a_pickle_in_a_safe_name(project: Path) -> None:
    """Code in a file whose name promises none is an error, a mere misnomer a warning."""
    (project / "models" / "a.safetensors").write_bytes(pickle.dumps([1]))
    finding = only(run(project))
    assert (finding.check, finding.severity) == ("artifacts.format", Severity.ERROR)
    os.rename(project / "models" / "a.safetensors", project / "models" / "a.npz")
    shutil.copy(FIXTURES / "plain.npy", project / "models" / "a.npz")
    assert only(run(project)).severity is Severity.WARNING


def test_content_that_is_nothing(project: Path) -> None:
    """Zeros, an LFS pointer and a web page under a model's name are errors."""
    (project / "models" / "a.pt").write_bytes(bytes(5000))
    assert "nothing that guard recognises" in only(run(project)).message
    (project / "models" / "a.pt").write_text("version https://git-lfs.github.com/spec/v1\n")
    assert only(run(project)).hint == "git lfs pull"


def test_sealed(project: Path) -> None:
    """Changed, missing and unlisted files are named, untouched ones pass."""
    models = project / "models"
    seal([models], models / "SHA256SUMS")
    assert run(project, sha256="models/SHA256SUMS").findings == ()
    content = bytearray((models / "two.safetensors").read_bytes())
    content[-1] ^= 1
    (models / "two.safetensors").write_bytes(content)
    finding = only(run(project, sha256="models/SHA256SUMS"))
    assert finding.check == "artifacts.seal"
    assert "differs from its seal" in finding.message
    (models / "two.safetensors").unlink()
    assert "does not exist" in only(run(project, sha256="models/SHA256SUMS")).message
    shutil.copy(FIXTURES / "two.safetensors", models / "two.safetensors")
    shutil.copy(FIXTURES / "plain.npy", models / "new.npy")
    assert "not listed" in only(run(project, sha256="models/SHA256SUMS")).message


def test_digests_that_are_known_are_not_computed_again(project: Path) -> None:
    """The caller's digest decides; a wrong one shows that it was taken."""
    models = project / "models"
    seal([models], models / "SHA256SUMS")
    declaration = ArtifactCheck("models/*", sha256="models/SHA256SUMS")
    report = check(declaration, Context(project, {}, digest=lambda _path: "0" * 64))
    assert [f.value for f in report.findings] == ["0" * 64] * 2


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "does not exist"),
        ("", "has no checksum line"),
        ("hello\n", "has no checksum line"),
        ("0" * 64 + "  ../outside.pkl\n" + "0" * 64 + "  forest.joblib\n", "lies outside"),
        ("0" * 64 + "  /etc/passwd\n", "lies outside"),
        ("0" * 64 + "  forest.joblib\nhello\n", "line 2 is no checksum line"),
        ("0" * 64 + "  forest.joblib\n" + "1" * 64 + "  forest.joblib\n", "2 different digests"),
    ],
)
def test_bad_manifests(project: Path, text: str | None, said: str) -> None:
    """A manifest that cannot be trusted is an error; names outside its folder are not opened."""
    (project / "outside.pkl").write_bytes(pickle.dumps(1))
    if text is not None:
        (project / "SUMS").write_text(text)
        shutil.move(project / "SUMS", project / "models" / "SUMS")
    report = run(project, sha256="models/SUMS", path="models/forest.joblib")
    assert any(said in finding.message for finding in report.findings), report.findings
    assert not report.ok


def environment(tmp_path: Path, **versions: str) -> Path:
    """Return the prefix of an environment in which distributions are installed."""
    packages = tmp_path / "env" / "lib" / "python3.11" / "site-packages"
    for name, version in versions.items():
        info = packages / f"{name}-{version}.dist-info"
        info.mkdir(parents=True)
        shown = name.replace("_", "-")
        info.joinpath("METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {shown}\nVersion: {version}\n\nVersion: 0\n"
        )
    packages.mkdir(parents=True, exist_ok=True)
    (tmp_path / "env" / "pyvenv.cfg").write_text("home = /usr/bin\nversion = 3.11.7\n")
    return tmp_path / "env"


MLMODEL = """\
flavors:
  python_function:
    loader_module: mlflow.sklearn
    model_path: model.pkl
    python_version: {python}
  sklearn:
    pickled_model: model.pkl
    sklearn_version: {sklearn}
    serialization_format: cloudpickle
"""


@pytest.fixture
def mlflow_model(tmp_path: Path) -> Path:
    """A model folder as MLflow logs it."""
    folder = tmp_path / "models"
    folder.mkdir()
    shutil.copy(FIXTURES / "forest-5.pkl", folder / "model.pkl")
    (folder / "MLmodel").write_text(MLMODEL.format(python="3.11.2", sklearn="1.4.2"))
    (folder / "requirements.txt").write_text(
        "# made by MLflow\nscikit-learn==1.4.2\nnumpy>=1.26,<3 \\\n    --hash=sha256:00\n"
        "pywin32==306; sys_platform == 'win32'\n-r other.txt\n"
    )
    return tmp_path


def test_versions_that_fit(mlflow_model: Path, tmp_path: Path) -> None:
    """The same framework, and requirements that hold, give no finding."""
    (mlflow_model / "models" / "model.pkl").write_bytes(pickle.dumps(1))
    prefix = environment(tmp_path, scikit_learn="1.4.2", numpy="2.1.0")
    assert run(mlflow_model, prefix).findings == ()


@pytest.mark.parametrize(
    ("installed", "severity"),
    [("1.5.0", Severity.ERROR), ("2.4.2", Severity.ERROR), ("1.4.1", Severity.INFO)],
)
def test_another_framework_version(
    mlflow_model: Path, tmp_path: Path, installed: str, severity: Severity
) -> None:
    """Another minor version of the framework is an error, another patch a word."""
    (mlflow_model / "models" / "model.pkl").write_bytes(pickle.dumps(1))
    prefix = environment(tmp_path, scikit_learn=installed, numpy="2.1.0")
    finding = only(run(mlflow_model, prefix))
    assert (finding.severity, finding.column) == (severity, "scikit-learn")
    assert (finding.value, finding.limit) == (installed, "1.4.2")


def test_requirements_that_do_not_hold(mlflow_model: Path, tmp_path: Path) -> None:
    """A missing framework is an error, an unmet requirement and another Python warnings."""
    (mlflow_model / "models" / "model.pkl").write_bytes(pickle.dumps(1))
    (mlflow_model / "models" / "MLmodel").write_text(
        MLMODEL.format(python="3.9.2", sklearn="1.4.2")
    )
    report = run(mlflow_model, environment(tmp_path, numpy="1.20.0"))
    found = {finding.column: finding.severity for finding in report.findings}
    assert found == {
        "scikit-learn": Severity.ERROR,
        "numpy": Severity.WARNING,
        "python": Severity.WARNING,
    }
    assert run(mlflow_model, environment(tmp_path / "b"), versions="off").findings == ()


def test_another_build_of_the_same_package(mlflow_model: Path, tmp_path: Path) -> None:
    """mlflow-skinny is an mlflow; a package that is nowhere is said to be lacking."""
    (mlflow_model / "models" / "model.pkl").write_bytes(pickle.dumps(1))
    (mlflow_model / "models" / "MLmodel").unlink()
    (mlflow_model / "models" / "requirements.txt").write_text("mlflow==3.1.0\nskops==1\n")
    finding = only(run(mlflow_model, environment(tmp_path, mlflow_skinny="3.1.0")))
    assert finding.column == "skops"
    assert "which the environment lacks" in finding.message


def test_the_version_inside_a_pickle(project: Path, tmp_path: Path) -> None:
    """scikit-learn's own note in its pickles is held against the environment."""
    finding = only(run(project, environment(tmp_path, scikit_learn="0.24.2")))
    assert finding.check == "artifacts.version"
    assert finding.subject == "models/forest.joblib"


@pytest.mark.parametrize(
    "text", ["", "[1, 2]", "a: b: c", "flavors: {}", "flavors: {a: {data: gone.bin}}", "\0"]
)
def test_a_broken_mlmodel(mlflow_model: Path, text: str) -> None:
    """An MLmodel that names no model is damaged."""
    (mlflow_model / "models" / "MLmodel").write_text(text)
    report = run(mlflow_model)
    damaged = [f for f in report.findings if f.check == "artifacts.damaged"]
    assert {f.subject for f in damaged} == {"models/MLmodel"}


def test_declared_carried_code_is_a_warning(mlflow_model: Path) -> None:
    """Cloudpickle is expected where MLmodel says so, and an error elsewhere."""
    shutil.copy(FIXTURES / "function.pkl", mlflow_model / "models" / "model.pkl")
    assert only(run(mlflow_model)).severity is Severity.WARNING
    (mlflow_model / "models" / "MLmodel").unlink()
    assert only(run(mlflow_model)).severity is Severity.ERROR


def saved_model(folder: Path, shards: int = 2) -> Path:
    """Write a SavedModel's files: version, one graph, a table of variables, its shards."""
    (folder / "variables").mkdir(parents=True)
    (folder / "saved_model.pb").write_bytes(b"\x08\x01\x12\x05abcde")
    magic = (0xDB4775248B80FB57).to_bytes(8, "little")
    (folder / "variables" / "variables.index").write_bytes(bytes(40) + magic)
    for number in range(shards):
        name = f"variables.data-{number:05}-of-{shards:05}"
        (folder / "variables" / name).write_bytes(b"weights")
    return folder


def test_saved_models(project: Path) -> None:
    """A SavedModel is whole with its graph, its table of variables and every shard."""
    folder = saved_model(project / "models" / "tf")
    assert run(project, path="models/tf").findings == ()
    (folder / "variables" / "variables.data-00001-of-00002").unlink()
    assert "data-00001-of-00002 does not exist" in only(run(project, path="models/tf")).message
    folder = saved_model(project / "models" / "cut")
    index = folder / "variables" / "variables.index"
    index.write_bytes(index.read_bytes()[:-1])
    assert "variables.index is cut short" in only(run(project, path="models/cut")).message
    folder = saved_model(project / "models" / "half")
    (folder / "saved_model.pb").write_bytes(b"\x08\x01\x12\x05abcd")
    assert "cut short" in only(run(project, path="models/half")).message
    (folder / "saved_model.pb").write_bytes(b"\x08\x01")
    assert "cut short" in only(run(project, path="models/half")).message


class Kept:
    """A cache in memory."""

    def __init__(self) -> None:
        self.reports: dict[str, CheckReport] = {}

    def get(self, key: str) -> CheckReport | None:
        """Return what was put."""
        return self.reports.get(key)

    def put(self, key: str, report: CheckReport) -> None:
        """Keep a report."""
        self.reports[key] = report


def large_model(path: Path) -> None:
    """Write an array of two megabytes, with no zeros at its end."""
    header = b"{'descr': '|u1', 'fortran_order': False, 'shape': (2097152,), }"
    header += b" " * (118 - len(header)) + b"\n"
    start = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header
    path.write_bytes(start + bytes(range(1, 257 - 1)) * 8256 + b"\x07" * 1897)


def test_large_unchanged_models_are_not_read_again(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seal and structure of an unchanged file are known; a young or changed one is read."""
    model = project / "models" / "large.npy"
    large_model(model)
    seal([project / "models"], project / "SHA256SUMS")
    cache = Kept()
    context = Context(project, {}, cache=cache)
    declared = ArtifactCheck("models/*", sha256="SHA256SUMS")
    whole = check(declared, context)
    assert whole.findings == ()
    assert cache.reports == {}, "racily clean: it may change again within one tick"
    later = time.time_ns() + 10_000_000_000
    monkeypatch.setattr(time, "time_ns", lambda: later)
    assert check(declared, context).cached == 0
    assert len(cache.reports) == 2

    real = sealed.hashlib.file_digest  # type: ignore[attr-defined]
    read: list[str] = []

    def counting(file: BinaryIO, name: str) -> object:
        read.append(Path(os.readlink(f"/proc/self/fd/{file.fileno()}")).name)
        return real(file, name)

    monkeypatch.setattr(sealed.hashlib, "file_digest", counting)  # type: ignore[attr-defined]
    again = check(declared, context)
    assert (again.findings, again.checked, again.cached) == ((), whole.checked, 1)
    assert "large.npy" not in read
    content = bytearray(model.read_bytes())
    content[1_500_000] ^= 1
    model.write_bytes(content)
    monkeypatch.setattr(time, "time_ns", lambda: later + 10_000_000_000)
    assert only(check(declared, context)).check == "artifacts.seal"
    assert "large.npy" in read


def test_what_is_kept_of_a_model_depends_on_its_declaration(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A finding is told again from before, and another weight for it is judged anew."""
    shutil.copy(FIXTURES / "function.pkl", project / "models" / "f.pkl")
    with (project / "models" / "f.pkl").open("ab") as file:
        file.write(pickle.dumps("x" * 2_000_000))
    later = time.time_ns() + 10_000_000_000
    monkeypatch.setattr(time, "time_ns", lambda: later)
    context = Context(project, {}, cache=Kept())
    first = check(ArtifactCheck("models/f.pkl"), context)
    again = check(ArtifactCheck("models/f.pkl"), context)
    assert first.findings == again.findings
    assert (first.ok, again.cached) == (False, len(first.checked))
    assert check(ArtifactCheck("models/f.pkl", pickle="warning"), context).ok


def test_zeros_at_the_end_are_worth_a_word(project: Path) -> None:
    """A file that was reserved and half written has its size; formats without checksums pass."""
    model = project / "models" / "large.npy"
    large_model(model)
    assert run(project, path="models/large.npy").findings == ()
    content = model.read_bytes()
    model.write_bytes(content[: len(content) // 3] + bytes(len(content) - len(content) // 3))
    finding = only(run(project, path="models/large.npy"))
    assert (finding.check, finding.severity) == ("artifacts.damaged", Severity.WARNING)
    assert finding.value == len(content) - len(content) // 3


def test_external_data_of_onnx(project: Path) -> None:
    """The file with the weights has to be there, long enough, and inside the model's folder."""
    model = project / "models" / "external.onnx"
    shutil.copy(FIXTURES / "external.onnx", model)
    assert "is not there" in only(run(project, path="models/external.onnx")).message
    data = project / "models" / "external.onnx.data"
    data.write_bytes(bytes(1599))
    assert "needs 1,600 bytes" in only(run(project, path="models/external.onnx")).message
    data.write_bytes(bytes(1600))
    assert run(project, path="models/external.onnx").findings == ()
    model.write_bytes(model.read_bytes().replace(b"external.onnx.data", b"../../etc/password"))
    assert "outside" in only(run(project, path="models/external.onnx")).message


def test_shards_that_an_index_names(project: Path) -> None:
    """A model of which only some shards were fetched."""
    index = project / "models" / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "two.safetensors", "b": "b.safetensors"}}))
    assert "'b.safetensors', which is not there" in only(run(project)).message
    shutil.copy(FIXTURES / "two.safetensors", project / "models" / "b.safetensors")
    assert run(project).findings == ()
