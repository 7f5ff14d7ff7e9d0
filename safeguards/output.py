"""The only writer to the terminal: text, JSON, progress, colour, questions.

Results go to standard output, all else to standard error. A reader that went away is no error.
"""

from __future__ import annotations

import contextlib
import enum
import importlib
import math
import os
import re
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, TextIO

SCHEMA_VERSION = 1
PROGRESS_AFTER_S = 0.5
_PROGRESS_EVERY_S = 0.1
_BAR_WIDTH = 24
_FALLBACK_WIDTH = 80
_SURROGATE = re.compile("[\ud800-\udfff]")

Progress = Callable[[str, int, int], None]
"""Called with a phase, how much is done, and how much there is (0 where unknown)."""


class OutputFailed(Exception):
    """Standard output takes no more: what was done is done, and has to be told elsewhere."""

    code: ClassVar[str] = "output_failed"
    hint = "make room, or send the output elsewhere"


class Verbosity(enum.IntEnum):
    """How much is said on standard error."""

    QUIET = 0
    NORMAL = 1
    VERBOSE = 2


class Tone(enum.Enum):
    """What a piece of text means; the value is its SGR code (ECMA-48)."""

    GOOD = "32"
    BAD = "31"
    WARN = "33"
    FAINT = "2"
    STRONG = "1"


@dataclass(frozen=True, slots=True)
class Style:
    """How text is drawn on one stream.

    Attributes:
        color: Whether escape sequences may be used.
        width: Columns.
        verbose: Whether details are wanted.
        wraps: Whether long lines are broken: on a terminal, where people read, and nowhere else.
    """

    color: bool = False
    width: int = _FALLBACK_WIDTH
    verbose: bool = False
    wraps: bool = False

    def paint(self, text: str, tone: Tone) -> str:
        """Return `text` in a tone, plain where colour is off."""
        return f"\x1b[{tone.value}m{text}\x1b[0m" if self.color and text else text

    def fit(self, text: str, indent: int) -> list[str]:
        """Return a line broken into as many as the terminal needs; plain, before it is painted.

        Args:
            text: One line.
            indent: How far all but the first are indented.
        """
        if not self.wraps or len(text) <= self.width:
            return [text]
        import textwrap  # noqa: PLC0415 - only where a line is too long

        start = len(text) - len(text.lstrip())
        return textwrap.wrap(
            text.strip(),
            self.width,
            initial_indent=" " * start,
            subsequent_indent=" " * indent,
            break_on_hyphens=False,
            break_long_words=False,  # a path is there to be copied
        )


@dataclass(frozen=True, slots=True)
class Problem:
    """One entry of `errors` in the JSON: a stable code, what happened, what to type next.

    Attributes:
        code: Stable.
        message: What happened.
        hint: What to type next.
        told: Whether the text says it already, so that people do not read it twice.
    """

    code: str
    message: str
    hint: str = ""
    told: bool = False


@dataclass(frozen=True, slots=True)
class Answer:
    """What a command gives back; rendered as text or JSON here and nowhere else.

    Attributes:
        command: Name of the verb; `safeguards.render.<command>` knows how to draw `value`.
        value: The typed result, None where there is none (an error).
        exit_code: Exit status of the process.
        problems: What went wrong.
        next_command: What to type next, empty for nothing.
        partial: Whether it was done except for what `problems` names, whatever the exit status.
    """

    command: str
    value: Any = None
    exit_code: int = 0
    problems: tuple[Problem, ...] = ()
    next_command: str = ""
    partial: bool = False

    @property
    def status(self) -> str:
        """Return ``success``, ``partial`` (done, with problems) or ``error``."""
        if self.exit_code and not self.partial:
            return "error"
        return "partial" if self.problems else "success"


