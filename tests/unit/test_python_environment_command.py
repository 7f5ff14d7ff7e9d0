"""Which environment a command will use, told without starting anything."""

from __future__ import annotations

import base64
import hashlib
import os
import sys
from pathlib import Path

import pytest

from rollback.resources.python import Environment, find_environments, missing_environment


def venv(prefix: Path, *, python: str | None = None) -> Path:
    """Lay out a virtual environment as `python -m venv` does, without the time it takes."""
    (prefix / "bin").mkdir(parents=True)
    (prefix / "lib" / "python3.11" / "site-packages").mkdir(parents=True)
    (prefix / "lib64").symlink_to("lib")
    (prefix / "pyvenv.cfg").write_text("home = /usr/bin\nversion = 3.11.7\n")
    (prefix / "bin" / "python3").symlink_to(python or sys.executable)
    (prefix / "bin" / "python").symlink_to("python3")
    return prefix


def script(path: Path, first: str, rest: str = "print('x')\n") -> Path:
    """Write an executable script."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{first}\n{rest}")
    path.chmod(0o755)
    return path


def installed_python(prefix: Path, version: str = "3.11") -> Path:
    """Lay out an interpreter that was installed below a prefix of its own."""
    library = prefix / "lib" / f"python{version}"
    (library / "site-packages").mkdir(parents=True)
    (library / "os.py").touch()
    script(prefix / "bin" / f"python{version}", "binary")
    (prefix / "bin" / "python").symlink_to(f"python{version}")
    return prefix


class Case:
    """A project with environments all around, none of which is guard's."""

    def __init__(self, base: Path) -> None:
        self.base = base.resolve()
        self.project = self.base / "project"
        self.project.mkdir()
        self.home = self.base / "home"
        self.home.mkdir()
        self.named = venv(self.base / "named")
        self.system = installed_python(self.base / "system")
        self.environ = {"HOME": str(self.home), "PATH": f"{self.system}/bin:/nowhere"}

    def find(self, *command: str, cwd: Path | None = None) -> list[Environment]:
        """Return what is found for a command."""
        return find_environments(command, self.environ, self.project, cwd=cwd or self.project)

    def first(self, *command: str) -> str:
        """Return the prefix of the environment that the command uses."""
        found = self.find(*command)
        assert found, command
        assert found[0].used
        return found[0].prefix


@pytest.fixture
def case(tmp_path: Path) -> Case:
    """A fresh project with environments around it."""
    return Case(tmp_path)


def test_nothing_in_reach(tmp_path: Path) -> None:
    """No Python at all: an empty list, and words for it; guard's own is not taken instead."""
    found = find_environments(["python"], {"PATH": "/nowhere"}, tmp_path, cwd=tmp_path)
    assert found == []
    assert "python" in missing_environment(["python"]).why


def test_an_interpreter_by_path(case: Case) -> None:
    """Absolute, relative, versioned, after `env` and its options, inside wrappers."""
    python = f"{case.named}/bin/python"
    for command in (
        [python, "train.py"],
        ["../named/bin/python3"],
        ["env", python],
        ["env", "-i", "-u", "X", "A=1", python],
        ["/usr/bin/env", "-S", f"{python} -u"],
        ["nohup", "nice", "-n", "5", python],
        ["timeout", "-k", "5", "10m", python],
        ["timeout", "--signal=INT", "10m", python],
        ["stdbuf", "-oL", python],
        ["taskset", "0x1", python],
        ["time", "-o", "log", "--", python],
        ["guard", "run", "--", python],
        ["/opt/bin/guard", "-q", "--store", "s", "run", "--drill", "off", python],
        ["guard", "run", "--label=x", "--", "guard", "run", "--timeout", "5m", "--", python],
    ):
        assert case.first(*command) == str(case.named), command


def test_path_of_the_child_decides(case: Case) -> None:
    """`python` is looked up with the child's PATH, also where `env` sets it."""
    assert case.first("python", "-m", "train") == str(case.system)
    assert case.first("env", f"PATH={case.named}/bin", "python") == str(case.named)
    case.environ["PATH"] = f"{case.named}/bin:{case.environ['PATH']}"
    assert case.first("python") == str(case.named)
    case.environ["VIRTUAL_ENV"] = str(venv(case.base / "other"))
    assert case.first("python") == str(case.named)


