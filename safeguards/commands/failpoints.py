"""`guard failpoints`: the places where a test can make guard die or fail; hidden."""

from __future__ import annotations

from safeguards.cli import pass_session, verb
from safeguards.output import Answer
from safeguards.session import Session


@verb("failpoints")
@pass_session
def command(session: Session) -> Answer:
    """List the places where a test can make guard die or fail.

    `GUARD_FAILPOINT=NAME:kill` arms one; docs/reliability.md says what else it can do.
    """
    from rollback.failpoints import ACTIONS, FAILPOINTS  # noqa: PLC0415 - after --help
    from safeguards.render.failpoints import Listed  # noqa: PLC0415

    del session
    return Answer("failpoints", Listed(FAILPOINTS, ACTIONS))
