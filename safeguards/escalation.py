"""Who has to act after a failure: guard itself, a colleague, an architect, or the user.

1. **Self-recovery**: the command is tried again, at most twice within five minutes of its first
   failure, and only from the restored state.
2. **Peer report**: problem, what was attempted, impact, current state, request.
3. **Architecture review**: the failure comes back, or lies in how the project is built.
4. **User decision**: what to do is a choice with consequences that only the owner can weigh.

Pure: values in, values and texts out. Whoever calls decides where a report goes.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterable
from dataclasses import dataclass

MAX_RECOVERIES = 2
WINDOW_S = 300.0
_RECURRENCES = 2
# What CommonMark gives a meaning: inside a line (an underscore inside a word has none) …
_MARKUP = re.compile(r"[\\`*<\[\]]|(?<![^\W_])_|_(?![^\W_])")
# … and at its start: headings, quotes, lists, rules.
_MARKER = re.compile(r"^(\d*)([#>+=~.)-])")


class Level(enum.IntEnum):
    """Who acts next; 0 where nobody has to."""

    NONE = 0
    SELF_RECOVERY = 1
    PEER_REPORT = 2
    ARCHITECTURE_REVIEW = 3
    USER_DECISION = 4

    @property
    def title(self) -> str:
        """What people call it."""
        return self.name.replace("_", " ").capitalize()


class Trouble(enum.StrEnum):
    """What went wrong in an attempt."""

    COMMAND_FAILED = "command_failed"
    TIMED_OUT = "timed_out"
    MEMORY_EXCEEDED = "memory_exceeded"
    PROBE_FAILED = "probe_failed"
    CHECKS_FAILED = "checks_failed"
    SNAPSHOT_FAILED = "snapshot_failed"
    NO_SPACE = "no_space"
    OVER_BUDGET = "over_budget"
    ROLLBACK_INCOMPLETE = "rollback_incomplete"
    STORE_DAMAGED = "store_damaged"
    TARGET_REFUSED = "target_refused"
    INTERRUPTED = "interrupted"


# May go away by itself when the command is started again from the state before.
_TRANSIENT = frozenset(
    {
        Trouble.COMMAND_FAILED,
        Trouble.TIMED_OUT,
        Trouble.MEMORY_EXCEEDED,
        Trouble.PROBE_FAILED,
    }
)
# Nobody but the owner may choose: production, or a state that cannot be put back as it was.
_OWNERS = frozenset({Trouble.TARGET_REFUSED, Trouble.ROLLBACK_INCOMPLETE, Trouble.STORE_DAMAGED})


@dataclass(frozen=True, slots=True)
class Attempt:
    """One start of the command, or what prevented it.

    Attributes:
        started_s: When it started, in seconds on a monotonic clock.
        ended_s: When it ended, on the same clock.
        status: Exit status.
        trouble: What went wrong; None for a success.
        restored: Whether the state before was put back, and verified, after it.
    """

    started_s: float
    ended_s: float
    status: int = 0
    trouble: Trouble | None = None
    restored: bool = False


@dataclass(frozen=True, slots=True)
class Earlier:
    """An earlier run of the same command that ended in trouble, and who was to act."""

    trouble: Trouble
    level: Level
    resolved: bool = False


@dataclass(frozen=True, slots=True)
class History:
    """What is known when a decision is due.

    Attributes:
        attempts: The starts of this run, in order.
        earlier: Earlier runs of the same command, in order.
        now_s: The present time on the clock of the attempts.
        recoveries: How often the command may be tried again; never more than two count.
        window_s: Seconds after the first failure in which it may be.
    """

    attempts: tuple[Attempt, ...] = ()
    earlier: tuple[Earlier, ...] = ()
    now_s: float = 0.0
    recoveries: int = MAX_RECOVERIES
    window_s: float = WINDOW_S


def may_recover(history: History) -> bool:
    """Return whether the command may be started again now, without asking anybody."""
    if not history.attempts:
        return False
    last = history.attempts[-1]
    failures = [attempt for attempt in history.attempts if attempt.trouble is not None]
    return (
        last.trouble in _TRANSIENT
        and last.restored
        and len(history.attempts) <= min(history.recoveries, MAX_RECOVERIES)
        and 0 <= history.now_s - failures[0].ended_s <= history.window_s
    )


def decide(history: History) -> Level:
    """Return who has to act next.

    For a run that succeeded it is the level that sufficed: 0 at the first start, 1 after a
    recovery. An interrupted run needs nobody: the user has decided already.
    """
    if not history.attempts or history.attempts[-1].trouble is Trouble.INTERRUPTED:
        return Level.NONE
    trouble = history.attempts[-1].trouble
    if trouble is None:
        return Level.SELF_RECOVERY if len(history.attempts) > 1 else Level.NONE
    if trouble in _OWNERS:
        return Level.USER_DECISION
    if may_recover(history):
        return Level.SELF_RECOVERY
    return max(_above(history, trouble), _structural(trouble))


def _structural(trouble: Trouble) -> Level:
    # A rollback that does not fit the budget will not fit tomorrow either.
    return Level.ARCHITECTURE_REVIEW if trouble is Trouble.OVER_BUDGET else Level.PEER_REPORT


def _above(history: History, trouble: Trouble) -> Level:
    """Return the level that a trouble which comes back has reached."""
    open_levels = [e.level for e in history.earlier if e.trouble is trouble and not e.resolved]
    if Level.ARCHITECTURE_REVIEW in open_levels or Level.USER_DECISION in open_levels:
        return Level.USER_DECISION
    if open_levels.count(Level.PEER_REPORT) >= _RECURRENCES:
        return Level.ARCHITECTURE_REVIEW
    return Level.PEER_REPORT


@dataclass(frozen=True, slots=True)
class Option:
    """One choice of a user decision.

    Attributes:
        title: What would be done.
        consequence: What follows from it, good and bad.
        command: What to type; empty where it is not a command.
    """

    title: str
    consequence: str
    command: str = ""


@dataclass(frozen=True, slots=True)
class Report:
    """What somebody else has to know in order to act.

    Attributes:
        level: Who is asked.
        problem: What happened, in one or two sentences.
        attempted: What was tried, with its result, in order.
        impact: What is affected, with figures.
        current_state: What the project is like now: rolled back or not, snapshot, left-overs.
        request: What the reader is asked to do.
        options: For a user decision, the choices; the first is the one that guard advises.
        evidence: Where to look: commands and files.
    """

    level: Level
    problem: str
    attempted: tuple[str, ...] = ()
    impact: tuple[str, ...] = ()
    current_state: tuple[str, ...] = ()
    request: str = ""
    options: tuple[Option, ...] = ()
    evidence: tuple[str, ...] = ()


def render_report(report: Report) -> str:
    """Return a report as Markdown that a colleague can act on without asking back.

    Every part is there, in one order, so that nobody has to search; what is empty says so. Texts
    come from logs and file names: they are shown as they are and cannot change the layout.
    """
    lines = [
        f"# {report.level.title}",
        "",
        "## Problem",
        "",
        _plain(report.problem) or "Not known.",
    ]
    lines += _section("Attempted", report.attempted, "Nothing was attempted.", numbered=True)
    lines += _section("Impact", report.impact, "No impact is known.")
    lines += _section("Current state", report.current_state, "The current state is not known.")
    lines += ["", "## Request", "", _plain(report.request) or _REQUESTS[report.level]]
    if report.options:
        lines += ["", "## Options", ""]
        for number, option in enumerate(report.options, 1):
            advised = " (advised)" if number == 1 else ""
            lines.append(
                f"{number}. **{_plain(option.title)}**{advised}: {_plain(option.consequence)}"
            )
            if option.command:
                lines.append(f"   {_code(option.command)}")
    if report.evidence:
        lines += ["", "## Where to look", "", *(f"- {_code(item)}" for item in report.evidence)]
    return "\n".join(lines) + "\n"


_REQUESTS = {
    Level.NONE: "Nothing is asked of you.",
    Level.SELF_RECOVERY: "Nothing is asked of you: the command is tried again.",
    Level.PEER_REPORT: "Please find the cause, correct it, and run the command again.",
    Level.ARCHITECTURE_REVIEW: (
        "Please review why this comes back or does not fit, and decide what has to change in "
        "how the project keeps its state."
    ),
    Level.USER_DECISION: "Please choose one of the options; nothing is done until you do.",
}


def standard_options(trouble: Trouble, *, snapshot: str = "--last") -> tuple[Option, ...]:
    """Return the choices that an owner has after a trouble, the advised one first.

    Args:
        trouble: What went wrong.
        snapshot: The snapshot before the run, as `guard rollback` names it.
    """
    target = "--last" if snapshot == "--last" else f"--to {snapshot}"
    rollback = Option(
        "Roll back",
        "Everything is as before the run; results of the run move into the undo snapshot.",
        f"guard rollback {target}",
    )
    keep = Option("Keep the present state", "Results stay, half-written ones too.", "guard status")
    if trouble is Trouble.TARGET_REFUSED:
        return (
            Option("Use a target on this machine", "The run is protected.", "guard status"),
            Option("Run it without guard", "Nothing can be put back afterwards."),
        )
    if trouble is Trouble.ROLLBACK_INCOMPLETE:
        resume = Option(
            "Resume the rollback", "It goes on where it stopped; nothing is lost.", rollback.command
        )
        return (resume, Option("Take it back", "The state after the run.", "guard undo"), keep)
    if trouble is Trouble.STORE_DAMAGED:
        repair = Option(
            "Repair the store",
            "Mends what identical content on disk can mend, and names the rest.",
            "guard verify --repair",
        )
        return (repair, rollback, keep)
    return (rollback, keep)


def _section(
    title: str, items: Iterable[str], otherwise: str, *, numbered: bool = False
) -> list[str]:
    texts = [_plain(item) for item in items]
    marks = [f"{number}." if numbered else "-" for number in range(1, len(texts) + 1)]
    shown = [f"{mark} {text}" for mark, text in zip(marks, texts, strict=True)]
    return ["", f"## {title}", "", *(shown or [otherwise])]


def _plain(text: str) -> str:
    """Return a text on one line in which nothing is taken for Markdown."""
    escaped = _MARKUP.sub(r"\\\g<0>", _one_line(text))
    return _MARKER.sub(lambda match: f"{match[1]}\\{match[2]}", escaped)


def _code(text: str) -> str:
    """Return a text as inline code, whatever backticks it holds (CommonMark, section 6.1)."""
    line = _one_line(text)
    longest = current = 0
    for character in line:
        current = current + 1 if character == "`" else 0
        longest = max(longest, current)
    fence = "`" * (longest + 1)
    pad = " " if line.startswith("`") or line.endswith("`") else ""
    return f"{fence}{pad}{line}{pad}{fence}"


def _one_line(text: str) -> str:
    """Return a text without line breaks, terminal controls and bytes that are no text."""
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode()
        for c in " ".join(text.split())
    )