def test_a_link_to_an_environments_python_is_not_the_environment(case: Case) -> None:
    """As CPython does: `pyvenv.cfg` is looked for beside the link, then the target counts."""
    link = case.base / "bin" / "python"
    link.parent.mkdir()
    (case.named / "bin" / "python3").unlink()
    (case.named / "bin" / "python3").symlink_to(case.system / "bin" / "python3.11")
    link.symlink_to(case.named / "bin" / "python")
    assert case.first(str(link)) == str(case.system)


@pytest.mark.parametrize(
    ("first", "rest"),
    [
        ("#!{named}/bin/python", "import x\n"),
        ("#! {named}/bin/python3 -I", "import x\n"),
        ("#!/usr/bin/env {named}/bin/python", "import x\n"),
        ("#!/usr/bin/env -S {named}/bin/python -u", "import x\n"),
        ("#!/bin/sh", "'''exec' {named}/bin/python \"$0\" \"$@\"\n' '''\nimport x\n"),
        ("#!/bin/sh", "'''exec' \"{named}/bin/python\" \"$0\" \"$@\"\n' '''\nimport x\n"),
        ("#!/bin/bash", "set -e\nsource {named}/bin/activate\nmlflow run .\n"),
        ("#!/bin/bash", "exec {named}/bin/python train.py\n"),
    ],
)
def test_scripts_lead_to_their_interpreter(case: Case, first: str, rest: str) -> None:
    """Console scripts, long paths through sh, `env -S`, shell scripts that activate."""
    path = script(
        case.base / "tools" / "mlflow",
        first.format(named=case.named),
        rest.replace("{named}", str(case.named)),
    )
    assert case.first(str(path), "ui") == str(case.named)
    case.environ["PATH"] += f":{path.parent}"
    assert case.first("mlflow", "ui") == str(case.named)


def test_a_relocatable_script_uses_its_neighbour(case: Case) -> None:
    """What `uv venv --relocatable` writes: the interpreter is beside the script."""
    rest = """'''exec' "$(dirname -- "$(realpath -- "$0")")"/'python' "$0" "$@"\n' '''\n"""
    path = script(case.named / "bin" / "tool", "#!/bin/sh", rest)
    assert case.first(str(path)) == str(case.named)


def test_a_compiled_program_in_an_environment(case: Case) -> None:
    """Ruff or uv installed into it: no first line, but it lies there."""
    path = case.named / "bin" / "ruff"
    path.write_bytes(b"\x7fELF\0\0")
    path.chmod(0o755)
    assert case.first(str(path)) == str(case.named)


@pytest.mark.parametrize(
    "text",
    [
        "source {named}/bin/activate && python train.py",
        ". '{named}/bin/activate'; make",
        "{named}/bin/python3.11 train.py | tee log",
        "cd /; exec {named}/bin/python x",
    ],
)
@pytest.mark.parametrize("shell", [["bash", "-c"], ["sh", "-ec"], ["/bin/bash", "-l", "-c"]])
def test_text_for_a_shell(case: Case, shell: list[str], text: str) -> None:
    """An environment that the text activates or names is found."""
    case.environ["PATH"] += ":/bin"
    assert case.first(*shell, text.format(named=case.named)) == str(case.named)


def test_commands_that_say_nothing(case: Case) -> None:
    """make, a shell: VIRTUAL_ENV, then .venv, then CONDA_PREFIX, then PATH."""
    case.environ["PATH"] += ":/bin:/usr/bin"
    (case.project / "train.py").touch()
    assert case.first("make", "train") == str(case.system)
    conda = case.base / "conda"
    (conda / "conda-meta").mkdir(parents=True)
    case.environ["CONDA_PREFIX"] = str(conda)
    assert case.first("sh", "-c", "make") == str(conda)
    local = venv(case.project / ".venv")
    assert case.first("make") == str(local)
    case.environ["VIRTUAL_ENV"] = str(case.named)
    assert case.first("make") == str(case.named)
    case.environ["VIRTUAL_ENV"] = "/gone"
    assert case.first("make") == str(local)


def test_without_a_command_the_projects_own_is_not_started(case: Case) -> None:
    """A snapshot alone: what lies in the project is captured, its interpreter not trusted."""
    local = venv(case.project / ".venv")
    found = case.find()
    assert [(one.prefix, one.used) for one in found] == [(str(local), False)]


