"""Starting a command: what cannot be started is named with its remedy and the shell's status."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from safeguards.errors import CommandNotExecutable, CommandNotFound, InternalFailure, WrongUsage
from safeguards.supervisor import launch, supervise


def _script(path: Path, text: str, mode: int = 0o755) -> Path:
    path.write_text(text)
    path.chmod(mode)
    return path


@pytest.mark.parametrize("name", ["no-such-command", "./no-such-command", "/no/such", ""])
def test_a_missing_command_is_127(name: str) -> None:
    """On the PATH or as a path."""
    with pytest.raises(CommandNotFound) as raised:
        supervise([name], environ=os.environ)
    assert raised.value.exit_code == 127
    assert name in str(raised.value)
    assert raised.value.hint


def test_a_script_in_the_folder_is_suggested(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`guard run -- train.py` is what people type first."""
    monkeypatch.chdir(tmp_path)
    _script(tmp_path / "train.py", "")
    with pytest.raises(CommandNotFound) as raised:
        supervise(["train.py"], environ=os.environ)
    assert "guard run -- python train.py" in raised.value.hint


def test_a_missing_interpreter_is_named(tmp_path: Path) -> None:
    """A script of a deleted environment says which interpreter is missing."""
    script = _script(tmp_path / "script", "#!/gone/venv/bin/python -I\n")
    with pytest.raises(CommandNotFound, match="/gone/venv/bin/python"):
        supervise([str(script)], environ=os.environ)


@pytest.mark.parametrize("kind", ["no mode", "folder", "binary", "below a file"])
def test_what_cannot_be_executed_is_126(kind: str, tmp_path: Path) -> None:
    """A file without the mode, a folder, a program of another machine, a path through a file."""
    target = tmp_path / "thing"
    if kind == "folder":
        target.mkdir()
    elif kind == "no mode":
        _script(target, "echo hello\n", 0o644)
    elif kind == "binary":
        target.write_bytes(b"\x7fELF\0\0not for this machine\n")
        target.chmod(0o755)
    else:
        _script(target, "")
        target /= "below"
    with pytest.raises(CommandNotExecutable) as raised:
        supervise([str(target)], environ=os.environ)
    assert raised.value.exit_code == 126
    assert str(target) in str(raised.value)


def test_too_many_arguments_are_126() -> None:
    """An argument list over the system's limit is said to be one."""
    with pytest.raises(CommandNotExecutable, match="Argument list too long"):
        supervise(["true", "x" * 3_000_000], environ=os.environ)


def test_a_script_without_first_line_runs_by_the_shell(tmp_path: Path) -> None:
    """As under a shell or `env`: the shell runs what names no interpreter."""
    _script(tmp_path / "plain", 'exit "$1"\n')
    found = supervise(["plain", "6"], environ={"PATH": f"{tmp_path}:{os.environ['PATH']}"})
    assert found.status == 6
    assert supervise([str(tmp_path / "plain"), "7"], environ=os.environ).status == 7


def test_the_path_is_the_childs(tmp_path: Path) -> None:
    """A name is looked up where the command would look, not where guard does."""
    _script(tmp_path / "only-here", "#!/bin/sh\nexit 8\n")
    assert supervise(["only-here"], environ={"PATH": str(tmp_path)}).status == 8
    with pytest.raises(CommandNotFound):
        supervise(["only-here"], environ=os.environ)


def test_a_missing_folder_is_wrong_usage(tmp_path: Path) -> None:
    """It is told from a missing command."""
    with pytest.raises(WrongUsage, match="gone"):
        supervise(["true"], environ=os.environ, cwd=tmp_path / "gone")


def test_no_more_processes_is_guards_own_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    """A system that cannot fork is not blamed on the command."""

    def fail(_argv: object, _environ: Mapping[str, str], _cwd: object) -> None:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(launch, "_spawn", fail)
    with pytest.raises(InternalFailure, match="temporarily unavailable"):
        supervise(["true"], environ=os.environ)


def test_closed_streams_are_reserved() -> None:
    """What guard opens never gets the number of a stream, and the reserve is not inherited."""
    program = (
        "import os\nfrom safeguards.supervisor import reserve_standard_streams\n"
        "reserve_standard_streams()\nreserve_standard_streams()\n"
        "assert os.open('/dev/null', 0) > 2\n"
        "assert [os.get_inheritable(fd) for fd in (0, 1, 2)] == [False, False, True]\n"
    )
    line = 'exec "$@" 0<&- 1>&-'
    done = subprocess.run(
        ["sh", "-c", line, "sh", sys.executable, "-c", program], check=False, stderr=subprocess.PIPE
    )
    assert done.returncode == 0, done.stderr
