"""A restore killed at each step by the kernel, with and without a server at the database."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path

import pytest

from database_processes import Server, crash, serving
from rollback.resources.sqlite import SqliteResource
from vault import FolderVault

ROOT = Path(__file__).resolve().parents[2]
CALLS = ("unlink,unlinkat", "rename,renameat,renameat2", "fsync,fdatasync", "pwrite64", "write",
         "ftruncate", "fchmodat,chmod", "utimensat")  # fmt: skip
MUST_HIT = {
    "rest": {CALLS[0], CALLS[1], CALLS[2], "write"},
    "crashed": {CALLS[0], CALLS[1], CALLS[2], "write"},
    "served": {CALLS[2], "pwrite64", "write"},
}

pytestmark = pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")

_RESTORE = """
import json, sys
from pathlib import Path
from rollback.model import Category, ResourceState
from rollback.resources.sqlite import SqliteResource
from vault import FolderVault
data = json.loads(Path(sys.argv[1]).read_text())
state = ResourceState(**{**data, "category": Category(data["category"])})
resource = SqliteResource.from_state(state, wait_s=5)
getattr(resource, sys.argv[3])(state, FolderVault(Path(sys.argv[2])))
"""


class Scene:
    """A database of 200 old rows that became one of 5 new ones."""

    def __init__(self, folder: Path, mode: str, then: str = "rest") -> None:
        self.folder = folder
        self.database = folder / "project" / "mlflow.db"
        self.database.parent.mkdir(parents=True)
        self.vault = FolderVault(folder / "vault")
        self._make(mode)
        if then == "crashed":
            crash(self.database, "BEGIN IMMEDIATE", "UPDATE runs SET note = randomblob(300)")
            time.sleep(0.03)
        self.before = self.listing()
        resource = SqliteResource(self.database, name="mlflow.db", wait_s=5)
        self.state, skips = resource.capture(self.vault, None)
        assert skips == ()
        (folder / "state.json").write_text(json.dumps(asdict(self.state)))

    def _make(self, mode: str) -> None:
        db = sqlite3.connect(self.database, isolation_level=None)
        db.execute(f"PRAGMA journal_mode = {mode}")
        db.execute("PRAGMA synchronous = off")
        db.execute("CREATE TABLE runs (id INTEGER PRIMARY KEY, note BLOB)")
        db.execute("BEGIN")
        db.executemany("INSERT INTO runs (note) VALUES (?)", [(b"old" * 100,)] * 200)
        db.execute("COMMIT")
        db.close()
        time.sleep(0.03)

    def spoil(self) -> None:
        """Do what the bad run does, and die with a transaction open."""
        for suffix in ("-wal", "-shm", "-journal"):
            Path(f"{self.database}{suffix}").unlink(missing_ok=True)
        crash(
            self.database,
            "DELETE FROM runs WHERE id > 5",
            "UPDATE runs SET note = 'new'",
            "PRAGMA user_version = 7",
        )

    def spoil_half(self) -> None:
        """Do the same so that the file alone is a third state: the end of it lies beside it."""
        self.spoil()
        db = sqlite3.connect(self.database, isolation_level=None)
        wal = db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        if wal:
            db.execute("UPDATE runs SET note = 'halfway'")
            db.execute("PRAGMA user_version = 6")
        else:
            db.execute("CREATE TABLE pages AS SELECT id, zeroblob(900) AS page FROM runs")
        db.close()
        if wal:
            crash(self.database, "UPDATE runs SET note = 'new'", "PRAGMA user_version = 7")
        else:
            # The second statement drives what the first one wrote out of a cache of five pages.
            evict = "UPDATE pages SET page = randomblob(900)"
            crash(self.database, "BEGIN", "UPDATE runs SET note = 'half'", evict)

    def listing(self) -> dict[str, bytes]:
        """Return name and content of what lies in the project, except the index of a log."""
        files = self.database.parent.iterdir()
        return {p.name: p.read_bytes() for p in files if not p.name.endswith("-shm")}

    def restore(
        self,
        *,
        at: tuple[str, int | str] | None = None,
        action: str = "signal=SIGKILL",
        method: str = "restore",
    ) -> int:
        """Restore in another process, hurt at the K-th call of a kind; return its status."""
        command = [sys.executable, "-c", _RESTORE, str(self.folder / "state.json")]
        command += [str(self.vault.folder), method]
        if at is not None:
            calls, number = at
            inject = f"inject={calls}:{action}:when={number}"
            trace = ["-f", "-qq", "-o", "/dev/null", "-e", f"trace={calls}", "-e", inject]
            command = ["strace", *trace, *command]
        paths = f"{ROOT}:{ROOT / 'tests'}"
        env = {**os.environ, "PYTHONPATH": paths, "PYTHONDONTWRITEBYTECODE": "1"}
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
        expected = {-signal.SIGKILL, 128 + signal.SIGKILL} if "signal" in action else {1}
        assert done.returncode in {0, *expected}, done.stderr
        return done.returncode

    def look(self, server: Server | None) -> str:
        """Return what whoever opens the database now reads: rows, versions, kinds of notes."""
        query = (
            "SELECT (SELECT count(*) FROM runs), user_version,"
            " (SELECT group_concat(kind) FROM (SELECT DISTINCT substr(note, 1, 3) AS kind"
            " FROM runs)) FROM pragma_user_version"
        )
        if server is not None:
            return server.run(query)
        copy = self.folder / "look"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(self.database.parent, copy)
        db = sqlite3.connect(copy / "mlflow.db")
        try:
            return repr(db.execute(query).fetchall())
        finally:
            db.close()


def _numbers(limit: int = 200) -> Iterator[int]:
    """Yield each of the first numbers, then ever fewer."""
    number = 1
    while number < limit:
        yield number
        number = number + 1 if number < 6 else number * 3 // 2


@contextmanager
def _server(scene: Scene, kind: str) -> Iterator[Server | None]:
    with serving(scene.database) if kind == "served" else nullcontext() as server:
        yield server


@pytest.mark.parametrize("calls", CALLS)
@pytest.mark.parametrize(
    ("mode", "kind"),
    [
        ("delete", "rest"),
        ("wal", "served"),
        pytest.param("wal", "rest", marks=pytest.mark.sweep),
        pytest.param("delete", "crashed", marks=pytest.mark.sweep),
        pytest.param("delete", "served", marks=pytest.mark.sweep),
    ],
)
def test_killed_at_each_call(tmp_path: Path, mode: str, kind: str, calls: str) -> None:
    """Old or new and never a mixture, and the next restore completes it."""
    scene = Scene(tmp_path, mode, kind)
    old, new = "[(200, 0, 'old')]", "[(5, 7, 'new')]"
    kills = 0
    for number in _numbers():
        scene.spoil()
        with _server(scene, kind) as server:
            assert scene.look(server) == new
            if scene.restore(at=(calls, number)) == 0:
                break
            kills += 1
            assert scene.look(server) in {old, new}
            assert scene.restore() == 0
            assert scene.restore(method="verify") == 0
            assert scene.look(server) == old
        if kind != "served":
            assert scene.listing() == scene.before
    else:
        raise AssertionError("the restore never came to its end")
    assert kills or calls not in MUST_HIT[kind], "the kernel never killed it"


@pytest.mark.sweep
@pytest.mark.parametrize("error", ["ENOSPC", "EIO"])
@pytest.mark.parametrize("sticky", ["", "+"], ids=["once", "sticky"])
@pytest.mark.parametrize(
    ("mode", "kind"), [("wal", "rest"), ("delete", "served"), ("wal", "served")]
)
def test_a_failing_disk(tmp_path: Path, mode: str, kind: str, error: str, sticky: str) -> None:
    """An error is an error: old or new, never a mixture, never a false success."""
    scene = Scene(tmp_path, mode, kind)
    old, new = "[(200, 0, 'old')]", "[(5, 7, 'new')]"
    for calls in ("write", "pwrite64", "fsync,fdatasync"):
        for number in (1, 2, 5, 12):
            scene.spoil()
            with _server(scene, kind) as server:
                assert scene.look(server) == new
                action = f"error={error}"
                hurt = (calls, f"{number}{sticky}")
                status = scene.restore(at=hurt, action=action)
                assert scene.look(server) in ({old} if status == 0 else {old, new})
                assert scene.restore() == 0
                assert scene.look(server) == old
            assert not [name for name in scene.listing() if name.startswith(".guard")]


@pytest.mark.parametrize("action", ["kill", "eio", "enospc"])
@pytest.mark.parametrize(
    ("kind", "place"),
    [
        ("rest", "sqlite.stage"),
        ("rest", "sqlite.swap"),
        ("served", "sqlite.online"),
        ("served", "sqlite.checkpoint"),
    ],
)
def test_hurt_at_a_named_place(
    tmp_path: Path, kind: str, place: str, action: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed or failing where a failpoint is: old or new, and the next restore completes it."""
    scene = Scene(tmp_path, "wal", kind)
    scene.spoil()
    old, new = "[(200, 0, 'old')]", "[(5, 7, 'new')]"
    with _server(scene, kind) as server:
        monkeypatch.setenv("GUARD_FAILPOINT", f"{place}:{action}")
        assert scene.restore(action="signal" if action == "kill" else "error") != 0, "not reached"
        monkeypatch.delenv("GUARD_FAILPOINT")
        assert scene.look(server) in {"sqlite.checkpoint": {old}, "sqlite.swap": {old, new}}.get(
            place, {new}
        )
        assert scene.restore() == 0
        assert scene.look(server) == old
    assert not [name for name in scene.listing() if name.startswith(".guard")]


