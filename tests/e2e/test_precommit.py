"""The real pre-commit framework from a fresh clone of this project, and the plain git hook."""

from __future__ import annotations

import hashlib
import os
import pickle
import shutil
import subprocess
import venv
from pathlib import Path

import pytest

from e2e.guard_command import EXECUTABLE

SOURCE = Path(__file__).parents[2]
HOOKS = ("guard", "guard-data", "guard-artifacts", "guard-params", "guard-secrets")
CONFIG = """\
[[check.params]]
file = "params.yaml"
[check.params.ranges]
lr = { max = 1.0 }

[[check.data]]
path = "train.csv"
max_missing = 0.1
"""
ROWS = "a,b\n" + "".join(f"{n},{n % 7}\n" for n in range(100))


class Repository:
    """A user's repository."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        self.git("init", "-q")
        self.write("guard.toml", CONFIG)
        self.write("params.yaml", "lr: 0.1\n")
        self.write("train.csv", ROWS)
        self.git("add", "-A")
        self.git("commit", "-q", "--no-verify", "-m", "start")

    def git(self, *words: str) -> str:
        """Run git."""
        done = subprocess.run(
            ["git", *words], cwd=self.folder, check=True, capture_output=True, text=True
        )
        return done.stdout

    def write(self, name: str, content: str | bytes) -> None:
        """Write a file, not staged."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)

    def stage(self, name: str, content: str | bytes) -> None:
        """Write a file and stage it."""
        self.write(name, content)
        self.git("add", "-f", "--", name)

    def commit(self) -> subprocess.CompletedProcess[str]:
        """Try to commit what is staged."""
        return subprocess.run(
            ["git", "commit", "-m", "a commit"],
            cwd=self.folder,
            capture_output=True,
            text=True,
            check=False,
        )

    def tree(self) -> dict[str, tuple[str, int]]:
        """Return content and time of each file of the work tree."""
        return {
            str(path.relative_to(self.folder)): (
                hashlib.sha256(path.read_bytes()).hexdigest(),
                path.stat().st_mtime_ns,
            )
            for path in self.folder.rglob("*")
            if path.is_file() and ".git" not in path.parts
        }


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    """A repository with good inputs."""
    return Repository(tmp_path / "project")


@pytest.fixture(scope="module")
def framework(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pre-commit framework: that of the PATH, else one in an environment of its own."""
    found = shutil.which("pre-commit")
    if found:
        return Path(found)
    folder = tmp_path_factory.mktemp("framework")
    venv.create(folder, with_pip=True)
    python = str(folder / "bin" / "python")
    install = [python, "-m", "pip", "install", "-q", "pre-commit>=4"]
    subprocess.run(install, check=True)
    return folder / "bin" / "pre-commit"


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A fresh clone of this project and its commit."""
    folder = tmp_path_factory.mktemp("clone") / "guard"
    subprocess.run(["git", "clone", "-q", SOURCE, folder], check=True)
    done = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=folder, check=True, capture_output=True, text=True
    )
    return folder, done.stdout.strip()


