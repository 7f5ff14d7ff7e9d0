"""How well a drill foretells a rollback.

    python -m benchmarks.drill_estimate [--states 50] [--seed 0] [--mode full|sample]

Varied projects are made (few or many files, small or large ones, databases, linked trees),
rehearsed, destroyed completely, and rolled back for real, twice. Printed is, for each, what the
drill expected, its bound, and what the rollbacks took; then the shares inside the bound and within
25 % of the estimate, and how many of the second rollbacks were within 25 % of the first.

On a disk that is in use the same rollback takes three times as long now and then (ext4 is slow
where many files were removed lately), and no rehearsal foretells that: give it a file system of
its own.
"""

from __future__ import annotations

import argparse
import mmap
import os
import random
import shutil
import sqlite3
import time
from dataclasses import replace
from pathlib import Path

from benchmarks.engine import Guard, read_all
from rollback.engine import Engine
from rollback.model import Snapshot
from rollback.reports import Selection

MEMORY = 1 << 30
"""Bytes: more than a state has."""
WITHIN = 0.25


def make_state(folder: Path, dice: random.Random) -> None:
    """Fill a project with a random mixture."""
    block = dice.randbytes(1 << 20)
    for number in range(int(10 ** dice.uniform(1, 4.1))):
        place = folder / f"d{number // 40}"
        place.mkdir(exist_ok=True)
        size = min(int(dice.lognormvariate(dice.choice((5, 8, 10)), 1.2)), 900_000)
        (place / f"f{number}").write_bytes(number.to_bytes(4, "big") + block[:size])
    for number in range(dice.choice((0, 0, 1, 3))):
        (folder / f"model{number}.bin").write_bytes(os.urandom(1 << dice.randrange(20, 28)))
    if dice.random() < 0.5:
        connection = sqlite3.connect(folder / "mlflow.db")
        connection.execute("CREATE TABLE metrics (id INTEGER PRIMARY KEY, value BLOB)")
        rows = ((n, os.urandom(500)) for n in range(int(10 ** dice.uniform(1, 4.7))))
        connection.executemany("INSERT INTO metrics VALUES (?, ?)", rows)
        connection.commit()
        connection.close()
    if dice.random() < 0.4:
        make_environment(folder / ".venv", int(10 ** dice.uniform(2, 3.7)))


def make_environment(prefix: Path, files: int) -> None:
    """Lay out a virtual environment whose files a RECORD lists."""
    site = prefix / "lib" / "python3.11" / "site-packages"
    package = site / "thing"
    package.mkdir(parents=True)
    (prefix / "pyvenv.cfg").write_text("home = /usr/bin\nversion = 3.11.7\n")
    (prefix / "bin").mkdir()
    (prefix / "bin" / "python").symlink_to("/usr/bin/python3")
    lines = []
    for number in range(files):
        (package / f"m{number}.py").write_text(f"x = {number}\n" * 50)
        lines.append(f"thing/m{number}.py,,\n")
    info = site / "thing-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: thing\nVersion: 1.0\n")
    (info / "RECORD").write_text("".join(lines))


def try_state(scratch: Path, seed: int, mode: str) -> tuple[float, float, float, float]:
    """Return estimate, bound and the real times of rolling one destroyed state back.

    What a state leaves stays until the end: ext4 is slow to make files for minutes after many were
    removed, and the next state has no part in that.
    """
    scratch /= f"state-{seed}"
    folder = scratch / "project"
    folder.mkdir(parents=True)
    make_state(folder, random.Random(seed))
    guard = Guard(folder, scratch / "store")
    command = (str(folder / ".venv" / "bin" / "python"),)
    guard.settings = replace(guard.settings, command=command)
    snapshot = guard.snapshot()[2]
    read_all(scratch)
    _settle()
    with Engine(guard.settings) as engine:
        report = engine.drill(snapshot, mode=mode, budget_s=3600)
    first, second = (_roll_back(guard, snapshot) for _ in range(2))
    return report.estimate_s, report.bound_s, first, second


def _roll_back(guard: Guard, snapshot: Snapshot) -> float:
    """Remove all of the project; return the seconds of a rollback."""
    shutil.rmtree(guard.settings.project)
    guard.settings.project.mkdir()
    _settle()
    with Engine(guard.settings) as engine:
        begun = time.monotonic()
        engine.restore(engine.plan(snapshot, Selection()))
        return time.monotonic() - begun


def _settle() -> None:
    """Let the disk and the memory be as they are in every measurement.

    A virtual machine that gave free memory back to its host waits for it when it is used again.
    """
    os.sync()
    memory = mmap.mmap(-1, MEMORY)
    for at in range(0, MEMORY, mmap.PAGESIZE):
        memory[at] = 1
    memory.close()


def main() -> None:
    """Try the states and print what came of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--states", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0, help="of the first state")
    parser.add_argument("--mode", default="full", choices=("full", "sample"))
    parser.add_argument("--scratch", type=Path, default=Path.cwd() / "benchmark-scratch")
    asked = parser.parse_args()
    shutil.rmtree(asked.scratch, ignore_errors=True)
    asked.scratch.mkdir(parents=True)
    bounded = near = steady = 0
    print("| state | estimate s | bound s | rollback s | ÷ estimate | again s |")
    print("|---|---|---|---|---|---|")
    for seed in range(asked.seed, asked.seed + asked.states):
        estimate, bound, taken, again = try_state(asked.scratch, seed, asked.mode)
        bounded += taken <= bound
        near += abs(taken / estimate - 1) <= WITHIN
        steady += abs(again / taken - 1) <= WITHIN
        ratio = taken / estimate
        print(
            f"| {seed} | {estimate:.3f} | {bound:.3f} | {taken:.3f} | {ratio:.2f} | {again:.3f} |",
            flush=True,
        )
    shutil.rmtree(asked.scratch, ignore_errors=True)
    print(f"\nInside the bound: {bounded} of {asked.states}; within 25 %: {near}; the second")
    print(f"rollback within 25 % of the first: {steady}.")


if __name__ == "__main__":
    main()
