"""How well a drill foretells a rollback.

    python -m benchmarks.drill_estimate [--states 50] [--mode full|sample] [--scratch DIR]

Varied projects are made (few or many files, small or large ones, databases, linked trees),
rehearsed, destroyed completely, and rolled back for real. Printed is, for each, what the drill
expected, its bound, and what the rollback took; then the shares inside the bound and within 25 % of
the estimate.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import sqlite3
import time
from dataclasses import replace
from pathlib import Path

from benchmarks.engine import Guard
from rollback.engine import Engine
from rollback.reports import Selection


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


def try_state(scratch: Path, seed: int, mode: str) -> tuple[float, float, float]:
    """Return estimate, bound and the real time of rolling one destroyed state back.

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
    with Engine(guard.settings) as engine:
        report = engine.drill(snapshot, mode=mode, budget_s=3600)
    shutil.rmtree(folder)
    folder.mkdir()
    with Engine(guard.settings) as engine:
        begun = time.monotonic()
        engine.restore(engine.plan(snapshot, Selection()))
        taken = time.monotonic() - begun
    return report.estimate_s, report.bound_s, taken


def main() -> None:
    """Try the states and print what came of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--states", type=int, default=50)
    parser.add_argument("--mode", default="full")
    parser.add_argument("--scratch", type=Path, default=Path.cwd() / "benchmark-scratch")
    asked = parser.parse_args()
    shutil.rmtree(asked.scratch, ignore_errors=True)
    asked.scratch.mkdir(parents=True)
    bounded = near = 0
    print(
        "| state | estimate s | bound s | rollback s | rollback / estimate |\n|---|---|---|---|---|"
    )
    for seed in range(asked.states):
        estimate, bound, taken = try_state(asked.scratch, seed, asked.mode)
        bounded += taken <= bound
        near += abs(taken / estimate - 1) <= 0.25
        ratio = taken / estimate
        print(f"| {seed} | {estimate:.3f} | {bound:.3f} | {taken:.3f} | {ratio:.2f} |", flush=True)
    shutil.rmtree(asked.scratch, ignore_errors=True)
    print(f"\nInside the bound: {bounded} of {asked.states}; within 25 %: {near}.")


if __name__ == "__main__":
    main()
