"""What a command line starts: behind its wrappers, in ``sh -c``, in a shell script."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

_ASSIGNMENT = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)=(.*)", re.DOTALL)
_HEREDOC = re.compile(r"<<-?\s*(['\"]?)([A-Za-z_]\w*)\1")
_PYTHON = re.compile(r"(python|pypy)[0-9.]*w?$|ipython[0-9]*$")
_SHELLS = frozenset({"sh", "bash", "dash", "zsh", "ksh"})
_SEPARATORS = frozenset({";", "&&", "||", "|", "&", "(", ")", "()", ";;", "|&", ");", "))"})
_OPENERS = frozenset({"if", "for", "while", "until", "case", "{", "select"})
_CLOSERS = frozenset({"fi", "done", "esac", "}"})
_KEYWORDS = _OPENERS | _CLOSERS | {"then", "else", "elif", "do", "!", "function"}
_TESTS = frozenset({"[", "[[", "test", "grep", "command", "which", "false"})
_MAX_BYTES = 1_000_000
_MAX_JOINED = 200

# Wrappers: their options that take a value, and how many words stand before the command.
_WRAPPERS: Mapping[str, tuple[frozenset[str], int]] = {
    "env": (frozenset({"-u", "--unset", "-C", "--chdir"}), 0),
    "nice": (frozenset({"-n", "--adjustment"}), 0),
    "ionice": (frozenset({"-c", "-n"}), 0),
    "nohup": (frozenset(), 0),
    "time": (frozenset({"-f", "-o"}), 0),
    "timeout": (frozenset({"-s", "--signal", "-k", "--kill-after"}), 1),
    "setsid": (frozenset(), 0),
    "stdbuf": (frozenset({"-i", "-o", "-e"}), 0),
    "sudo": (frozenset({"-u", "-g", "--user", "--group"}), 0),
    "exec": (frozenset(), 0),
    "xvfb-run": (frozenset({"-s", "-n"}), 0),
}
_RUNNERS = frozenset({"uv", "poetry", "pipenv", "pdm", "hatch", "rye", "conda", "mamba", "pixi"})
_RUNNER_VALUES = frozenset(
    {"-n", "--name", "-p", "--prefix", "--with", "--python", "--extra", "--group", "--env-file"}
)
_GUARD_VALUES = frozenset(
    {"--project", "--store", "--color", "--on-failure", "--drill", "--budget", "--checks"}
    | {"--retries", "--retry-window", "--timeout", "--max-memory", "--label", "--report"}
)
_LAUNCHERS = frozenset(
    {"torchrun", "accelerate", "deepspeed", "streamlit", "horovodrun", "mpirun", "mpiexec"}
)
_PYTHON_LAUNCHERS = ("torch.distributed", "accelerate", "pdb", "cProfile", "coverage")


@dataclass(frozen=True, slots=True)
class Simple:
    """One program with its arguments, wrappers taken off.

    Attributes:
        words: Program and arguments; empty where only variables are set.
        assignments: Variables that are set for it, or from here on.
        inherited: Variables that were set before it, in the same shell.
        certain: Whether it is started in any case (not inside a condition).
        where: Where it stands.
    """

    words: tuple[str, ...]
    assignments: Mapping[str, str] = field(default_factory=dict)
    inherited: Mapping[str, str] = field(default_factory=dict)
    certain: bool = True
    where: str = "command line"

    @property
    def program(self) -> str:
        """The program's name without its folder."""
        return os.path.basename(self.words[0]) if self.words else ""


def is_python(program: str) -> bool:
    """Return whether a program's name is that of a Python interpreter."""
    return bool(_PYTHON.fullmatch(program))


def expand(argv: Sequence[str], project: Path) -> Iterator[Simple]:
    """Yield the programs that a command starts: behind wrappers, in ``sh -c``, in a script."""
    first = unwrap(Simple(tuple(argv)))
    yield first
    name = first.words[0] if first.words else ""
    if first.program in _SHELLS:
        name, text = _shell_argument(first.words[1:])
        if text is not None:
            yield from _read_shell(text, first, "command line")
    elif not name.endswith((".sh", ".bash")):
        return
    script = find(project, name) if name else None
    if script is not None and os.path.getsize(script) <= _MAX_BYTES:
        yield from _read_shell(script.read_text("utf-8", "replace"), first, shown(script, project))


def unwrap(simple: Simple) -> Simple:
    """Take wrappers (`env`, `timeout 5`, `uv run` …) off, keeping the variables they set."""
    words, assignments = list(simple.words), dict(simple.assignments)
    while words:
        name = os.path.basename(words[0])
        if match := _ASSIGNMENT.fullmatch(words[0]):
            assignments[match[1]] = match[2]
            words.pop(0)
        elif name in _WRAPPERS:
            with_value, skipped = _WRAPPERS[name]
            words = _without_options(words[1:], with_value)[skipped:]
        elif name == "guard" and _without_options(words[1:], _GUARD_VALUES)[:1] == ["run"]:
            rest = _without_options(words[1:], _GUARD_VALUES)
            words = _without_options(rest[1:], _GUARD_VALUES)
        elif name in _RUNNERS and "run" in words[1:3]:
            words = _without_options(words[words.index("run") + 1 :], _RUNNER_VALUES)
        else:
            break
    return replace(simple, words=tuple(words), assignments=assignments)


