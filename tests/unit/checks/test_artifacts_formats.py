"""Formats: recognised by their bytes, found damaged at every cut, never a crash."""

from __future__ import annotations

import contextlib
import io
import pickle
import sqlite3
import tempfile
import zipfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from checks.artifacts import tflite
from checks.artifacts.danger import dangerous
from checks.artifacts.formats import Format, claimed, recognize
from checks.artifacts.inspection import Inspection, inspect

FIXTURES = Path(__file__).parents[2] / "fixtures" / "artifacts"
MADE = {
    "arrays.joblib": Format.JOBLIB,
    "buffer.tflite": Format.TFLITE,
    "categories.cbm": Format.CATBOOST,
    "checkpoint-legacy.pt": Format.TORCH_LEGACY,
    "checkpoint.pt": Format.TORCH,
    "dense.keras": Format.KERAS,
    "dense.tflite": Format.TFLITE,
    "earliest.h5": Format.HDF5,
    "external.onnx": Format.ONNX,
    "forest-0.pkl": Format.PICKLE,
    "forest-2.pkl": Format.PICKLE,
    "forest-5.pkl": Format.PICKLE,
    "forest.joblib": Format.JOBLIB,
    "function.pkl": Format.PICKLE,
    "lambda.h5": Format.HDF5,
    "lambda.keras": Format.KERAS,
    "latest.h5": Format.HDF5,
    "linear.ubj": Format.XGBOOST_UBJ,
    "matmul.onnx": Format.ONNX,
    "numbers.cbm": Format.CATBOOST,
    "objects.npy": Format.NPY,
    "packed.npz": Format.NPZ,
    "pipeline-bz2.joblib": Format.JOBLIB,
    "pipeline-gzip.joblib": Format.JOBLIB,
    "pipeline-lzma.joblib": Format.JOBLIB,
    "pipeline-xz.joblib": Format.JOBLIB,
    "pipeline-zlib.joblib": Format.JOBLIB,
    "pipeline.joblib": Format.JOBLIB,
    "plain.npy": Format.NPY,
    "records.npy": Format.NPY,
    "saved_model.pb": Format.SAVED_MODEL,
    "script.pt": Format.TORCH,
    "stump.json": Format.XGBOOST_JSON,
    "stump.txt": Format.LIGHTGBM,
    "stump.ubj": Format.XGBOOST_UBJ,
    "tiny.gguf": Format.GGUF,
    "two.npz": Format.NPZ,
    "two.safetensors": Format.SAFETENSORS,
    "userblock.h5": Format.HDF5,
    "views-legacy.pt": Format.TORCH_LEGACY,
}


def look(content: bytes, name: str) -> Inspection:
    """Inspect bytes as if they were a file of that name."""
    return inspect(io.BytesIO(content), len(content), name)


def test_every_fixture_is_listed() -> None:
    """A file that is added without an expectation would be tested by nothing."""
    assert {path.name for path in FIXTURES.iterdir()} - {"README.md"} == set(MADE)


@pytest.mark.parametrize("name", sorted(MADE))
def test_whole_files_of_real_libraries(name: str) -> None:
    """What the owning library wrote is recognised and whole."""
    seen = look((FIXTURES / name).read_bytes(), name)
    assert (seen.format, seen.damage) == (MADE[name], None)


@pytest.mark.parametrize("name", sorted(MADE))
def test_every_cut_is_seen(name: str) -> None:
    """Wherever a file ends too early, it is damaged or no longer what its name claims."""
    content = (FIXTURES / name).read_bytes()
    whole = len(content)
    if name == "stump.txt":  # the last line says only that there are no categories
        whole = content.index(b"end of parameters")
    if name == "tiny.gguf":  # the last tensor is padded
        whole = 872
    step = 1 if whole < 1500 else 13
    cuts = {*range(1, whole, step), whole - 1, whole - 2, whole - 3}
    unseen = []
    for cut in sorted(cuts):
        seen = look(content[:cut], name)
        fits = not claimed(name) or seen.format in claimed(name)
        known = claimed(name) or seen.format is MADE[name]
        if seen.damage is None and fits and known:
            unseen.append(cut)
    assert unseen == []


@pytest.mark.parametrize("name", sorted(MADE))
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_change_is_survived(name: str, data: st.DataObject) -> None:
    """Overwritten, inserted and repeated bytes give a finding or none, never an exception."""
    content = bytearray((FIXTURES / name).read_bytes())
    at = data.draw(st.integers(0, len(content)))
    junk = data.draw(st.binary(max_size=40))
    if data.draw(st.booleans()):
        content[at : at + len(junk)] = junk
    else:
        content[at:at] = junk
    look(bytes(content), name)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=300), st.sampled_from(sorted(MADE)))
