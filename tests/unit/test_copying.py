"""Large files are copied byte for byte, whatever the file system, the disk or a writer does."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from rollback import copying
from rollback.copying import keep_file, restore_file
from rollback.reading import sized

PIECE = 1 << 20
CONTENT = os.urandom(3 * PIECE) + b"and a tail that fills no block"


def _copied(source: Path, target: Path) -> tuple[bytes, int]:
    """Keep a file and return what is said of the copy."""
    with source.open("rb") as one, target.open("w+b") as other:
        return keep_file(one.fileno(), other.fileno())


def _check(target: Path, said: tuple[bytes, int]) -> bytes:
    """Return what a copy holds, after proving that it is what was said of it."""
    content = target.read_bytes()
    assert said == (hashlib.sha256(content).digest(), len(content))
    return content


@pytest.mark.parametrize("length", [0, 1, 4096, PIECE, PIECE + 1, 2 * PIECE + 4096, len(CONTENT)])
def test_a_file_of_any_length_is_kept(tmp_path: Path, length: int) -> None:
    """A direct write is a multiple of a block; the file is not."""
    (tmp_path / "source").write_bytes(CONTENT[:length])
    said = _copied(tmp_path / "source", tmp_path / "target")
    assert _check(tmp_path / "target", said) == CONTENT[:length]


def _sparse(path: Path) -> None:
    with path.open("wb") as file:
        for at in (0, 3 * PIECE, 9 * PIECE + 4096):
            file.seek(at)
            file.write(CONTENT[: 2 * PIECE + 7])
        file.truncate(20 * PIECE + 5)


def test_holes_stay_holes(tmp_path: Path) -> None:
    """What is no data on the disk is hashed as zeros and takes no room."""
    _sparse(tmp_path / "source")
    said = _copied(tmp_path / "source", tmp_path / "target")
    assert _check(tmp_path / "target", said) == (tmp_path / "source").read_bytes()
    blocks = (tmp_path / "target").stat().st_blocks
    assert blocks <= (tmp_path / "source").stat().st_blocks + 8


@pytest.mark.parametrize("asked", [True, False])
def test_a_file_is_put_back_with_its_holes(tmp_path: Path, *, asked: bool) -> None:
    """With or without a digest it is the same file."""
    _sparse(tmp_path / "source")
    digest = hashlib.sha256() if asked else None
    with (tmp_path / "source").open("rb") as one, (tmp_path / "target").open("w+b") as other:
        restore_file(one.fileno(), other.fileno(), digest)
    content = (tmp_path / "source").read_bytes()
    assert (tmp_path / "target").read_bytes() == content
    assert digest is None or digest.digest() == hashlib.sha256(content).digest()
    assert (tmp_path / "target").stat().st_blocks * 512 < 10 * PIECE


def test_where_the_kernel_does_not_copy_it_is_read_and_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not every pair of file systems lets the kernel do it."""

    def refuse(*_: object) -> int:
        raise OSError(errno.EXDEV, "not across file systems")

    monkeypatch.setattr(os, "copy_file_range", refuse)
    (tmp_path / "source").write_bytes(CONTENT)
    with (tmp_path / "source").open("rb") as one, (tmp_path / "target").open("w+b") as other:
        restore_file(one.fileno(), other.fileno(), None)
    assert (tmp_path / "target").read_bytes() == CONTENT


def test_a_file_system_that_refuses_direct_writes_gets_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some say so only when it is tried."""
    write = os.pwrite
    refused: list[int] = []

    def pwrite(fd: int, content: bytes, at: int) -> int:
        if fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_DIRECT:
            refused.append(at)
            raise OSError(errno.EINVAL, "not so")
        return write(fd, content, at)

    monkeypatch.setattr(os, "pwrite", pwrite)
    (tmp_path / "source").write_bytes(CONTENT)
    said = _copied(tmp_path / "source", tmp_path / "target")
    assert _check(tmp_path / "target", said) == CONTENT
    assert len(refused) <= 1


def test_a_slow_disk_is_written_through_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rehearsal that follows need not wait for it again."""
    through: list[int] = []
    real = copying._go_through_cache

    def go(fd: int) -> bool:
        through.append(fd)
        return real(fd)

    monkeypatch.setattr(copying, "_go_through_cache", go)
    monkeypatch.setattr(copying, "_SLOW", 1e15)
    monkeypatch.setattr(copying, "_TRIAL", PIECE)
    (tmp_path / "source").write_bytes(CONTENT)
    said = _copied(tmp_path / "source", tmp_path / "target")
    assert _check(tmp_path / "target", said) == CONTENT
    assert through


@pytest.mark.parametrize("left", [PIECE // 2, 2 * PIECE + 5])
def test_a_file_that_becomes_shorter_is_kept_as_far_as_it_was_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, left: int
) -> None:
    """What is said of the copy is true of the copy, holes behind the cut included."""
    source = tmp_path / "source"
    _sparse(source)
    with source.open("r+b") as file:
        file.seek(0)
        file.write(CONTENT)
    before = source.read_bytes()
    _cut_while_read(monkeypatch, source, left)
    said = _copied(source, tmp_path / "target")
    content = _check(tmp_path / "target", said)
    assert content == before[: len(content)]
    assert len(content) <= max(left, PIECE)


def _cut_while_read(monkeypatch: pytest.MonkeyPatch, path: Path, left: int) -> None:
    """Truncate a file once its first piece was read."""
    read: Callable[[int, Sequence[memoryview], int], int] = os.preadv

    def preadv(fd: int, buffers: Sequence[memoryview], at: int) -> int:
        got = read(fd, buffers, at)
        os.truncate(path, left)
        return got

    monkeypatch.setattr(os, "preadv", preadv)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_an_error_of_the_disk_is_raised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """Also where another thread met it, and only at the last piece."""
    write = os.pwrite

    def pwrite(fd: int, content: bytes, at: int) -> int:
        if at >= 3 * PIECE:
            raise OSError(number, os.strerror(number))
        return write(fd, content, at)

    monkeypatch.setattr(os, "pwrite", pwrite)
    (tmp_path / "source").write_bytes(CONTENT)
    with pytest.raises(OSError, match=os.strerror(number)) as caught:
        _copied(tmp_path / "source", tmp_path / "target")
    assert caught.value.errno == number


def test_what_was_kept_of_a_growing_file_has_its_own_size(tmp_path: Path) -> None:
    """All else is what the system says of the file, to the nanosecond."""
    (tmp_path / "log").write_bytes(b"a" * 10)
    info = os.stat(tmp_path / "log")
    kept = sized(info, 7)
    names = {name for name in dir(info) if name.startswith("st_")} - {"st_size"}
    assert kept.st_size == 7
    assert {n: getattr(kept, n) for n in names} == {n: getattr(info, n) for n in names}
    assert sized(info, 10) == info
