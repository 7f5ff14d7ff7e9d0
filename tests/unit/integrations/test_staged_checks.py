"""Commits: the index is checked, the work tree is neither read for it nor written."""

from __future__ import annotations

import hashlib
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from checks.artifacts.formats import EXTENSIONS
from checks.model import CheckReport, Severity
from checks.seal import seal
from hostile import build_hostile_repository, fired
from safeguards.errors import WrongUsage
from safeguards.integrations import staged_files
from safeguards.integrations.precommit import Settings, run_pre_commit
from safeguards.integrations.staged_files import MODEL_ENDINGS

CONFIG = """\
[[check.params]]
file = "params.yaml"
[check.params.ranges]
lr = { max = 1.0 }
"""


class Repository:
    """A git repository that is also a project."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        self.git("init", "-q")

    def git(self, *words: str) -> str:
        """Run git."""
        done = subprocess.run(
            ["git", *words], cwd=self.folder, check=True, capture_output=True, text=True
        )
        return done.stdout

    def stage(self, name: str, content: str | bytes) -> None:
        """Write a file and stage it."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        self.git("add", "-f", "--", name)

    def commit(self) -> None:
        """Commit what is staged."""
        self.git("commit", "-q", "--no-verify", "-m", "a commit")

    def check(self, *files: str, **settings: object) -> CheckReport:
        """Check what is staged."""
        chosen = Settings(**settings)  # type: ignore[arg-type]
        return run_pre_commit(self.folder, files, chosen)

    def found(self, *files: str, **settings: object) -> set[tuple[str, str]]:
        """Return rule and subject of what is found."""
        return {(f.check, f.subject) for f in self.check(*files, **settings).findings}


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Repository:
    """An empty repository, in which the current folder is."""
    made = Repository(tmp_path / "project")
    monkeypatch.chdir(made.folder)
    return made


