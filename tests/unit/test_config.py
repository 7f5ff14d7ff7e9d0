"""Configuration: what is read, what is refused and how, and which source counts."""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path

import pytest

from safeguards import configuring, discovery, initial, places
from safeguards.config import Config
from safeguards.discovery.surveying import survey
from safeguards.errors import WrongUsage
from safeguards.project import current_folder, find_project
from unprivileged import IS_ROOT, as_nobody, give_away


def write(project: Path, text: str, name: str = "guard.toml") -> Path:
    """Write a configuration and return the project."""
    (project / name).write_text(text)
    return project


def test_without_a_file_everything_has_a_default(tmp_path: Path) -> None:
    """Zero configuration is a configuration."""
    config = configuring.load(tmp_path, {})
    assert config == Config(tmp_path)
    assert config.budget_s == 300
    assert config.run.on_failure == "keep"
    assert not config.declarations


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[guard]\nbugdet = "5m"', "budget"),
        ("[gaurd]", "guard"),
        ('[protect]\nexlude = ["x"]', "exclude"),
        ('[[probe]]\ncomand = "x"', "command"),
        ('[[probe]]\nname = "x"', "command"),
        ('[[service]]\nstop = "x"', "name"),
        ('[[database]]\nuri = "sqlite:///x.db"', "url"),
        ('[[check.data]]\npth = "x.csv"', "path"),
        ("[check.machin]\nmemory = 0.8", "machine"),
        ('[guard]\nbudget = "soon"', "soon"),
        ("[guard]\nbudget = 0", "longer than nothing"),
        ("[guard]\nbudget = -5", "longer than nothing"),
        ("[guard]\nbudget = true", "budget"),
        ('[guard]\nmax_store = "big"', "big"),
        ('[guard]\nkeep_last = "many"', "keep_last"),
        ("[guard]\nkeep_days = -1", "negative"),
        ('[run]\ndrill = "ful"', "full"),
        ('[run]\non_failure = "panic"', "keep, rollback, ask"),
        ("[run]\nretries = 3", "at most 2"),
        ("[run]\nmax_memory = 1.5", "100%"),
        ('[run]\nmax_memory = "lots"', "lots"),
        ('[[service]]\nname = "x"\nhealth = "ftp://x"', "http"),
        ("[protect]\nexclude = [1]", "exclude"),
        ("guard = 5", "guard"),
        ("[guard\n", "line 1"),
        ("[guard]\nbudget = '5m'\nbudget = '6m'\n", "line 3"),
    ],
)
def test_what_is_wrong_is_named(text: str, said: str, tmp_path: Path) -> None:
    """The message names the file and the key or value, the hint what to type."""
    with pytest.raises(WrongUsage) as caught:
        configuring.load(write(tmp_path, text), {})
    told = f"{caught.value} {caught.value.hint}"
    assert "guard.toml" in str(caught.value)
    assert said in told
    assert "guard status" in told or "guard rollback" in told


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    """A file that is not UTF-8, or a folder of its name, is refused or is none."""
    (tmp_path / "guard.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(WrongUsage, match="UTF-8"):
        configuring.load(tmp_path, {})
    (tmp_path / "guard.toml").unlink()
    (tmp_path / "guard.toml").mkdir()
    assert configuring.load(tmp_path, {}).file is None


def test_options_before_variables_before_the_file(tmp_path: Path) -> None:
    """Each layer wins over the next, and the origin says which it was."""
    write(tmp_path, '[guard]\nbudget = "1m"\n[run]\ndrill = "off"\nchecks = "warn"\n')
    environ = {"GUARD_BUDGET": "2m", "GUARD_DRILL": "sample"}
    config = configuring.load(tmp_path, environ, {"budget": "3m", "run.drill": None})
    assert (config.budget_s, config.run.drill, config.run.checks) == (180, "sample", "warn")
    assert config.origins == {
        "budget": "--budget",
        "run.drill": "GUARD_DRILL",
        "run.checks": "guard.toml",
    }
    with pytest.raises(WrongUsage, match="GUARD_DRILL"):
        configuring.load(tmp_path, {"GUARD_DRILL": "perhaps"})
    with pytest.raises(WrongUsage, match="--retries"):
        configuring.load(tmp_path, {}, {"run.retries": "x"})


def test_everything_of_the_contract_is_read(tmp_path: Path) -> None:
    """The example of the contract is valid and arrives typed."""
    write(
        tmp_path,
        """
        [guard]
        environment = "staging"
        budget = "90s"
        store = "../store"
        max_store = "1GiB"
        [protect]
        exclude = ["scratch/"]
        watch = "data/raw/"
        also = ["~/bentoml", "../shared"]
        variables = ["SEED"]
        [run]
        max_memory = "80%"
        timeout = "2h"
        [[database]]
        url = "sqlite:///mlflow.db"
        [[check.data]]
        path = "data/train.parquet"
        [check.machine]
        memory = 0.80
        [[probe]]
        name = "model loads"
        command = "python -m app.load_model"
        timeout = "30s"
        [[service]]
        name = "ui"
        stop = "stop"
        start = "start"
        health = "http://127.0.0.1:5000/health"
        """,
    )
    config = configuring.load(tmp_path, {})
    assert config.environment == "staging"
    assert config.store == tmp_path.parent / "store"
    assert config.max_store_bytes == 1 << 30
    assert config.watch == ("data/raw/",)
    assert config.also == (Path(os.path.expanduser("~/bentoml")), tmp_path.parent / "shared")
    assert config.run.max_memory == 0.8
    assert config.run.timeout_s == 7200
    assert config.declarations
    assert set(config.declarations.by_family) == {"data", "machine"}
    assert config.probes[0].timeout_s == 30
    assert config.services[0].health.endswith("/health")


def test_pyproject_stands_in(tmp_path: Path) -> None:
    """`[tool.guard]` is read where there is no guard.toml, with the same strictness."""
    write(tmp_path, '[project]\nname = "x"\n', "pyproject.toml")
    assert configuring.load(tmp_path, {}).file is None
    text = '[tool.guard]\nbudget = "1m"\n[tool.guard.run]\ndrill = "off"\n'
    write(tmp_path, text, "pyproject.toml")
    config = configuring.load(tmp_path, {})
    assert (config.budget_s, config.run.drill) == (60, "off")
    write(tmp_path, "[tool.guard]\nbugdet = 1\n", "pyproject.toml")
    with pytest.raises(WrongUsage, match=r"pyproject\.toml"):
        configuring.load(tmp_path, {})
    write(tmp_path, "[guard]\n")
    assert configuring.load(tmp_path, {}).budget_s == 300


def test_commands_that_mend_leave_a_broken_file_aside(tmp_path: Path) -> None:
    """The rest still counts, and the problem is told."""
    write(tmp_path, "[guard\n")
    config = configuring.load_leniently(tmp_path, {"GUARD_BUDGET": "1m"})
    assert config.budget_s == 60
    assert "line 1" in config.problem
    with pytest.raises(WrongUsage):
        configuring.load_leniently(tmp_path, {"GUARD_BUDGET": "soon"})


def test_the_project_is_found_from_below(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The nearest parent with a mark counts; without any, the current folder."""
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    monkeypatch.chdir(inner)
    assert find_project(None, {}) == inner
    (tmp_path / ".git").mkdir()
    assert find_project(None, {}) == tmp_path
    write(tmp_path / "a", "", "guard.toml")
    assert find_project(None, {}) == tmp_path / "a"
    assert find_project(str(inner), {}) == inner


def test_homes_and_roots_are_no_projects(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unless they say that they are, so that nobody snapshots a whole home by mistake."""
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.chdir(home)
    for folder in (home, tmp_path, Path("/")):
        with pytest.raises(WrongUsage, match="is not a project"):
            find_project(str(folder), {"HOME": str(home)})
    with pytest.raises(WrongUsage, match="is not a project"):
        find_project(None, {"HOME": str(home)})
    write(home, "")
    assert find_project(None, {"HOME": str(home)}) == home


@pytest.mark.parametrize("mode", [0o000, 0o644, 0o300])
def test_a_project_that_may_not_be_looked_into(mode: int) -> None:
    """With the command that opens it: its configuration must not look absent."""
    with tempfile.TemporaryDirectory() as base:
        project = Path(base).resolve() / "my project"
        project.mkdir()
        (project / "guard.toml").touch()
        if IS_ROOT:
            project.parent.chmod(0o755)
            give_away([project])
        project.chmod(mode)

        def look() -> str:
            with pytest.raises(WrongUsage) as refused:
                find_project(str(project), {})
            return f"{refused.value}\n{refused.value.hint}"

        assert as_nobody(look).split("\n") == [
            f"the project {project} may not be looked into: its mode is {mode:04o}",
            f"chmod u+rwx '{project}', then run the same command again",
        ]
        project.chmod(0o700)


def test_a_current_folder_that_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel remembers where it was; a stale PWD is not believed."""
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert current_folder({"PWD": "/elsewhere"}) == gone
    with pytest.raises(WrongUsage, match="does not exist any more"):
        find_project(None, {"PWD": "/elsewhere"})
    store = tmp_path / "store"
    store.mkdir()
    (store / "STORE").touch()
    assert find_project(None, {"GUARD_STORE": str(store)}) == gone
    with pytest.raises(WrongUsage, match="does not exist"):
        find_project(str(tmp_path / "never"), {})


def test_the_place_of_a_moved_store_is_remembered(tmp_path: Path) -> None:
    """Only where the project's own file moved it, and only while there is a store."""
    environ = {"XDG_STATE_HOME": str(tmp_path / "state")}
    project = tmp_path / "project"
    project.mkdir()
    store = tmp_path / "store"
    store.mkdir()
    (store / "STORE").touch()
    named = configuring.load(project, {}, {"store": str(store)})
    places.remember(named, environ)
    assert places.recall(project, environ) is None
    write(project, f'[guard]\nstore = "{store}"\n')
    places.remember(configuring.load(project, {}), environ)
    assert places.recall(project, environ) == store
    assert (tmp_path / "state" / "guard" / "places.json").stat().st_mode & 0o077 == 0
    (store / "STORE").unlink()
    assert places.recall(project, environ) is None
    (tmp_path / "state" / "guard" / "places.json").write_text("[broken")
    assert places.recall(project, environ) is None


def test_the_documented_keys_are_the_known_ones() -> None:
    """docs/configuration.md names each key that the reader asks for."""
    root = Path(__file__).parents[2]
    text = (root / "docs" / "configuration.md").read_text()
    source = (root / "safeguards" / "configuring.py").read_text()
    keys = set(re.findall(r"(?:guard|protect|run|table), \"(\w+)\"", source))
    keys |= set(re.findall(r"table\.(?:get|duration)\(\"(\w+)\"", source))
    assert {"budget", "exclude", "drill", "url", "health"} <= keys
    assert {key for key in keys if f"`{key}`" not in text} == set()


def test_what_init_writes_is_valid(tmp_path: Path) -> None:
    """Odd names and all that can be found still give a configuration that loads."""
    project = tmp_path / 'odd "name" \\'
    (project / "models").mkdir(parents=True)
    (project / "data").mkdir()
    (project / "mlruns").mkdir()
    for name in ("train.csv", 'quo"te.csv', "back\\slash.parquet", "ümläut.jsonl", "a\nb.csv"):
        (project / "data" / name).write_text("a\n1\n")
    for name in ("x.pkl", "y.pt"):
        (project / "models" / name).write_text("x")
    (project / "models" / "SHA256SUMS").write_text("")
    (project / "params.yaml").write_text("lr: 1\n")
    (project / ".env").write_text("MLFLOW_TRACKING_URI=https://user:canary@tracking.example\n")
    config = Config(project)
    found = survey(project, {})
    outside = discovery.outside(config, {})
    text = initial.compose(config, found, outside)
    loaded = configuring.validate(text, project)
    assert loaded.declarations
    assert len(loaded.declarations.by_family["data"]) == 4
    assert len(loaded.declarations.by_family["artifacts"]) == 2
    assert "canary" not in text
    assert "not on this machine" in text
    uncommented = re.sub(r"^# (?=\[|[a-z_]+ = |\")", "", text, flags=re.MULTILINE)
    assert uncommented != text
    configuring.validate(uncommented, project)