def test_any_bytes_are_survived(content: bytes, name: str) -> None:
    """Bytes of chance raise nothing, whatever they are called."""
    if content:
        look(content, name)


@pytest.mark.parametrize("protocol", range(6))
def test_every_pickle_protocol(protocol: int) -> None:
    """Each protocol is walked to its last byte, each value kind included."""
    value = {
        "text": "x" * 3000,
        "bytes": [b"", b"y" * 70000, bytearray(b"z")],
        "numbers": [0, -1, 255, 65536, 10**60, -(10**60), 1.5, True, None],
        "many": [(1,), (1, 2), (1, 2, 3), (1, 2, 3, 4), {5}, frozenset({6})],
    }
    content = pickle.dumps(value, protocol)
    seen = look(content, "a.pkl")
    assert (seen.format, seen.damage) == (Format.PICKLE, None)
    for cut in range(1, 200):
        assert look(content[:-cut], "a.pkl").damage is not None


def test_pickles_one_after_another() -> None:
    """A file of several pickles is whole; a half one or rubbish after the first is not."""
    one, two = pickle.dumps([1, 2]), pickle.dumps({"a": 1})
    assert look(one + two, "a.pkl").damage is None
    assert look(one + two[:-1], "a.pkl").damage is not None
    assert "after the end" in str(look(one + b"\xff" * 9, "a.pkl").damage)


def torch_zip(weights: bytes) -> bytes:
    """Return a file as `torch.save` lays it out: an archive with data.pkl and storages."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("model/data.pkl", pickle.dumps({"w": 1}, 2))
        archive.writestr("model/data/0", weights)
        archive.writestr("model/version", "3\n")
    return buffer.getvalue()


def test_torch_archive() -> None:
    """The archive is PyTorch's by its data.pkl; raw weights that start like a pickle are none."""
    content = torch_zip(b"\x80\x04" + b"\xff" * 500)
    seen = look(content, "model.pt")
    assert (seen.format, seen.damage) == (Format.TORCH, None)
    for cut in range(4, len(content)):
        assert look(content[:cut], "model.pt").damage is not None


def test_an_archive_inside_an_archive() -> None:
    """The end of an inner archive is not taken for that of the one around it."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("inner.zip", torch_zip(b"weights"))
        archive.writestr("more", b"x" * 200)
    content = buffer.getvalue()
    assert look(content, "a.zip").damage is None
    for cut in range(4, len(content)):
        assert look(content[:cut], "a.zip").damage is not None


def torch_legacy(items: int, present: int) -> bytes:
    """Return a file as `torch.save` wrote it before 1.6, with one storage of floats."""

    class Storage:
        pass

    class Pickler(pickle.Pickler):
        def persistent_id(self, obj: object) -> object:
            return (
                ("storage", FloatStorage, "7", "cpu", items, None)
                if isinstance(obj, Storage)
                else None
            )

    buffer = io.BytesIO()
    for part in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}):
        pickle.dump(part, buffer, 2)
    Pickler(buffer, 2).dump({"w": Storage()})
    pickle.dump(["7"], buffer, 2)
    buffer.write(items.to_bytes(8, "little") + b"\0" * 4 * present)
    return buffer.getvalue()


class FloatStorage:
    """Stands in for PyTorch's class of the same name."""


def test_torch_legacy_storages_are_counted() -> None:
    """The old format is whole only with all items of its storages."""
    assert look(torch_legacy(10, 10), "a.pt").damage is None
    assert look(torch_legacy(10, 10), "a.pt").format is Format.TORCH_LEGACY
    assert "cut short" in str(look(torch_legacy(10, 9), "a.pt").damage)


def test_an_hdf5_file_still_open_for_writing() -> None:
    """The flag of a writer that died is seen."""
    content = bytearray((FIXTURES / "latest.h5").read_bytes())
    assert content[8] == 3
    content[11] |= 1
    assert "open for writing" in str(look(bytes(content), "a.h5").damage)


def test_tensors_with_a_hole() -> None:
    """Safetensors allows neither holes nor bytes behind the last tensor."""
    header = b'{"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},'
    header += b'"b":{"dtype":"U8","shape":[2],"data_offsets":[3,5]}}'
    assert look(len(header).to_bytes(8, "little") + header + b"12345", "a.safetensors").damage
    whole = (FIXTURES / "two.safetensors").read_bytes()
    assert "more than" in str(look(whole + b"x", "a.safetensors").damage)


