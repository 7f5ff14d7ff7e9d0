"""Whether something was lost: guard dies or fails in an operation, recovers, all is compared."""

from __future__ import annotations

import signal

from faults.cases import CLEAR, UNCLEAR, Case, Ended
from faults.scenarios import Scenario
from faults.states import State, project_in
from faults.verbs import recover, verify
from rollback.errors import RestoreIncomplete

RECOVERY_S = 5.0


def places(scenario: Scenario, state: State) -> list[str]:
    """Return the failpoints that an operation reaches in a state, in order, with repeats."""
    with project_in(state) as project:
        case = Case(project, state)
        scenario.before(case)
        ended = case.run(scenario.verb, "record")
        if not ended.done or case.wrong:
            raise AssertionError(f"{scenario.name}, {state.name}: {ended.text} {case.wrong}")
        return case.hits


def judge(scenario: Scenario, state: State, armed: str, again: str = "") -> list[str] | None:
    """Let an operation die or fail at a place, recover, and return what is wrong then.

    Args:
        scenario: The operation.
        state: The kind of project.
        armed: As ``GUARD_FAILPOINT`` has it.
        again: A second fault, for the recovery.

    Returns:
        None where nothing is wrong because a fault did not befall anybody: it proved nothing.
    """
    with project_in(state) as project:
        case = Case(project, state, armed=armed)
        scenario.before(case)
        return conclude(case, scenario, case.run(scenario.verb, armed), again)


def conclude(case: Case, scenario: Scenario, ended: Ended, again: str = "") -> list[str] | None:
    """Recover after an operation ended in whatever way, and return what is wrong then."""
    fired = ended.fired
    _judge_end(case, scenario, ended)
    if again:
        fired = case.run(recover, again).fired and fired
    recovered = case.must("the recovery", recover)
    if recovered.elapsed_s > RECOVERY_S:
        case.wrong.append(f"the recovery took {recovered.elapsed_s:.1f} s")
    if not case.wrong:
        scenario.after(case, ended)
    if not case.wrong:
        case.must("looking through the store", verify)
        _judge_leftovers(case)
    return case.wrong if case.wrong or fired else None


def _judge_end(case: Case, scenario: Scenario, ended: Ended) -> None:
    if ended.signal not in {0, signal.SIGKILL}:
        case.wrong.append(f"it died of signal {ended.signal}")
    if ended.code == UNCLEAR:
        case.wrong.append(f"an error that no caller can expect: {ended.text[-700:]}")
    incomplete = ended.text.startswith(RestoreIncomplete.__name__)
    before = {"rollback": case.spoilt, "undo": case.built}.get(scenario.name)
    if ended.code == CLEAR and not incomplete and before is not None and not case.same(before):
        case.wrong.append(f"it said that nothing was changed, and something was: {ended.text}")


def _judge_leftovers(case: Case) -> None:
    found = [
        str(path.relative_to(case.project.store))
        for folder in ("work", "packs", "snapshots")
        for path in (case.project.store / folder).iterdir()
        if folder == "work" or path.suffix == ".tmp"
    ]
    if found:
        case.wrong.append(f"left behind in the store: {found[:5]}")
    if (case.project.root / ".guard").exists():
        case.wrong.append("a staging folder is left in the project")
