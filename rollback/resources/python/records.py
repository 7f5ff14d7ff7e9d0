"""What installers wrote down: which file belongs to a distribution, and what hash it had.

Formats: RECORD (packaging.python.org, "Recording installed projects"; CSV as PEP 376), and
conda's `conda-meta/*.json`.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import json
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from io import BufferedReader

_DIST_INFO = b".dist-info"
SLACK_NS = 60_000_000_000
"""A file that is younger than its RECORD by more than this was edited after its installation."""
_UNKNOWN_NS = 1 << 62
_OUTWARD = re.compile(rb'^"?(?:\.\./|/).*$', re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Owner:
    """What a RECORD says of one file.

    Attributes:
        distribution: Name of the folder that holds the RECORD: ``idna-3.10.dist-info``.
        row: Path as the RECORD spells it, relative to site-packages.
        sha256: Hash of the content, 32 bytes.
        size: Bytes of content, None where it is not written down.
    """

    distribution: bytes
    row: bytes
    sha256: bytes
    size: int | None


def owners(
    base: bytes, site: bytes, distribution: bytes, rows: Iterable[list[bytes]]
) -> Iterator[tuple[bytes, Owner]]:
    """Yield path and owner of each file below `base` that a RECORD has a hash of.

    Args:
        base: Absolute folder that paths are relative to.
        site: The site-packages folder that the RECORD lies in.
        distribution: Name of the folder that holds the RECORD.
        rows: Its rows, from `parse_record`.
    """
    for row in rows:
        if not row[1].startswith(b"sha256="):
            continue
        spelled = row[1][len(b"sha256=") :].rstrip(b"=")
        try:
            digest = base64.urlsafe_b64decode(spelled + b"=" * (-len(spelled) % 4))
        except ValueError:
            continue
        size = int(row[2]) if len(row) > 2 and row[2].isdigit() else None  # noqa: PLR2004
        for path in _relative(base, site, (row[0],)):
            yield path, Owner(distribution, row[0], digest, size)


@dataclass(slots=True)
class RecordIndex:
    """The files below one folder that an installer owns; read once, when it is first asked.

    Attributes:
        base: Absolute folder that paths are relative to, resolved.
        site_packages: Folders that are searched for RECORDs.
        conda: Folder with conda's lists, None outside conda.
    """

    base: bytes
    site_packages: tuple[bytes, ...]
    conda: bytes | None = None
    _owned: dict[bytes, int] | None = field(default=None, init=False, repr=False)
    _hashes: dict[bytes, bytes] | None = field(default=None, init=False, repr=False)

    def __contains__(self, path: bytes) -> bool:
        return path in self._listed()

    def edited_since(self, path: bytes) -> bool:
        """Return whether a listed file was written after its installation was recorded."""
        written_ns = self._listed().get(path)
        if written_ns is None:
            return False
        try:
            return os.lstat(os.path.join(self.base, path)).st_mtime_ns > written_ns + SLACK_NS
        except OSError:
            return False

    def intact(self, path: bytes, file: BufferedReader) -> bool | None:
        """Return whether a file holds what its installer wrote, by the hash in its RECORD.

        Args:
            path: Relative to `base`.
            file: The content, open for reading, seekable.

        Returns:
            None where no hash is recorded: nothing can be said.
        """
        if self._hashes is None:
            self._hashes = dict(self._recorded())
        expected = self._hashes.get(path)
        if expected is None:
            return None
        return base64.urlsafe_b64encode(digest_of(file)).rstrip(b"=") == expected

    def _recorded(self) -> Iterator[tuple[bytes, bytes]]:
        for site in self.site_packages:
            for _, rows in records(site):
                hashed = [row for row in rows if row[1].startswith(b"sha256=")]
                for row in hashed:
                    for path in _relative(self.base, site, (row[0],)):
                        yield path, row[1][len(b"sha256=") :].rstrip(b"=")

    def _listed(self) -> dict[bytes, int]:
        """Return each listed path with the time at which it was listed."""
        if self._owned is None:
            self._owned = dict(self._paths())
        return self._owned

    def _paths(self) -> Iterator[tuple[bytes, int]]:
        if self.conda is not None:
            for path in _conda_files(self.conda):
                yield path, _UNKNOWN_NS
        for site in self.site_packages:
            apart = os.path.relpath(site, self.base).startswith(b"..")
            for _, content, written_ns in _contents(site):
                # In a folder of scripts only what leads out of site-packages can lie.
                rows = _leading_out(content) if apart else parse_record(content)
                for path in _relative(self.base, site, (row[0] for row in rows)):
                    yield path, written_ns


def digest_of(file: BufferedReader) -> bytes:
    """Return the SHA-256 of an open, seekable file, 32 bytes."""
    file.seek(0)
    return hashlib.file_digest(file, "sha256").digest()


def records(site: bytes) -> Iterator[tuple[bytes, list[list[bytes]]]]:
    """Yield each distribution's folder name and the rows of its RECORD: path, hash, size.

    Args:
        site: A site-packages folder. Distributions without a RECORD are left out.
    """
    for name, content, _ in _contents(site):
        yield name, parse_record(content)


def _contents(site: bytes) -> Iterator[tuple[bytes, bytes, int]]:
    """Yield each distribution's folder name, its RECORD, and when that was written (ns)."""
    try:
        names = sorted(name for name in os.listdir(site) if name.endswith(_DIST_INFO))
    except OSError:
        return
    for name in names:
        try:
            with open(os.path.join(site, name, b"RECORD"), "rb") as file:
                yield name, file.read(), os.fstat(file.fileno()).st_mtime_ns
        except OSError:
            continue


