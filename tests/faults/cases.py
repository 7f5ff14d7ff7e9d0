"""One case of a sweep: bring about a state, let guard die or fail in it, and look at the rest.

guard runs in a forked child, so that it can be killed; what it left is judged by a manifest of
the project that shares no code with it.
"""

from __future__ import annotations

import contextlib
import functools
import os
import select
import signal
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from driving import Project
from faults.states import State, project_in
from faults.unkept import names, unkept_files
from manifest import Entry, differences, manifest
from rollback import failpoints
from rollback.engine import Engine
from rollback.errors import DrillFailed, RestoreIncomplete, RollbackError, StoreCorrupt
from unprivileged import IS_ROOT, become_nobody, prepare_once

Manifest = dict[bytes, Entry]
PATIENCE_S = 60.0
RECOVERY_S = 5.0
_UNCLEAR = 4
_CLEAR = 3


@dataclass(frozen=True, slots=True)
class Ended:
    """How a child ended: signal, code, what it said, and whether a fault befell it."""

    signal: int
    code: int
    text: str
    elapsed_s: float
    fired: bool = True

    @property
    def done(self) -> bool:
        """Whether guard said that it had done what it was asked."""
        return self.signal == 0 and self.code == 0


@dataclass(slots=True)
class Case:
    """What is known while a case runs.

    Attributes:
        project: The project.
        state: Its kind.
        built: The project as it was made.
        spoilt: As the bad run left it.
        wrong: Violations, as sentences.
        armed: The fault.
        hits: Failpoints that were reached, where they are recorded.
        unkept: Files that a snapshot said it had no room for: that was announced, not lost.
    """

    project: Project
    state: State
    built: Manifest = field(default_factory=dict)
    spoilt: Manifest = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)
    armed: str = ""
    hits: list[str] = field(default_factory=list)
    unkept: frozenset[bytes] = frozenset()

    def run(self, verb: Callable[[Project], object], armed: str = "") -> Ended:
        """Run a verb in a child, with a fault; ``record`` writes down which places are reached."""
        log = self.project.base / "hits"
        ended = _in_child(self, verb, armed, log)
        if armed:
            hits = log.read_text().split()
            log.unlink()
            ended = replace(ended, fired=bool(hits))
            if armed == "record":
                self.hits = hits
        return ended

    def must(self, what: str, verb: Callable[[Project], object]) -> Ended:
        """Run a verb that has to succeed."""
        ended = self.run(verb)
        if not ended.done:
            self.wrong.append(f"{what} failed: signal {ended.signal}, {ended.text[-600:]}")
        return ended

    def now(self) -> Manifest:
        """Return the project as it is."""
        return manifest(self.project.root) if self.project.root.is_dir() else {}

    def same(self, wanted: Manifest) -> bool:
        """Return whether the project is in a state."""
        return not differences(wanted, self.now())

    def _without_unkept(self, found: Manifest) -> Manifest:
        return {path: entry for path, entry in found.items() if path not in self.unkept}

    def expect(self, what: str, wanted: Manifest) -> None:
        """Note how the project differs from a state that it has to be in."""
        then, now = (self._without_unkept(state) for state in (wanted, self.now()))
        lines = differences(then, now)
        if lines:
            self.wrong.append(f"{what}: {len(lines)} differences, such as {lines[:3]}")


