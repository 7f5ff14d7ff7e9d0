"""Files against their manifest: missing, changed and unlisted ones are named."""

from __future__ import annotations

import hashlib
import hmac
import os
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from checks import seal
from checks.artifacts.source import Unreadable, hollow, opened
from checks.cache import file_key, signature_of
from checks.model import CheckReport, Finding, Severity

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from checks.context import Context

RULE = "artifacts.seal"
_DIGEST = "sha256"


def verify(
    manifest: Path, files: Sequence[Path], covers: Callable[[Path], bool], context: Context
) -> Iterator[Finding]:
    """Yield what differs between a manifest and the files that it should describe.

    Args:
        manifest: The manifest; its names are relative to its folder.
        files: The files that were found.
        covers: Whether a listed file belongs to the declaration, so that a missing one counts.
        context: Where to run; may know digests already.
    """
    try:
        listed = seal.read(manifest)
    except Unreadable as error:
        hint = f"seal the files: guard seal {_shown(files, context)} -o {context.subject(manifest)}"
        hint = hint if error.rule == "missing" else error.hint
        yield _error(context.subject(manifest), f"the manifest {error}", hint)
        return
    subject = context.subject(manifest)
    for line in listed.bad_lines[:10]:
        yield _error(subject, f"line {line} is no checksum line", "write the manifest anew")
    wanted = dict(_wanted(listed, manifest))
    yield from _listing(listed, subject, context)
    for path, digest in wanted.items():
        if covers(path):
            yield from _compare(path, digest, subject, context)
    for path in files:
        if path not in wanted and path != _whole(manifest):
            hint = f"seal it: guard seal {_shown(files, context)} -o {subject}"
            yield _error(context.subject(path), f"is not listed in {subject}", hint)


def _wanted(listed: seal.Manifest, manifest: Path) -> Iterator[tuple[Path, str]]:
    folder = _whole(manifest).parent
    for entry in listed.seals:
        if _stays_inside(entry.name):
            yield _whole(folder / entry.name), entry.digest


def _listing(listed: seal.Manifest, subject: str, context: Context) -> Iterator[Finding]:
    for entry in listed.seals:
        if not _stays_inside(entry.name):
            name = context.subject(Path(entry.name))
            message = f"line {entry.line} names {name}, which lies outside the manifest's folder"
            yield _error(subject, message, "list only files below the manifest's folder")
    digests: dict[str, set[str]] = {}
    for entry in listed.seals:
        digests.setdefault(os.path.normpath(entry.name), set()).add(entry.digest)
    counts = Counter({name: len(different) for name, different in digests.items()})
    for name, count in counts.items():
        if count > 1:
            message = f"lists {context.subject(Path(name))} with {count} different digests"
            yield _error(subject, message, "write the manifest anew")


def _stays_inside(name: str) -> bool:
    return not os.path.isabs(name) and os.pardir not in Path(name).parts and "\0" not in name


def _compare(path: Path, digest: str, subject: str, context: Context) -> Iterator[Finding]:
    shown = context.subject(path)
    try:
        if path.exists() and path.is_file() and hollow(path.stat()):
            return  # named by the structure check; reading a hole of 100 GB proves nothing
        found = context.digest(path) or _digest(path, context)
    except Unreadable as error:
        message = f"is listed in {subject} but {error}"
        hint = "restore the file, or seal anew without it"
        yield _error(shown, message, hint if error.rule == "missing" else error.hint)
        return
    except OSError as error:
        yield _error(shown, f"cannot be read: {error.strerror}", "look at the path")
        return
    if not hmac.compare_digest(found.lower(), digest):
        message = (
            f"differs from its seal in {subject}: SHA-256 {found[:12]}…, sealed {digest[:12]}…"
        )
        hint = f"restore the file; if the change is meant, seal it anew: guard seal {shown}"
        yield Finding(RULE, Severity.ERROR, shown, message, value=found, limit=digest, hint=hint)


def _digest(path: Path, context: Context) -> str:
    """Return a file's SHA-256; that of a large one which has not changed is known from before."""
    with opened(path) as (file, status):
        key = file_key(RULE, path, status) if context.cache is not None else None
        known = context.cache.get(key) if key is not None and context.cache is not None else None
        if known is not None and isinstance(known.figures.get(_DIGEST), str):
            return str(known.figures[_DIGEST])
        found = hashlib.file_digest(file, "sha256").hexdigest()
        still = signature_of(os.fstat(file.fileno())) == signature_of(status)
    if key is not None and context.cache is not None and still:
        context.cache.put(key, CheckReport(figures={_DIGEST: found}))
    return found


def _whole(path: Path) -> Path:
    return Path(os.path.abspath(path))


def _shown(files: Sequence[Path], context: Context) -> str:
    return context.subject(files[0]) if len(files) == 1 else "PATH…"


def _error(subject: str, message: str, hint: str) -> Finding:
    return Finding(RULE, Severity.ERROR, subject, message, hint=hint)