def _leading_out(content: bytes) -> list[list[bytes]]:
    """Return the rows of a RECORD whose path leads out of site-packages; the others cost nothing.

    Installers write such paths in normal form: with ``../`` at their beginning, or absolute.
    """
    lines = b"\n" + content
    if not any(start in lines for start in (b"\n../", b'\n"', b"\n/")):
        return []
    return parse_record(b"\n".join(_OUTWARD.findall(content)))


def parse_record(content: bytes) -> list[list[bytes]]:
    """Return the rows of a RECORD, fields as bytes; quoting is undone, broken rows are dropped."""
    if b'"' not in content:
        split = (line.split(b",") for line in content.splitlines())
        return [row for row in split if len(row) > 1]
    text = content.decode("utf-8", "surrogateescape")
    try:
        rows = list(csv.reader(io.StringIO(text, newline="")))
    except csv.Error:
        return []
    return [
        [value.encode("utf-8", "surrogateescape") for value in row] for row in rows if len(row) > 1
    ]


def _relative(base: bytes, site: bytes, paths: Iterable[bytes]) -> Iterator[bytes]:
    """Yield paths of a RECORD relative to `base`; what leads out of it is dropped."""
    inside = os.path.relpath(site, base)
    within = base.rstrip(b"/") + b"/"
    lead = b"" if inside == b"." else inside + b"/"
    plain = not lead.startswith(b"..")
    for path in paths:
        if plain and not path.startswith((b"/", b".")) and b"/." not in path and b"//" not in path:
            yield lead + path
            continue
        absolute = os.path.normpath(os.path.join(site, path))
        if absolute.startswith(within):
            yield absolute[len(within) :]


def _conda_files(folder: bytes) -> Iterator[bytes]:
    try:
        names = [name for name in os.listdir(folder) if name.endswith(b".json")]
    except OSError:
        return
    for name in names:
        try:
            with open(os.path.join(folder, name), "rb") as file:
                listed = json.load(file).get("files", [])
        except (OSError, ValueError, AttributeError):
            continue
        if isinstance(listed, list):
            yield from (os.fsencode(path) for path in listed if isinstance(path, str))
