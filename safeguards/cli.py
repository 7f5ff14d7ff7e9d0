"""The shape of the command line: lazy verbs, and global options before and behind them."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable
from typing import Any

import click

from safeguards.output import Answer
from safeguards.session import Session

VERBS = {
    "init": "Find what the project has and write a commented guard.toml.",
    "status": "Show what is protected, what is not and why, and the last run.",
    "run": "Snapshot, check, rehearse, then run a command.",
    "snapshot": "Take a snapshot.",
    "check": "Check the inputs: data, features, artifacts, params, machine.",
    "drill": "Rehearse a rollback against the clock.",
    "rollback": "Put the project back.",
    "undo": "Take back the newest rollback.",
    "redo": "Take back the newest undo.",
    "log": "List operations, newest first.",
    "show": "Show one operation or snapshot.",
    "diff": "Show what differs between two snapshots, or a snapshot and now.",
    "verify": "Read the whole store and say what is damaged.",
    "prune": "Remove old snapshots.",
    "seal": "Write a SHA-256 manifest that sha256sum reads.",
    "schema": "Infer a pandera schema from data.",
    "report": "Write one self-contained HTML page.",
    "stats": "Show success rates and times.",
    "hook": "Connect guard to pre-commit and coding agents.",
}
"""Verb → what it does; each lives in `safeguards.commands.<verb>` as ``command``."""

HIDDEN = {"failpoints": "List the places where a test can make guard die or fail."}
"""Verbs that ``guard --help`` leaves out, for those who test guard itself."""

_ALL = VERBS | HIDDEN

CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


def _global_options(*, hidden: bool) -> list[click.Parameter]:
    def take(ctx: click.Context, parameter: click.Parameter, value: Any) -> None:
        if value:
            ctx.ensure_object(Session).set_global(parameter.name or "", value)

    def option(*names: str, **settings: Any) -> click.Option:
        return click.Option(names, expose_value=False, callback=take, hidden=hidden, **settings)

    return [
        option("--project", metavar="DIR", help="The project (default: found from here)."),
        option("--store", metavar="DIR", help="Where snapshots are kept."),
        option("-q", "--quiet", is_flag=True, help="Say only what must not be missed."),
        option("-v", "--verbose", is_flag=True, help="Say more."),
        option("--color", type=click.Choice(["auto", "always", "never"]), help="When to colour."),
        option("--json", "as_json", is_flag=True, help="Answer with one JSON object."),
    ]


class Told(Exception):
    """What was asked is answered already, before any verb began: the help, the version."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.command)
        self.answer = answer


class _Helpful(click.Command):
    """A command whose help is an answer like any other."""

    def get_help_option(self, ctx: click.Context) -> click.Option | None:
        """Return the option that shows the help."""

        def show(ctx: click.Context, _parameter: click.Parameter, value: Any) -> None:
            if value and not ctx.resilient_parsing:
                from safeguards.render.help import Help  # noqa: PLC0415 - where it is asked for

                raise Told(Answer("help", Help(ctx.command_path, ctx.get_help())))

        option = super().get_help_option(ctx)
        if option is not None:
            option.callback = show
        return option


class Verb(_Helpful):
    """A command that takes the global options too."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        settings.setdefault("epilog", "Global options: see guard --help.")
        super().__init__(*args, **settings)
        self.params = [*self.params, *_global_options(hidden=True)]


class VerbGroup(_Helpful, click.Group):
    """A command with verbs of its own, such as ``guard schema infer``."""

    command_class = Verb

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.params = [*self.params, *_global_options(hidden=True)]


class Root(_Helpful, click.Group):
    """``guard`` itself; a verb's module is imported when it is used."""

    def __init__(self) -> None:
        super().__init__(
            "guard",
            callback=_begin,
            context_settings=CONTEXT,
            help="A safeguard in front of every risky machine-learning command.\n\n"
            "\b\nguard run -- python train.py    run it with a way back\n"
            "guard rollback --last           put everything back as it was",
            epilog="Documentation: docs/reference.md",
        )
        self.params = [*_global_options(hidden=False), _version_option()]

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the verbs in the order in which people meet them."""
        del ctx
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a verb, imported now; None where there is none of that name."""
        del ctx
        if cmd_name not in _ALL:
            return None
        module = importlib.import_module(f"safeguards.commands.{cmd_name}")
        command: click.Command = module.command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the verb; one that does not exist is answered with the nearest that does."""
        name = args[0]
        if name not in _ALL:
            near = difflib.get_close_matches(name, VERBS, 2)
            names = " or ".join(f"guard {verb}" for verb in near)
            meant = f"did you mean: {names}" if near else "see: guard --help"
            raise UnknownVerb(f"there is no command {name!r}", ctx, meant)
        command = self.get_command(ctx, name)
        ctx.ensure_object(Session).verb = name
        return name, command, args[1:]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of verbs without importing any."""
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl(list(VERBS.items()))


class UnknownVerb(click.UsageError):
    """There is no such verb; `hint` says what to type instead."""

    def __init__(self, message: str, ctx: click.Context, hint: str) -> None:
        super().__init__(message, ctx)
        self.hint = hint


def verb(name: str, **settings: Any) -> Callable[[Callable[..., Any]], click.Command]:
    """Make a verb of a function; its help is the list of verbs' unless it has its own."""
    settings.setdefault("help", _ALL.get(name))
    settings.setdefault("hidden", name in HIDDEN)
    settings["context_settings"] = {**CONTEXT, **settings.get("context_settings", {})}
    return click.command(name, cls=Verb, **settings)


pass_session = click.make_pass_decorator(Session, ensure=True)


@click.pass_context
def _begin(ctx: click.Context) -> None:
    """Give the session to the verb."""
    ctx.ensure_object(Session)


def _version_option() -> click.Option:
    def show(ctx: click.Context, _parameter: click.Parameter, value: Any) -> None:
        if value and not ctx.resilient_parsing:
            from safeguards import version  # noqa: PLC0415 - reads the distribution's metadata

            raise Told(Answer("version", version()))

    return click.Option(
        ["--version"], is_flag=True, is_eager=True, expose_value=False, callback=show,
        help="Show the version.",
    )  # fmt: skip