@pytest.fixture(scope="module")
def hook_environments(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the framework keeps the environments that it builds, for all tests here."""
    return tmp_path_factory.mktemp("pre-commit-home")


@pytest.fixture
def with_framework(
    repository: Repository,
    framework: Path,
    clone: tuple[Path, str],
    hook_environments: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Repository:
    """A repository whose commits the framework checks with guard's hooks."""
    folder, revision = clone
    monkeypatch.setenv("PRE_COMMIT_HOME", str(hook_environments))
    lines = [f"repos:\n- repo: {folder}\n  rev: {revision}\n  hooks:\n"]
    lines += [f"  - id: {hook}\n" for hook in HOOKS]
    repository.stage(".pre-commit-config.yaml", "".join(lines))
    repository.git("commit", "-q", "--no-verify", "-m", "configure")
    subprocess.run([framework, "install"], cwd=repository.folder, check=True, capture_output=True)
    return repository


def spoil(repository: Repository) -> None:
    """Stage something bad of every family."""
    repository.stage(".env", "DB_PASSWORD=hunter22canary\n")
    repository.stage("params.yaml", "lr: 5\n")
    repository.stage("train.csv", "a,b\n" + "1,\n" * 100)
    repository.stage("model.pkl", pickle.dumps(os.system))
    repository.stage("half.pkl", pickle.dumps(list(range(99)))[:-2])


WORDS = ("DB_PASSWORD", "greater than 1", "missing", "can run code", "cut short")


@pytest.mark.timeout(900)
def test_the_real_framework(with_framework: Repository) -> None:
    """Good commits pass, bad ones are stopped with every problem named and nothing written."""
    with_framework.stage("train.py", "print(1)\n")
    good = with_framework.commit()
    assert good.returncode == 0, good.stdout + good.stderr
    spoil(with_framework)
    before = with_framework.tree()
    bad = with_framework.commit()
    said = bad.stdout + bad.stderr
    assert bad.returncode == 1, said
    for word in WORDS:
        assert word in said
    assert "hunter22canary" not in said
    assert with_framework.tree() == before


@pytest.mark.timeout(900)
def test_the_framework_with_unstaged_changes(with_framework: Repository) -> None:
    """What is on disk neither excuses nor accuses what is staged, and stays as it is."""
    with_framework.stage("params.yaml", "lr: 0.2\n")
    with_framework.write("params.yaml", "lr: 7\n")
    assert with_framework.commit().returncode == 0
    assert (with_framework.folder / "params.yaml").read_text() == "lr: 7\n"
    with_framework.stage("params.yaml", "lr: 5\n")
    with_framework.write("params.yaml", "lr: 0.3\n")
    bad = with_framework.commit()
    assert bad.returncode == 1
    assert "lr = 5" in bad.stdout + bad.stderr
    assert (with_framework.folder / "params.yaml").read_text() == "lr: 0.3\n"


@pytest.mark.timeout(900)
def test_the_framework_on_all_files(with_framework: Repository, framework: Path) -> None:
    """`pre-commit run --all-files` checks committed files, too."""
    spoil(with_framework)
    with_framework.git("commit", "-q", "--no-verify", "-m", "bad")
    done = subprocess.run(
        [framework, "run", "--all-files"],
        cwd=with_framework.folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    for word in WORDS:
        assert word in done.stdout


@pytest.fixture
def with_hook(repository: Repository) -> Repository:
    """A repository with guard's plain hook."""
    subprocess.run(
        [EXECUTABLE, "hook", "install"], cwd=repository.folder, check=True, capture_output=True
    )
    return repository


def test_the_plain_hook(with_hook: Repository) -> None:
    """Good commits pass in silence, bad ones are stopped; --no-verify is the way round."""
    with_hook.stage("train.py", "print(1)\n")
    good = with_hook.commit()
    assert (good.returncode, good.stderr) == (0, "")
    spoil(with_hook)
    before = with_hook.tree()
    bad = with_hook.commit()
    said = bad.stdout + bad.stderr
    assert bad.returncode == 1
    for word in WORDS:
        assert word in said
    assert "hunter22canary" not in said
    assert "Traceback" not in said
    assert with_hook.tree() == before
    with_hook.git("commit", "-q", "--no-verify", "-m", "all the same")


def test_the_plain_hook_with_chosen_paths(with_hook: Repository) -> None:
    """`git commit -a` and `git commit PATH` check what they commit, not what was staged."""
    with_hook.stage("params.yaml", "lr: 5\n")
    with_hook.write("train.csv", ROWS + "100,1\n")
    assert with_hook.git("commit", "-q", "-m", "only the data", "train.csv") == ""
    with_hook.write("params.yaml", "lr: 0.5\n")
    with_hook.git("commit", "-q", "-a", "-m", "all that is on disk")
    assert with_hook.git("status", "--short") == ""


def test_the_plain_hook_with_all_that_changed(with_hook: Repository) -> None:
    """`git commit -a` takes the work tree, and so does the hook."""
    with_hook.write("params.yaml", "lr: 5\n")
    done = subprocess.run(
        ["git", "commit", "-am", "all"], cwd=with_hook.folder, capture_output=True, check=False
    )
    assert done.returncode == 1
    assert b"lr = 5" in done.stderr + done.stdout
    with_hook.write("params.yaml", "lr: 0.5\n")
    with_hook.git("commit", "-qam", "all")


def test_the_plain_hook_with_renames_deletions_and_odd_names(with_hook: Repository) -> None:
    """What is gone is not checked, what is renamed is, whatever its name."""
    with_hook.git("mv", "params.yaml", "old params.yaml")
    with_hook.git("commit", "-qm", "away")
    with_hook.git("rm", "-q", "train.csv")
    with_hook.git("commit", "-qm", "gone")
    odd = os.fsdecode(b"a\xff\nb.pkl")
    with_hook.stage(odd, pickle.dumps(list(range(99)))[:-2])
    bad = with_hook.commit()
    assert bad.returncode == 1
    assert "a\\xff\\nb.pkl" in bad.stderr + bad.stdout
    with_hook.git("rm", "-qf", "--", odd)
    with_hook.git("mv", "old params.yaml", "params.yaml")
    with_hook.stage("params.yaml", "lr: 9\n")
    assert "lr = 9" in with_hook.commit().stderr


def test_the_plain_hook_in_a_merge(with_hook: Repository) -> None:
    """The commit that resolves a conflict is checked as it is staged."""
    branch = with_hook.git("branch", "--show-current").strip()
    with_hook.git("checkout", "-qb", "side")
    with_hook.stage("params.yaml", "lr: 0.2\n")
    with_hook.git("commit", "-qm", "side")
    with_hook.git("checkout", "-q", branch)
    with_hook.stage("params.yaml", "lr: 0.3\n")
    with_hook.git("commit", "-qm", "main")
    subprocess.run(["git", "merge", "side"], cwd=with_hook.folder, capture_output=True, check=False)
    with_hook.stage("params.yaml", "lr: 8\n")
    bad = with_hook.commit()
    assert bad.returncode == 1
    assert "lr = 8" in bad.stderr
    with_hook.stage("params.yaml", "lr: 0.4\n")
    assert with_hook.commit().returncode == 0
    assert len(with_hook.git("log", "-1", "--format=%P").split()) == 2


def test_the_plain_hook_beside_another(repository: Repository) -> None:
    """A hook that was there before still runs, and its refusal counts."""
    other = repository.folder / ".git" / "hooks" / "pre-commit"
    other.parent.mkdir(exist_ok=True)
    other.write_text("#!/bin/sh\necho was here >&2\ntest ! -e stop\n")
    other.chmod(0o755)
    subprocess.run([EXECUTABLE, "hook", "install"], cwd=repository.folder, check=True)
    repository.stage("train.py", "print(1)\n")
    assert "was here" in repository.commit().stderr
    repository.write("stop", "")
    repository.stage("train.py", "print(2)\n")
    assert repository.commit().returncode == 1


def test_the_plain_hook_in_a_linked_worktree(with_hook: Repository, tmp_path: Path) -> None:
    """A linked work tree has the same hook and its own index."""
    with_hook.git("worktree", "add", "-q", str(tmp_path / "linked"))
    (tmp_path / "linked" / "params.yaml").write_text("lr: 5\n")
    done = subprocess.run(
        ["git", "commit", "-qam", "bad"],
        cwd=tmp_path / "linked",
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "lr = 5" in done.stdout + done.stderr


def test_json(with_hook: Repository) -> None:
    """One object, with an exit status that says no."""
    import json  # noqa: PLC0415

    spoil(with_hook)
    done = subprocess.run(
        [EXECUTABLE, "--json", "hook", "pre-commit"],
        cwd=with_hook.folder,
        capture_output=True,
        text=True,
        check=False,
    )
    answer = json.loads(done.stdout)
    assert (done.returncode, answer["exit_code"]) == (1, 1)
    rules = {finding["check"] for finding in answer["data"]["findings"]}
    assert {"secrets.likely", "params.range", "data.missing", "artifacts.pickle"} <= rules


def test_in_github_actions(with_hook: Repository, tmp_path: Path) -> None:
    """A job gets annotations and a summary."""
    spoil(with_hook)
    environ = os.environ | {
        "GITHUB_ACTIONS": "true",
        "GITHUB_STEP_SUMMARY": str(tmp_path / "summary.md"),
    }
    done = subprocess.run(
        [EXECUTABLE, "hook", "pre-commit"],
        cwd=with_hook.folder,
        capture_output=True,
        text=True,
        check=False,
        env=environ,
    )
    assert "::error file=.env,line=1,title=secrets.likely::" in done.stdout
    assert "failed" in (tmp_path / "summary.md").read_text()
    assert "hunter22canary" not in done.stdout + (tmp_path / "summary.md").read_text()
