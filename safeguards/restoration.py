"""Puts a state back around the engine: processes ended, services stopped, probes passed."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rollback.errors import RollbackError
from rollback.lock import is_alive
from rollback.model import Operation, Skip, Step
from rollback.reports import RestorePlan
from safeguards.config import Config
from safeguards.output import Progress
from safeguards.preload import preload
from safeguards.probes import ProbeResult, run_probes
from safeguards.services import Services

if TYPE_CHECKING:
    from rollback.engine import Engine
    from rollback.resources.git.revert import PushedCommits
    from safeguards.supervisor import Process


TAKES_BACK = {"rollback": "undo", "undo": "redo", "redo": "undo"}
"""The verb that takes each back."""


@dataclass(frozen=True, slots=True)
class Restoration:
    """A rollback, undo or redo: planned, or carried out.

    Attributes:
        kind: ``rollback``, ``undo`` or ``redo``.
        snapshot_id: What is put back.
        snapshot_seq: Its sequence number.
        taken_at: When it was taken, Unix time.
        steps: What changes.
        unrestorable: What is not as it was, and cannot be put back by guard.
        budget_s: Seconds that it may take.
        elapsed_s: Seconds that it took, probes included; None where it was only planned.
        undo_id: What brings the displaced state back.
        verified: Whether the result was read again and equals the snapshot.
        probes: How the project's probes ended.
        kept_aside: What was found changed meanwhile and is kept elsewhere.
        broken: What is back as it was and does not work.
        unchecked: What could not be found out about that.
        problems: What went wrong beside it.
        revert: Pushed commits that are undone by a commit, None for none.
        revert_commit: The commit that reverts what was pushed, empty for none.
        interrupted: Whether somebody asked guard to end before all probes had been run.
        partial: Whether only chosen paths or categories are put back.
    """

    kind: str
    snapshot_id: str
    snapshot_seq: int
    taken_at: float
    steps: tuple[Step, ...]
    unrestorable: tuple[Skip, ...]
    budget_s: float
    elapsed_s: float | None = None
    undo_id: str = ""
    verified: bool = False
    probes: tuple[ProbeResult, ...] = ()
    kept_aside: tuple[str, ...] = ()
    broken: tuple[str, ...] = ()
    unchecked: tuple[Skip, ...] = ()
    problems: tuple[str, ...] = ()
    revert: PushedCommits | None = None
    revert_commit: str = ""
    interrupted: bool = False
    partial: bool = False

    @property
    def within_budget(self) -> bool | None:
        """Whether it fitted the budget; None where it was only planned."""
        return None if self.elapsed_s is None else self.elapsed_s <= self.budget_s

    @property
    def succeeded(self) -> bool:
        """Whether the state is back, in time, and the project works."""
        works = self.verified and self.within_budget and all(p.passed for p in self.probes)
        return bool(works and not self.unrestorable and not self.interrupted)


def planned(plan: RestorePlan, kind: str, budget_s: float) -> Restoration:
    """Return a plan as something to show."""
    snapshot = plan.snapshot
    return Restoration(
        kind,
        snapshot.id,
        snapshot.seq,
        snapshot.created_at,
        plan.steps,
        plan.unrestorable,
        budget_s,
        partial=_is_partial(plan),
    )


def _is_partial(plan: RestorePlan) -> bool:
    return bool(plan.selection.paths or plan.selection.categories)


@dataclass(frozen=True, slots=True)
class Around:
    """What surrounds a restore.

    Attributes:
        config: The configuration before it.
        environ: The environment of the user's command.
        reload: Reads the configuration again, as the restored project has it.
        progress: Called with progress, or None.
    """

    config: Config
    environ: Mapping[str, str]
    reload: Callable[[], Config]
    progress: Progress | None = None


def put_back(engine: Engine, plan: RestorePlan, kind: str, around: Around) -> Restoration:
    """Carry a plan out, and hold it to the budget and the project's probes.

    Raises:
        RollbackError: As the engine raises; services are running again.
    """
    started = time.monotonic()
    config = around.config
    services = Services(config.services if plan.steps else (), config.project, around.environ)
    from safeguards.supervisor import hold_signals  # noqa: PLC0415 - only where it is done

    preload(state.location for state in plan.snapshot.states)
    # A second Ctrl-C must not skip the journal: what has begun is completed, and quickly.
    with services.stopped(), hold_signals():
        outcome = engine.restore(plan, kind=kind, progress=around.progress)
    # The probes are those of the state that is back, which may not be those of a minute ago.
    restored = around.reload()
    probes: list[ProbeResult] = []
    interrupted = False
    try:
        with engine.parked():
            probes = run_probes(restored.probes, config.project, around.environ)
    except Exception:
        raise
    except BaseException:  # noqa: BLE001 - the state is back, which has to be said all the same
        interrupted = True
        services.problems.append("interrupted before all probes had passed")
    elapsed_s = time.monotonic() - started
    _note(engine, outcome.operation_id, probes, elapsed_s)
    before = planned(plan, kind, config.budget_s)
    return Restoration(
        kind=kind,
        snapshot_id=outcome.snapshot_id,
        snapshot_seq=before.snapshot_seq,
        taken_at=before.taken_at,
        steps=outcome.steps,
        unrestorable=_distinct(outcome.skipped),
        budget_s=config.budget_s,
        elapsed_s=elapsed_s,
        undo_id=outcome.undo_id,
        verified=outcome.verified,
        probes=tuple(probes),
        kept_aside=outcome.kept_aside,
        broken=outcome.problems,
        unchecked=outcome.unchecked,
        problems=tuple(services.problems),
        interrupted=interrupted,
        partial=before.partial,
    )


def _note(engine: Engine, identity: str, probes: Iterable[ProbeResult], elapsed_s: float) -> None:
    """Write down how the probes ended; the rollback itself is in the log already."""
    # What a probe said stays out of it: a log is read by others.
    told = [{"name": p.name, "passed": p.passed, "elapsed_s": p.elapsed_s} for p in probes]
    data = {"probes": told, "with_probes_s": elapsed_s}
    with contextlib.suppress(RollbackError, OSError):
        engine.update(engine.find_operation(identity), data)


def not_restored(done: Restoration) -> str:
    """Return one sentence about what is not as it was, although the rest is."""
    number, first = len(done.unrestorable), done.unrestorable[0]
    more = f" (and {number - 1} more)" if number > 1 else ""
    rest = "what was chosen" if done.partial else "everything"
    return f"{rest} is back except {first.what}{more}: {first.why}"


def end_leftovers(processes: Iterable[Process]) -> list[str]:
    """End processes of a guarded command before its state is put back.

    Returns:
        Sentences about those that could not be ended.
    """
    chosen = tuple(processes)
    if not chosen:
        return []
    from safeguards.supervisor import end_tree  # noqa: PLC0415 - only where some are left

    return [
        f"the process {process.pid} ({process.name}) does not end and may go on writing"
        for process in end_tree(chosen)
    ]


def still_running(operation: Operation) -> Process | None:
    """Return the command of a run whose guard died, where it still runs."""
    child: Any = operation.data.get("child")
    if is_alive(operation.data.get("owner", {})) or not isinstance(child, Mapping):
        return None  # its guard looks after it
    from safeguards.supervisor import is_running  # noqa: PLC0415 - as above

    process = _recorded(child)
    return process if process is not None and is_running(process) else None


def left_running(operation: Operation) -> list[Process]:
    """Return what a run left running when it ended, as far as it still runs."""
    noted = operation.data.get("left_over")
    if not isinstance(noted, list) or not noted:
        return []
    from safeguards.supervisor import is_running  # noqa: PLC0415 - as above

    found = [_recorded(item) for item in noted if isinstance(item, Mapping)]
    return [process for process in found if process is not None and is_running(process)]


def noted(process: Process) -> dict[str, Any]:
    """Return what tells a process apart from any later one, for the log."""
    return {
        "pid": process.pid,
        "started_ticks": process.started_ticks,
        "name": process.name,
        "boot": boot(),
    }


def _recorded(item: Mapping[str, Any]) -> Process | None:
    """Return a process that was written down in this boot."""
    from safeguards.supervisor import Process  # noqa: PLC0415 - as above

    try:
        process = Process(int(item["pid"]), int(item["started_ticks"]), str(item["name"]))
    except (KeyError, TypeError, ValueError):
        return None
    return process if item.get("boot") == boot() else None


def boot() -> str:
    """Return the id of this boot, so that a pid of an earlier one is not mistaken."""
    with contextlib.suppress(OSError), open("/proc/sys/kernel/random/boot_id") as file:
        return file.read().strip()
    return ""


def _distinct(skips: Iterable[Skip]) -> tuple[Skip, ...]:
    return tuple(dict.fromkeys(skips))
