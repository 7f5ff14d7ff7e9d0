"""Whether an environment works: its interpreter starts, and files are what installers wrote."""

from __future__ import annotations

import base64
import hashlib
import os
import stat
import subprocess
import time
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass

from rollback.resources.python.distributions import normalized
from rollback.resources.python.model import Environment
from rollback.resources.python.prefix import read_settings
from rollback.resources.python.records import records

_START_S = 15.0
_SAMPLE = 256
_SAMPLE_BYTES = 64 << 20
_VERSION = "import sys; print('%d.%d' % sys.version_info[:2])"


@dataclass(frozen=True, slots=True)
class EnvironmentVerdict:
    """What a check of an environment found.

    Attributes:
        problems: What keeps it from working, one line each.
        edited: Files that are not what their distribution's RECORD says; the user may have
            meant it, and an exact restore brings them back as they were.
        missing: Files that a RECORD lists and that are not there.
        checked: Number of files whose hash was compared.
        listed: Number of files that have a recorded hash.
        elapsed_s: Seconds taken.
    """

    problems: tuple[str, ...]
    edited: tuple[str, ...]
    missing: tuple[str, ...]
    checked: int
    listed: int
    elapsed_s: float

    @property
    def ok(self) -> bool:
        """Whether nothing keeps the environment from working."""
        return not self.problems


def verify_environment(
    environment: Environment,
    environ: Mapping[str, str] | None = None,
    *,
    sample: int | None = _SAMPLE,
) -> EnvironmentVerdict:
    """Start the interpreter, and compare files with the hashes that installers recorded.

    The interpreter starts isolated and without `site`, so that nothing of the project or of
    the installed packages runs; one that merely lies in the project is not started.

    Args:
        environment: Live, or with its folders moved to a restored copy in scratch.
        environ: Variables of the child; guard's own where None.
        sample: Compare about so many files, evenly chosen and at most 64 MiB; all where None.
    """
    started = time.monotonic()
    problems = list(_base_problems(environment))
    if environment.used and not problems:
        problems += _start_problems(environment, os.environ if environ is None else environ)
    listed = list(recorded_hashes(environment.site_packages))
    edited, missing, checked, read_bytes = [], [], 0, 0
    step = 1 if sample is None else max(1, len(listed) // max(1, sample))
    for path, expected in listed[::step]:
        size = _regular_size(path)
        if size is None:
            missing.append(os.fsdecode(path))
            continue
        if sample is not None and read_bytes + size > _SAMPLE_BYTES:
            continue
        read_bytes += size
        checked += 1
        if not hash_matches(path, expected):
            edited.append(os.fsdecode(path))
    return EnvironmentVerdict(
        tuple(problems),
        tuple(edited),
        tuple(missing),
        checked,
        len(listed),
        time.monotonic() - started,
    )


def _base_problems(environment: Environment) -> Iterator[str]:
    """Yield what is wrong with the interpreter that a virtual environment stands on."""
    if environment.kind != "venv":
        return
    path = os.path.join(environment.prefix, "pyvenv.cfg")
    if not os.path.isfile(path):
        yield f"{path} is missing"
        return
    home = read_settings(path).get("home", "")
    if not home:
        yield f"{path} names no home"
    elif not os.path.isdir(home):
        yield f"the interpreter it stands on is gone: {home} (home in {path})"


def _start_problems(environment: Environment, environ: Mapping[str, str]) -> Iterator[str]:
    try:
        done = subprocess.run(
            [environment.interpreter, "-I", "-S", "-c", _VERSION],
            env=dict(environ),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_START_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        yield f"{environment.interpreter} did not start within {_START_S:g} s"
        return
    except OSError as error:
        yield f"{environment.interpreter} does not start: {error.strerror or error}"
        return
    if done.returncode != 0:
        last = done.stderr.decode("utf-8", "replace").strip().rpartition("\n")[2]
        yield f"{environment.interpreter} does not start: {last or f'status {done.returncode}'}"
        return
    version = done.stdout.decode("utf-8", "replace").strip()
    written = ".".join(environment.version.split(".")[:2])
    if written and version != written:
        yield f"{environment.interpreter} is Python {version} now, its packages are for {written}"


def recorded_hashes(
    sites: Iterable[str], names: Container[str] | None = None
) -> Iterator[tuple[bytes, bytes]]:
    """Yield the absolute path and recorded SHA-256 of each file that has one.

    Args:
        sites: site-packages folders.
        names: Normalized names of the distributions that are asked for; all where None.
    """
    for site in map(os.fsencode, sites):
        for folder, rows in records(site):
            stem = os.fsdecode(folder.removesuffix(b".dist-info"))
            if names is not None and normalized(stem.rpartition("-")[0]) not in names:
                continue
            for row in rows:
                if row[1].startswith(b"sha256=") and not row[0].endswith(b".pyc"):
                    yield os.path.normpath(os.path.join(site, row[0])), row[1][7:]


def hash_matches(path: bytes, expected: bytes) -> bool:
    """Return whether a file has the hash that a RECORD spells: URL-safe base64, no padding."""
    try:
        with open(path, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").digest()
    except OSError:
        return False
    return base64.urlsafe_b64encode(digest).rstrip(b"=") == expected.rstrip(b"=")


def _regular_size(path: bytes) -> int | None:
    try:
        info = os.stat(path)
    except OSError:
        return None
    return info.st_size if stat.S_ISREG(info.st_mode) else None
