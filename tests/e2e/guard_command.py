"""The installed `guard` as a user or a script calls it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from manifest import Entry, assert_back, manifest

_OWN = Path(sys.executable).parent / "guard"
EXECUTABLE = Path(os.environ.get("GUARD_E2E_EXECUTABLE", _OWN))
"""The command under test: the one beside this interpreter, or another installation of it."""

DOCUMENTED = {0, 1, 2, 10, 11, 12, 13, 120, 121, 122, 123, 124, 125, 126, 127, 130}
"""Exit statuses that guard may give of its own."""


@dataclass(frozen=True, slots=True)
class Result:
    """What one call of guard said and returned."""

    status: int
    out: str
    err: str

    @property
    def said(self) -> str:
        """Return both streams, for looking at."""
        return f"exit {self.status}\n--- stdout\n{self.out}\n--- stderr\n{self.err}"

    def data(self) -> dict[str, Any]:
        """Return the `data` of the one JSON object on standard output."""
        envelope = json.loads(self.out)
        assert envelope["schema_version"] == 1, self.said
        assert envelope["exit_code"] == self.status, self.said
        data: dict[str, Any] = envelope["data"]
        return data


@dataclass(frozen=True, slots=True)
class Guard:
    """Calls guard in one project.

    Attributes:
        project: The project's folder; guard is started there unless told otherwise.
        wrapper: Command words in front of guard, such as ``unshare -n``.
        env: Variables on top of the test's environment.
    """

    project: Path
    wrapper: tuple[str, ...] = ()
    env: dict[str, str] = field(default_factory=dict)

    def __call__(
        self, *arguments: str | Path, cwd: Path | None = None, timeout_s: float = 120
    ) -> Result:
        """Run guard to its end and return what it said."""
        done = subprocess.run(
            [*self.wrapper, EXECUTABLE, *arguments],
            cwd=cwd or self.project,
            env=os.environ | self.env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=timeout_s,
            check=False,
        )
        out = done.stdout.decode("utf-8", "backslashreplace")
        err = done.stderr.decode("utf-8", "backslashreplace")
        # The child may show its own traceback; guard never shows one.
        of_guard = "run" not in arguments or "safeguards" in err or "rollback/" in err
        assert not (of_guard and "Traceback (most recent call last)" in err), f"{out}\n{err}"
        return Result(done.returncode, out, err)

    @property
    def spoken(self) -> Path:
        """Return the file that holds what a started guard has said so far."""
        return self.project.parent / "spoken.txt"

    def start(self, *arguments: str | Path) -> subprocess.Popen[bytes]:
        """Start guard and return at once; the caller ends it.

        It writes to a file, not to a pipe: a child that outlives a killed guard would hold
        the pipe open.
        """
        with open(self.spoken, "wb") as spoken:
            return subprocess.Popen(
                [*self.wrapper, EXECUTABLE, *arguments],
                cwd=self.project,
                env=os.environ | self.env,
                stdin=subprocess.DEVNULL,
                stdout=spoken,
                stderr=spoken,
            )

    def shell(self, script: str, *options: str | Path) -> Result:
        """Guard a shell script; its own failure is for the caller to judge."""
        return self("run", *options, "--", "sh", "-c", script)

    def roll_back(self, *, live_databases: tuple[str, ...] = ()) -> dict[bytes, Entry]:
        """Roll back the last run, which has to succeed, and return M() afterwards."""
        place = self.project.parent
        result = self("--project", self.project, "rollback", "--last", "--yes", cwd=place)
        assert result.status == 0, result.said
        return manifest(self.project, live_databases=live_databases)


def assert_clear(result: Result, *statuses: int) -> None:
    """Fail unless guard said what happened and what to type next, with a documented status."""
    assert result.status in (statuses or DOCUMENTED), result.said
    assert result.err.strip(), f"nothing was said: {result.said}"
    assert "guard " in result.err, f"no next command: {result.said}"


__all__ = ["DOCUMENTED", "Guard", "Result", "assert_back", "assert_clear", "manifest"]
