"""SHA-256 manifests, written as `sha256sum` writes them and read as `sha256sum -c` reads them.

Format: GNU coreutils. A line is the digest, a space, a space (text) or `*` (binary), and the
name. A name with a backslash, a newline or a carriage return is escaped as in C, and its line
begins with a backslash. `--tag` lines (`SHA256 (name) = digest`) are read, too.
"""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from checks.artifacts.source import Unreadable, opened
from checks.errors import CheckError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

DEFAULT_NAME = "SHA256SUMS"
_LIMIT_BYTES = 64 << 20
_LINE = re.compile(rb"(\\?)([0-9a-fA-F]{64}) [ *](.+)", re.DOTALL)
_TAG = re.compile(rb"(\\?)SHA256 \((.+)\) = ([0-9a-fA-F]{64})", re.DOTALL)
_ESCAPES = {b"\\\\": b"\\", b"\\n": b"\n", b"\\r": b"\r"}
_BUFFER = 1 << 20


class SealError(CheckError):
    """A manifest cannot be written or read; nothing was changed."""

    code = "seal_failed"


@dataclass(frozen=True, slots=True)
class Seal:
    """One line of a manifest.

    Attributes:
        name: The path as written, relative to the manifest's folder.
        digest: SHA-256 in lower-case hex.
        line: Line number, from 1.
    """

    name: str
    digest: str
    line: int = 0


@dataclass(frozen=True, slots=True)
class Manifest:
    """A manifest as it was read.

    Attributes:
        seals: Its good lines, in order.
        bad_lines: Numbers of lines that are no checksum lines.
    """

    seals: tuple[Seal, ...]
    bad_lines: tuple[int, ...] = ()


def digest_file(path: Path) -> str:
    """Return the SHA-256 of a file's content in hex, read in pieces.

    Raises:
        Unreadable: It is missing, no regular file, or may not be read.
    """
    with opened(path) as (file, _status):
        return hashlib.file_digest(file, "sha256").hexdigest()


def format_line(seal: Seal) -> bytes:
    """Return the line that `sha256sum` would write, with its newline."""
    name = os.fsencode(seal.name)
    plain = name.replace(b"\\", b"\\\\").replace(b"\n", b"\\n").replace(b"\r", b"\\r")
    mark = b"\\" if plain != name else b""
    return b"%b%b  %b\n" % (mark, seal.digest.encode(), plain)


def parse(raw: bytes) -> Manifest:
    """Return the lines of a manifest, whether its lines end in LF or CRLF."""
    seals: list[Seal] = []
    bad: list[int] = []
    for number, whole in enumerate(raw.removeprefix(b"\xef\xbb\xbf").split(b"\n"), 1):
        text = whole.removesuffix(b"\r").lstrip(b" \t")
        if not text or text.startswith(b"#"):
            continue
        found = _LINE.fullmatch(text)
        tagged = None if found else _TAG.fullmatch(text)
        if found:
            mark, digest, name = found.groups()
        elif tagged:
            mark, name, digest = tagged.groups()
        else:
            bad.append(number)
            continue
        if mark:
            name = re.sub(rb"\\[\\nr]", lambda m: _ESCAPES[m[0]], name)
        seals.append(Seal(os.fsdecode(name), digest.decode().lower(), number))
    return Manifest(tuple(seals), tuple(bad))


def read(path: Path) -> Manifest:
    """Return the manifest in a file.

    Raises:
        Unreadable: It is missing, no regular file, larger than 64 MB, or has no line at all.
    """
    with opened(path) as (file, status):
        if status.st_size > _LIMIT_BYTES:
            raise Unreadable("unreadable", "is too large for a manifest", "name the right file")
        manifest = parse(file.read())
    if not manifest.seals:
        hint = f"write one with: guard seal PATH… -o {path.name}"
        raise Unreadable("unreadable", "has no checksum line", hint)
    return manifest


def seal(paths: Sequence[Path], output: Path) -> Manifest:
    """Write a manifest of files, and of all files below folders.

    Names are relative to the manifest's folder, so that `sha256sum -c` finds them from there.

    Args:
        paths: Files and folders to seal.
        output: Where the manifest goes; it replaces an older one whole or not at all.

    Returns:
        What was written.

    Raises:
        SealError: A path cannot be read, lies outside the manifest's folder, or nothing is there.
    """
    folder = output.absolute().parent
    seals: dict[str, Seal] = {}
    for path in _files(paths, output.absolute()):
        name = os.path.relpath(path, folder)
        if name.split(os.sep)[0] == os.pardir:
            above = Path(os.path.commonpath([path, folder]), DEFAULT_NAME)
            hint = f"write the manifest above it: guard seal … -o {above}"
            raise SealError(f"{path} lies outside the manifest's folder {folder}", hint=hint)
        try:
            seals[name] = Seal(name, digest_file(path))
        except Unreadable as error:
            raise SealError(f"{path} {error}", hint=error.hint) from None
    if not seals:
        raise SealError("there is no file to seal", hint="name files, or folders that hold some")
    manifest = Manifest(tuple(seals[name] for name in sorted(seals)))
    _replace(output, b"".join(format_line(entry) for entry in manifest.seals))
    return manifest


def _files(paths: Iterable[Path], output: Path) -> Iterable[Path]:
    for path in paths:
        whole = Path(os.path.abspath(path))
        if not whole.is_dir():
            yield whole
            continue
        for folder, folders, names in os.walk(whole, onerror=_refuse):
            folders.sort()
            for name in sorted(names):
                found = Path(folder, name)
                if found != output and (found.is_file() or found.is_symlink()):
                    yield found


def _refuse(error: OSError) -> None:
    raise SealError(
        f"{error.filename} cannot be read: {error.strerror}", hint="give yourself read permission"
    )


def _replace(output: Path, content: bytes) -> None:
    temporary = output.with_name(f".{output.name[:200]}.{os.getpid()}.tmp")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    except OSError as error:
        hint = "choose another place: guard seal … -o FILE"
        raise SealError(f"{output} cannot be written: {error.strerror}", hint=hint) from None
    try:
        with open(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, output)
    except OSError as error:
        os.unlink(temporary)
        hint = "free some space, or choose another place: guard seal … -o FILE"
        raise SealError(f"{output} cannot be written: {error.strerror}", hint=hint) from None
