"""The snapshot engine beside cp, rsync, git, restic and borg, as ratios measured in one run.

    python -m benchmarks.engine [--files 50000] [--large 8x512] [--database 1024] [--scratch DIR]

Everything lies on one file system and in a warm cache; times are wall seconds. What is not
installed is left out. Figures go to standard output as a Markdown table.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import shutil
import sqlite3
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from rollback.engine import Engine
from rollback.inventory import EngineSettings
from rollback.model import Snapshot
from rollback.reports import Selection

TURNS = 5
"""So often a rollback in place is measured: it is short, and the disk has moods."""


@dataclass
class Table:
    """Rows of (work, who, seconds), printed as ratios to guard."""

    rows: list[tuple[str, str, float, str]] = field(default_factory=list)

    def add(self, work: str, who: str, seconds: float, note: str = "") -> None:
        """Add a measurement and say it at once on standard error."""
        print(f"{work:42} {who:22} {seconds:8.2f} s  {note}", file=sys.stderr, flush=True)
        self.rows.append((work, who, seconds, note))

    def render(self) -> str:
        """Return the Markdown table."""
        guard = {work: s for work, who, s, _ in self.rows if who == "guard"}
        lines = ["| work | who | seconds | guard ÷ it | |", "|---|---|---|---|---|"]
        for work, who, seconds, note in self.rows:
            ratio = f"{guard[work] / seconds:.2f}" if work in guard and seconds else ""
            lines.append(f"| {work} | {who} | {seconds:.2f} | {ratio} | {note} |")
        return "\n".join(lines)


@contextlib.contextmanager
def clock() -> Iterator[Callable[[], float]]:
    """Give a function that returns the seconds since the block began, then since it ended."""
    begun = time.monotonic()
    ended: list[float] = []
    yield lambda: (ended[0] if ended else time.monotonic()) - begun
    ended.append(time.monotonic())


def run(*words: str, cwd: Path | None = None, environ: Mapping[str, str] | None = None) -> float:
    """Run a peer and return its wall seconds."""
    begun = time.monotonic()
    subprocess.run(
        words,
        cwd=cwd,
        check=True,
        env={**os.environ, **(environ or {})},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    return time.monotonic() - begun


@contextlib.contextmanager
def measured_memory() -> Iterator[None]:
    """Note how much memory this process had at most in a block; workers are not in it.

    The mark of the kernel is set back before (proc(5), clear_refs): what the benchmark itself
    took, to make files or to compare them, is not guard's.
    """
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    yield
    status = Path("/proc/self/status").read_text(encoding="ascii")
    PEAKS.append(int(status.split("VmHWM:")[1].split()[0]) / 1024)


PEAKS: list[float] = []
"""Megabytes of each of guard's operations."""


class Guard:
    """The engine on one folder, without an environment or git of its own."""

    def __init__(self, project: Path, store: Path) -> None:
        self.settings = EngineSettings(
            project, store=store, max_store_bytes=1 << 40, environ={"PATH": "/nonexistent"}
        )

    def snapshot(self) -> tuple[float, int, Snapshot]:
        """Take a snapshot in a process's fresh engine; return seconds, bytes added, snapshot."""
        begun = time.monotonic()
        with measured_memory(), Engine(self.settings) as engine:
            operation = engine.begin("snapshot", {})
            report = engine.snapshot(operation, kind="manual", label="")
            engine.finish(operation, "done", {})
        return time.monotonic() - begun, report.new_bytes, report.snapshot

    def rollback(self, snapshot: Snapshot) -> float:
        """Put a snapshot back, verified; return seconds."""
        begun = time.monotonic()
        with measured_memory(), Engine(self.settings) as engine:
            outcome = engine.restore(engine.plan(snapshot, Selection()))
            if not outcome.verified:
                raise RuntimeError("the rollback was not verified")
        return time.monotonic() - begun

    def drill(self, snapshot: Snapshot, mode: str) -> tuple[float, float]:
        """Rehearse; return the seconds of restoring and reading again, and of the whole."""
        begun = time.monotonic()
        with measured_memory(), Engine(self.settings) as engine:
            report = engine.drill(snapshot, mode=mode, budget_s=3600)
            if report.failures:
                raise RuntimeError(report.failures[0])
        return report.elapsed_s, time.monotonic() - begun


