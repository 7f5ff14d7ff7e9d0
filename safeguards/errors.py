"""Errors that end a guard command: what happened, what to type next, and the exit status.

The numbers are those of the command line's contract; an error class owns exactly one of them.
The engines have trees of their own (`rollback.errors`, `checks.errors`), which `main` maps.
"""

from __future__ import annotations

from typing import ClassVar


class GuardError(Exception):
    """Base of every error that ends a guard command with a message, a hint and a status.

    Args:
        message: What happened, and to what, in one sentence without secrets.
        hint: What to type or change next.
    """

    code: ClassVar[str] = "guard_failed"
    exit_code: ClassVar[int] = 125

    def __init__(self, message: str, *, hint: str) -> None:
        super().__init__(message)
        self.hint = hint


class WrongUsage(GuardError):
    """The command line or the configuration cannot be understood."""

    code: ClassVar[str] = "wrong_usage"
    exit_code: ClassVar[int] = 2


class NothingToActOn(GuardError):
    """There is no such snapshot, no run to roll back, nothing to undo."""

    code: ClassVar[str] = "nothing_to_act_on"
    exit_code: ClassVar[int] = 10


class Busy(GuardError):
    """Another guard operation works on this project; its pid and command are named."""

    code: ClassVar[str] = "busy"
    exit_code: ClassVar[int] = 11


class StoreDamaged(GuardError):
    """The store is damaged where it is needed."""

    code: ClassVar[str] = "store_damaged"
    exit_code: ClassVar[int] = 12


class NotEnoughSpace(GuardError):
    """There is not enough space; the message says how much is missing."""

    code: ClassVar[str] = "no_space"
    exit_code: ClassVar[int] = 13


class TargetRefused(GuardError):
    """The command would reach production, which guard never touches."""

    code: ClassVar[str] = "target_refused"
    exit_code: ClassVar[int] = 120


class ChecksFailed(GuardError):
    """Checks failed; the command was not started."""

    code: ClassVar[str] = "checks_failed"
    exit_code: ClassVar[int] = 121


class PreparationFailed(GuardError):
    """The snapshot or the drill failed; the command was not started."""

    code: ClassVar[str] = "preparation_failed"
    exit_code: ClassVar[int] = 122


class RollbackIncomplete(GuardError):
    """A rollback stopped half way; running it again resumes it."""

    code: ClassVar[str] = "rollback_incomplete"
    exit_code: ClassVar[int] = 123


class TimeLimitReached(GuardError):
    """The command ran longer than `--timeout` allows and was ended."""

    code: ClassVar[str] = "time_limit_reached"
    exit_code: ClassVar[int] = 124


class InternalFailure(GuardError):
    """guard itself failed; the log file with the details is named."""

    code: ClassVar[str] = "internal_failure"
    exit_code: ClassVar[int] = 125


class CommandNotExecutable(GuardError):
    """The command exists and cannot be executed."""

    code: ClassVar[str] = "command_not_executable"
    exit_code: ClassVar[int] = 126


class CommandNotFound(GuardError):
    """The command, or the interpreter that its first line names, does not exist."""

    code: ClassVar[str] = "command_not_found"
    exit_code: ClassVar[int] = 127


class Interrupted(GuardError):
    """The user or the system asked guard to stop before it was done."""

    code: ClassVar[str] = "interrupted"
    exit_code: ClassVar[int] = 130
