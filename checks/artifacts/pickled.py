"""Walking a pickle without unpickling it: what it imports, where it ends, what follows.

The opcodes are those of CPython's `pickletools`; joblib's raw arrays inside the stream follow
`joblib.numpy_pickle` (an array's bytes come right after the BUILD of its wrapper). Nothing is
ever imported or called: objects are symbols, and most of them are not even kept.
"""

from __future__ import annotations

import math
import re
import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from checks.artifacts.opcodes import HANDLERS, MARK, OPAQUE, NotPickle
from checks.artifacts.window import TooLong

if TYPE_CHECKING:
    from checks.artifacts.window import Window

Import = tuple[str, str]
_WRAPPERS = {("joblib.numpy_pickle", "NumpyArrayWrapper")}
_DTYPE = ("numpy", "dtype")
_TUPLE_LIMIT = 64
_NESTING_LIMIT = 20
_STOP = 0x2E
_PLAIN_ACCESS = {
    ("builtins", "getattr"),
    ("__builtin__", "getattr"),
    ("operator", "attrgetter"),
    ("_operator", "attrgetter"),
    ("operator", "itemgetter"),
    ("_operator", "itemgetter"),
    ("functools", "partial"),
}
"""What reaches for an attribute or item; whether that is harmless depends on which."""
ROOMS = frozenset(
    {
        *("os", "posix", "nt", "sys", "subprocess", "shutil", "socket", "ctypes", "importlib"),
        *("builtins", "runpy", "pty", "pickle", "_pickle", "system", "popen", "eval", "exec"),
    }
)
"""Attributes through which other modules' attributes lead to running code."""
_VERSION_KEYS = {"_sklearn_version": "scikit-learn"}
_DTYPE_CODE = re.compile(r"[<>|=]?([a-zA-Z?])(\d*)")


@dataclass(frozen=True, slots=True)
class Symbol:
    """A class or function by name; never imported."""

    module: str
    name: str

    @property
    def key(self) -> Import:
        """The pair that findings are made of."""
        return self.module, self.name


@dataclass(slots=True)
class Made:
    """An object of a class that decides how the stream goes on (an array's wrapper, its type)."""

    of: Import
    args: Any
    state: Any = None


@dataclass(slots=True)
class Walk:
    """What walking through pickles has shown.

    Attributes:
        imports: Every module and name that loading would import.
        versions: Distribution versions that the pickle itself names.
        persistent: Arguments of persistent ids (PyTorch's storages).
        wrapper_at: Offset of the first joblib array, or None.
        reached: For each import that reaches for attributes how often it was pushed and how
            often it was called for a harmless one.
    """

    imports: set[Import] = field(default_factory=set)
    versions: dict[str, str] = field(default_factory=dict)
    persistent: list[Any] = field(default_factory=list)
    wrapper_at: int | None = None
    reached: dict[Import, list[int]] = field(default_factory=dict)

    @property
    def harmless(self) -> set[Import]:
        """Imports that reach for attributes, and only ever for harmless ones."""
        return {key for key, (pushed, plain) in self.reached.items() if pushed == plain}


