"""Bad input: each a clear message with the next command, a documented status, nothing lost."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from e2e.guard_command import Guard, assert_clear
from manifest import assert_back, manifest


def _unprivileged() -> tuple[str, ...]:
    """Return the words in front of a command that make permissions count, or skip."""
    if os.geteuid() != 0:
        return ()
    # Root without these two capabilities is an owner like any other.
    wrapper = ("setpriv", "--bounding-set=-dac_override,-dac_read_search")
    if not shutil.which("setpriv") or subprocess.run([*wrapper, "true"], check=False).returncode:
        pytest.skip("root cannot drop its privileges here: run the tests as a normal user")
    return wrapper


@pytest.fixture
def unprivileged(messy: Guard) -> Guard:
    """Return guard for the messy project, as a user for whom permissions count."""
    return dataclasses.replace(messy, wrapper=_unprivileged())


def test_a_folder_that_is_no_project_is_guarded_all_the_same(guard: Guard) -> None:
    """Neither repository nor configuration: the current folder is the project."""
    (guard.project / "notes.txt").write_text("mine\n")
    before = manifest(guard.project)
    run = guard.shell("rm notes.txt")
    assert run.status == 0, run.said
    assert_back(before, guard.roll_back())


def test_no_git_program(messy: Guard, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a git program the repository is protected as files."""
    tools = messy.project.parent / "tools"
    tools.mkdir()
    for name in ("sh", "rm", "true", "uname"):
        found = shutil.which(name)
        assert found
        (tools / name).symlink_to(found)
    before = manifest(messy.project)
    with monkeypatch.context() as patch:
        patch.setenv("PATH", str(tools))
        run = messy.shell("rm -rf .git src")
        assert run.status == 0, run.said
        assert_back(before, messy.roll_back())


def test_nothing_was_run_yet(messy: Guard) -> None:
    """A rollback with nothing to go back to says so."""
    before = manifest(messy.project)
    for arguments in (("rollback", "--last", "--yes"), ("undo",), ("show", "7"), ("drill",)):
        assert_clear(messy(*arguments), 10)
    assert_clear(messy("rollback", "--to", "nonsense", "--yes"), 10)
    assert_back(before, manifest(messy.project))


@pytest.mark.parametrize(
    "arguments",
    [
        ("run",),
        ("run", "--"),
        ("run", "--budget", "soon", "--", "true"),
        ("run", "--drill", "perhaps", "--", "true"),
        ("rollback",),
        ("rollback", "--last"),
        ("rolback", "--last"),
        ("log", "-n", "many"),
        ("--project", "/no/such/folder", "status"),
    ],
)
def test_wrong_usage(arguments: tuple[str, ...], messy: Guard) -> None:
    """Wrong usage is status 2, with what to type instead; nothing is run or changed."""
    if arguments == ("rollback", "--last"):
        assert messy.shell("rm zero").status == 0
    before = manifest(messy.project)
    result = messy(*arguments)
    assert result.status == 2, result.said
    assert "guard" in result.err, result.said
    assert_back(before, manifest(messy.project))


def test_the_command_is_not_there_or_not_executable(messy: Guard) -> None:
    """127 and 126 as in a shell."""
    assert_clear(messy("run", "--", "no-such-command-anywhere"), 127)
    assert_clear(messy("run", "--", "./params.yaml"), 126)


def test_json_is_one_object_on_errors_too(messy: Guard) -> None:
    """`--json` gives the envelope with code, message and hint."""
    for arguments, status in ((("rollback", "--last", "--yes"), 10), (("show", "zzz"), 10)):
        result = messy("--json", *arguments)
        assert result.status == status, result.said
        envelope = json.loads(result.out)
        assert envelope["status"] == "error"
        assert envelope["exit_code"] == status
        (error,) = envelope["errors"]
        assert error["code"]
        assert error["message"]
        assert error["hint"]


def test_wrong_configuration(messy: Guard) -> None:
    """An unknown key is status 2 and names the nearest known one; broken TOML names the line."""
    (messy.project / "guard.toml").write_text('[guard]\nbugdet = "5m"\n')
    before = manifest(messy.project)
    result = messy("run", "--", "touch", "ran.txt")
    assert result.status == 2, result.said
    assert "budget" in result.err
    assert_back(before, manifest(messy.project))
    (messy.project / "guard.toml").write_text("[guard\n")
    result = messy("status")
    assert result.status == 2, result.said
    assert "guard.toml" in result.err
    assert "line 1" in result.err


def test_production_is_refused(messy: Guard) -> None:
    """A production environment is status 120, and nothing is started."""
    (messy.project / "guard.toml").write_text('[guard]\nenvironment = "production"\n')
    before = manifest(messy.project)
    result = messy("run", "--", "touch", "ran.txt")
    assert result.status == 120, result.said
    assert_back(before, manifest(messy.project))


