"""The entry of the command line: errors become exit statuses, and this is the only process exit."""

from __future__ import annotations

import contextlib
import dataclasses
import signal
import sys
from collections.abc import Sequence
from types import FrameType
from typing import NoReturn

import click

from checks.errors import CheckError
from rollback.errors import RollbackError
from safeguards.cli import Root, Told, UnknownVerb
from safeguards.errors import GuardError, Interrupted, WrongUsage
from safeguards.exits import INTERNAL, exit_status
from safeguards.output import Answer, OutputFailed, Problem
from safeguards.session import Session


class Terminated(BaseException):
    """SIGTERM or SIGHUP asked guard itself to end."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run guard and exit with its status."""
    session = Session()
    _reserve_streams()
    _listen()
    status = INTERNAL
    try:
        status = execute(session, sys.argv[1:] if arguments is None else arguments)
    except KeyboardInterrupt:  # while the answer to the first one was being written
        status = Interrupted.exit_code
    except Terminated as error:
        status = 128 + error.number
    for word in session.last_words:
        word()
    with contextlib.suppress(OSError, ValueError, AttributeError):
        sys.stdout.flush()
    sys.exit(status)


def execute(session: Session, arguments: Sequence[str]) -> int:
    """Run one command, say what came of it, and return the exit status; errors never escape.

    Args:
        session: Fresh; the command line is read into it.
        arguments: The words after ``guard``.
    """
    words = list(arguments)
    session.terminal.json = _asks_for_json(words)
    try:
        answer = _invoke(session, words)
    except BaseException as error:  # noqa: BLE001 - this is where every error ends
        answer = _answer_for(session, error)
    if answer is None:
        return 0
    session.terminal.name = f"guard {session.verb}".strip()
    try:
        session.terminal.present(answer, to_stderr=answer.command == "run")
    except OutputFailed as error:
        answer = _told_elsewhere(answer, error)
        session.terminal.present(answer, to_stderr=True)
    except Exception as error:  # noqa: BLE001 - a renderer's own failure is guard's failure
        answer = _answer_for(session, error)
        with contextlib.suppress(OSError):
            session.terminal.present(answer, to_stderr=True)
    return answer.exit_code


def _invoke(session: Session, words: list[str]) -> Answer | None:
    root = Root()
    if "_GUARD_COMPLETE" in session.environ:
        root.main(words, prog_name="guard", obj=session)
    try:
        with root.make_context("guard", words, obj=session) as ctx:
            result = root.invoke(ctx)
    except Told as told:
        return told.answer
    except click.exceptions.Exit as end:
        if not end.exit_code:
            return None
        problem = Problem(WrongUsage.code, "the command line was refused", "see: guard --help")
        return Answer(session.verb, None, end.exit_code, (problem,))
    return result if isinstance(result, Answer) else None


def _told_elsewhere(answer: Answer, error: OutputFailed) -> Answer:
    """Return an answer that goes to standard error: who waits for it on the other has none."""
    problem = Problem(error.code, str(error), error.hint)
    return dataclasses.replace(
        answer,
        exit_code=answer.exit_code or INTERNAL,
        problems=(*answer.problems, problem),
        partial=answer.partial or not answer.exit_code,
    )


def _answer_for(session: Session, error: BaseException) -> Answer:
    verb = session.verb
    if isinstance(error, (GuardError, RollbackError, CheckError, OutputFailed)):
        problem = Problem(error.code, str(error), error.hint)
        return Answer(verb, None, exit_status(error), (problem,))
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        session.terminal.help(error.format_message())
        hint = "see: guard --help" if not verb else f"see: guard {verb} --help"
        problem = Problem(WrongUsage.code, "no command was named", hint)
        return Answer(verb, None, WrongUsage.exit_code, (problem,))
    if isinstance(error, click.UsageError):
        return Answer(verb, None, WrongUsage.exit_code, (_usage_problem(error, verb),))
    if isinstance(error, (KeyboardInterrupt, click.Abort)):
        hint = "guard status says what is unfinished"
        return Answer(
            verb, None, Interrupted.exit_code, (Problem(Interrupted.code, "interrupted", hint),)
        )
    if isinstance(error, Terminated):
        name = signal.Signals(error.number).name
        problem = Problem(
            Interrupted.code, f"ended by {name}", "guard status says what is unfinished"
        )
        return Answer(verb, None, 128 + error.number, (problem,))
    return _answer_for_unexpected(session, error)


def _answer_for_unexpected(session: Session, error: BaseException) -> Answer:
    """Answer for an error of nobody's: the request to end behind it, else guard failed.

    A library's clean-up may fail because it was interrupted; the interrupt is then the cause.
    """
    behind = error.__context__
    while behind is not None:
        if isinstance(behind, (KeyboardInterrupt, Terminated)):
            return _answer_for(session, behind)
        behind = behind.__context__
    return Answer(session.verb, None, INTERNAL, (_crash_problem(session, error),))


def _usage_problem(error: click.UsageError, verb: str) -> Problem:
    message = error.format_message().rstrip(".")
    message = message[:1].lower() + message[1:]
    hint = (
        error.hint
        if isinstance(error, UnknownVerb)
        else f"see: guard {verb} --help".replace("  ", " ")
    )
    return Problem(WrongUsage.code, message, hint)


def _crash_problem(session: Session, error: BaseException) -> Problem:
    from safeguards.crash import record  # noqa: PLC0415 - only where guard itself fails

    kind = type(error).__name__
    log = record(error, session.verb, session.environ)
    if isinstance(error, OSError) and error.strerror:
        where = f": {error.filename}" if error.filename else ""
        message = f"the system refused an operation: {error.strerror}{where}"
    else:
        message = f"guard itself failed ({kind})"
    hint = (
        f"guard status says what is unfinished; the details are in {log}"
        if log
        else ("guard status says what is unfinished; no log file could be written")
    )
    return Problem("internal_failure", message, hint)


_FLAGS = frozenset({"--quiet", "--verbose", "--json", "--help"})


def _asks_for_json(words: Sequence[str]) -> bool:
    """Return whether an error in the command line itself has to be answered in JSON.

    The parser cannot say so when it is the parser that fails. Behind `run`, the first word that
    is neither an option nor the value of one begins the command of the user.
    """
    running, value = False, False
    for word in words:
        if word == "--":
            return False
        if word == "--json":
            return True
        if word.startswith("-"):
            value = word.startswith("--") and "=" not in word and word not in _FLAGS
        elif running and not value:
            return False
        else:
            running, value = running or (word == "run" and not value), False
    return False


def _reserve_streams() -> None:
    """Keep the numbers 0 to 2 out of reach where the caller closed them."""
    if None in (sys.stdin, sys.stdout, sys.stderr):
        from safeguards.supervisor import reserve_standard_streams  # noqa: PLC0415

        reserve_standard_streams()


def _listen() -> None:
    """Turn the requests to end into exceptions, unless they were ignored on entry (`nohup`)."""

    def end(number: int, _frame: FrameType | None) -> None:
        raise Terminated(number)

    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) == signal.SIG_DFL:
            signal.signal(number, end)


if __name__ == "__main__":
    main()