class Walker:
    """One pickle in a stream, walked up to its STOP.

    Args:
        window: Where the bytes come from.
        walk: Where findings are collected.
        arrays: Whether raw array bytes follow joblib's wrappers, as `joblib.load` reads them;
            `pickle.load` reads the same bytes as opcodes.
        depth: How deep this pickle lies inside others.
    """

    def __init__(self, window: Window, walk: Walk, *, arrays: bool = False, depth: int = 0) -> None:
        if depth > _NESTING_LIMIT:
            raise TooLong("nests pickles more than twenty deep")
        self.window: Window = window
        self.walk: Walk = walk
        self._arrays = arrays
        self._depth = depth
        self._stack: list[Any] = []
        self._memo: list[Any] = []  # by number; protocol 4 counts them up
        self._memo_far: dict[int, Any] = {}
        self._after_key: str | None = None

    def run(self) -> Any:
        """Walk up to STOP and return a symbol of the result.

        Raises:
            Truncated: The stream ends first.
            NotPickle: This is not a pickle.
            TooLong: It is built to exhaust its reader.
        """
        handlers, byte = HANDLERS, self.window.byte
        try:
            while True:
                code = byte()
                if code == _STOP:
                    return self._pop()
                handlers[code](self)
        except IndexError:
            raise NotPickle(f"has no operand at byte {self.window.offset:,}") from None
        except (UnicodeDecodeError, ValueError, struct.error):
            raise NotPickle(f"has an unreadable operand at byte {self.window.offset:,}") from None

    # The stack

    def _pop(self) -> Any:
        value = self._stack.pop()
        if value is MARK:
            raise NotPickle(f"takes a mark for a value at byte {self.window.offset:,}")
        return value

    def _need(self) -> None:
        if not self._stack:
            raise IndexError

    def _pop_to_mark(self) -> list[Any]:
        stack = self._stack
        index = len(stack) - 1
        while stack[index] is not MARK:
            index -= 1
            if index < 0:
                raise IndexError
        items = stack[index + 1 :]
        del stack[index:]
        return items

    def push(self, value: Any) -> None:
        """Push a symbol."""
        self._stack.append(value)

    def push_text(self, text: str | None) -> None:
        """Push a text; very long ones (None) can be no name and are forgotten."""
        if self._after_key is not None and text is not None:
            self.walk.versions.setdefault(self._after_key, text)
        self._after_key = _VERSION_KEYS.get(text) if text is not None else None
        self._stack.append(OPAQUE if text is None else text)

    # The memo

    def put(self, key: int) -> None:
        """Remember the top of the stack."""
        value = self._stack[-1]
        kind = type(value)
        known = kind is str or kind is Symbol or (kind is tuple and _is_shape(value))
        if not known and not (kind is Made and value.of == _DTYPE):
            value = OPAQUE
        memo = self._memo
        if key == len(memo):
            memo.append(value)
        elif 0 <= key < len(memo):
            memo[key] = value
        else:
            self._memo_far[key] = value

    def memoize(self) -> None:
        """Remember the top of the stack under the next number."""
        self.put(len(self._memo) + len(self._memo_far))

    def get(self, key: int) -> None:
        """Push what was remembered."""
        memo = self._memo
        value = memo[key] if 0 <= key < len(memo) else self._memo_far.get(key, OPAQUE)
        if type(value) is str:
            self.push_text(value)
        else:
            if type(value) is Symbol and value.key in _PLAIN_ACCESS:
                self.walk.reached[value.key][0] += 1
            self._stack.append(value)

    # Names

    def name(self, module: Any, name: Any) -> None:
        """Note an import and push its symbol; one that cannot be read off counts as unknown."""
        readable = type(module) is str and type(name) is str
        symbol = Symbol(module, name) if readable else Symbol("unknown", "unknown")
        self.walk.imports.add(symbol.key)
        if symbol.key in _PLAIN_ACCESS:
            self.walk.reached.setdefault(symbol.key, [0, 0])[0] += 1
        self._stack.append(symbol)

    def global_lines(self) -> None:
        """GLOBAL: two lines."""
        module, name = self.window.line(), self.window.line()
        self.name(module.decode(), name.decode())

    def instance(self) -> None:
        """INST: two lines, and arguments back to the mark."""
        self._pop_to_mark()
        self.global_lines()
        self._stack[-1] = OPAQUE

    def global_from_stack(self) -> None:
        """STACK_GLOBAL: two texts from the stack."""
        name, module = self._pop(), self._pop()
        self.name(module, name)

    def extension(self, size: int) -> None:
        """EXT1, EXT2, EXT4: a name from a registry of the loading program."""
        number = int.from_bytes(self.window.take(size), "little")
        self.name("copyreg", f"extension_{number}")

    # Objects

    def reduce(self) -> None:
        """REDUCE, NEWOBJ: a callable and its arguments."""
        args, made = self._pop(), self._pop()
        if type(made) is Symbol and made.key in _PLAIN_ACCESS and _is_harmless(made.name, args):
            self.walk.reached[made.key][1] += 1
        self._stack.append(_made(made, args))

    def new_with_keywords(self) -> None:
        """NEWOBJ_EX: a class, its arguments and keyword arguments."""
        self._pop()
        self.reduce()

    def object_from_mark(self) -> None:
        """OBJ: the class is the first thing after the mark."""
        items = self._pop_to_mark()
        self._stack.append(_made(items[0], tuple(items[1:])))

    def build(self) -> None:
        """BUILD: gives an object its state; a joblib wrapper is followed by its array."""
        state, target = self._pop(), self._stack[-1]
        if type(target) is not Made:
            return
        target.state = state
        if target.of in _WRAPPERS:
            if self.walk.wrapper_at is None:
                self.walk.wrapper_at = self.window.offset
            if self._arrays:
                self._pass_array(state)
            self._stack[-1] = OPAQUE

    def _pass_array(self, state: Any) -> None:
        if not isinstance(state, dict):
            raise NotPickle(f"has an array without a shape at byte {self.window.offset:,}")
        width = item_bytes(state.get("dtype"))
        if width is None:
            Walker(self.window, self.walk, arrays=True, depth=self._depth + 1).run()
            return
        shape = state.get("shape")
        if not isinstance(shape, tuple) or not all(type(n) is int and n >= 0 for n in shape):
            raise NotPickle(f"has an array without a shape at byte {self.window.offset:,}")
        if state.get("numpy_array_alignment_bytes") is not None:
            self.window.skip(self.window.byte())
        self.window.skip(math.prod(shape) * width)

    def tuple_of(self, size: int) -> None:
        """TUPLE1 to TUPLE3."""
        if len(self._stack) < size:
            raise IndexError
        items = tuple(self._stack[-size:])
        del self._stack[-size:]
        self._stack.append(items)

    def tuple_from_mark(self) -> None:
        """TUPLE: everything back to the mark."""
        items = self._pop_to_mark()
        self._stack.append(tuple(items) if len(items) <= _TUPLE_LIMIT else OPAQUE)

    def collection_from_mark(self) -> None:
        """LIST, FROZENSET: everything back to the mark."""
        self._pop_to_mark()
        self._stack.append(OPAQUE)

    def dict_from_mark(self) -> None:
        """DICT: pairs back to the mark."""
        items = self._pop_to_mark()
        self._stack.append({})
        self._note_items(items)

    def set_items(self) -> None:
        """SETITEMS: pairs back to the mark, into the dict below."""
        self._note_items(self._pop_to_mark())

    def set_item(self) -> None:
        """SETITEM: one pair into the dict below."""
        value, key = self._pop(), self._pop()
        self._note_items([key, value])

    def _note_items(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if type(target) is dict and len(target) < _TUPLE_LIMIT:
            target.update(
                (k, v)
                for k, v in zip(items[:_TUPLE_LIMIT:2], items[1:_TUPLE_LIMIT:2], strict=False)
                if type(k) is str and v is not OPAQUE
            )

    def persistent_from_stack(self) -> None:
        """BINPERSID: PyTorch's storages are named so."""
        value = self._pop()
        if isinstance(value, tuple):
            self.walk.persistent.append(value)
        self._stack.append(OPAQUE)

    def drop(self) -> None:
        """POP: also takes a mark."""
        self._stack.pop()

    def drop_to_mark(self) -> None:
        """POP_MARK."""
        self._pop_to_mark()

    def append(self) -> None:
        """APPEND, and ADDITEMS' cousins: one value into the list below."""
        self._pop()
        self._need()

    def append_many(self) -> None:
        """APPENDS, ADDITEMS: values back to the mark, into the collection below."""
        self._pop_to_mark()
        self._need()

    def duplicate(self) -> None:
        """DUP."""
        value = self._stack[-1]
        if type(value) is Symbol and value.key in _PLAIN_ACCESS:
            self.walk.reached[value.key][0] += 1
        self._stack.append(value)


def _is_shape(value: tuple[Any, ...]) -> bool:
    return all(type(item) is int for item in value)


def _made(made: Any, args: Any) -> Any:
    if type(made) is Symbol and (made.key in _WRAPPERS or made.key == _DTYPE):
        return Made(made.key, args)
    return OPAQUE


def _is_harmless(name: str, args: Any) -> bool:
    """Return whether a call for attributes reaches for nothing that leads out of an object."""
    if not isinstance(args, tuple) or not args:
        return False
    if name == "partial":  # what it calls is an import of its own, and judged there
        return isinstance(args[0], Symbol) and args[0].key not in _PLAIN_ACCESS
    if name == "getattr":
        return len(args) == 2 and _is_plain_attribute(args[1])  # noqa: PLR2004
    return all(type(arg) is int or _is_plain_attribute(arg) for arg in args)


def _is_plain_attribute(name: Any) -> bool:
    if not isinstance(name, str):
        return False
    parts = name.split(".")
    return not any(part.startswith("_") or part in ROOMS for part in parts)


def item_bytes(dtype: Any) -> int | None:
    """Return the width of an array's items in bytes; None where the items are objects.

    Raises:
        NotPickle: The type is not one that NumPy writes.
    """
    code = dtype.args[0] if isinstance(dtype, Made) and isinstance(dtype.args, tuple) else None
    match = _DTYPE_CODE.fullmatch(code) if isinstance(code, str) else None
    if match is None:
        raise NotPickle("has an array of a type that cannot be read off")
    kind, digits = match.groups()
    fields = dtype.state[4] if isinstance(dtype.state, tuple) and len(dtype.state) > 4 else None  # noqa: PLR2004
    if kind == "O" or (isinstance(fields, dict) and any(map(_holds_objects, fields.values()))):
        return None
    width = int(digits or 1)
    return width * 4 if kind == "U" else width


def _holds_objects(entry: Any) -> bool:
    inner = entry[0] if isinstance(entry, tuple) and entry else None
    return isinstance(inner, Made) and item_bytes(inner) is None