def script_of(simple: Simple, project: Path) -> Path | None:
    """Return the Python file that a program runs, or None."""
    words, name = list(simple.words), None
    if simple.program in _LAUNCHERS:
        name = next((word for word in words[1:] if word.endswith(".py")), None)
    elif words and words[0].endswith(".py"):
        name = words[0]
    elif is_python(simple.program):
        option, rest = _python_argument(words[1:])
        if option == "-m":
            return _module(project, rest)
        name = rest[0] if rest and option is None else None
    return find(project, name) if name else None


def inline_code(simple: Simple) -> str | None:
    """Return the code of ``python -c``, or None."""
    if not is_python(simple.program):
        return None
    option, rest = _python_argument(simple.words[1:])
    return rest[0] if option == "-c" and rest else None


def find(project: Path, name: str) -> Path | None:
    """Return the regular file that a word of the command names, or None."""
    for path in (Path.cwd() / name, project / name):
        if "\0" not in name and path.is_file():
            return path
    return None


def shown(path: Path, project: Path) -> str:
    """Return a file's name as people know it: relative to the project where it lies inside."""
    name = path.relative_to(project) if path.is_relative_to(project) else path
    return str(name).encode("utf-8", "backslashreplace").decode()


def _shell_argument(words: Sequence[str]) -> tuple[str, str | None]:
    """Return the script's name and the text of ``-c``, of a shell's arguments."""
    rest = list(words)
    while rest and rest[0].startswith("-"):
        option = rest.pop(0)
        if not option.startswith("--") and "c" in option:
            return "", rest[0] if rest else None
        if option in {"-o", "-O", "--rcfile", "--init-file"} and rest:
            rest.pop(0)
    return (rest[0] if rest else ""), None


def _python_argument(words: Sequence[str]) -> tuple[str | None, list[str]]:
    """Return ``-c`` or ``-m`` or None, and what follows an interpreter's own options."""
    rest = list(words)
    while rest and rest[0].startswith("-"):
        option = rest.pop(0)
        if option in {"-c", "-m"}:
            return option, rest
        if option in {"-X", "-W"} and rest:
            rest.pop(0)
    return None, rest


def _module(project: Path, rest: Sequence[str]) -> Path | None:
    if not rest:
        return None
    for folder in (Path.cwd(), project, project / "src"):
        base = folder.joinpath(*rest[0].split("."))
        for path in (base.with_suffix(".py"), base / "__main__.py"):
            if path.is_file():
                return path
    scripts = [word for word in rest[1:] if word.endswith(".py")]
    return find(project, scripts[0]) if rest[0].startswith(_PYTHON_LAUNCHERS) and scripts else None


def _without_options(words: Sequence[str], with_value: frozenset[str]) -> list[str]:
    rest = list(words)
    while rest and rest[0].startswith("-"):
        option = rest.pop(0)
        if option == "--":
            break
        if option in with_value and rest:
            rest.pop(0)
    return rest


def _read_shell(text: str, outer: Simple, where: str) -> Iterator[Simple]:
    """Yield the simple commands of a shell text; what stands inside a block is not certain."""
    depth = 0
    exported = {**outer.inherited, **outer.assignments}
    for number, tokens in _statements(text):
        at = where if where == "command line" else f"{where}:{number}"
        for words, unconditional in _split(tokens):
            while words and words[0] in _KEYWORDS:
                depth += (words[0] in _OPENERS) - (words[0] in _CLOSERS)
                words.pop(0)
            depth += words[-1:] == ["{"]
            ends = words[:1] in (["exit"], ["exec"])
            if words[:1] == ["export"]:
                words.pop(0)
            if not words:
                continue
            certain = depth <= 0 and unconditional and outer.certain
            simple = unwrap(Simple(tuple(words), {}, dict(exported), certain, at))
            if not simple.words:
                exported |= simple.assignments
            yield simple
            if ends and certain:
                return


def _statements(text: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the tokens of each statement with the number of its first line."""
    lines = enumerate(text.splitlines(), 1)
    for number, first in lines:
        line, joined = first, 0
        while (tokens := _tokens(line)) is None and joined < _MAX_JOINED:
            following = next(lines, None)
            if following is None:
                break
            line, joined = f"{line}\n{following[1]}", joined + 1
        if heredoc := _HEREDOC.search(line):
            for _, text_line in lines:
                if text_line.strip() == heredoc[2]:
                    break
        yield number, tokens or []


def _tokens(line: str) -> list[str] | None:
    """Return a line's tokens; None where it goes on in the next one."""
    if line.endswith("\\"):
        return None
    lexer = shlex.shlex(line.replace("\\\n", " "), posix=True, punctuation_chars=";&|()")
    lexer.whitespace_split = True
    try:
        return list(lexer)
    except ValueError:
        return None


def _split(tokens: Sequence[str]) -> Iterator[tuple[list[str], bool]]:
    """Yield each command's words, and whether it runs whatever the one before says."""
    command: list[str] = []
    unconditional = True
    for word in [*tokens, ";"]:
        if word not in _SEPARATORS:
            command.append(word)
            continue
        tested = not command or command[0] in _TESTS
        if command:
            yield command, unconditional
        if word == "||" or (word == "&&" and tested):
            unconditional = False
        elif word in {";", "&"}:
            unconditional = True
        command = []