def _in_child(case: Case, verb: Callable[[Project], object], armed: str, log: Path) -> Ended:
    prepare_once()
    read_end, write_end = os.pipe2(os.O_CLOEXEC)
    started = time.monotonic()
    pid = os.fork()
    if pid == 0:
        os.close(read_end)
        code, text = _UNCLEAR, ""
        try:
            code, text = _child(case, verb, armed, log)
        finally:
            with contextlib.suppress(OSError):  # nobody listens any more
                os.write(write_end, text.encode("utf-8", "backslashreplace")[:60_000])
            os._exit(code)
    os.close(write_end)
    status = _wait(pid, started + PATIENCE_S)
    os.set_blocking(read_end, False)
    try:
        text = os.read(read_end, 65_536).decode()
    except BlockingIOError:
        text = ""
    os.close(read_end)
    killed = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
    code = os.WEXITSTATUS(status) if os.WIFEXITED(status) else 0
    elapsed_s = time.monotonic() - started
    if elapsed_s > PATIENCE_S:
        case.wrong.append(f"it hung for {elapsed_s:.0f} s")
    return Ended(killed, code, text, elapsed_s)


def _child(case: Case, verb: Callable[[Project], object], armed: str, log: Path) -> tuple[int, str]:
    fd = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666) if armed else -1
    if case.state.unprivileged and IS_ROOT:
        become_nobody()
    case.state.prepare()
    if armed:
        failpoints._armed = [_Recorder(fd) if armed == "record" else _Telling(armed, fd)]
    try:
        verb(case.project)
    except RollbackError as error:
        return _CLEAR, f"{type(error).__name__}: {error} | {error.hint}"
    except Exception:  # noqa: BLE001 - whatever it is, the sweep has to name it
        return _UNCLEAR, traceback.format_exc()
    return 0, ""


def _wait(pid: int, deadline: float) -> int:
    handle = os.pidfd_open(pid)
    try:
        poll = select.poll()
        poll.register(handle, select.POLLIN)
        if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
            os.kill(pid, signal.SIGKILL)
        return os.waitpid(pid, 0)[1]
    finally:
        os.close(handle)


class _Recorder(failpoints._Armed):
    """Writes down each place that is reached, in workers too."""

    def __init__(self, fd: int) -> None:
        super().__init__("*:count")
        self.fd = fd

    def hit(self, name: str) -> None:
        os.write(self.fd, name.encode() + b"\n")


class _Telling(failpoints._Armed):
    """Writes down that the fault befell somebody, before it does."""

    def __init__(self, text: str, fd: int) -> None:
        super().__init__(text)
        self.fd = fd

    def fire(self, name: str) -> None:
        os.write(self.fd, name.encode() + b"\n")
        super().fire(name)


# What guard is asked to do.


def _snapshot(project: Project) -> None:
    project.snapshot()


def recover(project: Project) -> None:
    """Finish or take back what died."""
    project.recover()


def _drill(project: Project) -> None:
    with project.engine() as engine:
        report = engine.drill(engine.find_snapshot("last"), mode="full")
        if not report.passed:
            raise DrillFailed(f"it did not pass: {report.failures}", hint="again")


def _rollback(project: Project, unkept: frozenset[bytes] = frozenset()) -> None:
    with project.engine() as engine:
        snapshot = min(engine.snapshots(), key=lambda found: found.seq)
    outcome = project.rollback(snapshot)
    shown = [os.fsdecode(os.path.join(project.path, path)) for path in unkept]
    for skip in outcome.skipped:
        if not any(names(skip, path) for path in shown):
            raise AssertionError(f"it was said not to be put back: {skip}")


def _undo(project: Project) -> None:
    project.undo()


def _redo(project: Project) -> None:
    project.redo()


def _prune(project: Project) -> None:
    with project.engine() as engine:
        engine.prune(keep_last=1)


def _repair(project: Project) -> None:
    with project.engine() as engine:
        report = engine.verify(repair=True)
        if not report.ok:
            raise StoreCorrupt(f"not mended: {report.damage}", hint="again")


def _verify(project: Project) -> None:
    with project.engine() as engine:
        report = engine.verify(repair=False)
        if not report.ok:
            raise AssertionError(f"the store is damaged: {report.damage}")
        _refuse_unknown(project, engine)


