"""Reading forward through a stream in small steps, with bounded memory and honest ends."""

from __future__ import annotations

from typing import Protocol

_CHUNK_BYTES = 1 << 18


class Readable(Protocol):
    """What a `Window` reads from: a file, a zip member, a decompressor."""

    def read(self, size: int, /) -> bytes:
        """Return at most `size` bytes; fewer at the end."""


class Truncated(Exception):
    """The stream ends before the structure that it promises does.

    Attributes:
        offset: Where the stream ends, in bytes.
        wanted: Up to where it should have gone, in bytes.
    """

    def __init__(self, offset: int, wanted: int) -> None:
        super().__init__(f"ends at byte {offset:,}, but its structure goes on to {wanted:,}")
        self.offset = offset
        self.wanted = wanted


class TooLong(Exception):
    """A line or an expansion is longer than any honest file makes it."""


class Window:
    """A forward reader over a stream.

    Args:
        stream: Where bytes come from.
        limit: The most bytes to read in all; a guard against streams that expand for ever.
    """

    __slots__ = ("_buffer", "_index", "_limit", "_start", "_stream")

    def __init__(self, stream: Readable, limit: int = 1 << 62) -> None:
        self._stream = stream
        self._buffer = b""
        self._index = 0
        self._start = 0
        self._limit = limit

    @property
    def offset(self) -> int:
        """How many bytes were consumed."""
        return self._start + self._index

    def byte(self) -> int:
        """Consume one byte and return it."""
        if self._index >= len(self._buffer):
            self._fill(1)
        value = self._buffer[self._index]
        self._index += 1
        return value

    def peek(self) -> int:
        """Return the next byte without consuming it."""
        value = self.byte()
        self._index -= 1
        return value

    def take(self, size: int) -> bytes:
        """Consume exactly `size` bytes and return them."""
        end = self._index + size
        if end > len(self._buffer):
            self._fill(size)
            end = self._index + size
        value = self._buffer[self._index : end]
        self._index = end
        return value

    def skip(self, size: int) -> None:
        """Consume `size` bytes without keeping them."""
        wanted = self.offset + size
        while size:
            step = min(size, len(self._buffer) - self._index)
            if not step:
                self._advance(wanted)
                continue
            self._index += step
            size -= step

    def line(self, limit: int = 1 << 16) -> bytes:
        """Consume bytes up to a newline and return them without it.

        Raises:
            TooLong: There is no newline within `limit` bytes.
        """
        while True:
            found = self._buffer.find(b"\n", self._index)
            if found >= 0:
                value = self._buffer[self._index : found]
                self._index = found + 1
                return value
            have = len(self._buffer) - self._index
            if have > limit:
                raise TooLong(f"has no line end within {limit:,} bytes")
            self._fill(have + 1)

    def at_end(self) -> bool:
        """Return whether nothing is left."""
        if self._index < len(self._buffer):
            return False
        try:
            self._fill(1)
        except Truncated:
            return True
        return False

    def _fill(self, size: int) -> None:
        wanted = self.offset + size
        self._start += self._index
        parts = [self._buffer[self._index :]]
        self._buffer, self._index = b"", 0
        have = len(parts[0])
        while have < size:
            part = self._stream.read(max(_CHUNK_BYTES, min(size - have, 1 << 24)))
            if not part:
                self._buffer = b"".join(parts)
                raise Truncated(self._start + have, wanted)
            parts.append(part)
            have += len(part)
            self._refuse(self._start + have)
        self._buffer = b"".join(parts)

    def _advance(self, wanted: int) -> None:
        self._start += len(self._buffer)
        self._index = 0
        self._buffer = self._stream.read(_CHUNK_BYTES)
        if not self._buffer:
            raise Truncated(self._start, wanted)
        self._refuse(self._start + len(self._buffer))

    def _refuse(self, reached: int) -> None:
        if reached > self._limit:
            raise TooLong(f"expands to more than {self._limit:,} bytes")