def test_environments_in_the_project_come_along(case: Case) -> None:
    """An `rm -rf` of the project would take them; they are marked as not used."""
    inside = venv(case.project / "my-env")
    found = case.find(f"{case.named}/bin/python")
    assert [(one.prefix, one.used, one.inside_project) for one in found] == [
        (str(case.named), True, False),
        (str(inside), False, True),
    ]


def test_one_prefix_is_found_once(case: Case) -> None:
    """Named by the command, by a link and by lying in the project."""
    local = venv(case.project / ".venv")
    (case.project / "env").symlink_to(".venv")
    found = case.find(".venv/bin/python")
    assert [(one.prefix, one.why) for one in found] == [(str(local), "the command names it")]


def test_what_is_known_of_an_environment(case: Case) -> None:
    """Version, site-packages once in spite of lib64, scripts."""
    found = case.find(f"{case.named}/bin/python")[0]
    assert (found.kind, found.version) == ("venv", "3.11.7")
    assert found.site_packages == (f"{case.named}/lib/python3.11/site-packages",)
    assert found.scripts == f"{case.named}/bin"
    system = case.find("python")[0]
    assert (system.kind, system.version) == ("system", "3.11")
    assert system.site_packages == (f"{case.system}/lib/python3.11/site-packages",)


def test_user_site_belongs_to_the_system_interpreter(case: Case) -> None:
    """Pip installs there where it may not write elsewhere."""
    user = case.home / ".local" / "lib" / "python3.11" / "site-packages"
    user.mkdir(parents=True)
    assert case.find("python")[0].site_packages[-1] == str(user)
    assert str(user) not in case.find(f"{case.named}/bin/python")[0].site_packages


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_system_that_is_not_ours_is_skipped_as_user(case: Case) -> None:
    """Not writable: named with its reason."""
    (case.system / "lib" / "python3.11" / "site-packages").chmod(0o555)
    found = case.find("python")[0]
    assert found.site_packages == ()
    assert "may not write" in found.skips[0].why


