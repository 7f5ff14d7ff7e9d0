"""Which Python a command will run, read from the command line, never by running it."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Sequence

from rollback.resources.python.launchers import launched
from rollback.resources.python.model import Clue, Surroundings
from rollback.resources.python.prefix import virtual_prefix
from rollback.resources.python.shims import behind_shim, is_shim

_INTERPRETER = re.compile(r"(?:python|pypy)(?:\d+(?:\.\d+)*)?t?\Z")
_SHELLS = frozenset({"sh", "bash", "dash", "zsh", "ksh", "ash", "fish"})
_SCRIPTED = re.compile(r"""([^\s'"=;&|()`<>]+)/bin/(?:activate|python[\d.]*)(?![\w/])""")
_ASSIGNMENT = re.compile(r"[A-Za-z_]\w*=")
_WRAPPERS: dict[str, tuple[frozenset[str], int]] = {
    "nohup": (frozenset(), 0),
    "time": (frozenset({"-o", "-f"}), 0),
    "nice": (frozenset({"-n"}), 0),
    "ionice": (frozenset({"-c", "-n"}), 0),
    "chrt": (frozenset({"-T", "-P", "-D"}), 1),
    "taskset": (frozenset(), 1),
    "numactl": (frozenset(), 0),
    "setsid": (frozenset(), 0),
    "stdbuf": (frozenset({"-i", "-o", "-e"}), 0),
    "timeout": (frozenset({"-k", "-s"}), 1),
    "xvfb-run": (frozenset({"-n", "-s", "-f"}), 0),
    "exec": (frozenset({"-a"}), 0),
    "command": (frozenset(), 0),
}
"""Programs that run another one: options that take a value, and operands before the command."""

_GUARD_VALUED = frozenset(
    {"--project", "--store", "--color", "--on-failure", "--drill", "--budget", "--checks"}
    | {"--retries", "--retry-window", "--timeout", "--max-memory", "--label", "--report"}
)
"""Options of `guard` and of `guard run` that take a value."""

_MAKEFILES = ("GNUmakefile", "makefile", "Makefile")
_MAKERS = {
    "make": _MAKEFILES,
    "gmake": _MAKEFILES,
    "just": ("justfile", "Justfile", ".justfile"),
    "task": ("Taskfile.yml", "Taskfile.yaml"),
}
"""Programs that run what a file in their folder says."""

_DEPTH = 8
_SCRIPT_BYTES = 1 << 16


def clues(command: Sequence[str], around: Surroundings) -> list[Clue]:
    """Return what the command itself says of its Python; empty where it says nothing.

    Follows wrappers (`env`, `timeout` …), launchers (`uv run`, `poetry run`, `conda run` …),
    the PATH of the child, the first line of scripts, and shims. Reads small files only.
    """
    words = list(command)
    for _ in range(_DEPTH):
        words, around = _unwrapped(words, around)
        if not words:
            return []
        found = launched(words, around)
        if found is not None:
            return found
        path = find_program(words[0], around)
        if path is None:
            return []
        further = _of_program(path, words, around)
        if isinstance(further, Clue):
            return [further]
        if not further:
            return _of_script(path, words, around)
        words = further
    return []


def text_of(command: Sequence[str], around: Surroundings) -> str:
    """Return the text that a command runs: of `sh -c`, of a script, of a Makefile; else empty."""
    words, around = _unwrapped(list(command), around)
    path = find_program(words[0], around) if words else None
    if path is None:
        return ""
    name = os.path.basename(path)
    if name in _SHELLS:
        return _shell_text(words[1:], around)
    if name in _MAKERS:
        return "".join(_read(os.path.join(around.cwd, file)) for file in _MAKERS[name])
    return _read(path) if _first_line(path).startswith(b"#!") else ""


def find_program(name: str, around: Surroundings) -> str | None:
    """Return the absolute path of what `name` starts, looked up with the child's PATH."""
    if "/" in name:
        path = os.path.normpath(os.path.join(around.cwd, os.path.expanduser(name)))
        return path if os.path.isfile(path) else None
    for folder in around.environ.get("PATH", os.defpath).split(os.pathsep):
        path = os.path.join(around.cwd, folder, name)
        if os.path.isfile(path) and os.access(path, os.X_OK):
            return path
    return None


def path_python(around: Surroundings) -> Clue | None:
    """Return the interpreter that `python` means on the child's PATH."""
    for name in ("python", "python3"):
        path = find_program(name, around)
        if path is not None and is_shim(path):
            path = behind_shim(path, around)
        if path is not None:
            return Clue(path, "first on PATH")
    return None


def _unwrapped(words: list[str], around: Surroundings) -> tuple[list[str], Surroundings]:
    """Return the command inside `env`, `timeout` and their like, with the variables they set."""
    for _ in range(_DEPTH):
        name = os.path.basename(words[0]) if words else ""
        if name == "env":
            words, around = _inside_env(words[1:], around)
        elif name == "guard" and _operands(words[1:], _GUARD_VALUED)[:1] == ["run"]:
            words = _operands(_operands(words[1:], _GUARD_VALUED)[1:], _GUARD_VALUED)
        elif name in _WRAPPERS:
            valued, operands = _WRAPPERS[name]
            words = _operands(words[1:], valued)[operands:]
        else:
            break
    return words, around


def _operands(words: list[str], valued: frozenset[str]) -> list[str]:
    index = 0
    while index < len(words) and words[index].startswith("-"):
        if words[index] == "--":
            return words[index + 1 :]
        index += 2 if words[index] in valued else 1
    return words[index:]


def _inside_env(words: list[str], around: Surroundings) -> tuple[list[str], Surroundings]:
    environ, cwd = dict(around.environ), around.cwd
    while words:
        word = words.pop(0)
        if word in {"-i", "-", "--ignore-environment"}:
            environ = {}
        elif word in {"-u", "--unset"} and words:
            environ.pop(words.pop(0), None)
        elif word in {"-C", "--chdir"} and words:
            cwd = os.path.join(cwd, words.pop(0))
        elif word in {"-S", "--split-string"} and words:
            words = _split(words[0]) + words[1:]
        elif word.startswith("-S"):
            words = _split(word[2:]) + words
        elif _ASSIGNMENT.match(word):
            name, _, value = word.partition("=")
            environ[name] = value
        elif not word.startswith("-"):
            words = [word, *words]
            break
    return words, Surroundings(environ, cwd, around.project)


def _of_program(path: str, words: list[str], around: Surroundings) -> Clue | list[str]:
    """Return where a program leads: an interpreter, another command, or nowhere (empty)."""
    if is_shim(path):
        behind = behind_shim(path, around)
        if behind is None:
            return []
        path = behind
    name = os.path.basename(path)
    if _INTERPRETER.match(name):
        return Clue(path, "the command names it")
    first = b"" if name in _SHELLS else _first_line(path)
    if first.startswith(b"#!"):
        return _of_shebang(first[2:], path, words)
    return [] if name in _SHELLS else _beside(path)


def _beside(path: str) -> Clue | list[str]:
    """Return the environment that a compiled program was installed into."""
    why = f"{os.path.basename(path)} lies in it"
    if virtual_prefix(path) is not None:
        return Clue(path, why)
    prefix = os.path.dirname(os.path.dirname(path))
    conda = os.path.isdir(os.path.join(prefix, "conda-meta"))
    return Clue(prefix, why, is_prefix=True) if conda else []


def _of_shebang(first: bytes, path: str, words: list[str]) -> Clue | list[str]:
    line, _, rest = first.partition(b"\n")
    program, _, argument = os.fsdecode(line).strip().partition(" ")
    name = os.path.basename(program)
    if _INTERPRETER.match(name):
        return Clue(program, f"{os.path.basename(path)} is a script of it")
    if name == "env":
        return ["env", *_split(argument), path]
    if name in _SHELLS:
        return _of_polyglot(os.fsdecode(rest), path)
    return [program, path, *words[1:]] if not argument else []


def _of_polyglot(rest: str, path: str) -> Clue | list[str]:
    """Return the interpreter of a script that starts itself through sh (long path, moved)."""
    match = re.match(r"'''exec'\s+(.+?)\s+\"\$0\"\s+\"\$@\"", rest)
    if match is None:
        return []
    target = match[1]
    if "$0" in target:  # relocatable: next to the script
        name = target.rpartition("/")[2].strip("'\"")
        return Clue(os.path.join(os.path.dirname(path), name), "its script starts it")
    return Clue(target.strip("'\""), f"{os.path.basename(path)} is a script of it")


def _of_script(path: str, words: list[str], around: Surroundings) -> list[Clue]:
    """Return the environments that a shell script, or `sh -c` text, activates or names."""
    if os.path.basename(path) in _SHELLS:
        text = _shell_text(words[1:], around)
    elif _first_line(path).startswith(b"#!"):
        text = _read(path)
    else:
        text = ""
    found: dict[str, Clue] = {}
    for match in _SCRIPTED.finditer(text):
        prefix = os.path.expanduser(match[1].replace("$HOME", "~").replace("${HOME}", "~"))
        prefix = os.path.normpath(os.path.join(around.cwd, prefix))
        if os.path.isfile(os.path.join(prefix, "bin", "python")):
            found[prefix] = Clue(prefix, "the script names it", is_prefix=True)
    return list(found.values())


def _shell_text(words: list[str], around: Surroundings) -> str:
    for index, word in enumerate(words):
        if re.match(r"-[a-z]*c[a-z]*\Z", word):
            return words[index + 1] if index + 1 < len(words) else ""
        if not word.startswith("-"):
            return _read(os.path.join(around.cwd, word))
    return ""


def _first_line(path: str) -> bytes:
    """Return the beginning of a file: its first two lines at least, where it is a script."""
    try:
        with open(path, "rb") as file:
            return file.read(2048)
    except OSError:
        return b""


def _read(path: str) -> str:
    if not os.path.isfile(path):
        return ""
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return file.read(_SCRIPT_BYTES)
    except OSError:
        return ""


def _split(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError:
        return text.split()