def make_small(folder: Path, count: int) -> None:
    """Make `count` files of about 20 kB in folders of fifty."""
    dice = random.Random(7)
    block = dice.randbytes(1 << 20)
    for number in range(count):
        place = folder / f"d{number // 2500}" / f"e{number // 50}"
        if number % 50 == 0:
            place.mkdir(parents=True)
        size = min(int(dice.lognormvariate(9.2, 1.2)), 900_000)
        at = dice.randrange(len(block) - min(size, 900_000))
        (place / f"f{number}.dat").write_bytes(number.to_bytes(8, "big") + block[at : at + size])


def change_one_percent(folder: Path) -> list[Path]:
    """Overwrite half a percent of the files and delete another half."""
    files = sorted(p for p in folder.rglob("*.dat"))
    chosen = random.Random(3).sample(files, max(2, len(files) // 100))
    for number, path in enumerate(chosen):
        if number % 2:
            path.unlink()
        else:
            path.write_bytes(os.urandom(path.stat().st_size))
    return chosen


class Restic:
    """restic with its default settings, a repository of its own."""

    name = "restic"

    def __init__(self, place: Path) -> None:
        self.environ = {
            "RESTIC_REPOSITORY": str(place / "restic"), "RESTIC_PASSWORD": "x",
            "RESTIC_CACHE_DIR": str(place / "restic-cache"),
        }  # fmt: skip
        self.repository = place / "restic"
        run("restic", "init", environ=self.environ)

    def backup(self, folder: Path) -> float:
        """Take a snapshot."""
        return run("restic", "backup", ".", cwd=folder, environ=self.environ)

    def restore(self, target: Path) -> float:
        """Restore the newest one into a folder."""
        return run("restic", "restore", "latest", "--target", str(target), environ=self.environ)


class Borg:
    """borg without encryption, a repository of its own."""

    name = "borg"

    def __init__(self, place: Path) -> None:
        self.repository = place / "borg"
        self.environ = {
            "BORG_BASE_DIR": str(place / "borg-base"), "BORG_REPO": str(self.repository),
            "BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK": "yes",
        }  # fmt: skip
        run("borg", "init", "-e", "none", environ=self.environ)
        self._count = 0

    def backup(self, folder: Path) -> float:
        """Take a snapshot."""
        self._count += 1
        return run("borg", "create", f"::a{self._count}", ".", cwd=folder, environ=self.environ)

    def restore(self, target: Path) -> float:
        """Restore the newest one into a folder."""
        target.mkdir(exist_ok=True)
        return run("borg", "extract", f"::a{self._count}", cwd=target, environ=self.environ)


def peers(place: Path) -> list[Restic | Borg]:
    """Return the backup tools that are installed."""
    return [kind(place) for kind in (Restic, Borg) if shutil.which(kind.name)]


def _warm_up(folder: Path, scratch: Path) -> None:
    """Read a tree and write it once for nothing.

    A virtual machine gets the memory of its page cache at the first write, which would be counted
    to whoever comes first. The copy stays: for minutes after many files were removed, ext4 is ten
    times slower to make new ones, which would be counted to whoever comes next.
    """
    run("cp", "-a", str(folder), str(scratch / f"warm-{folder.name}"))
    read_all(folder)
    os.sync()


def read_all(folder: Path) -> None:
    """Have all content of a folder in the page cache."""
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            with path.open("rb", buffering=0) as file:
                while file.read(1 << 20):
                    pass


def _forget(folder: Path) -> None:
    """Take files out of the page cache, durable by then: what comes next finds as much memory."""
    os.sync()
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _change(folder: Path) -> None:
    """Change 1 %, and leave nothing of it or of earlier work for others to write out."""
    change_one_percent(folder)
    os.sync()


def trees(table: Table, title: str, folder: Path, scratch: Path, *, small: bool) -> None:
    """Measure one tree: first, again, 1 % changed, put back, full restore."""
    place = scratch / f"stores-{title}"
    place.mkdir()
    _warm_up(folder, scratch)
    others = peers(place)
    guard = Guard(folder, place / "guard")
    seconds, added, first = guard.snapshot()
    table.add(f"{title}: first snapshot", "guard", seconds, f"{added / 1e6:.0f} MB")
    copy = scratch / f"copy-{title}"
    table.add(f"{title}: first snapshot", "cp -a", run("cp", "-a", str(folder), str(copy)))
    begun = time.monotonic()
    os.sync()
    table.add(f"{title}: first snapshot", "sync after cp -a", time.monotonic() - begun)
    for other in others:
        table.add(f"{title}: first snapshot", other.name, other.backup(folder))
    if small:
        environ = {"GIT_DIR": str(place / "git"), "GIT_WORK_TREE": str(folder)}
        run("git", "init", "-q", environ=environ)
        table.add(f"{title}: first snapshot", "git add", run("git", "add", ".", environ=environ))
    table.add(f"{title}: again", "guard", guard.snapshot()[0])
    for other in others:
        table.add(f"{title}: again", other.name, other.backup(folder))
    if small:
        table.add(f"{title}: again", "git status", run("git", "status", "-s", environ=environ))
        put_back(table, f"{title}: put back after 1 %", guard, first, copy)
        for other in others:
            _change(folder)
            table.add(f"{title}: put back after 1 %", other.name, other.restore(folder))
            run("rsync", "-a", "--delete", f"{copy}/", f"{folder}/")
        guard.snapshot()
        _change(folder)
        table.add(f"{title}: 1 % changed", "guard", guard.snapshot()[0])
        for other in others:
            table.add(f"{title}: 1 % changed", other.name, other.backup(folder))
    full_restores(table, title, folder, guard, others)
    for path in (copy, place, *scratch.glob("full-*"), scratch / f"warm-{folder.name}"):
        shutil.rmtree(path)


def put_back(table: Table, work: str, guard: Guard, first: Snapshot, copy: Path) -> None:
    """Measure rollbacks in place beside rsync, by turns: the median of each."""
    folder = guard.settings.project
    ours: list[float] = []
    theirs: list[float] = []
    synced: list[float] = []
    for _ in range(TURNS):
        _change(folder)
        ours.append(guard.rollback(first))
        _change(folder)
        theirs.append(run("rsync", "-a", "--delete", f"{copy}/", f"{folder}/"))
        begun = time.monotonic()
        os.sync()
        synced.append(theirs[-1] + time.monotonic() - begun)
        guard.snapshot()  # rsync gave the files new inodes
    note = "median of " + ", ".join(f"{seconds:.2f}" for seconds in ours)
    table.add(work, "guard", statistics.median(ours), note)
    table.add(work, "rsync -a --delete", statistics.median(theirs))
    table.add(work, "the same and a sync", statistics.median(synced))


def full_restores(
    table: Table, title: str, folder: Path, guard: Guard, others: list[Restic | Borg]
) -> None:
    """Measure restoring all into an empty folder; nothing is removed before all have done it.

    Each has what it reads in the page cache, and finds as much memory as the others.
    """
    scratch, work = folder.parent, f"{title}: full restore"
    snapshot = guard.snapshot()[2]
    target = scratch / "full-cp"
    read_all(folder)
    table.add(work, "cp -a", run("cp", "-a", str(folder), str(target)))
    begun = time.monotonic()
    os.sync()
    table.add(work, "sync after cp -a", time.monotonic() - begun)
    _forget(target)
    for other in others:
        target = scratch / f"full-{other.name}"
        target.mkdir()
        read_all(other.repository)
        table.add(work, other.name, other.restore(target))
        _forget(target)
        _forget(other.repository)
    read_all(Path(str(guard.settings.store)))
    restore_s, whole_s = guard.drill(snapshot, "full")
    table.add(work, "guard", restore_s, f"{whole_s:.2f} s with clearing up")


def linked(table: Table, scratch: Path, prefix: Path) -> None:
    """Measure a tree that may be linked: a Python environment."""
    from dataclasses import replace  # noqa: PLC0415

    guard = Guard(scratch / "empty", scratch / "linked-store")
    (scratch / "empty").mkdir()
    guard.settings = replace(guard.settings, command=(str(prefix / "bin" / "python"),))
    title = "environment (linked)"
    table.add(f"{title}: first snapshot", "guard", guard.snapshot()[0])
    table.add(f"{title}: again", "guard", guard.snapshot()[0])
    target = scratch / "environment-copy"
    table.add(f"{title}: first snapshot", "cp -a", run("cp", "-a", str(prefix), str(target)))
    shutil.rmtree(target)
    seconds = run("cp", "-al", str(prefix), str(target))
    table.add(f"{title}: first snapshot", "cp -al", seconds)
    shutil.rmtree(target)
    shutil.rmtree(scratch / "linked-store")


def databases(table: Table, scratch: Path, megabytes: int) -> None:
    """Measure a SQLite database: first, newest rows changed, random rows changed."""
    folder = scratch / "database"
    folder.mkdir()
    path = folder / "mlflow.db"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE metrics (id INTEGER PRIMARY KEY, value BLOB)")
    rows = megabytes * 1_000_000 // 1040
    dice = random.Random(5)
    block = dice.randbytes(4 << 20)

    def content() -> bytes:
        at = dice.randrange((4 << 20) - 1020)
        return dice.randbytes(8) + block[at : at + 1000]

    connection.executemany(
        "INSERT INTO metrics VALUES (?, ?)", ((n, content()) for n in range(rows))
    )
    connection.commit()
    place = scratch / "stores-database"
    place.mkdir()
    others = [Restic(place)] if shutil.which("restic") else []
    guard = Guard(folder, place / "guard")
    seconds, added, _ = guard.snapshot()
    table.add("database: first snapshot", "guard", seconds, f"{added / 1e6:.0f} MB")
    for other in others:
        table.add("database: first snapshot", other.name, other.backup(folder))
    for title, chosen in (
        ("newest rows", range(rows - rows // 100, rows)),
        ("random rows", dice.sample(range(rows), rows // 100)),
    ):
        before = _pages(path)
        connection.executemany(
            "UPDATE metrics SET value = ? WHERE id = ?", ((content(), n) for n in chosen)
        )
        connection.commit()
        changed = sum(one != other for one, other in zip(before, _pages(path), strict=False)) * 4096
        work = f"database: 1 % changed, {title}"
        used = _size(place / "guard")
        seconds = guard.snapshot()[0]
        grown = _size(place / "guard") - used
        table.add(work, "guard", seconds, f"adds {grown / changed:.2f} x the changed pages")
        for other in others:
            used = _size(other.repository)
            seconds = other.backup(folder)
            grown = _size(other.repository) - used
            table.add(work, other.name, seconds, f"adds {grown / changed:.2f} x the changed pages")
    connection.close()


def _pages(path: Path) -> list[int]:
    content = path.read_bytes()
    return [hash(content[at : at + 4096]) for at in range(0, len(content), 4096)]


def _size(folder: Path) -> int:
    return sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())


def main() -> None:
    """Run what was asked for and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=50_000)
    parser.add_argument("--large", default="8x512", help="number x megabytes; 0x0 leaves it out")
    parser.add_argument("--database", type=int, default=1024, help="megabytes; 0 leaves it out")
    parser.add_argument(
        "--environment", type=Path, help="a virtual environment to capture by links"
    )
    parser.add_argument("--scratch", type=Path, default=Path.cwd() / "benchmark-scratch")
    asked = parser.parse_args()
    shutil.rmtree(asked.scratch, ignore_errors=True)
    asked.scratch.mkdir(parents=True)
    table = Table()
    try:
        if asked.files:
            folder = asked.scratch / "small"
            make_small(folder, asked.files)
            trees(table, f"{asked.files} small files", folder, asked.scratch, small=True)
            shutil.rmtree(folder)
        count, megabytes = map(int, asked.large.split("x"))
        if count:
            folder = asked.scratch / "large"
            folder.mkdir()
            for number in range(count):
                with (folder / f"l{number}.bin").open("wb") as file:
                    for _ in range(megabytes):
                        file.write(os.urandom(1 << 20))
            trees(table, f"{count} x {megabytes} MB", folder, asked.scratch, small=False)
            shutil.rmtree(folder)
        if asked.environment:
            linked(table, asked.scratch, asked.environment.resolve())
        if asked.database:
            databases(table, asked.scratch, asked.database)
    finally:
        shutil.rmtree(asked.scratch, ignore_errors=True)
    print(table.render())
    print(f"\nguard's process had {max(PEAKS):.0f} MB at the most; what it forks is not in that.")


if __name__ == "__main__":
    main()
