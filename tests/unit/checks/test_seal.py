"""Manifests: the very lines that GNU `sha256sum` writes and reads."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from checks.artifacts.source import Unreadable
from checks.seal import Seal, SealError, format_line, parse, read, seal

TOOL = shutil.which("sha256sum") or ""
needs_tool = pytest.mark.skipif(not TOOL, reason="GNU sha256sum is not installed")
NAMES = [
    b"plain",
    b"with space",
    b"back\\slash",
    b"new\nline",
    b"cr\r",
    b"\xff\xfe",
    b"*star",
    b"-n",
]
names = st.binary(min_size=1, max_size=30).filter(
    lambda raw: not {b"/"[0], 0} & set(raw) and raw not in {b".", b".."}
)


@needs_tool
def test_the_same_bytes_as_sha256sum(tmp_path: Path) -> None:
    """Odd names are escaped as GNU escapes them, and its check accepts the manifest."""
    for number, name in enumerate(NAMES):
        tmp_path.joinpath(os.fsdecode(name)).write_bytes(bytes([number]))
    manifest = seal([tmp_path], tmp_path / "SUMS")
    assert len(manifest.seals) == len(NAMES)
    ordered = [os.fsencode(entry.name) for entry in manifest.seals]
    theirs = subprocess.run(
        [TOOL, "--", *ordered], cwd=tmp_path, capture_output=True, check=True
    ).stdout
    assert (tmp_path / "SUMS").read_bytes() == theirs
    subprocess.run([TOOL, "-c", "--strict", "SUMS"], cwd=tmp_path, capture_output=True, check=True)


@needs_tool
@pytest.mark.parametrize("option", ["--binary", "--text", "--tag"])
def test_everything_that_sha256sum_writes_is_read(tmp_path: Path, option: str) -> None:
    """Binary marks and tagged lines give the same seals."""
    for name in NAMES:
        tmp_path.joinpath(os.fsdecode(name)).write_bytes(name)
    theirs = subprocess.run(
        [TOOL, option, "--", *NAMES], cwd=tmp_path, capture_output=True, check=True
    ).stdout
    assert [os.fsencode(entry.name) for entry in parse(theirs).seals] == NAMES
    assert parse(theirs).bad_lines == ()


@given(st.lists(names, min_size=1, max_size=5, unique=True))
def test_round_trip(raw: list[bytes]) -> None:
    """Any name that a file can have survives writing and reading."""
    seals = [Seal(os.fsdecode(name), f"{n:064x}", n + 1) for n, name in enumerate(raw)]
    assert list(parse(b"".join(map(format_line, seals))).seals) == seals


def test_crlf_comments_and_bad_lines() -> None:
    """CRLF, a byte order mark, comments and blank lines are no trouble; other lines are named."""
    digest = b"A" * 64
    text = b"\xef\xbb\xbf# made by hand\r\n" + digest + b" *a b\r\n\r\nhello\n" + digest + b" x\n"
    manifest = parse(text)
    assert manifest.seals == (Seal("a b", "a" * 64, 2),)
    assert manifest.bad_lines == (4, 5)


def test_sealing_replaces_whole(tmp_path: Path) -> None:
    """A new manifest takes the place of the old one, which it does not list."""
    (tmp_path / "a").write_text("1")
    seal([tmp_path], tmp_path / "SUMS")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "b").write_text("2")
    manifest = seal([tmp_path], tmp_path / "SUMS")
    assert [entry.name for entry in manifest.seals] == ["a", "sub/b"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["SUMS", "a", "sub"]


@pytest.mark.parametrize("kind", ["missing", "outside", "fifo", "dangling", "nothing"])
def test_what_cannot_be_sealed(tmp_path: Path, kind: str) -> None:
    """Nothing is written where a path cannot be sealed, and an old manifest stays."""
    folder = tmp_path / "models"
    folder.mkdir()
    (folder / "SUMS").write_text("old")
    paths = [folder / "gone"]
    if kind == "outside":
        paths = [tmp_path / "other"]
        paths[0].write_text("x")
    elif kind == "fifo":
        os.mkfifo(paths[0])
    elif kind == "dangling":
        paths[0].symlink_to("nowhere")
        paths = [folder]
    elif kind == "nothing":
        (tmp_path / "empty").mkdir()
        paths = [tmp_path / "empty"]
    with pytest.raises(SealError) as caught:
        seal(paths, folder / "SUMS")
    assert caught.value.hint
    assert (folder / "SUMS").read_text() == "old"


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    """A missing folder for the manifest is an error, not a traceback."""
    (tmp_path / "a").write_text("1")
    with pytest.raises(SealError, match="lies outside"):
        seal([tmp_path / "a"], tmp_path / "gone" / "SUMS")


def test_what_cannot_be_read(tmp_path: Path) -> None:
    """A folder, a FIFO and an empty file are no manifests."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "empty").touch()
    for name in ("", "pipe", "empty", "gone"):
        with pytest.raises(Unreadable):
            read(tmp_path / name)
