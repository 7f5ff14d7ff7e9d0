"""Directory records: what is written is read, and nothing else is read as one."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rollback.errors import StoreCorrupt
from rollback.model import Entry, Kind
from rollback.store.codec import EMPTY_TREE, decode_tree, encode_tree, tree_id
from rollback.times import EARLIEST_NS, LATEST_NS

_NAMES = st.binary(min_size=1, max_size=255).filter(
    lambda name: b"/" not in name and b"\0" not in name and name not in (b".", b"..")
)
_XATTRS = st.lists(st.tuples(st.binary(max_size=40), st.binary(max_size=90)), max_size=3)
_ENTRIES = st.builds(
    Entry,
    name=_NAMES,
    kind=st.sampled_from(Kind),
    mode=st.integers(0, 0o7777),
    uid=st.integers(0, 2**32 - 1),
    gid=st.integers(0, 2**32 - 1),
    mtime_ns=st.integers(EARLIEST_NS, LATEST_NS),
    size=st.integers(0, 2**64 - 1),
    ref=st.binary(max_size=100),
    xattrs=_XATTRS.map(tuple),
)


@given(st.lists(_ENTRIES, max_size=6))
def test_entries_come_back_as_they_were(entries: list[Entry]) -> None:
    """Every field, whatever its bytes."""
    assert decode_tree(encode_tree(entries)) == entries


@settings(max_examples=300)
@given(st.lists(_ENTRIES, min_size=1, max_size=3), st.data())
def test_damaged_records_never_crash(entries: list[Entry], data: st.DataObject) -> None:
    """Cut or flipped anywhere: the engine's own error, or entries with harmless names."""
    content = bytearray(encode_tree(entries))
    if data.draw(st.booleans()):
        del content[data.draw(st.integers(0, len(content) - 1)) :]
    else:
        content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    with contextlib.suppress(StoreCorrupt):
        for entry in decode_tree(bytes(content)):
            assert entry.name not in (b"", b".", b"..")
            assert b"/" not in entry.name
            assert b"\0" not in entry.name


@pytest.mark.parametrize("content", [b"", b"GT", b"GT2\n", b"GP1\n", b"\0" * 80])
def test_other_bytes_are_no_record(content: bytes) -> None:
    """The magic is looked at first."""
    with pytest.raises(StoreCorrupt):
        decode_tree(content)


def test_the_empty_folder_has_the_known_id() -> None:
    """It need not be kept, so its id has to be right."""
    assert tree_id(encode_tree([])) == EMPTY_TREE