def _refuse_unknown(project: Project, engine: Engine) -> None:
    """Raise where the store holds content that its catalog does not know."""
    db = engine.store.catalog.db
    blobs = {row[0].hex() for row in db.execute("SELECT id FROM blob")}
    packs = {f"{row[0]}.pack" for row in db.execute("SELECT name FROM pack")}
    snapshots = db.execute("SELECT count(*) FROM snapshot").fetchone()[0]
    unknown = [
        str(path)
        for folder in ("loose", "links")
        for path in (project.store / folder).glob("*/*")
        if path.name not in blobs
    ]
    unknown += [p.name for p in (project.store / "packs").iterdir() if p.name not in packs]
    documents = len(list((project.store / "snapshots").iterdir()))
    if unknown or documents != snapshots:
        raise AssertionError(f"unknown {unknown[:5]}, {documents} documents of {snapshots}")


def _rot(project: Project) -> None:
    """Damage what can be mended: a byte of each pack and large blob, and the documents."""
    for document in (project.store / "snapshots").iterdir():
        document.write_bytes(document.read_bytes()[:-9])
    with project.engine() as engine:
        rows = engine.store.catalog.db.execute(
            "SELECT hex(blob.id), kind, name, place FROM blob"
            " LEFT JOIN pack ON pack.id = blob.pack WHERE kind IN (1, 2) AND blob.length > 0"
        ).fetchall()
    seen: set[object] = set()
    for name, kind, pack, place in rows:
        key = (kind, pack)
        if key in seen:
            continue
        seen.add(key)
        low = name.lower()
        path = f"loose/{low[:2]}/{low}" if kind == 2 else f"packs/{pack}.pack"
        with (project.store / path).open("r+b") as file:
            file.seek(place if kind == 1 else 0)
            byte = file.read(1)
            file.seek(-1, os.SEEK_CUR)
            file.write(bytes([byte[0] ^ 0x40]))


# How each is brought about, and what has to hold afterwards.


def _make(case: Case) -> None:
    case.must("making", case.state.make)
    case.built = case.now()


def _make_and_snapshot(case: Case) -> None:
    _make(case)
    case.must("the snapshot before", _snapshot)


def _make_and_spoil(case: Case) -> None:
    _make_and_snapshot(case)
    case.must("spoiling", case.state.spoil)
    case.spoilt = case.now()


def _roll_back_first(case: Case) -> None:
    _make_and_spoil(case)
    case.must("the rollback before", _rollback)


def _two_snapshots(case: Case) -> None:
    _make_and_spoil(case)
    case.must("the second snapshot", _snapshot)


def _make_and_rot(case: Case) -> None:
    _make_and_snapshot(case)
    case.must("rotting", _rot)


def _after_first(case: Case, ended: Ended) -> None:
    case.expect("the project after the first snapshot", case.built)
    if not _kinds(case):
        if ended.done:
            case.wrong.append("it said done, and there is no snapshot")
        case.must("the next snapshot", _snapshot)
    elif "enospc" in case.armed:
        case.unkept = frozenset(_told(case, unkept_files))
    case.must("spoiling", case.state.spoil)
    case.must("a rollback", functools.partial(_rollback, unkept=case.unkept))
    case.expect("the first snapshot", case.built)


def _after_again(case: Case, ended: Ended) -> None:
    case.expect("the project after a snapshot", case.spoilt)
    if len(_kinds(case)) < 2:
        if ended.done:
            case.wrong.append("it said done, and there is no second snapshot")
        case.must("the next snapshot", _snapshot)
    unkept = _told(case, unkept_files) if "enospc" in case.armed else []
    case.must("a rollback", _rollback)
    case.expect("the first snapshot", case.built)
    case.unkept = frozenset(unkept)
    case.must("a rollback to the second", _rollback_to_newest)
    case.expect("the second snapshot", case.spoilt)


def _rollback_to_newest(project: Project) -> None:
    with project.engine() as engine:
        snapshot = engine.find_snapshot("last")
    project.rollback(snapshot)


