"""Which exit status an error ends with; the numbers are those of the command line's contract."""

from __future__ import annotations

from collections.abc import Mapping

from safeguards.errors import GuardError

INTERNAL = 125

EXIT_STATUS: Mapping[str, int] = {
    "rollback_failed": INTERNAL,
    "nothing_to_act_on": 10,
    "busy": 11,
    "store_damaged": 12,
    "store_unusable": 2,
    "no_space": 13,
    "snapshot_failed": 122,
    "drill_failed": 122,
    "rollback_incomplete": 123,
    "rollback_refused": 123,
    "git_failed": INTERNAL,
    "check_failed": 1,
    "check_declaration": 2,
    "check_engine_unavailable": 2,
    "seal_failed": 2,
}
"""Code of an engine's error → exit status; those of `safeguards.errors` know their own."""


def exit_status(error: BaseException) -> int:
    """Return the status that guard exits with for an error of any of the three trees."""
    if isinstance(error, GuardError):
        return error.exit_code
    return EXIT_STATUS.get(getattr(error, "code", ""), INTERNAL)
