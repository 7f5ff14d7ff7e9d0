"""guard under strace: what it asks of the kernel, in which order, and what if the kernel refuses.

``python -m tests.faults.traced VERB BASE`` is what is traced: one verb on a prepared project.
"""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

_TESTS = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(_TESTS))

_WHOLE = re.compile(r"(\d+) +(\w+)\((.*)\) += (-?\d+)")
_BEGUN = re.compile(r"(\d+) +(\w+)\((.*) <unfinished \.\.\.>")
_ENDED = re.compile(r"(\d+) +<\.\.\. (\w+) resumed>(.*)\) += (-?\d+)")


@functools.cache
def why_not() -> str:
    """Return why strace cannot be used here; empty where it can."""
    if shutil.which("strace") is None:
        return "strace is not installed"
    tried = subprocess.run(
        ["strace", "-f", "-e", "trace=none", "true"], check=False, capture_output=True, text=True
    )
    return "" if tried.returncode == 0 else f"ptrace is not allowed: {tried.stderr.strip()[:80]}"


@dataclass(frozen=True, slots=True)
class Call:
    """One system call: its name, its arguments as strace writes them, and its result."""

    name: str
    arguments: str
    result: int


def command(verb: str, base: Path) -> list[str]:
    """Return the command that runs a verb on the project in `base`."""
    return [sys.executable, "-I", "-S", str(Path(__file__).resolve()), verb, str(base)]


def trace(verb: str, base: Path, calls: str) -> list[Call]:
    """Run a verb under strace and return the calls that it made, in order."""
    log = base / "trace"
    done = subprocess.run(
        ["strace", "-f", "-y", "-o", str(log), "-e", f"trace={calls}", *command(verb, base)],
        check=False, capture_output=True, text=True, env=_environment(),
    )  # fmt: skip
    if done.returncode != 0:
        raise AssertionError(f"{verb} under strace: {done.stderr[-800:]}")
    found = []
    begun: dict[tuple[str, str], str] = {}
    for line in log.read_text(errors="backslashreplace").splitlines():
        if match := _WHOLE.match(line):
            found.append(Call(match[2], match[3], int(match[4])))
        elif match := _BEGUN.match(line):
            begun[match[1], match[2]] = match[3]
        elif match := _ENDED.match(line):
            # Another thread was at work meanwhile; it counts from where it was done.
            arguments = begun.pop((match[1], match[2]), "") + match[3]
            found.append(Call(match[2], arguments, int(match[4])))
    log.unlink()
    return found


@dataclass(frozen=True, slots=True)
class Injected:
    """How a verb ended under a fault, and whether the kernel came to the call that was meant."""

    returncode: int
    stderr: str
    fired: bool


def inject(verb: str, base: Path, fault: str) -> Injected:
    """Run a verb while strace injects a fault, such as ``fsync:signal=SIGKILL:when=3``.

    strace injects nothing into a call that it does not trace, and says nothing of that: so what
    it wrote down decides whether there was a fault at all.
    """
    log = base / "trace"
    call = fault.partition(":")[0]
    # Stopping at no other call is twice as fast, but signals are then never delivered.
    quick = [] if "signal=" in fault else ["--seccomp-bpf"]
    done = subprocess.run(
        ["strace", "-f", *quick, "-o", str(log), "-e", f"trace={call}", "-e", f"inject={fault}",
         *command(verb, base)],
        check=False, capture_output=True, text=True, env=_environment(), timeout=120,
    )  # fmt: skip
    told = log.read_text(errors="backslashreplace")
    log.unlink()
    fired = "(INJECTED)" in told or "+++ killed by SIGKILL +++" in told
    return Injected(done.returncode, done.stderr, fired)


def _environment() -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", "PYTHONDONTWRITEBYTECODE": "1"}


def _main(verb: str, base: Path) -> int:
    from driving import Project  # noqa: PLC0415 - the path is set above
    from faults.scenarios import SCENARIOS  # noqa: PLC0415
    from rollback.errors import RollbackError  # noqa: PLC0415

    project = Project(base, create=False)
    verbs = {scenario.name: scenario.verb for scenario in SCENARIOS}
    try:
        verbs[verb](project)
    except RollbackError as error:
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        return 3
    return 0


if __name__ == "__main__":
    import site

    site.main()
    sys.path[:0] = [str(_TESTS), str(_TESTS.parent)]
    raise SystemExit(_main(sys.argv[1], Path(sys.argv[2])))
