"""Starting the command as the shell would have: same streams, defaults, and lookup rules."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from safeguards.errors import (
    CommandNotExecutable,
    CommandNotFound,
    GuardError,
    InternalFailure,
    WrongUsage,
)

_HEAD_BYTES = 256


def reserve_standard_streams() -> None:
    """Put ``/dev/null`` where standard streams are closed, for guard alone.

    The next file that guard opens would otherwise get the number 0, 1 or 2, and a library's
    warning would be written into it. Close-on-exec: the child finds its stream closed, as it
    would without guard. To be called before guard opens anything; calling it again is harmless.
    """
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            got = os.open(os.devnull, os.O_RDWR)
            if got != fd:
                os.dup2(got, fd, inheritable=False)
                os.close(got)


def inheritable_descriptors() -> tuple[int, ...]:
    """Return the descriptors above 2 that a new process would inherit."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            if (fd := int(name)) > 2 and os.get_inheritable(fd):  # noqa: PLR2004 - after stderr
                found.append(fd)
    return tuple(found)


def release_pipes() -> None:
    """Let go of standard input and output where they are pipes or sockets.

    guard's copy would keep a reader waiting for the end, and a writer from learning that
    nobody reads any more.
    """
    for fd in (0, 1):
        kind = os.fstat(fd).st_mode
        if stat.S_ISFIFO(kind) or stat.S_ISSOCK(kind):
            null = os.open(os.devnull, os.O_RDWR)
            os.dup2(null, fd)
            os.close(null)


def start(
    argv: Sequence[str], environ: Mapping[str, str], cwd: Path | None
) -> subprocess.Popen[bytes]:
    """Start the command and return its process.

    The descriptors that guard itself inherited are passed on (`close_fds` would take those of
    ``<(…)`` away); all others are close-on-exec. A script without a first line that names an
    interpreter is run by ``/bin/sh``, as shells and `execvp` do.

    Raises:
        CommandNotFound: It, or the interpreter in its first line, does not exist.
        CommandNotExecutable: It exists and cannot be executed.
        WrongUsage: The folder to start it in does not exist.
        InternalFailure: The system cannot start a process now.
    """
    try:
        return _spawn(argv, environ, cwd)
    except OSError as error:
        program = _find(argv[0], environ, cwd)
        if error.errno == errno.ENOEXEC and program and not _is_binary(program):
            with contextlib.suppress(OSError):
                return _spawn(["/bin/sh", program, *argv[1:]], environ, cwd)
        raise _explain(error, argv[0], program, cwd) from error


def _spawn(
    argv: Sequence[str], environ: Mapping[str, str], cwd: Path | None
) -> subprocess.Popen[bytes]:
    # restore_signals gives back SIGPIPE and SIGXFSZ, which Python ignores for itself.
    return subprocess.Popen(
        list(argv), env=dict(environ), cwd=cwd, close_fds=False, restore_signals=True
    )


def _explain(error: OSError, name: str, program: str | None, cwd: Path | None) -> GuardError:
    if cwd is not None and not os.path.isdir(cwd):
        return WrongUsage(
            f"the folder to run in does not exist: {cwd}", hint="correct --project, or create it"
        )
    if error.errno in {errno.EAGAIN, errno.ENOMEM}:
        return InternalFailure(
            f"no process can be started now: {os.strerror(error.errno)}",
            hint="free memory or raise the limit on processes (ulimit -u), then run it again",
        )
    if program is None and error.errno in {errno.ENOENT, errno.EACCES}:
        return _not_found(name, cwd)
    if error.errno == errno.ENOENT and program is not None:
        interpreter = _interpreter(program)
        return CommandNotFound(
            f"the interpreter {interpreter!r} that {program} names does not exist",
            hint="correct the first line of the script, or install the interpreter",
        )
    if program is not None and os.path.isdir(program):
        return CommandNotExecutable(
            f"{program} is a folder, not a command", hint="name the program: guard run -- PROGRAM …"
        )
    reason = os.strerror(error.errno) if error.errno else str(error)
    return CommandNotExecutable(f"cannot execute {program or name}: {reason}", hint=_remedy(name))


def _not_found(name: str, cwd: Path | None) -> CommandNotFound:
    hint = "check the spelling and PATH; the command stands after `--`"
    local = os.path.join(cwd or ".", name)
    if name and "/" not in name and os.path.isfile(local):
        hint = f"it is a file here: guard run -- {_invocation(name)} …"
    return CommandNotFound(f"command not found: {name or '(empty)'}", hint=hint)


def _remedy(name: str) -> str:
    if name.endswith(".py"):
        return f"guard run -- python {name} …"
    return f"chmod +x {name}, or name its interpreter: guard run -- sh {name} …"


def _invocation(name: str) -> str:
    return f"python {name}" if name.endswith(".py") else f"./{name}"


def _find(name: str, environ: Mapping[str, str], cwd: Path | None) -> str | None:
    """Return the file that the name stands for, as `execvp` looks it up, or None."""
    base = os.fspath(cwd) if cwd else "."
    if "/" in name:
        folders = [""]
    elif name:
        folders = os.get_exec_path(dict(environ))
    else:
        return None
    paths = [os.path.join(folder, name) for folder in folders]
    existing = [path for path in paths if os.path.lexists(os.path.join(base, path))]
    executable = [path for path in existing if os.access(os.path.join(base, path), os.X_OK)]
    path = next(iter(executable or existing), None)
    return path if path is None or cwd is None else os.path.join(base, path)


def _head(program: str) -> bytes:
    # Only what execve took for a regular file gets here, so that this never waits on a FIFO.
    with contextlib.suppress(OSError), open(program, "rb") as file:
        return file.read(_HEAD_BYTES)
    return b""


def _is_binary(program: str) -> bool:
    return b"\0" in _head(program)


def _interpreter(program: str) -> str:
    line = _head(program).partition(b"\n")[0]
    words = line[2:].split() if line.startswith(b"#!") else []
    return words[0].decode("utf-8", "backslashreplace") if words else "(dynamic loader)"