@dataclass(slots=True)
class Terminal:
    """Where guard speaks.

    Attributes:
        verbosity: How much is said on standard error.
        color: ``auto``, ``always`` or ``never``.
        json: Whether the answer is one JSON object.
        environ: For ``NO_COLOR``, ``CLICOLOR_FORCE``, ``TERM`` and ``COLUMNS``.
        name: What stands in front of messages: ``guard run``.
    """

    verbosity: Verbosity = Verbosity.NORMAL
    color: str = "auto"
    json: bool = False
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ)
    name: str = "guard"
    _bar: _Bar | None = None

    def note(self, text: str) -> None:
        """Say something that is worth knowing, unless guard is to be quiet."""
        if self.verbosity >= Verbosity.NORMAL and not self.json:
            self._say(text)

    def detail(self, text: str) -> None:
        """Say something only where details are wanted."""
        if self.verbosity >= Verbosity.VERBOSE and not self.json:
            self._say(self.style(sys.stderr).paint(text, Tone.FAINT))

    def warn(self, text: str) -> None:
        """Say something that must not be missed, also when guard is to be quiet."""
        if not self.json:
            self._say(self.style(sys.stderr).paint(text, Tone.WARN))

    def fail(self, problem: Problem) -> None:
        """Say what went wrong and what to type next."""
        if self.json:
            return
        style = self.style(sys.stderr)
        lines = [f"{style.paint(self.name + ':', Tone.BAD)} {problem.message}"]
        if problem.hint:
            lines.append(f"  {style.paint('next:', Tone.FAINT)} {problem.hint}")
        self._write(sys.stderr, "\n".join(lines))

    def present(self, answer: Answer, *, to_stderr: bool = False) -> None:
        """Write a command's answer: its result to standard output, its problems to the other.

        Args:
            answer: What to draw.
            to_stderr: Where standard output belongs to a child.
        """
        self.clear()
        stream = sys.stderr if to_stderr else sys.stdout
        if self.json:
            self._write(stream, to_json(answer))
            return
        if answer.value is not None:
            lines = list(_renderer(answer.command).as_text(answer.value, self.style(stream)))
            if lines:
                self._write(stream, "\n".join(lines))
        for problem in answer.problems:
            if not problem.told:
                self.fail(problem)

    def preview(self, answer: Answer) -> None:
        """Show a result on standard error, ahead of a question or a refusal."""
        if not self.json:
            lines = _renderer(answer.command).as_text(answer.value, self.style(sys.stderr))
            self._write(sys.stderr, "\n".join(lines))

    def help(self, text: str) -> None:
        """Show help that was not asked for, on standard error."""
        if not self.json:
            self._write(sys.stderr, text)

    def result(self, text: str, *, to_stderr: bool = False) -> None:
        """Write a bare result to standard output, or where that belongs to a child beside it."""
        self._write(sys.stderr if to_stderr else sys.stdout, text)

    def style(self, stream: TextIO | None) -> Style:
        """Return how to draw on a stream."""
        width = _width(self.environ)
        return Style(self._colored(stream), width, self.verbosity > 1, _is_terminal(stream))

    def ask(self, question: str) -> bool:
        """Ask a yes-or-no question on the terminal; no where nobody is there to answer."""
        if not self.interactive():
            return False
        self.clear()
        sys.stderr.write(f"{_printable(question, sys.stderr)} [y/N] ")
        sys.stderr.flush()
        from safeguards.asking import read_line  # noqa: PLC0415 - only where somebody is asked

        return read_line(sys.stdin).strip().lower() in {"y", "yes"}

    def interactive(self) -> bool:
        """Return whether there is somebody to ask."""
        return _is_terminal(sys.stdin) and _is_terminal(sys.stderr) and not self.json

    def progress(self) -> Progress | None:
        """Return what to call with progress; None where no bar would be shown."""
        quiet = self.verbosity < Verbosity.NORMAL or self.json
        if quiet or not _is_terminal(sys.stderr) or self.environ.get("TERM") == "dumb":
            return None
        self._bar = _Bar(_width(self.environ))
        return self._bar.show

    def clear(self) -> None:
        """Take the progress bar away."""
        if self._bar is not None:
            self._bar.clear()

    def _say(self, text: str) -> None:
        self._write(sys.stderr, "\n".join(f"guard: {line}" for line in text.split("\n")))

    def _write(self, stream: TextIO | None, text: str) -> None:
        self.clear()
        write(stream, text)

    def _colored(self, stream: TextIO | None) -> bool:
        if self.color != "auto":
            return self.color == "always"
        if self.environ.get("NO_COLOR") or self.environ.get("TERM") == "dumb":
            return False
        return _is_terminal(stream)


