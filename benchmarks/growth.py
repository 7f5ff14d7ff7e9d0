"""How the engine's costs grow with files and with snapshots.

    python -m benchmarks.growth [--scratch DIR] [--sizes 10000,100000,1000000] [--snapshots 200]
    python -m benchmarks.growth --store-gb 50 [--scratch DIR] [--snapshots 200]

For each size a tree of small files is made; then snapshots are taken, each after a hundred files
changed in one folder. The columns should stay flat but for the walk, which looks at each file.
Each size runs in a process of its own, so that peak memory is its own. With ``--store-gb`` the tree
is sixteen checkpoints, one of which is written anew before each snapshot, until the store has that
size.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.engine import Guard
from rollback.engine import Engine

PER_FOLDER = 200
CHANGED = 100
_CHECKPOINTS = 16


def make(folder: Path, count: int) -> None:
    """Make `count` tiny files in folders of two hundred."""
    for number in range(count):
        place = folder / f"d{number // (PER_FOLDER * 100)}" / f"e{number // PER_FOLDER}"
        if number % PER_FOLDER == 0:
            place.mkdir(parents=True)
        (place / f"f{number}").write_bytes(b"%d" % number)


def measure(scratch: Path, count: int, snapshots: int) -> dict[str, float]:
    """Return the measured figures of one size, seconds and megabytes."""
    folder = scratch / "tree"
    make(folder, count)
    guard = Guard(folder, scratch / "store")
    figures: dict[str, float] = {"files": count}
    figures["first_s"] = guard.snapshot()[0]
    figures["first_peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    time.sleep(0.1)
    figures["again_s"] = guard.snapshot()[0]
    size = _size(scratch / "store")
    times = []
    for number in range(snapshots):
        place = folder / "d0" / f"e{number % (min(count, PER_FOLDER * 100) // PER_FOLDER)}"
        for path in sorted(place.iterdir())[:CHANGED]:
            path.write_bytes(b"changed %d" % number)
        times.append(guard.snapshot()[0])
    figures["early_s"] = sum(times[:5]) / 5
    figures["late_s"] = sum(times[-5:]) / 5
    figures["kb_each"] = (_size(scratch / "store") - size) / 1000 / snapshots
    figures |= _ask(guard, snapshots)
    figures["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return figures


def measure_large(scratch: Path, store_gb: float, snapshots: int) -> dict[str, float]:
    """Return the measured figures of a store of so many gigabytes, seconds and megabytes."""
    folder = scratch / "tree"
    folder.mkdir()
    size = int(store_gb * 1e9 / (snapshots + _CHECKPOINTS))
    for number in range(_CHECKPOINTS):
        _write_checkpoint(folder / f"c{number}.pt", number, size)
    guard = Guard(folder, scratch / "store")
    figures: dict[str, float] = {"checkpoint_mb": size / 1e6}
    figures["first_s"] = guard.snapshot()[0]
    times = []
    for number in range(snapshots):
        _write_checkpoint(folder / f"c{number % _CHECKPOINTS}.pt", number + _CHECKPOINTS, size)
        times.append(guard.snapshot()[0])
    figures["early_s"] = sorted(times[:21])[10]
    figures["late_s"] = sorted(times[-21:])[10]
    figures["again_s"] = guard.snapshot()[0]
    figures["store_gb"] = _size(scratch / "store") / 1e9
    figures |= _ask(guard, snapshots)
    figures["left_gb"] = _size(scratch / "store") / 1e9
    figures["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return figures


def _write_checkpoint(path: Path, number: int, size: int) -> None:
    block = number.to_bytes(8, "big") + os.urandom((1 << 20) - 8)
    with path.open("wb") as file:
        for at in range(0, size, 1 << 20):
            file.write(block[: size - at])


def _ask(guard: Guard, snapshots: int) -> dict[str, float]:
    """Return how long the log, a difference and a prune of half of all take."""
    figures: dict[str, float] = {}
    with Engine(guard.settings) as engine:
        for name, call in (
            ("log_s", lambda: engine.operations(20)),
            ("diff_s", lambda: engine.diff(*reversed(engine.snapshots()[:2]))),
            ("prune_s", lambda: engine.prune(keep_last=snapshots // 2)),
        ):
            begun = time.monotonic()
            call()
            figures[name] = time.monotonic() - begun
    return figures


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def main() -> None:
    """Measure each size and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", default="10000,100000,1000000")
    parser.add_argument("--snapshots", type=int, default=200)
    parser.add_argument("--scratch", type=Path, default=Path.cwd() / "benchmark-scratch")
    parser.add_argument("--store-gb", type=float, help="a store of large files, of that size")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.store_gb:
        shutil.rmtree(asked.scratch, ignore_errors=True)
        asked.scratch.mkdir(parents=True)
        _print([measure_large(asked.scratch, asked.store_gb, asked.snapshots)])
        shutil.rmtree(asked.scratch)
        return
    if asked.one:
        print(json.dumps(measure(asked.scratch, asked.one, asked.snapshots)))
        return
    rows: list[dict[str, float]] = []
    for count in map(int, asked.sizes.split(",")):
        shutil.rmtree(asked.scratch, ignore_errors=True)
        asked.scratch.mkdir(parents=True)
        number = min(asked.snapshots, max(20, 20_000_000 // count))
        command = [sys.executable, "-m", "benchmarks.growth", "--one", str(count)]
        command += ["--snapshots", str(number), "--scratch", str(asked.scratch)]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
        rows.append({**json.loads(done.stdout), "snapshots": number})
        print(rows[-1], file=sys.stderr, flush=True)
    shutil.rmtree(asked.scratch, ignore_errors=True)
    _print(rows)


def _print(rows: list[dict[str, float]]) -> None:
    names = list(rows[0])
    print("| " + " | ".join(names) + " |")
    print("|" + "---|" * len(names))
    for row in rows:
        print(
            "| "
            + " | ".join(
                f"{row[name]:,.3g}" if row[name] < 1000 else f"{row[name]:,.0f}" for name in names
            )
            + " |"
        )


if __name__ == "__main__":
    main()