def test_a_system_that_is_not_ours_is_skipped(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not writable and managed (PEP 668): named with its reason and the mend."""
    monkeypatch.setattr(os, "access", lambda _path, mode: mode != os.W_OK)
    (case.system / "lib" / "python3.11" / "EXTERNALLY-MANAGED").touch()
    found = case.find(f"{case.system}/bin/python")[0]
    assert found.site_packages == ()
    assert "operating system" in found.skips[0].why
    assert "venv" in found.skips[0].fix


def test_pyenv_shims_lead_to_the_version(case: Case) -> None:
    """By variable, by the project's file, by abbreviation, and `system` past the shims."""
    root = case.home / ".pyenv"
    for version in ("3.11.2", "3.11.10", "3.12.1"):
        installed_python(root / "versions" / version, version.rpartition(".")[0])
    script(root / "shims" / "python", "#!/usr/bin/env bash", "exec pyenv exec\n")
    script(root / "shims" / "mlflow", "#!/usr/bin/env bash", "exec pyenv exec\n")
    script(root / "versions" / "3.12.1" / "bin" / "mlflow", f"#!{root}/versions/3.12.1/bin/python")
    case.environ["PATH"] = f"{root}/shims:{case.system}/bin"
    assert case.first("python") == str(case.system)
    (root / "version").write_text("3.12.1\n")
    assert case.first("python") == str(root / "versions" / "3.12.1")
    assert case.first("mlflow") == str(root / "versions" / "3.12.1")
    (case.project / ".python-version").write_text("# mine\n3.11\n")
    assert case.first("python") == str(root / "versions" / "3.11.10")
    case.environ["PYENV_VERSION"] = "3.9.9:3.11.2"
    assert case.first("python") == str(root / "versions" / "3.11.2")
    case.environ["PYENV_VERSION"] = "system"
    assert case.first("python") == str(case.system)


def test_asdf_shims(case: Case) -> None:
    """The version is in `.tool-versions`."""
    root = case.home / ".asdf"
    installed_python(root / "installs" / "python" / "3.11.5")
    script(root / "shims" / "python", "#!/usr/bin/env bash")
    case.environ["PATH"] = f"{root}/shims"
    (case.project / ".tool-versions").write_text("nodejs 20\npython 3.11.5\n")
    assert case.first("python") == str(root / "installs" / "python" / "3.11.5")


def test_uv(case: Case) -> None:
    """`uv run` ignores VIRTUAL_ENV unless told; `uv pip` obeys it."""
    (case.project / "pyproject.toml").write_text("[project]\nname='p'\n")
    local = venv(case.project / ".venv")
    case.environ["VIRTUAL_ENV"] = str(case.named)
    assert case.first("uv", "run", "train.py") == str(local)
    assert case.first("uv", "sync") == str(local)
    assert case.first("uv", "run", "--active", "train.py") == str(case.named)
    assert case.first("uv", "pip", "install", "x") == str(case.named)
    other = venv(case.base / "third")
    python = f"{other}/bin/python"
    assert case.first("uv", "pip", "install", "-p", python, "x") == str(other)
    case.environ["UV_PROJECT_ENVIRONMENT"] = str(other)
    assert case.first("uv", "run", "train.py") == str(other)
    (case.project / "sub").mkdir()
    found = case.find("uv", "run", "x", cwd=case.project / "sub")
    assert found[0].prefix == str(other)


def test_poetry(case: Case) -> None:
    """In the cache under a name with a hash of the folder, by envs.toml, or in the project."""
    (case.project / "pyproject.toml").write_text("[tool.poetry]\nname='My Model'\n")
    digest = hashlib.sha256(str(case.project).encode()).digest()
    stem = f"my_model-{base64.urlsafe_b64encode(digest).decode()[:8]}"
    cache = case.home / ".cache" / "pypoetry" / "virtualenvs"
    old, new = venv(cache / f"{stem}-py3.10"), venv(cache / f"{stem}-py3.11")
    os.utime(old, (1, 1))
    assert case.first("poetry", "run", "train") == str(new)
    (cache / "envs.toml").write_text(f'[{stem}]\nminor = "3.10"\n')
    assert case.first("poetry", "run", "train") == str(old)
    local = venv(case.project / ".venv")
    assert case.first("poetry", "add", "x") == str(local)


def test_pdm_pipenv_hatch_pixi(case: Case) -> None:
    """Each tool's own note of where the environment is."""
    (case.project / "pyproject.toml").write_text("[project]\nname='My_Model'\n")
    (case.project / ".pdm-python").write_text(f"{case.named}/bin/python\n")
    assert case.first("pdm", "run", "x") == str(case.named)
    share = case.home / ".local" / "share"
    pipenv = venv(share / "virtualenvs" / "project-abc12345")
    venv(share / "virtualenvs" / "other-abc12345")
    (pipenv / ".project").write_text(str(case.project))
    assert case.first("pipenv", "run", "x") == str(pipenv)
    digest = hashlib.sha256(str(case.project).encode()).digest()
    checksum = base64.urlsafe_b64encode(digest).decode()[:8]
    hatch = share / "hatch" / "env" / "virtual" / "my-model" / checksum
    default, gpu = venv(hatch / "my-model"), venv(hatch / "gpu")
    assert case.first("hatch", "run", "train") == str(default)
    assert case.first("hatch", "run", "gpu:train") == str(gpu)
    assert case.first("hatch", "-e", "gpu", "run", "train") == str(gpu)
    pixi = case.project / ".pixi" / "envs" / "default"
    (pixi / "conda-meta").mkdir(parents=True)
    assert case.first("pixi", "run", "train") == str(pixi)


def test_a_conda_prefix_in_the_project_is_an_environment(case: Case) -> None:
    """`conda create -p env`: nobody has to activate it for a snapshot to know it."""
    prefix = case.project / "env"
    (prefix / "conda-meta").mkdir(parents=True)
    (prefix / "bin").mkdir()
    (prefix / "lib" / "python3.11" / "site-packages").mkdir(parents=True)
    assert str(prefix) not in [e.prefix for e in case.find("true")]
    (prefix / "conda-meta" / "history").touch()
    (prefix / "bin" / "python").symlink_to("/usr/bin/python3")
    (found,) = [e for e in case.find("true") if e.prefix == str(prefix)]
    assert (found.kind, found.used) == ("conda", False)


def test_conda(case: Case) -> None:
    """By name, by prefix, active; and what a name means where bases differ."""
    base = case.home / "miniforge3"
    for prefix in (base, base / "envs" / "ml", case.base / "apart" / "ml2"):
        (prefix / "conda-meta").mkdir(parents=True)
    case.environ["CONDA_EXE"] = f"{base}/bin/conda"
    (case.home / ".conda").mkdir()
    (case.home / ".conda" / "environments.txt").write_text(f"{base}\n{case.base}/apart/ml2\n")
    assert case.first("conda", "run", "-n", "ml", "python") == f"{base}/envs/ml"
    assert case.first("conda", "install", "--name=ml2", "x") == f"{case.base}/apart/ml2"
    assert case.first("mamba", "run", "-p", f"{base}/envs/ml", "x") == f"{base}/envs/ml"
    assert case.first("conda", "run", "-n", "base", "x") == str(base)
    case.environ["CONDA_PREFIX"] = f"{base}/envs/ml"
    assert case.first("conda", "install", "x") == f"{base}/envs/ml"


def test_conda_version_and_packages(case: Case) -> None:
    """The prefix is one tree; its Python's version is in conda's list."""
    prefix = installed_python(case.base / "conda", "3.12")
    (prefix / "conda-meta").mkdir()
    (prefix / "conda-meta" / "python-3.12.4-h123_0.json").write_text('{"files": []}')
    found = case.find(f"{prefix}/bin/python")[0]
    assert (found.kind, found.version) == ("conda", "3.12.4")
    assert found.site_packages == (f"{prefix}/lib/python3.12/site-packages",)


def test_lock_files_are_named(case: Case) -> None:
    """At the top and in `requirements/`, not others."""
    names = ["uv.lock", "requirements-dev.txt", "pylock.gpu.toml", "environment.yml", "notes.txt"]
    for name in names:
        (case.project / name).touch()
    (case.project / "requirements").mkdir()
    (case.project / "requirements" / "base.txt").touch()
    found = [Path(path).name for path in case.find("python")[0].lock_files]
    assert sorted(found) == sorted([*names[:-1], "base.txt"])


@pytest.mark.parametrize(
    "command",
    [[""], ["env"], ["env", "-S"], ["uv"], ["bash"], ["bash", "-c"], ["timeout"], ["env"] * 40],
)
def test_odd_commands_are_survived(case: Case, command: list[str]) -> None:
    """Whatever is typed, there is an answer and no exception."""
    case.environ["PATH"] += ":/bin"
    assert all(one.prefix for one in case.find(*command))


def test_a_script_that_starts_itself_ends(case: Case) -> None:
    """First lines that go in a circle are followed a few times only."""
    (case.project / "train.py").touch()
    one, two = case.base / "one", case.base / "two"
    script(one, f"#!{two}")
    script(two, f"#!{one}")
    assert case.find(str(one))[0].prefix == str(case.system)


def test_binary_and_odd_first_lines(case: Case) -> None:
    """A first line that is no text leads nowhere."""
    (case.project / "train.py").touch()
    path = case.base / "odd"
    path.write_bytes(b"#!\xff\xfe\n\0")
    path.chmod(0o755)
    assert case.find(str(path))[0].prefix == str(case.system)


@pytest.mark.parametrize(
    ("command", "files", "touched"),
    [
        (["true"], {"data.csv": ""}, False),
        ([], {"notes/main.c": ""}, False),
        ([], {"src/model.py": ""}, True),
        (["true"], {"explore.ipynb": ""}, True),
        (["sh", "-c", "echo done"], {}, False),
        (["sh", "-c", "cd /x && pip3 install -U idna"], {}, True),
        (["sh", "-c", "echo pipe python-like"], {}, False),
        (["sh", "run.sh"], {"run.sh": "uv sync\n"}, True),
        (["./run.sh"], {"run.sh": "#!/bin/sh\nls\n"}, False),
        (["make"], {"Makefile": "all:\n\tpython3 -m train\n"}, True),
        (["make"], {"Makefile": "all:\n\tcc main.c\n"}, False),
    ],
)
def test_the_shared_interpreter_is_left_alone_unless_something_speaks_of_python(
    case: Case, command: list[str], files: dict[str, str], *, touched: bool
) -> None:
    """It serves other projects: a rollback would take back what they installed meanwhile."""
    case.environ["PATH"] += ":/bin:/usr/bin"
    for name, text in files.items():
        path = case.project / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)
    found = [environment.prefix for environment in case.find(*command)]
    assert found == ([str(case.system)] if touched else [])
    if not touched:
        assert "other projects" in missing_environment(command).why


def test_an_environment_that_is_first_on_the_path_is_always_protected(case: Case) -> None:
    """It was activated by PATH alone; it is nobody else's."""
    case.environ["PATH"] = f"{case.named}/bin:/bin:/usr/bin"
    assert case.first("true") == str(case.named)
