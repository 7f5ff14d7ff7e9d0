"""Four levels: who acts after a failure, and a report that a colleague can act on."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safeguards.escalation import (
    Attempt,
    Earlier,
    History,
    Level,
    Option,
    Report,
    Trouble,
    decide,
    may_recover,
    render_report,
    standard_options,
)

TRANSIENT = (
    Trouble.COMMAND_FAILED,
    Trouble.TIMED_OUT,
    Trouble.MEMORY_EXCEEDED,
    Trouble.PROBE_FAILED,
)
OWNERS = (Trouble.TARGET_REFUSED, Trouble.ROLLBACK_INCOMPLETE, Trouble.STORE_DAMAGED)
SECTIONS = ("## Problem", "## Attempted", "## Impact", "## Current state", "## Request")


def _failed(
    number: int, trouble: Trouble = Trouble.COMMAND_FAILED, *, restored: bool = True
) -> tuple[Attempt, ...]:
    return tuple(Attempt(n * 10.0, n * 10.0 + 5, 1, trouble, restored) for n in range(number))


def _decide(attempts: tuple[Attempt, ...], *earlier: Earlier, now_s: float = 60.0) -> Level:
    return decide(History(attempts, earlier, now_s))


def test_nothing_and_success_need_nobody() -> None:
    """A first start that succeeds reaches no level; one after a recovery reached the first."""
    success = Attempt(50, 55)
    assert _decide(()) is Level.NONE
    assert _decide((success,)) is Level.NONE
    assert _decide((*_failed(1), success)) is Level.SELF_RECOVERY


@pytest.mark.parametrize("trouble", TRANSIENT)
def test_two_recoveries_then_a_colleague(trouble: Trouble) -> None:
    """The command starts three times at most."""
    assert _decide(_failed(1, trouble)) is Level.SELF_RECOVERY
    assert _decide(_failed(2, trouble)) is Level.SELF_RECOVERY
    assert _decide(_failed(3, trouble)) is Level.PEER_REPORT


def test_more_recoveries_than_two_do_not_count() -> None:
    """Whatever is configured; fewer do."""
    assert not may_recover(History(_failed(3), now_s=60, recoveries=9))
    assert not may_recover(History(_failed(1), now_s=60, recoveries=0))
    assert not may_recover(History(_failed(2), now_s=60, recoveries=1))
    assert may_recover(History(_failed(1), now_s=60, recoveries=1))


def test_the_window_opens_with_the_first_failure() -> None:
    """Five minutes from its end, on a clock that is not set."""
    assert _decide(_failed(1), now_s=5 + 300) is Level.SELF_RECOVERY
    assert _decide(_failed(1), now_s=5 + 300.1) is Level.PEER_REPORT
    assert _decide(_failed(2), now_s=15 + 299) is Level.PEER_REPORT
    assert _decide(_failed(1), now_s=0) is Level.PEER_REPORT


def test_only_from_the_restored_state() -> None:
    """Without it the second attempt would start from the first one's ruins."""
    assert _decide(_failed(1, restored=False)) is Level.PEER_REPORT


@pytest.mark.parametrize("trouble", OWNERS)
def test_what_only_the_owner_may_decide(trouble: Trouble) -> None:
    """Production, or a state that cannot be put back: never tried again by itself."""
    assert _decide(_failed(1, trouble)) is Level.USER_DECISION


@pytest.mark.parametrize(
    "trouble", [Trouble.CHECKS_FAILED, Trouble.SNAPSHOT_FAILED, Trouble.NO_SPACE]
)
def test_what_would_fail_again_goes_to_a_colleague(trouble: Trouble) -> None:
    """The same input fails the same check."""
    assert _decide(_failed(1, trouble)) is Level.PEER_REPORT


def test_over_budget_is_a_question_of_architecture() -> None:
    """A state that takes too long to put back today does so tomorrow."""
    assert _decide(_failed(1, Trouble.OVER_BUDGET)) is Level.ARCHITECTURE_REVIEW
    again = Earlier(Trouble.OVER_BUDGET, Level.ARCHITECTURE_REVIEW)
    assert _decide(_failed(1, Trouble.OVER_BUDGET), again) is Level.USER_DECISION


def test_what_comes_back_rises() -> None:
    """Twice reported to a colleague and not resolved: architecture; after that: the user."""
    peer = Earlier(Trouble.COMMAND_FAILED, Level.PEER_REPORT)
    resolved = Earlier(Trouble.COMMAND_FAILED, Level.PEER_REPORT, resolved=True)
    other = Earlier(Trouble.TIMED_OUT, Level.PEER_REPORT)
    review = Earlier(Trouble.COMMAND_FAILED, Level.ARCHITECTURE_REVIEW)
    assert _decide(_failed(3), peer) is Level.PEER_REPORT
    assert _decide(_failed(3), peer, resolved, other) is Level.PEER_REPORT
    assert _decide(_failed(3), peer, peer) is Level.ARCHITECTURE_REVIEW
    assert _decide(_failed(3), peer, peer, review) is Level.USER_DECISION
    assert _decide(_failed(1), peer, peer, review) is Level.SELF_RECOVERY


def test_an_interruption_needs_nobody() -> None:
    """Whoever pressed Ctrl-C has decided."""
    assert _decide(_failed(1, Trouble.INTERRUPTED)) is Level.NONE
    assert _decide((*_failed(2), *_failed(1, Trouble.INTERRUPTED))) is Level.NONE


