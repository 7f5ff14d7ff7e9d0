"""The way back where linked files were lost: the same versions again, from what is cached.

`uv pip install --dry-run --offline` succeeds where the cache holds a distribution's metadata
without its wheel (measured with uv 0.13), so it proves nothing. A real installation into a
scratch folder does; uv links it from its cache in well under a second. And uv's cache shares
inodes with the environments it links into: what was edited there in place comes out of the cache
edited. So the hashes of what was installed are compared with its RECORDs each time.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from rollback.model import Skip
from rollback.resources.python.distributions import Distribution
from rollback.resources.python.model import Environment
from rollback.resources.python.verify import hash_matches, recorded_hashes

_TIMEOUT_S = 120.0
_NO_UV = Skip(
    what="reinstallation without a network",
    why="pip installs from a folder of wheels, never from its cache alone; uv can",
    fix="install uv: pip install uv",
)
_MISSING = re.compile(r"[Ff]ailed to (?:download|fetch|build)[^`]*`([^`]+)`")


@dataclass(frozen=True, slots=True)
class Installation:
    """What an installation, or the proof that one would succeed, came to.

    Attributes:
        ok: Whether all was installed.
        tool: ``uv`` or ``pip``; empty where there was none.
        said: The tool's last words where it failed.
        missing: Requirements that the tool named as not to be had; it stops at the first.
        elapsed_s: Seconds taken.
        skips: What was left out, and why.
        edited: Files that came out of the cache other than their distribution recorded them.
    """

    ok: bool
    tool: str
    said: str = ""
    missing: tuple[str, ...] = ()
    elapsed_s: float = 0.0
    skips: tuple[Skip, ...] = ()
    edited: tuple[str, ...] = ()


def pins(distributions: Mapping[str, Distribution]) -> tuple[list[str], list[Skip]]:
    """Return one requirement for each distribution, and those that cannot be pinned.

    Editable installs are left out: their few files are kept as copies. So are versions that a
    broken upgrade left twice.
    """
    requirements, skips = [], []
    for name, distribution in distributions.items():
        version, origin = distribution["version"], distribution.get("origin", "")
        if origin.startswith("editable "):
            continue
        if origin:
            requirements.append(f"{name} @ {origin}")
        elif version and " " not in version:
            requirements.append(f"{name}=={version}")
        else:
            skips.append(
                Skip(
                    what=f"reinstallation of {name}",
                    why=f"its version is not clear: {version or 'none'}",
                    fix=f"reinstall it: pip install --force-reinstall {name}",
                )
            )
    return requirements, skips


def prove_cache(
    environment: Environment,
    distributions: Mapping[str, Distribution],
    scratch: str,
    environ: Mapping[str, str] | None = None,
) -> Installation:
    """Install into a scratch folder, without a network, what a reinstallation would need.

    Args:
        environment: Whose interpreter the wheels have to fit.
        distributions: What would have to be installed again.
        scratch: A private folder; `cache-proof` is made in it and removed again.
        environ: Variables of the child, with its proxy and index settings.

    Returns:
        `ok` only where every distribution was put together from the cache, offline, and all its
        files have the recorded hashes.
    """
    target = os.path.join(scratch, "cache-proof")
    try:
        done = _install(environment, distributions, environ, ["--target", target])
        return _checked(done, [target], distributions)
    finally:
        shutil.rmtree(target, ignore_errors=True)


def install_apart(
    environment: Environment,
    distributions: Mapping[str, Distribution],
    target: str,
    environ: Mapping[str, str] | None = None,
) -> Installation:
    """Install these versions into a folder of their own, without a network.

    An edited cache is passed over: what has its wheel at hand is unpacked again.

    Args:
        environment: Whose interpreter the wheels have to fit; it is started.
        distributions: What.
        target: The folder; what is in it afterwards may share inodes with the cache.
        environ: Variables of the child.
    """
    options = ["--target", target]
    done = _install(environment, distributions, environ, options)
    done = _checked(done, [target], distributions)
    if done.edited:
        shutil.rmtree(target, ignore_errors=True)
        option = "--no-cache" if done.tool == "uv" else "--no-cache-dir"
        again = _install(environment, distributions, environ, [*options, option])
        again = _checked(again, [target], distributions)
        done = again if again.ok else done
    return done


def install_command(
    environment: Environment, requirement: str, environ: Mapping[str, str] | None = None
) -> str:
    """Return the command, for people to type, that installs one requirement afresh.

    It takes nothing from a cache: what was written in place may be in there, too.
    """
    uv = shutil.which("uv", path=(os.environ if environ is None else environ).get("PATH"))
    wanted = shlex.quote(requirement)
    system = environment.kind == "system"
    if environment.kind == "conda":
        name, _, version = requirement.partition("==")
        spec = shlex.quote(f"{name}={version}" if version else name)
        return f"conda install --force-reinstall -p {shlex.quote(environment.prefix)} {spec}"
    if uv is not None:
        options = "--break-system-packages " if system else ""
        where = shlex.quote(environment.interpreter)
        return f"uv pip install --python {where} {options}--no-deps --reinstall --no-cache {wanted}"
    options = "--break-system-packages " if system else ""
    return (
        f"{shlex.quote(environment.interpreter)} -m pip install {options}"
        f"--no-deps --force-reinstall --no-cache-dir {wanted}"
    )


def reinstall(
    environment: Environment,
    distributions: Mapping[str, Distribution],
    environ: Mapping[str, str] | None = None,
    *,
    offline: bool = True,
) -> Installation:
    """Install these versions again, over whatever is there.

    Args:
        environment: Where to.
        distributions: What; others are left alone.
        environ: Variables of the child.
        offline: Whether only the cache is used; else a cache that holds edited files is
            passed over and all is fetched again.

    Returns:
        Whether it worked, hashes compared. uv works distribution by distribution: after a
        failure some may be installed, and calling it again continues.
    """
    sites = environment.site_packages
    done = _install(environment, distributions, environ, ["--reinstall"], offline=offline)
    done = _checked(done, sites, distributions)
    if done.edited and not offline:
        fresh = ["--reinstall", "--no-cache"]
        if done.tool == "pip":
            fresh[1] = "--no-cache-dir"
        done = _install(environment, distributions, environ, fresh, offline=False)
        done = _checked(done, sites, distributions)
    return done


def _install(
    environment: Environment,
    distributions: Mapping[str, Distribution],
    environ: Mapping[str, str] | None,
    options: Sequence[str],
    *,
    offline: bool = True,
) -> Installation:
    started = time.monotonic()
    environ = dict(os.environ if environ is None else environ)
    requirements, skips = pins(distributions)
    if not requirements:
        return Installation(ok=True, tool="", skips=tuple(skips))
    uv = shutil.which("uv", path=environ.get("PATH"))
    if uv is not None:
        command = _uv(uv, environment, options, offline=offline)
    else:
        command = _pip(environment, options, offline=offline)
    status, said = _run([*command, *requirements], environ)
    if status != 0 and offline and uv is None:
        skips.append(_NO_UV)
    return Installation(
        ok=status == 0,
        tool="uv" if uv else "pip",
        said="" if status == 0 else said[-2000:],
        missing=() if status == 0 else tuple(dict.fromkeys(_MISSING.findall(said))),
        elapsed_s=time.monotonic() - started,
        skips=tuple(skips),
    )


def _checked(
    done: Installation, sites: Sequence[str], names: Mapping[str, Distribution]
) -> Installation:
    """Return an installation, not `ok` where a file is not what its RECORD says.

    What is missing is passed over: with `--target`, scripts lie elsewhere than RECORD says.
    """
    if not done.ok or not done.tool:
        return done
    edited = tuple(
        os.fsdecode(path)
        for path, expected in recorded_hashes(sites, names)
        if os.path.lexists(path) and not hash_matches(path, expected)
    )
    if not edited:
        return done
    said = f"{done.tool}'s cache holds {len(edited)} edited files, the first is {edited[0]}"
    return replace(done, ok=False, said=said, edited=edited)


def _uv(uv: str, environment: Environment, options: Sequence[str], *, offline: bool) -> list[str]:
    command = [uv, "pip", "install", "--no-deps", "--no-build", "--no-progress", "--quiet"]
    command += ["--python", environment.interpreter, "--break-system-packages", *options]
    return [*command, "--offline"] if offline else command


def _pip(environment: Environment, options: Sequence[str], *, offline: bool) -> list[str]:
    """Return pip's command; offline it takes wheels from folders that its settings name."""
    command = [environment.interpreter, "-I", "-B", "-m", "pip", "install", "--no-deps", "--quiet"]
    command += ["--disable-pip-version-check", "--no-input", "--only-binary", ":all:"]
    forced = ["--force-reinstall" if option == "--reinstall" else option for option in options]
    return [*command, *forced, "--no-index"] if offline else command + forced


def _run(command: Sequence[str], environ: dict[str, str]) -> tuple[int, str]:
    environ["NO_COLOR"] = "1"
    try:
        done = subprocess.run(
            list(command),
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return 1, f"{command[0]} took longer than {_TIMEOUT_S:g} s"
    except OSError as error:
        return 1, f"{command[0]} cannot be started: {error.strerror or error}"
    return done.returncode, done.stdout.decode("utf-8", "replace").strip()
