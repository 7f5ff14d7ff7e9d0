"""Dangerous pickles: named wherever they hide, never loaded; harmless ones left alone."""

from __future__ import annotations

import io
import os
import pickle
import sys
import zipfile
import zlib
from pathlib import Path

import pytest

from checks.artifacts.danger import dangerous, show
from checks.artifacts.inspection import inspect

FIXTURES = Path(__file__).parents[2] / "fixtures" / "artifacts"
SYSTEM = (os.system.__module__, "system")
END = b"."


def text(value: bytes) -> bytes:
    """Return the opcode that pushes a text."""
    return b"\x8c" + bytes([len(value)]) + value


def name(module: bytes, attribute: bytes) -> bytes:
    """Return the opcodes that import a name."""
    return text(module) + text(attribute) + b"\x93"


CALL = text(b"id") + b"\x85R"
PROTO = b"\x80\x04"
GETATTR = name(b"builtins", b"getattr")
CASES = {
    "call": PROTO + name(b"os", b"system") + CALL + END,
    "name through a module": PROTO + name(b"sklearn.utils", b"os.system") + CALL + END,
    "a module as a name": PROTO + name(b"sklearn.utils", b"os") + END,
    "getattr to a module's function": PROTO
    + GETATTR
    + name(b"a", b"b")
    + text(b"system")
    + b"\x86R"
    + END,
    "getattr to globals": PROTO
    + GETATTR
    + name(b"a", b"b")
    + text(b"__globals__")
    + b"\x86R"
    + END,
    "getattr with a computed name": PROTO
    + GETATTR
    + name(b"a", b"b")
    + name(b"c", b"d")
    + b")R\x86R.",
    "getattr kept for later": PROTO + name(b"functools", b"partial") + GETATTR + b"\x85R" + END,
    "getattr from the memo": PROTO
    + GETATTR
    + b"\x940h\x00"
    + name(b"a", b"b")
    + text(b"system")
    + b"\x86R"
    + END,
    "a computed module": PROTO + name(b"a", b"b") + b")R" + text(b"system") + b"\x93" + END,
    "escaped in unicode": b"Vo\\u0073\nVsystem\n\x93.",
    "escaped in a string": b"S'o\\x73'\nS'system'\n\x93.",
    "INST": b"(S'id'\nios\nsystem\n.",
    "OBJ": b"(cos\nsystem\nS'id'\no.",
    "second pickle": pickle.dumps(1) + pickle.dumps(os.system),
    "cut before STOP": PROTO + name(b"os", b"system") + CALL,
    "rubbish after": PROTO + name(b"os", b"system") + CALL + b"\xff\xff",
    "extension code": b"\x80\x02\x82\x05.",
    "__import__": PROTO + name(b"builtins", b"__import__") + text(b"os") + b"\x85R" + END,
    "newline in a name": PROTO + text(b"os\nx") + text(b"system") + b"\x93" + END,
    "letters that look alike": PROTO + name("оs".encode(), b"system") + END,  # noqa: RUF001
}
WRAPPER = (
    PROTO
    + name(b"joblib.numpy_pickle", b"NumpyArrayWrapper")
    + b")\x81}("
    + text(b"shape")
    + b"K\x64\x85"
    + text(b"dtype")
    + name(b"numpy", b"dtype")
    + text(b"u1")
    + b"\x85Rub"
)
CASES["hidden in a joblib array"] = WRAPPER + name(b"os", b"system") + CALL + END + b"0" * 200


def imports_of(content: bytes, file_name: str = "a.pkl") -> set[tuple[str, str]]:
    """Return the dangerous imports of a file's content."""
    return dangerous(inspect(io.BytesIO(content), len(content), file_name).walk)


@pytest.mark.parametrize("case", sorted(CASES))
def test_every_hiding_place(case: str) -> None:
    """Each way to reach code is named."""
    assert imports_of(CASES[case])


@pytest.mark.parametrize("case", sorted(CASES))
def test_hidden_in_containers(case: str) -> None:
    """So they are inside zip archives, NumPy arrays of objects, and compression."""
    content = CASES[case]
    if case == "second pickle":
        return  # what reads containers reads one pickle
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as target:
        target.writestr("model/data.pkl", content)
    assert imports_of(archive.getvalue(), "a.pt")
    header = b"{'descr': '|O', 'fortran_order': False, 'shape': (1,), }\n"
    array = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + content
    assert imports_of(array, "a.npy")
    if case != "hidden in a joblib array":  # joblib reads an array there
        assert imports_of(zlib.compress(content), "a.joblib")


@pytest.mark.parametrize(
    "file_name",
    ["pipeline.joblib", "pipeline-xz.joblib", "forest.joblib", "forest-0.pkl", "arrays.joblib"],
)
def test_models_of_real_libraries_pass(file_name: str) -> None:
    """scikit-learn models import nothing dangerous, a partial of a NumPy function included."""
    assert imports_of((FIXTURES / file_name).read_bytes(), file_name) == set()


def test_functions_inside_a_pickle() -> None:
    """Cloudpickle's functions are byte code that runs when it is called."""
    found = imports_of((FIXTURES / "function.pkl").read_bytes())
    assert {module for module, _name in found} == {"cloudpickle.cloudpickle"}


def test_harmless_attributes() -> None:
    """A bound method of a class is no danger."""
    content = PROTO + GETATTR + name(b"sklearn.base", b"Base") + text(b"fit") + b"\x86R" + END
    assert imports_of(content) == set()


def test_nothing_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A canary that acts on import, on call and on unpickling stays silent."""
    (tmp_path / "canary_module.py").write_text("import os\nos.mkdir('sung')\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    acts = PROTO + name(b"canary_module", b"sing") + b")R0" + name(b"os", b"mkdir")
    acts += text(b"sung") + b"\x85R" + END
    for file_name in ("a.pkl", "a.pt", "a.bin", "a.joblib", "a.npy"):
        assert SYSTEM not in imports_of(acts, file_name)
        assert imports_of(acts, file_name) or file_name == "a.npy"
    assert not (tmp_path / "sung").exists()
    assert "canary_module" not in sys.modules
    pickle.loads(PROTO + name(b"os", b"mkdir") + text(b"sung") + b"\x85R" + END)  # noqa: S301
    assert (tmp_path / "sung").exists(), "the canary is able to sing"


def test_names_are_shown_plainly() -> None:
    """Names that control a terminal are escaped, long lists are cut."""
    assert show({("a\x1b[31m", "b")}) == "a\\x1b[31m.b"
    assert show({("m", str(n)) for n in range(9)}).endswith(" and 4 more")
