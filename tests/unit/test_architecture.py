"""The architecture holds: imports point one way, start-up is light, every code has a status."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from rollback.resources.python.command import _GUARD_VALUED
from safeguards import errors
from safeguards.cli import HIDDEN, VERBS, Root
from safeguards.exits import EXIT_STATUS, INTERNAL
from safeguards.scope.shell import _GUARD_VALUES

ROOT = Path(__file__).parents[2]
PACKAGES = ("safeguards", "rollback", "checks")
DOCUMENTED = {0, 1, 2, 10, 11, 12, 13, 120, 121, 122, 123, 124, 125, 126, 127, 130}
HEAVY = {"git", "psutil", "pandas", "polars", "duckdb", "pandera", "rich", "pydantic", "numpy"}
HEAVY |= {"yaml", "sqlite3", "mlflow", "pyarrow"}


def modules(package: str) -> list[str]:
    """Return the dotted names of all modules of a package."""
    found = []
    for file in sorted((ROOT / package).rglob("*.py")):
        parts = file.relative_to(ROOT).with_suffix("").parts
        found.append(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
    return found


def tree(module: str) -> ast.Module:
    """Return the syntax tree of a module."""
    path = ROOT / module.replace(".", "/")
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return ast.parse(file.read_text(encoding="utf-8"))


def imports(module: str) -> Iterator[str]:
    """Yield the modules that a module imports anywhere, also inside of functions."""
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} has a relative import"
            yield node.module or ""


def test_the_tests_see_the_packages() -> None:
    """The lists below are not empty by mistake."""
    assert all(len(modules(package)) > 5 for package in PACKAGES)
    assert "rollback.errors" in set(imports("safeguards.main"))


@pytest.mark.parametrize("package", ["rollback", "checks"])
def test_engines_know_neither_each_other_nor_the_terminal(package: str) -> None:
    """Imports go from safeguards to the engines and never back or across."""
    other = "checks" if package == "rollback" else "rollback"
    forbidden = {"safeguards", other, "click", "rich", "mlguard_launcher"}
    wrong = [
        f"{module} imports {name}"
        for module in modules(package)
        for name in imports(module)
        if name.partition(".")[0] in forbidden
    ]
    assert wrong == []


def test_resources_know_neither_one_another_nor_the_store() -> None:
    """A resource is a plug: it sees the protocol and the vault."""
    wrong = []
    for module in modules("rollback.resources".replace(".", "/")):
        own = ".".join(module.split(".")[:3])
        for name in imports(module):
            sideways = name.startswith("rollback.resources.") and not (
                name == own or name.startswith((f"{own}.", "rollback.resources.base"))
            )
            if name.startswith("rollback.store") or sideways:
                wrong.append(f"{module} imports {name}")
    assert wrong == []


def test_only_the_output_writes_and_only_main_exits() -> None:
    """Nothing else prints, touches the standard streams' writers, or ends the process."""
    wrong = []
    # The rescue program runs alone, with a bare Python and none of these modules.
    every = (m for package in PACKAGES for m in modules(package))
    for module in (m for m in every if not m.startswith("rollback.rescue")):
        for node in ast.walk(tree(module)):
            if not isinstance(node, ast.Call):
                continue
            called = ast.unparse(node.func)
            prints = called in {"print", "click.echo", "sys.stdout.write", "sys.stderr.write"}
            exits = called in {"sys.exit", "exit", "quit"}
            if (prints and module != "safeguards.output") or (
                exits and module != "safeguards.main"
            ):
                wrong.append(f"{module}:{node.lineno} calls {called}")
    assert wrong == []


