"""Sweeps over power cuts: guard dies, and so does all that no sync had brought to the disk.

A kill leaves the kernel's caches as they are, so it never shows a sync that is missing. Here the
project and its store lie on a file system of their own, in a file; at the moment of the kill, or
after guard said that it was done, that file is copied as it is, and everything goes on with the
copy. ext4 is told to commit nothing by itself and to repair no program that forgets a sync. Needs
root and loop devices. ``python -m tests.faults.powercut --long``.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from driving import Project
from faults.cases import Case
from faults.judging import conclude, places
from faults.scenarios import SCENARIOS
from faults.states import STATES, State
from faults.sweep import Planned, plan_cases, sample, say
from faults.verbs import recover
from unprivileged import IS_ROOT, give_away

END = "the end"
"""Stands for a cut after guard was done."""
_AT_ONCE = "lazy_itable_init=0,lazy_journal_init=0"
KINDS = {
    # Metadata is committed by syncs alone, a rename over a file does not sync what it puts there,
    # and a name may be on the disk before its content: nothing but an own sync orders them.
    "ext4": (192, ["-E", _AT_ONCE], "loop,commit=300,noauto_da_alloc,data=writeback"),
    "xfs": (320, [], "loop"),
}
"""File system → its size in MiB, how it is made, how it is mounted."""


class Disk:
    """A file system in a file in memory, mounted, whose power can be cut.

    Args:
        folder: A private folder.
        kind: One of `KINDS`.
    """

    def __init__(self, folder: Path, kind: str) -> None:
        self.folder = folder
        self.kind = kind
        size, words, self.options = KINDS[kind]
        self.image = folder / "image"
        self.mount_point = folder / "disk"
        self.mount_point.mkdir()
        self._empty = folder / "empty"
        with self._empty.open("wb") as file:
            file.truncate(size << 20)
        made = [f"mkfs.{kind}", "-q", *words, str(self._empty)]
        subprocess.run(made, check=True, capture_output=True)

    def begin(self) -> None:
        """Put an empty file system in."""
        self._copy(self._empty)
        self._mount()

    def settle(self) -> None:
        """Bring everything to the disk."""
        subprocess.run(["sync", "-f", self.mount_point], check=True)

    def cut(self) -> None:
        """Lose what is not on the disk, and start again."""
        self._copy(self.image)
        self.end()
        self._mount()

    def end(self) -> None:
        """Take the file system out."""
        for _ in range(100):
            ended = subprocess.run(["umount", self.mount_point], check=False, capture_output=True)
            if ended.returncode == 0:
                return
            time.sleep(0.05)  # a worker that outlived guard for a moment
        subprocess.run(["umount", "--lazy", self.mount_point], check=True)

    def _mount(self) -> None:
        (self.folder / "next").rename(self.image)
        subprocess.run(
            ["mount", "-t", self.kind, "-o", self.options, self.image, self.mount_point],
            check=True,
            capture_output=True,
        )

    def _copy(self, image: Path) -> None:
        subprocess.run(["cp", "--sparse=always", image, self.folder / "next"], check=True)


@contextlib.contextmanager
def inserted(kind: str = "ext4") -> Iterator[Disk]:
    """Give a disk; gone afterwards.

    Raises:
        OSError: None can be made here.
        subprocess.CalledProcessError: As above.
    """
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="guard-power-", dir=memory) as folder:
        os.chmod(folder, 0o711)  # noqa: S103 - one state is another user's
        yield Disk(Path(folder), kind)


def why_not(kind: str = "ext4") -> str:
    """Return why no power can be cut here; empty where it can."""
    if not IS_ROOT:
        return "only root may mount a disk"
    if shutil.which(f"mkfs.{kind}") is None:
        return f"mkfs.{kind} is not installed"
    try:
        with inserted(kind) as disk:
            disk.begin()
            disk.end()
    except (OSError, subprocess.CalledProcessError) as error:
        return f"no disk can be mounted: {error}"
    return ""


def judge_cut(case: Planned, disk: Disk) -> list[str] | None:
    """Cut the power at a place of an operation, recover, and return what is wrong then.

    Returns:
        None where guard, or its recovery, did not come to that place.
    """
    disk.begin()
    try:
        base = disk.mount_point / "base"
        base.mkdir()
        project = Project(base)
        if case.state.unprivileged:
            give_away((base, project.root))
        here = Case(project, case.state, armed=case.armed)
        case.scenario.before(here)
        disk.settle()
        ended = here.run(case.scenario.verb, "" if case.armed == END else case.armed)
        disk.cut()
        befell = not case.again or here.run(recover, case.again).fired
        if case.again:
            disk.cut()
        found = conclude(here, case.scenario, ended)
        return found if found or befell else None
    finally:
        disk.end()


def all_cuts(states: Sequence[State] = STATES) -> Iterator[Planned]:
    """Yield a cut at each place that an operation reaches, in its recovery, and one after it."""
    for state in (state for state in states if not state.apart):
        for scenario in SCENARIOS:
            hits = places(scenario, state)
            yield from plan_cases("kill", scenario, state, hits)
            yield from plan_cases("recovery", scenario, state, hits)
            yield Planned("end", scenario, state, END)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the command line asks for; 1 where anything was lost."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.powercut", description=__doc__)
    parser.add_argument("--long", action="store_true", help="every cut instead of a sample")
    parser.add_argument("--most", type=int, default=60, help="size of the sample")
    parser.add_argument("--after", type=int, default=0, help="leave out so many")
    parser.add_argument("--on", choices=KINDS, default="ext4", help="the file system")
    asked = parser.parse_args(arguments)
    if why := why_not(asked.on):
        say(f"SKIPPED: {why}")
        return 0
    started = time.monotonic()
    cases = list(all_cuts())
    chosen = sample(cases, len(cases) if asked.long else asked.most)[asked.after :]
    done: Counter[str] = Counter()
    wrong: list[str] = []
    with inserted(asked.on) as disk:
        for number, case in enumerate(chosen, 1):
            found = judge_cut(case, disk)
            done["not reached" if found is None else case.kind] += 1
            for what in found or ():
                wrong.append(f"{case}: {what}")
                say(f"WRONG {wrong[-1]}")
            if number % 100 == 0 or number == len(chosen):
                counted = ", ".join(f"{count} {kind}" for kind, count in sorted(done.items()))
                elapsed_s = time.monotonic() - started
                say(f"{number} of {len(chosen)}: {counted}, {len(wrong)} wrong, {elapsed_s:.0f} s")
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
