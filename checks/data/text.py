"""What a CSV file says before it is parsed: encoding, separator, names of the columns."""

from __future__ import annotations

import codecs
import csv
import io
import os
from collections import Counter
from typing import TYPE_CHECKING

from checks.data.source import COMPRESSED, SourceProblem

if TYPE_CHECKING:
    from pathlib import Path

MAX_HEADER_BYTES = 16 * 2**20
_CHUNK_BYTES = 2**20
_LISTED = 5
_SEPARATORS = ",\t;|"
_BOMS = {
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}

#: What pandas' `read_csv` takes for a missing value, so that guard counts what training sees.
#: Source: the `na_values` parameter in the pandas documentation.
NULL_VALUES = (
    "#N/A",
    "#N/A N/A",
    "#NA",
    "-1.#IND",
    "-1.#QNAN",
    "-NaN",
    "-nan",
    "1.#IND",
    "1.#QNAN",
    "<NA>",
    "N/A",
    "NA",
    "NULL",
    "NaN",
    "None",
    "n/a",
    "nan",
    "null",
)


def read_header(file: Path, shown: str, separator: str | None) -> tuple[str, list[str]]:
    """Return the separator and the column names of a CSV file.

    Args:
        file: A regular file that is not empty.
        shown: How people know it.
        separator: The declared separator, or None to recognise it.

    Raises:
        SourceProblem: The header is not text in UTF-8, endless, or names a column twice.
    """
    if file.suffix in COMPRESSED:
        return separator or ",", []
    with file.open("rb") as handle:
        line = handle.readline(MAX_HEADER_BYTES + 1)
        while line.count(b'"') % 2 and len(line) <= MAX_HEADER_BYTES:
            more = handle.readline(MAX_HEADER_BYTES + 1 - len(line))
            if not more:
                break
            line += more
    for mark, name in _BOMS.items():
        if line.startswith(mark):
            raise _encoding(shown, f"it is {name}", name)
    if len(line) > MAX_HEADER_BYTES:
        raise SourceProblem(
            "data.columns",
            f"the first line of {shown} is longer than {MAX_HEADER_BYTES // 2**20} MiB: "
            "it is no header",
            "end lines with a newline, or name the file by its real format",
        )
    if b"\0" in line:
        raise SourceProblem(
            "data.format",
            f"{shown} holds NUL bytes in its first line: it is binary, not CSV",
            "name the file by its real format",
        )
    try:
        text = line.removeprefix(codecs.BOM_UTF8).decode()
    except UnicodeDecodeError:
        raise find_bad_byte(file, shown) from None
    chosen = separator or _recognise_separator(file, text)
    try:
        names = next(csv.reader(io.StringIO(text, newline=""), delimiter=chosen), [])
    except csv.Error as error:
        raise SourceProblem(
            "data.columns", f"the header of {shown} cannot be read: {error}", "write it again"
        ) from None
    _require_distinct(names, shown)
    return chosen, names


def find_bad_byte(file: Path, shown: str) -> SourceProblem:
    """Return the problem that names the line of the first byte that is not UTF-8."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    lines = 1
    with file.open("rb") as handle:
        while chunk := handle.read(_CHUNK_BYTES):
            try:
                decoder.decode(chunk)
            except UnicodeDecodeError as error:
                lines += chunk[: error.start].count(b"\n")
                bad = error.object[error.start]
                return _encoding(shown, f"line {lines} holds the byte 0x{bad:02x}", "latin1")
            lines += chunk.count(b"\n")
    return _encoding(shown, "it ends in the middle of a character", "latin1")


def require_whole_last_line(file: Path, shown: str, separator: str, columns: int) -> None:
    """Raise where the file ends in the middle of a row, as after a full disk or a kill.

    Raises:
        SourceProblem: The last line has no newline and fewer fields than there are columns, or
            the file ends in NUL bytes.
    """
    if file.suffix in COMPRESSED:
        return
    with file.open("rb") as handle:
        handle.seek(max(0, file.stat().st_size - _CHUNK_BYTES))
        tail = handle.read()
    if tail.endswith(b"\0"):
        raise SourceProblem(
            "data.truncated",
            f"{shown} ends in NUL bytes: it was reserved, and not written to its end",
            "write it again; `guard log` shows which run touched it last",
        )
    if columns == 1:
        return
    line = tail.rpartition(b"\n")[2]
    if not line.strip() or b'"' in line or b"\n" not in tail:
        return
    fields = line.count(separator.encode()) + 1
    if fields < columns:
        raise SourceProblem(
            "data.truncated",
            f"{shown} ends in the middle of a row: {fields} of {columns} fields, no newline",
            "write it again; `guard log` shows which run touched it last",
        )


def ends_with_newline(file: Path) -> bool:
    """Return whether the last byte of a file ends a line."""
    with file.open("rb") as handle:
        handle.seek(-1, os.SEEK_END)
        return handle.read(1) in {b"\n", b"\r"}


def _recognise_separator(file: Path, header: str) -> str:
    if file.suffix.lower() == ".tsv":
        return "\t"
    if "," in header:
        return ","
    counts = {s: header.count(s) for s in _SEPARATORS}
    best = max(counts, key=lambda s: counts[s])
    return best if counts[best] else ","


def _require_distinct(names: list[str], shown: str) -> None:
    twice = [name for name, n in Counter(names).items() if n > 1]
    if twice:
        listed = ", ".join(repr(n) for n in twice[:_LISTED]) + (
            " …" if len(twice) > _LISTED else ""
        )
        raise SourceProblem(
            "data.columns",
            f"{shown} names {len(twice)} column{'s' * (len(twice) > 1)} more than once: {listed}",
            "give each column a name of its own",
        )


def _encoding(shown: str, what: str, charset: str) -> SourceProblem:
    return SourceProblem(
        "data.encoding",
        f"{shown} is not UTF-8: {what}",
        f"convert it: iconv -f {charset} -t utf-8 {shown}",
    )