def digest(folder: Path) -> dict[str, tuple[str, int]]:
    """Return content and time of every file, git's included."""
    return {
        str(path.relative_to(folder)): (
            hashlib.sha256(path.read_bytes()).hexdigest(),
            path.stat().st_mtime_ns,
        )
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize("committed", [True, False])
def test_the_index_counts_not_the_work_tree(repository: Repository, *, committed: bool) -> None:
    """Bad when staged and good on disk fails; good when staged and bad on disk passes."""
    repository.stage("guard.toml", CONFIG)
    if committed:
        repository.commit()
    repository.stage("params.yaml", "lr: 5\n")
    (repository.folder / "params.yaml").write_text("lr: 0.5\n")
    before = digest(repository.folder)
    assert repository.found() == {("params.range", "params.yaml")}
    repository.stage("params.yaml", "lr: 0.5\n")
    (repository.folder / "params.yaml").write_text("lr: 5\n")
    before = digest(repository.folder)
    assert repository.found() == set()
    assert digest(repository.folder) == before


def test_the_staged_configuration_counts(repository: Repository) -> None:
    """A range that only the work tree has is not applied; a staged wrong key is refused."""
    repository.stage("params.yaml", "lr: 5\n")
    (repository.folder / "guard.toml").write_text(CONFIG)
    repository.git("add", "guard.toml")
    (repository.folder / "guard.toml").write_text("")
    assert repository.found() == {("params.range", "params.yaml")}
    repository.stage("guard.toml", CONFIG.replace("ranges", "rages"))
    with pytest.raises(WrongUsage, match="rages"):
        repository.check()
    repository.stage("guard.toml", "a = = 1")
    with pytest.raises(WrongUsage, match="staged guard"):
        repository.check()


def test_a_commit_of_chosen_paths(repository: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    """`git commit PATH` uses an index of its own, which git names to the hook."""
    repository.stage("guard.toml", CONFIG)
    repository.commit()
    repository.stage("params.yaml", "lr: 0.1\n")
    other = repository.folder / ".git" / "other-index"
    other.write_bytes((repository.folder / ".git" / "index").read_bytes())
    (repository.folder / "params.yaml").write_text("lr: 9\n")
    monkeypatch.setenv("GIT_INDEX_FILE", ".git/other-index")
    repository.git("add", "params.yaml")
    assert repository.found() == {("params.range", "params.yaml")}
    monkeypatch.delenv("GIT_INDEX_FILE")
    assert repository.found() == set()


def test_named_files(repository: Repository) -> None:
    """Only named files are looked at, as they are staged; one that is not staged is said so."""
    repository.stage(".env", "DB_PASSWORD=hunter22\n")
    repository.stage("conf/a.yaml", "api_key: f3a9c1d27b5e4f6089ab\n")
    (repository.folder / "loose.yaml").write_text("api_key: f3a9c1d27b5e4f6089ab\n")
    assert repository.found(".env") == {("secrets.likely", ".env")}
    assert repository.found("conf") == {("secrets.likely", "conf/a.yaml")}
    assert repository.found("loose.yaml") == {("staged.missing", "loose.yaml")}
    os.chdir(repository.folder / "conf")
    assert repository.found("a.yaml") == {("secrets.likely", "conf/a.yaml")}


def test_secrets_are_named_and_not_shown(repository: Repository) -> None:
    """The finding has the line and the setting; the value is nowhere."""
    repository.stage(".env", "A=1\nDB_PASSWORD=hunter22canary\n")
    report = repository.check()
    (finding,) = report.findings
    assert "line 2" in finding.message
    assert finding.column == "DB_PASSWORD"
    assert "hunter22canary" not in repr(report)


def test_secrets_in_large_and_odd_texts(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A notebook of megabytes and a text in UTF-16 are searched; what is not is said so."""
    key = "AKIA" + "Q7WX3ZP2MD5KT8VN"
    repository.stage("big.ipynb", "some output\n" * 200_000 + key + "\n")
    repository.stage("win.env", f"KEY={key}\n".encode("utf-16"))
    assert repository.found() == {("secrets.likely", "big.ipynb"), ("secrets.likely", "win.env")}
    monkeypatch.setattr(staged_files, "SCANNED_BYTES", 1000)
    report = repository.check()
    assert [skip.what for skip in report.skipped] == ["secrets in big.ipynb"]


def test_large_files(repository: Repository) -> None:
    """A file over the limit is named with both sizes."""
    repository.stage("weights.dat", os.urandom(3000))
    assert repository.found(max_bytes=3000) == set()
    (finding,) = repository.check(max_bytes=2999).findings
    assert (finding.check, finding.value, finding.limit) == ("staged.large", 3000, 2999)


def test_models(repository: Repository) -> None:
    """Damaged, dangerous and misnamed models are errors; an unsealed one is a warning."""
    good = pickle.dumps(list(range(100)))
    repository.stage("m/good.pkl", good)
    repository.stage("m/cut.pkl", good[:-3])
    repository.stage("m/evil.pkl", pickle.dumps(os.system))
    repository.stage("m/none.pt", bytes(5000))
    repository.stage("m/empty.pkl", b"")
    errors = {(f.check, f.subject) for f in repository.check().of(Severity.ERROR)}
    assert errors == {
        ("artifacts.damaged", "m/cut.pkl"),
        ("artifacts.damaged", "m/empty.pkl"),
        ("artifacts.format", "m/none.pt"),
        ("artifacts.pickle", "m/evil.pkl"),
    }
    assert ("staged.unsealed", "m/good.pkl") in repository.found()


def test_seals(repository: Repository) -> None:
    """The staged manifest is held against the staged content."""
    models = repository.folder / "models"
    repository.stage("models/a.pkl", pickle.dumps(1))
    seal([models], models / "SHA256SUMS")
    repository.git("add", "models/SHA256SUMS")
    assert repository.found() == set()
    repository.stage("models/a.pkl", pickle.dumps(2))
    (models / "a.pkl").write_bytes(pickle.dumps(1))
    assert repository.found() == {("artifacts.seal", "models/a.pkl")}
    repository.stage("models/a.pkl", pickle.dumps(1))
    repository.stage("models/b.pkl", pickle.dumps(1))
    assert repository.found() == {("staged.unsealed", "models/b.pkl")}
    assert not repository.check().ok


def test_what_a_declaration_accepts(repository: Repository) -> None:
    """A declared artifact is judged by its declaration alone, once."""
    module = os.system.__module__
    declared = '[[check.artifact]]\npath = "models/*.pkl"\nsha256 = "models/SHA256SUMS"\n'
    repository.stage("guard.toml", declared)
    repository.stage("models/a.pkl", pickle.dumps(os.system))
    seal([repository.folder / "models"], repository.folder / "models" / "SHA256SUMS")
    repository.git("add", "models/SHA256SUMS")
    (finding,) = repository.check().findings
    assert finding.check == "artifacts.pickle"
    repository.stage("guard.toml", f'{declared}allow = ["{module}"]\n')
    assert repository.found() == set()
    repository.stage("models/a.pkl", pickle.dumps(1))
    (finding,) = repository.check().findings
    assert finding.check == "artifacts.seal"


def test_pointers_of_git_lfs(repository: Repository) -> None:
    """A pointer is what belongs into git, and its digest is held against the seal."""
    oid = hashlib.sha256(b"x").hexdigest()
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{oid}\nsize 1\n"
    repository.stage("a.pt", pointer)
    repository.stage("SHA256SUMS", f"{oid}  a.pt\n")
    assert repository.found() == set()
    repository.stage("SHA256SUMS", f"{'0' * 64}  a.pt\n")
    assert repository.found() == {("artifacts.seal", "a.pt")}


def test_what_belongs_to_dvc(repository: Repository) -> None:
    """Outputs that DVC tracks are errors, others of their kind warnings, metrics neither."""
    repository.stage(".dvc/config", "")
    repository.stage("data/raw.csv.dvc", "outs:\n- md5: 00\n  path: raw.csv\n")
    repository.stage(
        "dvc.yaml",
        "stages:\n  train:\n    cmd: x\n    wdir: out\n    outs:\n    - model\n"
        "    - log.txt: {cache: false}\n    metrics:\n    - m.json\n",
    )
    repository.stage("broken.dvc", "{{")
    repository.stage("data/raw.csv", "a\n1\n")
    repository.stage("out/model/weights.bin", b"x")
    repository.stage("out/log.txt", "x")
    repository.stage(
        "other.npy",
        (b"\x93NUMPY\x01\x00\x3a\x00{'descr': '<f8', 'fortran_order': False, 'shape': (0,), }\n"),
    )
    found = {(f.severity.value, f.subject) for f in repository.check().findings}
    assert found == {
        ("error", "data/raw.csv"),
        ("error", "out/model/weights.bin"),
        ("warning", "other.npy"),
    }


def test_data_with_reference_that_git_does_not_track(repository: Repository) -> None:
    """Untracked files that a declaration names are read where they lie."""
    repository.stage(".gitignore", "reference.csv\n")
    rows = "".join(f"{n}\n" for n in range(200))
    (repository.folder / "reference.csv").write_text("a\n" + rows)
    repository.stage(
        "guard.toml", '[[check.data]]\npath = "train.csv"\nreference = "reference.csv"\n'
    )
    repository.commit()
    repository.stage("train.csv", "a\n" + rows)
    (repository.folder / "train.csv").write_text("garbage")
    report = repository.check()
    assert report.findings == ()
    assert any("train.csv" in subject for _rule, subject in report.checked)
    repository.stage("train.csv", "a\n" + "5000\n" * 200)
    assert not repository.check().ok


def test_schemas_that_are_code_are_not_imported(repository: Repository) -> None:
    """A staged Python schema does not run, unless the caller trusts it."""
    repository.stage("schema.py", "import os\nos.mkdir('sung')\n")
    repository.stage("guard.toml", '[[check.data]]\npath = "a.csv"\nschema = "schema.py:S"\n')
    repository.stage("a.csv", "x\n1\n2\n")
    report = repository.check()
    assert not (repository.folder / "sung").exists()
    assert report.skipped or not report.ok, "an unchecked schema may not look like a passed one"


def test_odd_entries(repository: Repository) -> None:
    """Names of any bytes, links, and links out of the project are no trouble."""
    os.symlink("/etc/passwd", repository.folder / "link.yaml")
    name = os.fsdecode(b"odd\xff\n.env")
    (repository.folder / name).write_text("DB_PASSWORD=hunter22\n")
    repository.git("add", "-A")
    repository.stage("guard.toml", CONFIG.replace("params.yaml", "link.yaml"))
    found = repository.found()
    assert ("secrets.likely", "odd\\xff\\n.env") in found
    assert {rule for rule, _subject in found} == {"secrets.likely", "params.missing"}


def test_deletions_and_nothing(repository: Repository) -> None:
    """An empty commit and one that only deletes have nothing to check."""
    assert repository.check().findings == ()
    repository.stage(".env", "DB_PASSWORD=hunter22\n")
    repository.commit()
    assert repository.check().findings == ()
    repository.git("rm", "-q", ".env")
    assert repository.check().findings == ()


def test_a_linked_worktree_and_a_project_below_the_top(
    repository: Repository, tmp_path: Path
) -> None:
    """Both have an index of their own or paths of their own."""
    repository.stage("sub/guard.toml", CONFIG)
    repository.stage("sub/params.yaml", "lr: 0.1\n")
    repository.commit()
    repository.git("worktree", "add", "-q", str(tmp_path / "linked"))
    linked = tmp_path / "linked"
    (linked / "sub" / "params.yaml").write_text("lr: 7\n")
    subprocess.run(["git", "add", "-A"], cwd=linked, check=True)
    found = {(f.check, f.subject) for f in run_pre_commit(linked / "sub").findings}
    assert found == {("params.range", "params.yaml")}
    assert run_pre_commit(repository.folder / "sub").findings == ()


def test_endings_are_those_of_the_formats() -> None:
    """The list that is kept for speed is the one that the formats have."""
    assert set(MODEL_ENDINGS) == EXTENSIONS


def test_no_repository(tmp_path: Path) -> None:
    """Outside of a work tree there is nothing staged."""
    with pytest.raises(WrongUsage, match="no git work tree"):
        run_pre_commit(tmp_path)


def test_a_hostile_repository_runs_nothing(tmp_path: Path) -> None:
    """No hook, filter, driver or monitor of the repository is started."""
    canary = build_hostile_repository(tmp_path / "project")
    run_pre_commit(tmp_path / "project")
    run_pre_commit(tmp_path / "project", [str(tmp_path / "project" / "train.py")])
    assert fired(canary) == []


def test_what_no_file_concerns_is_not_imported(repository: Repository) -> None:
    """A commit of code alone starts neither polars, pandera, yaml, psutil nor picklescan."""
    repository.stage("guard.toml", CONFIG + '[[check.data]]\npath = "d.csv"\n')
    repository.commit()
    repository.stage("train.py", "print(1)\n")
    code = (
        "import sys, pathlib\n"
        "from safeguards.integrations.precommit import run_pre_commit\n"
        "report = run_pre_commit(pathlib.Path.cwd())\n"
        "assert report.checked, 'it did look'\n"
        "heavy = {'polars', 'pandera', 'pandas', 'yaml', 'psutil', 'picklescan', 'git', 'rich',\n"
        "         'pydantic', 'numpy', 'checks.data', 'checks.params', 'checks.artifacts'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=repository.folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("[]\n", "")