def test_an_unreadable_file_is_named(unprivileged: Guard) -> None:
    """A file that cannot be read is named as not protected; everything else is back."""
    sealed = unprivileged.project / "sealed.key"
    sealed.write_text("cannot be read\n")
    before = manifest(unprivileged.project)
    sealed.chmod(0o000)
    run = unprivileged.shell("echo the child runs >&2 ; rm -rf src params.yaml")
    told = run.err.partition("the child runs")[0]
    assert "sealed.key" in told, run.said
    if "the child runs" in run.err:
        assert run.status == 0, run.said
        unprivileged.roll_back()
    else:
        assert_clear(run, 122)
    sealed.chmod(0o644)
    after = manifest(unprivileged.project)
    assert after[b"sealed.key"].sha256 == before[b"sealed.key"].sha256
    assert_back(before, after)


def test_a_read_only_store(unprivileged: Guard, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the store cannot be made, nothing is started and the place is named."""
    locked = unprivileged.project.parent / "locked"
    locked.mkdir(mode=0o500)
    monkeypatch.setenv("GUARD_STORE", str(locked / "store"))
    before = manifest(unprivileged.project)
    result = unprivileged("run", "--", "touch", "ran.txt")
    assert_clear(result, 2, 122)
    assert str(locked) in result.err, result.said
    assert_back(before, manifest(unprivileged.project))


def test_a_read_only_folder(unprivileged: Guard) -> None:
    """A rollback that may not write says where, changes nothing else, and resumes when it may."""
    before = manifest(unprivileged.project)
    sources = unprivileged.project / "src"
    run = unprivileged.shell("echo spoilt > src/model.py ; echo spoilt > params.yaml")
    assert run.status == 0, run.said
    unprivileged.project.chmod(0o555)
    sources.chmod(0o555)
    result = unprivileged("rollback", "--last", "--yes")
    if result.status != 0:  # the owner may also lift the write protection, as it was not there
        assert_clear(result, 122, 123)
        unprivileged.project.chmod(0o755)
        sources.chmod(0o755)
        assert unprivileged("rollback", "--last", "--yes").status == 0
    assert_back(before, manifest(unprivileged.project))


@pytest.mark.parametrize("how", ["garbage", "truncated", "empty", "deleted"])
def test_a_damaged_catalog(how: str, messy: Guard) -> None:
    """A damaged catalog is named with status 12, and the project is not touched."""
    assert messy.shell("rm zero").status == 0
    after_run = manifest(messy.project)
    catalogs = _catalogs(messy.project.parent / "store")
    assert catalogs, "no SQLite catalog in the store"
    for catalog in catalogs:
        _damage(catalog, how)
    result = messy("rollback", "--last", "--yes")
    assert_clear(result, 10, 12)
    assert_back(after_run, manifest(messy.project))
    if how != "deleted":
        assert_clear(messy("log"), 12)
    again = messy("run", "--", "touch", "ran.txt")
    if again.status != 0:
        assert_clear(again, 12, 122)
        assert_back(after_run, manifest(messy.project))


def test_a_damaged_blob_stops_the_rollback_before_it_writes(messy: Guard) -> None:
    """With all large files of the store spoilt, nothing of the project is overwritten."""
    assert messy.shell("rm models/best.ckpt ; echo spoilt > params.yaml").status == 0
    after_run = manifest(messy.project)
    catalogs = {str(path) for path in _catalogs(messy.project.parent / "store")}
    for path in (messy.project.parent / "store").rglob("*"):
        if path.is_file() and str(path) not in catalogs and path.stat().st_size > 100_000:
            with open(path, "r+b") as file:
                file.seek(path.stat().st_size // 2)
                byte = file.read(1)
                file.seek(-1, os.SEEK_CUR)
                file.write(bytes([byte[0] ^ 1]))
    result = messy("rollback", "--last", "--yes")
    assert_clear(result, 12)
    assert "models/" in result.err, result.said
    assert_back(after_run, manifest(messy.project))
    verify = messy("verify")
    assert_clear(verify, 1, 12)


def test_another_guard_is_at_work(messy: Guard) -> None:
    """A second operation is refused with 11, or waits; it names the owner."""
    popen = messy.start("run", "--", "sh", "-c", "touch started ; sleep 30")
    try:
        while not (messy.project / "started").exists():
            assert popen.poll() is None, messy.spoken.read_text()
            time.sleep(0.02)
        result = messy("rollback", "--last", "--yes")
        assert_clear(result, 11)
        assert str(popen.pid) in result.err, result.said
        assert messy("status").status == 0
        assert messy("log").status == 0
    finally:
        popen.terminate()
        popen.wait()


def _catalogs(store: Path) -> list[Path]:
    found = []
    for path in store.rglob("*"):
        if path.is_file() and not path.is_symlink():
            with open(path, "rb") as file:
                if file.read(16) == b"SQLite format 3\0":
                    found.append(path)
    return found


def _damage(catalog: Path, how: str) -> None:
    for side in catalog.parent.glob(f"{catalog.name}-*"):
        side.unlink()
    size = catalog.stat().st_size
    if how == "garbage":
        catalog.write_bytes(os.urandom(size))
    elif how == "truncated":
        os.truncate(catalog, size // 2)
    elif how == "empty":
        os.truncate(catalog, 0)
    else:
        catalog.unlink()