def test_a_stream_that_expands_without_end() -> None:
    """A bomb is given up, not read to its end."""
    import bz2  # noqa: PLC0415

    bomb = bz2.compress(b"\x80\x04\x8e" + (1 << 50).to_bytes(8, "little") + b"\0" * (1 << 22))
    seen = look(bomb, "a.joblib")
    assert seen.damage is not None


@pytest.mark.parametrize(
    ("head", "found"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", Format.LFS_POINTER),
        (b"\n<!DOCTYPE HTML><html>", Format.HTML),
        (b"\x28\xb5\x2f\xfd" + bytes(9), Format.COMPRESSED),
        (b"SQLite format 3\0", Format.SQLITE),
        (b"\x1c\0\0\0TFL3", Format.TFLITE),
        (b"hello", Format.UNKNOWN),
        (b"", Format.UNKNOWN),
    ],
)
def test_what_else_lies_about(head: bytes, found: Format) -> None:
    """Things that are taken for models are told apart."""
    assert recognize(head) is found


@pytest.mark.parametrize(
    "name", ["checkpoint.pt", "script.pt", "dense.keras", "packed.npz", "two.npz"]
)
def test_every_changed_byte_of_a_member_is_seen(name: str) -> None:
    """Members of archives are held against their checksums, wherever the byte lies."""
    content = (FIXTURES / name).read_bytes()
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = [m for m in archive.infolist() if m.file_size]
    for member in members:
        head = content[member.header_offset : member.header_offset + 30]
        start = member.header_offset + 30 + int.from_bytes(head[26:28], "little")
        start += int.from_bytes(head[28:30], "little")
        end = start + member.compress_size - 1  # the last bits of a deflated member are padding
        for at in range(start, end, max(1, member.compress_size // 20)):
            spoilt = content[:at] + bytes([content[at] ^ 0x10]) + content[at + 1 :]
            assert look(spoilt, name).damage is not None, (member.filename, at)


def test_half_written_archive_is_seen() -> None:
    """Its table of contents is there, but a block of weights never reached the disk."""
    content = torch_zip(bytes(range(256)) * 400)
    at = content.index(bytes(range(256)))
    seen = look(content[:at] + bytes(4096) + content[at + 4096 :], "m.pt")
    assert "checksum" in str(seen.damage)
    assert "data/0" in str(seen.damage)


def test_archive_without_checksums_is_whole() -> None:
    """PyTorch leaves zeros where it is told to compute none (`set_crc32_options(False)`)."""
    content = bytearray(torch_zip(bytes(range(256)) * 400))
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        checksums = {m.CRC.to_bytes(4, "little") for m in archive.infolist() if m.CRC}
    for checksum in checksums:
        at = content.find(checksum)
        while at >= 0:
            content[at : at + 4] = bytes(4)
            at = content.find(checksum, at)
    assert look(bytes(content), "m.pt").damage is None


def test_archive_that_expands_without_measure() -> None:
    """A bomb is named by its sizes and not unpacked."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", pickle.dumps(1))
        archive.writestr("a/data/0", bytes(1000))
        archive.infolist()[1].file_size = 1 << 40
    assert "expands" in str(look(buffer.getvalue(), "m.pt").damage)


def test_layer_with_byte_code_is_named() -> None:
    """A Lambda layer of Keras is marshalled code that loading runs."""
    seen = look((FIXTURES / "lambda.keras").read_bytes(), "lambda.keras")
    assert dangerous(seen.walk) == {("keras.layers", "Lambda")}
    plain = look((FIXTURES / "dense.keras").read_bytes(), "dense.keras")
    assert not plain.walk.imports
    old = look((FIXTURES / "lambda.h5").read_bytes(), "lambda.h5")
    assert dangerous(old.walk) == {("keras.layers", "Lambda")}
    assert not look((FIXTURES / "latest.h5").read_bytes(), "latest.h5").walk.imports


def test_database_without_its_last_pages() -> None:
    """SQLite's header counts the pages."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "a.db")
        with contextlib.closing(sqlite3.connect(file)) as database:
            database.execute("CREATE TABLE t (v)")
            database.executemany("INSERT INTO t VALUES (?)", [("x" * 500,)] * 100)
            database.commit()
        content = file.read_bytes()
    assert look(content, "a.db").damage is None
    assert look(content[:-4096], "a.db").damage is not None


def test_tables_that_lead_round_are_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A flatbuffer may name the same tables again and again; no reader follows for ever."""
    content = (FIXTURES / "dense.tflite").read_bytes()
    assert look(content, "m.tflite").damage is None
    monkeypatch.setattr(tflite, "_TABLES_LIMIT", 10)
    assert "more than 10 tables" in str(look(content, "m.tflite").damage)