class _Bar:
    """A line that is drawn over itself, once something has taken half a second."""

    def __init__(self, width: int) -> None:
        self.width = width
        self.phase = ""
        self.since = self.drawn = 0.0
        self.visible = False

    def show(self, phase: str, done: int, total: int) -> None:
        now = time.monotonic()
        if phase != self.phase:
            self.clear()
            self.phase, self.since = phase, now
        if now - self.since < PROGRESS_AFTER_S or now - self.drawn < _PROGRESS_EVERY_S:
            return
        self.drawn = now
        if total > 0:
            share = min(1.0, done / total)
            filled = int(share * _BAR_WIDTH)
            text = f"{phase} [{'#' * filled}{'.' * (_BAR_WIDTH - filled)}] {share:4.0%}"
        else:
            text = f"{phase} {done:,}"
        self._draw(f"\r\x1b[K{text[: self.width - 1]}")
        self.visible = True

    def clear(self) -> None:
        if self.visible:
            self._draw("\r\x1b[K")
            self.visible = False

    @staticmethod
    def _draw(text: str) -> None:
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.write(text)
            sys.stderr.flush()


def to_json(answer: Answer) -> str:
    """Return the one JSON object of an answer, on one line, in ASCII."""
    import json  # noqa: PLC0415 - only where it is asked for

    data = {} if answer.value is None else _renderer(answer.command).as_data(answer.value)
    envelope = {
        "schema_version": SCHEMA_VERSION,
        "command": answer.command,
        "status": answer.status,
        "exit_code": answer.exit_code,
        "data": data,
        "errors": [{"code": p.code, "message": p.message, "hint": p.hint} for p in answer.problems],
        "next_command": answer.next_command or None,
    }
    # Names that are not UTF-8 survive as surrogates; a figure that is none is null.
    return json.dumps(_plain(envelope), ensure_ascii=True, allow_nan=False)


def write(stream: TextIO | None, text: str) -> None:
    """Write a text and a newline; a closed stream or a reader that went away is no error.

    Raises:
        OutputFailed: Standard output takes no more (a full disk); standard error is left silently.
    """
    if stream is None:
        return
    try:
        stream.write(_printable(text, stream) + "\n")
        stream.flush()
    except (OSError, ValueError) as error:
        # What could not be written must not be tried again when the interpreter ends.
        with contextlib.suppress(OSError, ValueError):
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, stream.fileno())
            os.close(null)
        gone = isinstance(error, (BrokenPipeError, ValueError))
        if stream is sys.stdout and not gone:
            why = getattr(error, "strerror", None) or str(error)
            raise OutputFailed(f"standard output cannot be written: {why}") from error


def one_line(text: str) -> str:
    """Return a name on one line: what a terminal would act on is written as an escape."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else _escape(c) for c in text)


def aligned(rows: Iterable[tuple[str, ...]], indent: str = "", widest: int = 0) -> list[str]:
    """Return rows of cells as lines whose columns begin at the same place.

    Args:
        rows: Cells of each line.
        indent: What stands in front of each line.
        widest: A longer cell makes its own line uneven instead of all others wide (0: never).
    """
    table = list(rows)
    columns = max((len(row) for row in table), default=0)
    widths = [
        max(
            (len(r[c]) for r in table if c < len(r) and not 0 < widest < len(r[c])),
            default=0,
        )
        for c in range(columns)
    ]
    return [
        indent + "  ".join(cell.ljust(widths[c]) for c, cell in enumerate(row)).rstrip()
        for row in table
    ]


def _printable(text: str, stream: TextIO) -> str:
    """Return a text that the stream takes; bytes of odd names are shown as escapes."""
    text = _SURROGATE.sub(lambda match: _escape(match[0]), text)
    encoding = getattr(stream, "encoding", None) or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)


def _escape(character: str) -> str:
    """Return the escape of a character; of a byte that is not UTF-8 (PEP 383) its number."""
    if "\udc80" <= character <= "\udcff":
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("unicode_escape", "surrogatepass").decode()


def _plain(value: Any) -> Any:
    """Return a value as JSON has it."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, bytes):
        return os.fsdecode(value)
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    return str(value)


def _renderer(command: str) -> Any:
    name = command.replace("-", "_").replace(" ", "_")
    return importlib.import_module(f"safeguards.render.{name}")


def _is_terminal(stream: TextIO | None) -> bool:
    try:
        return stream is not None and stream.isatty()
    except ValueError:  # closed
        return False


def _width(environ: Mapping[str, str]) -> int:
    if environ.get("COLUMNS", "").isdigit():
        return max(40, int(environ["COLUMNS"]))
    with contextlib.suppress(OSError, ValueError, AttributeError):
        return max(40, os.get_terminal_size(sys.stderr.fileno()).columns)
    return _FALLBACK_WIDTH
