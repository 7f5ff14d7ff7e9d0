"""Every test runs in a home of its own, with no system git, no service and no real store."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

_SCRUBBED_PREFIXES = ("GIT_", "GUARD_", "MLFLOW_", "XDG_", "CONDA", "PG", "GITHUB_", "_MLFLOW_")
_SCRUBBED_NAMES = (
    "CI",
    "CLICOLOR_FORCE",
    "FORCE_COLOR",
    "NO_COLOR",
    "PYTHONHOME",
    "PYTHONPATH",
    "PYTHONSTARTUP",
    "VIRTUAL_ENV",
)
_GITCONFIG = """\
[user]
	name = A Tester
	email = tester@example.invalid
[init]
	defaultBranch = main
[commit]
	gpgsign = false
[gc]
	auto = 0
[protocol "file"]
	allow = always
"""


def hear_signals() -> None:
    """Take back what `nohup` and a shell's background made deaf, and what commands would inherit.

    Tests press Ctrl-C and hang up; whoever starts them that way would see guard fail.
    """
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGTERM, signal.SIGTSTP):
        if signal.getsignal(number) is signal.SIG_IGN:
            interrupts = number is signal.SIGINT
            signal.signal(number, signal.default_int_handler if interrupts else signal.SIG_DFL)


hear_signals()


@pytest.fixture(autouse=True)
def isolated_home(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """Give the test an empty home and store, and nothing of the caller's configuration."""
    home = tmp_path_factory.mktemp("home")
    for name in list(os.environ):
        if name.startswith(_SCRUBBED_PREFIXES) or name in _SCRUBBED_NAMES:
            monkeypatch.delenv(name)
    (home / ".gitconfig").write_text(_GITCONFIG)
    settings = {
        "HOME": str(home),
        "XDG_CONFIG_HOME": str(home / ".config"),
        "XDG_CACHE_HOME": str(home / ".cache"),
        "XDG_DATA_HOME": str(home / ".local" / "share"),
        "XDG_STATE_HOME": str(home / ".local" / "state"),
        "GUARD_STORE": str(home / "guard-store"),
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": str(home / ".gitconfig"),
        "GIT_TERMINAL_PROMPT": "0",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "LC_ALL": "C.UTF-8",
        "TZ": "UTC",
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    return home
