"""`guard schema infer`: a pandera schema in YAML from data."""

from __future__ import annotations

import os
from pathlib import Path

import click

from safeguards.cli import CONTEXT, VERBS, Verb, VerbGroup, pass_session
from safeguards.output import Answer
from safeguards.session import Session


@click.group("schema", cls=VerbGroup, help=VERBS["schema"], context_settings=CONTEXT)
def command() -> None:
    """Work with schemas."""


@command.command("infer", cls=Verb)
@click.argument("file", metavar="FILE")
@click.option("-o", "--output", metavar="FILE", help="Write it here instead of to the output.")
@pass_session
def infer(session: Session, file: str, output: str | None) -> Answer:
    """Infer a pandera schema in YAML from a data file."""
    session.verb = "schema infer"
    from checks.data import infer_schema  # noqa: PLC0415 - after --help
    from safeguards.errors import WrongUsage  # noqa: PLC0415
    from safeguards.render.schema_infer import Inferred  # noqa: PLC0415

    path = Path(os.path.abspath(file))
    if not path.exists():
        raise WrongUsage(f"there is no file {path}", hint="guard schema infer FILE [-o FILE]")
    text = infer_schema(path)
    target = None if output is None else Path(os.path.abspath(output))
    if target is not None:
        try:
            target.write_text(text, encoding="utf-8")
        except OSError as error:
            raise WrongUsage(
                f"the schema cannot be written to {target}: {error.strerror}",
                hint="guard schema infer FILE -o FILE, with a FILE in a folder that exists",
            ) from error
    return Answer("schema infer", Inferred(path, text, target))
