"""`guard seal`: writes a SHA-256 manifest that `sha256sum -c` reads."""

from __future__ import annotations

import os
from pathlib import Path

import click

from safeguards.cli import pass_session, verb
from safeguards.output import Answer
from safeguards.session import Session


@verb("seal")
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@click.option("-o", "--output", metavar="FILE", help="The manifest (SHA256SUMS beside the first).")
@pass_session
def command(session: Session, paths: tuple[str, ...], output: str | None) -> Answer:
    """Write a SHA-256 manifest of files, and of all files below folders."""
    del session
    from checks.seal import DEFAULT_NAME, seal  # noqa: PLC0415 - after --help
    from safeguards.errors import WrongUsage  # noqa: PLC0415
    from safeguards.render.seal import Sealed  # noqa: PLC0415

    chosen = [Path(os.path.abspath(path)) for path in paths]
    for path in chosen:
        if not path.exists():
            raise WrongUsage(f"there is no {path}", hint="guard seal PATH... [-o FILE]")
    if output is not None:
        file = Path(os.path.abspath(output))
    else:
        first = chosen[0]
        file = (first if first.is_dir() else first.parent) / DEFAULT_NAME
    manifest = seal(chosen, file)
    return Answer("seal", Sealed(file, manifest))
