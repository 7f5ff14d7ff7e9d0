"""What each pickle opcode does to a walker's symbols; the opcodes are those of `pickletools`."""

from __future__ import annotations

import codecs
import pickletools
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from checks.artifacts.pickled import Walker

OPAQUE: Any = object()
"""A value that nothing depends on."""
MARK: Any = object()
"""The mark on the stack."""
TEXT_LIMIT = 512
"""Texts longer than this many bytes are no names and are passed over."""
_LINE_LIMIT = 1 << 24
_LONG_LIMIT = 1 << 16
_NEWEST_PROTOCOL = 5


class NotPickle(Exception):
    """The bytes are no pickle: an unknown opcode, or operands that are not there."""


def _unknown(walker: Walker) -> None:
    raise NotPickle(f"has no valid opcode at byte {walker.window.offset - 1:,}")


def _long(size: int) -> Callable[[Walker], None]:
    """Return the handler of a long integer; one that fills a page is no size of anything."""

    def handle(walker: Walker) -> None:
        length = int.from_bytes(walker.window.take(size), "little")
        if length > _LONG_LIMIT:
            walker.window.skip(length)
            walker.push(OPAQUE)
        else:
            walker.push(int.from_bytes(walker.window.take(length), "little", signed=True))

    return handle


def _passed(size: int) -> Callable[[Walker], None]:
    """Return the handler of an operand with a length prefix that is of no interest."""

    def handle(walker: Walker) -> None:
        walker.window.skip(int.from_bytes(walker.window.take(size), "little"))
        walker.push(OPAQUE)

    return handle


def _text(size: int) -> Callable[[Walker], None]:
    """Return the handler of a text with a length prefix; long ones are passed over."""

    def handle(walker: Walker) -> None:
        length = int.from_bytes(walker.window.take(size), "little")
        if length > TEXT_LIMIT:
            walker.window.skip(length)
            walker.push_text(None)
        else:
            walker.push_text(_name(walker.window.take(length)))

    return handle


def _constant(value: Any) -> Callable[[Walker], None]:
    return lambda walker: walker.push(value)


def _integer(size: int, *, signed: bool = False) -> Callable[[Walker], None]:
    def handle(walker: Walker) -> None:
        walker.push(int.from_bytes(walker.window.take(size), "little", signed=signed))

    return handle


def _decimal(walker: Walker) -> None:
    text = walker.window.line()
    walker.push({b"00": False, b"01": True}.get(text) if text in {b"00", b"01"} else int(text))


def _quoted(walker: Walker) -> None:
    text = walker.window.line().strip()
    if len(text) < 2 or text[:1] not in {b'"', b"'"} or text[-1:] != text[:1]:  # noqa: PLR2004
        raise NotPickle(f"has an unreadable text at byte {walker.window.offset:,}")
    # Escapes are resolved as unpickling does it, so that "o\\x73" is seen as the name it is.
    walker.push_text(_name(codecs.escape_decode(text[1:-1])[0]))


def _escaped(walker: Walker) -> None:
    raw = walker.window.line(_LINE_LIMIT)
    walker.push_text(raw.decode("raw-unicode-escape") if len(raw) <= TEXT_LIMIT else None)


def _name(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")


def _binary_float(walker: Walker) -> None:
    walker.window.skip(8)
    walker.push(OPAQUE)


def _persistent_line(walker: Walker) -> None:
    walker.window.line()
    walker.push(OPAQUE)


def _protocol(walker: Walker) -> None:
    if walker.window.byte() > _NEWEST_PROTOCOL:
        raise NotPickle("names a pickle protocol that does not exist")


_SIMPLE: dict[str, Callable[[Walker], None]] = {
    "PROTO": _protocol,
    "FRAME": lambda w: w.window.skip(8),
    "INT": _decimal,
    "LONG": lambda w: w.push(int(w.window.line().rstrip(b"L"))),
    "BININT": _integer(4, signed=True),
    "BININT1": _integer(1),
    "BININT2": _integer(2),
    "LONG1": _long(1),
    "LONG4": _long(4),
    "STRING": _quoted,
    "BINSTRING": _text(4),
    "SHORT_BINSTRING": _text(1),
    "BINBYTES": _passed(4),
    "SHORT_BINBYTES": _passed(1),
    "BINBYTES8": _passed(8),
    "BYTEARRAY8": _passed(8),
    "NEXT_BUFFER": _constant(OPAQUE),
    "READONLY_BUFFER": lambda _w: None,
    "NONE": _constant(None),
    "NEWTRUE": _constant(True),
    "NEWFALSE": _constant(False),
    "UNICODE": _escaped,
    "SHORT_BINUNICODE": _text(1),
    "BINUNICODE": _text(4),
    "BINUNICODE8": _text(8),
    "FLOAT": lambda w: w.push(float(w.window.line())),
    "BINFLOAT": _binary_float,
    "EMPTY_LIST": _constant(OPAQUE),
    "EMPTY_TUPLE": _constant(()),
    "EMPTY_DICT": lambda w: w.push({}),
    "EMPTY_SET": _constant(OPAQUE),
    "MARK": _constant(MARK),
    "APPEND": lambda w: w.append(),
    "APPENDS": lambda w: w.append_many(),
    "ADDITEMS": lambda w: w.append_many(),
    "LIST": lambda w: w.collection_from_mark(),
    "FROZENSET": lambda w: w.collection_from_mark(),
    "TUPLE": lambda w: w.tuple_from_mark(),
    "TUPLE1": lambda w: w.tuple_of(1),
    "TUPLE2": lambda w: w.tuple_of(2),
    "TUPLE3": lambda w: w.tuple_of(3),
    "DICT": lambda w: w.dict_from_mark(),
    "SETITEM": lambda w: w.set_item(),
    "SETITEMS": lambda w: w.set_items(),
    "POP": lambda w: w.drop(),
    "POP_MARK": lambda w: w.drop_to_mark(),
    "DUP": lambda w: w.duplicate(),
    "GET": lambda w: w.get(int(w.window.line())),
    "BINGET": lambda w: w.get(w.window.byte()),
    "LONG_BINGET": lambda w: w.get(int.from_bytes(w.window.take(4), "little")),
    "PUT": lambda w: w.put(int(w.window.line())),
    "BINPUT": lambda w: w.put(w.window.byte()),
    "LONG_BINPUT": lambda w: w.put(int.from_bytes(w.window.take(4), "little")),
    "MEMOIZE": lambda w: w.memoize(),
    "EXT1": lambda w: w.extension(1),
    "EXT2": lambda w: w.extension(2),
    "EXT4": lambda w: w.extension(4),
    "GLOBAL": lambda w: w.global_lines(),
    "STACK_GLOBAL": lambda w: w.global_from_stack(),
    "REDUCE": lambda w: w.reduce(),
    "BUILD": lambda w: w.build(),
    "INST": lambda w: w.instance(),
    "OBJ": lambda w: w.object_from_mark(),
    "NEWOBJ": lambda w: w.reduce(),
    "NEWOBJ_EX": lambda w: w.new_with_keywords(),
    "PERSID": _persistent_line,
    "BINPERSID": lambda w: w.persistent_from_stack(),
}


def _table() -> list[Callable[[Walker], None]]:
    table: list[Callable[[Walker], None]] = [_unknown] * 256
    for opcode in pickletools.opcodes:
        if opcode.name != "STOP":
            table[ord(opcode.code)] = _SIMPLE[opcode.name]
    return table


HANDLERS = _table()
"""For each byte the function that carries it out; STOP is the walker's own."""