def test_every_module_imports_on_its_own() -> None:
    """No module relies on another one having been imported before it."""
    names = [m for package in PACKAGES for m in modules(package)] + ["mlguard_launcher"]
    # One fresh process that has imported nothing, and a fork of it for each module.
    program = (
        "import os, sys\n"
        "for name in sys.argv[1:]:\n"
        "    pid = os.fork()\n"
        "    if not pid:\n"
        "        __import__(name)\n"
        "        os._exit(0)\n"
        "    if os.waitpid(pid, 0)[1]:\n"
        "        print(name)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *names],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "", done.stderr[-3000:]


@pytest.mark.parametrize("arguments", [["--version"], ["--help"], ["run", "--help"]])
def test_what_start_up_imports(arguments: list[str], tmp_path: Path) -> None:
    """Version and help load click and guard's own modules, and nothing else from outside."""
    program = (
        "import sys\n"
        "before = set(sys.modules)\n"
        "import mlguard_launcher\n"
        "try:\n"
        "    mlguard_launcher.main()\n"
        "finally:\n"
        "    print(*sorted(set(sys.modules) - before), file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    loaded = {name.partition(".")[0] for name in done.stderr.split()}
    assert "click" in loaded
    assert loaded & HEAVY == set()
    outside = loaded - sys.stdlib_module_names - {"click", "mlguard_launcher", *PACKAGES}
    assert outside == set()


def codes(package: str) -> dict[str, str]:
    """Return the error codes that the classes of a package define, with where."""
    found = {}
    for module in modules(package):
        for node in ast.walk(tree(module)):
            if not isinstance(node, ast.ClassDef):
                continue
            for line in node.body:
                targets = line.targets if isinstance(line, ast.Assign) else []
                if isinstance(line, ast.AnnAssign):
                    targets = [line.target]
                named = any(isinstance(t, ast.Name) and t.id == "code" for t in targets)
                value = getattr(line, "value", None)
                if named and isinstance(value, ast.Constant) and isinstance(value.value, str):
                    found[value.value] = f"{module}.{node.name}"
    return found


@pytest.mark.parametrize("package", ["rollback", "checks"])
def test_every_error_of_an_engine_has_an_exit_status(package: str) -> None:
    """Each code stands in the map, with a documented status."""
    found = codes(package)
    assert found
    assert {code: where for code, where in found.items() if code not in EXIT_STATUS} == {}
    assert set(EXIT_STATUS.values()) <= DOCUMENTED


def test_the_map_has_no_code_that_nobody_raises() -> None:
    """A code that went away goes from the map, too."""
    assert set(EXIT_STATUS) <= set(codes("rollback")) | set(codes("checks"))


def test_every_error_of_the_command_line_has_a_status_of_its_own() -> None:
    """Statuses are documented, and no two classes share one."""
    classes = [
        value
        for value in vars(errors).values()
        if isinstance(value, type) and issubclass(value, errors.GuardError)
    ]
    statuses = [cls.exit_code for cls in classes if cls is not errors.GuardError]
    assert set(statuses) <= DOCUMENTED
    assert len(set(statuses)) == len(statuses)
    assert errors.GuardError.exit_code == INTERNAL


def commands() -> Iterator[tuple[str, click.Command]]:
    """Yield every command with its words: ``schema infer``."""
    root = Root()
    for name in VERBS | HIDDEN:
        command = root.get_command(click.Context(root), name)
        assert command is not None
        if isinstance(command, click.Group):
            for below, inner in command.commands.items():
                yield f"{name} {below}", inner
        else:
            yield name, command


def test_every_command_and_option_is_documented() -> None:
    """docs/reference.md has a heading for each command and names each of its options.

    What is there for tests of guard itself stands in docs/reliability.md.
    """
    files = [ROOT / "docs" / "reference.md", ROOT / "docs" / "reliability.md"]
    text = "\n## \n".join(file.read_text(encoding="utf-8") for file in files)
    missing = []
    for name, command in commands():
        heading = f"### guard {name}"
        _, found, after = text.partition(f"{heading}\n")
        if not found:
            missing.append(heading)
            continue
        section = after.partition("\n### ")[0].partition("\n## ")[0]
        for parameter in command.params:
            if isinstance(parameter, click.Option) and not parameter.hidden:
                long = max(parameter.opts, key=len)
                if f"`{long}" not in section:
                    missing.append(f"{heading}: {long}")
    assert missing == []


def test_hidden_commands_are_hidden() -> None:
    """They are in no list of commands, and everything else is."""
    root = Root()
    assert {name for name, command in commands() if command.hidden} == set(HIDDEN)
    assert root.list_commands(click.Context(root)) == list(VERBS)


def test_every_command_takes_the_global_options() -> None:
    """`--project --store -q -v --color --json` are known behind each verb."""
    for name, command in commands():
        known = {option for p in command.params for option in p.opts}
        assert {"--project", "--store", "-q", "-v", "--color", "--json"} <= known, name


def test_who_looks_through_a_guard_below_knows_its_options() -> None:
    """Each option with a value is known where a command is read that starts guard itself."""
    command = dict(commands())["run"]
    options = [p for p in command.params if isinstance(p, click.Option) and not p.is_flag]
    valued = {option for p in options for option in p.opts if not p.is_eager}
    assert valued == _GUARD_VALUED
    assert valued == _GUARD_VALUES


def test_the_launcher_is_in_the_wheel_and_the_script() -> None:
    """The console script starts the launcher, and the wheel carries it."""
    import tomllib  # noqa: PLC0415 - used here only

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert project["project"]["scripts"]["guard"] == "mlguard_launcher:main"
    included = project["tool"]["hatch"]["build"]["targets"]["wheel"]["only-include"]
    assert {*PACKAGES, "mlguard_launcher.py"} <= set(included)
    assert os.path.exists(ROOT / "mlguard_launcher.py")