@pytest.mark.parametrize("mode", ["delete", "wal"])
@pytest.mark.parametrize("then", ["rest", "crashed"])
def test_killed_between_two_renames_there_is_one_state_or_the_other(
    tmp_path: Path, mode: str, then: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of the live state is in its log or journal, and some of the recorded one may be, too."""
    scene = Scene(tmp_path, mode, then)
    old, new = "[(200, 0, 'old')]", "[(5, 7, 'new')]"
    for number in range(1, 6):
        scene.spoil_half()
        assert scene.look(None) == new
        assert any(name.endswith(("-wal", "-journal")) for name in scene.listing())
        monkeypatch.setenv("GUARD_FAILPOINT", f"sqlite.swap:kill@{number}")
        status = scene.restore()
        monkeypatch.delenv("GUARD_FAILPOINT")
        assert scene.look(None) in {old, new}
        assert scene.restore() == 0
        assert scene.look(None) == old
        assert scene.listing() == scene.before
        if status == 0:
            break
    assert status == 0
    assert number > (1 if then == "rest" else 3)


@pytest.mark.parametrize(("mode", "kind"), [("delete", "rest"), ("delete", "served")])
def test_killed_again_while_it_is_completed(tmp_path: Path, mode: str, kind: str) -> None:
    """A second and a third kill change nothing about that."""
    scene = Scene(tmp_path, mode, kind)
    scene.spoil()
    with _server(scene, kind) as server:
        for calls in ("write", "fsync,fdatasync", "unlink,unlinkat", "pwrite64"):
            scene.restore(at=(calls, 2))
        assert scene.restore() == 0
        assert scene.look(server) == "[(200, 0, 'old')]"
    if kind != "served":
        assert scene.listing() == scene.before


def test_the_order_of_the_writes(tmp_path: Path) -> None:
    """The content is durable before it gets its name, and the name before it is done."""
    scene = Scene(tmp_path, "delete")
    scene.spoil()
    log = tmp_path / "trace"
    command = ["strace", "-f", "-y", "-o", str(log), "-e", "trace=fsync,renameat,renameat2,rename"]
    command += [sys.executable, "-c", _RESTORE, str(tmp_path / "state.json")]
    command += [str(scene.vault.folder), "restore"]
    env = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "PYTHONDONTWRITEBYTECODE": "1"}
    subprocess.run(command, env=env, check=True, capture_output=True)
    calls = [line for line in log.read_text().splitlines() if "project" in line]
    assert [line.split()[1].partition("(")[0].rstrip("2") for line in calls] == [
        "fsync",
        "renameat",
        "fsync",
    ]
    assert ".guard-" in calls[0]
    assert calls[2].split("<")[1].startswith(str(scene.database.parent) + ">")