@pytest.mark.parametrize("trouble", Trouble)
def test_every_trouble_has_a_level_and_a_way_out(trouble: Trouble) -> None:
    """Nothing is left without somebody who acts, and options have consequences."""
    level = _decide(_failed(3, trouble))
    assert (level is Level.NONE) == (trouble is Trouble.INTERRUPTED)
    options = standard_options(trouble, snapshot="17")
    assert len(options) >= 2
    assert all(option.title and option.consequence for option in options)
    assert "guard rollback --last" not in "".join(option.command for option in options)


_attempts = st.builds(
    Attempt,
    st.floats(0, 900),
    st.floats(0, 900),
    st.integers(0, 255),
    st.none() | st.sampled_from(Trouble),
    st.booleans(),
)


@given(st.lists(_attempts, max_size=6), st.floats(0, 2000), st.integers(-1, 9))
def test_recovery_never_exceeds_its_limits(
    attempts: list[Attempt], now_s: float, recoveries: int
) -> None:
    """Whatever happened: at most two, in the window, restored, and for what may go away."""
    history = History(tuple(attempts), (), now_s, recoveries)
    level = decide(history)
    if attempts and attempts[-1].trouble is not None and level is Level.SELF_RECOVERY:
        first = next(a for a in attempts if a.trouble is not None)
        assert len(attempts) <= min(recoveries, 2)
        assert now_s - first.ended_s <= 300
        assert attempts[-1].restored
        assert attempts[-1].trouble in TRANSIENT


@given(st.lists(st.sampled_from(Level), max_size=5), st.sampled_from(Trouble))
def test_more_open_reports_never_lower_the_level(levels: list[Level], trouble: Trouble) -> None:
    """A history can only raise who has to act."""
    earlier = [Earlier(trouble, level) for level in levels]
    found = [_decide(_failed(3, trouble), *earlier[:n]) for n in range(len(earlier) + 1)]
    assert all(a <= b for a, b in itertools.pairwise(found))


def test_a_peer_report_reads_as_it_should() -> None:
    """The whole text, as a colleague gets it."""
    report = Report(
        Level.PEER_REPORT,
        problem="`python train.py` exited with 1 three times.",
        attempted=("started, exit 1 after 12 s", "tried again from the restored state, exit 1"),
        impact=("no model of today", "3 files differ: data/train_v2.csv"),
        current_state=("rolled back to snapshot 17, verified",),
        request="Correct data/train_v2.csv and run it again.",
        evidence=("guard show 18",),
    )
    assert render_report(report) == (
        "# Peer report\n\n"
        "## Problem\n\n\\`python train.py\\` exited with 1 three times.\n\n"
        "## Attempted\n\n1. started, exit 1 after 12 s\n"
        "2. tried again from the restored state, exit 1\n\n"
        "## Impact\n\n- no model of today\n- 3 files differ: data/train_v2.csv\n\n"
        "## Current state\n\n- rolled back to snapshot 17, verified\n\n"
        "## Request\n\nCorrect data/train_v2.csv and run it again.\n\n"
        "## Where to look\n\n- `guard show 18`\n"
    )


def test_a_user_decision_lists_its_options() -> None:
    """The first one is advised, each with its consequence and command."""
    options = standard_options(Trouble.ROLLBACK_INCOMPLETE, snapshot="17")
    text = render_report(Report(Level.USER_DECISION, "It stopped half way.", options=options))
    assert "1. **Resume the rollback** (advised): " in text
    assert "   `guard rollback --to 17`" in text
    assert "3. **Keep the present state**: " in text
    assert "nothing is done until you do" in text


@pytest.mark.parametrize("level", Level)
def test_every_part_is_there_even_when_empty(level: Level) -> None:
    """Nobody has to wonder whether something was forgotten."""
    text = render_report(Report(level, ""))
    assert [line for line in text.splitlines() if line.startswith("## ")] == list(SECTIONS)
    assert level.title in text


_texts = st.text(min_size=1, max_size=40)


@given(_texts, st.lists(_texts, max_size=3), _texts)
def test_no_text_changes_the_layout(problem: str, items: list[str], command: str) -> None:
    """File names and log lines with newlines, headings, backticks or odd bytes stay text."""
    report = Report(
        Level.USER_DECISION,
        problem,
        tuple(items),
        tuple(items),
        options=(Option("x", "y", command),),
    )
    text = render_report(report)
    headings = [line for line in text.splitlines() if line.startswith("#")]
    assert headings == ["# User decision", *SECTIONS, "## Options"]
    assert all(c.isprintable() or c == "\n" for c in text)


def test_odd_bytes_and_markup_are_shown_as_text() -> None:
    """A name of undecodable bytes, a link, a heading, a list."""
    report = Report(
        Level.PEER_REPORT,
        "# not a heading",
        impact=("- a\udcff_b [x](http://e)", "<b>*c*</b>", "1. one", "_d_"),
        evidence=("a`b", "``"),
    )
    text = render_report(report)
    assert "\\# not a heading" in text
    assert "- \\- a\\\\udcff_b \\[x\\](http://e)" in text
    assert "- \\<b>\\*c\\*\\</b>" in text
    assert "- 1\\. one" in text
    assert "- \\_d\\_" in text
    assert "- ``a`b``" in text
    assert "- ``` `` ```" in text