def _after_drill(case: Case, ended: Ended) -> None:
    case.expect("the project after a drill", case.built)
    case.must("the next drill", _drill)


def _after_rollback(case: Case, ended: Ended) -> None:
    if case.same(case.spoilt) and not case.same(case.built):
        if ended.done:
            case.wrong.append("it said done, and nothing is back")
        case.must("the next rollback", _rollback)
    case.expect("the project after the rollback", case.built)
    case.must("the undo", _undo)
    case.expect("what the undo brings back", case.spoilt)


def _after_undo(case: Case, ended: Ended) -> None:
    if case.same(case.built) and not case.same(case.spoilt):
        if ended.done:
            case.wrong.append("it said done, and nothing is undone")
        case.must("the next undo", _undo)
    case.expect("the project after the undo", case.spoilt)
    case.must("the redo", _redo)
    case.expect("what the redo brings back", case.built)


def _after_prune(case: Case, ended: Ended) -> None:
    case.expect("the project after a prune", case.spoilt)
    case.must("the next prune", _prune)
    case.must("making something of it", case.state.make if not case.spoilt else _nothing)
    case.must("a rollback to the newest", _rollback_to_newest)
    case.expect("the newest snapshot", case.spoilt)


def _nothing(_project: Project) -> None:
    return


def _after_repair(case: Case, ended: Ended) -> None:
    case.expect("the project after a repair", case.built)
    case.must("the next repair", _repair)
    case.must("spoiling", case.state.spoil)
    case.must("a rollback", _rollback)
    case.expect("the mended snapshot", case.built)


def _kinds(case: Case) -> list[str]:
    """Return the kinds of snapshots that are announced; looked up by the store's owner."""
    return [kind.decode() for kind in _told(case, _kinds_of)]


def _kinds_of(engine: Engine) -> list[bytes]:
    return [snapshot.kind.encode() for snapshot in engine.snapshots()]


def _told(case: Case, look: Callable[[Engine], list[bytes]]) -> list[bytes]:
    """Return what the store's owner is told of it."""
    path = case.project.base / "told"

    def ask(project: Project) -> None:
        with project.engine() as engine:
            path.write_bytes(b"\0".join(look(engine)))

    case.must("looking up", ask)
    found = path.read_bytes() if path.exists() else b""
    path.unlink(missing_ok=True)
    return found.split(b"\0") if found else []


@dataclass(frozen=True, slots=True)
class Scenario:
    """An operation: how its beginning is brought about, the verb, and what has to hold then."""

    name: str
    before: Callable[[Case], None]
    verb: Callable[[Project], object]
    after: Callable[[Case, Ended], None]


SCENARIOS = (
    Scenario("first snapshot", _make, _snapshot, _after_first),
    Scenario("snapshot again", _make_and_spoil, _snapshot, _after_again),
    Scenario("drill", _make_and_snapshot, _drill, _after_drill),
    Scenario("rollback", _make_and_spoil, _rollback, _after_rollback),
    Scenario("undo", _roll_back_first, _undo, _after_undo),
    Scenario("prune", _two_snapshots, _prune, _after_prune),
    Scenario("verify --repair", _make_and_rot, _repair, _after_repair),
)


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
        case.must("looking through the store", _verify)
        _judge_leftovers(case)
    return case.wrong if case.wrong or fired else None


def _judge_end(case: Case, scenario: Scenario, ended: Ended) -> None:
    if ended.signal not in {0, signal.SIGKILL}:
        case.wrong.append(f"it died of signal {ended.signal}")
    if ended.code == _UNCLEAR:
        case.wrong.append(f"an error that no caller can expect: {ended.text[-700:]}")
    incomplete = ended.text.startswith(RestoreIncomplete.__name__)
    before = {"rollback": case.spoilt, "undo": case.built}.get(scenario.name)
    if ended.code == _CLEAR and not incomplete and before is not None and not case.same(before):
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
