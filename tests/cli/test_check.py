"""`guard check` and `guard schema infer` as a user types them."""

from __future__ import annotations

import hashlib
import json
import os
import time
from pathlib import Path

import pytest

from e2e.guard_command import Guard

DECLARED = """
[[check.artifact]]
path = "models/*.npy"
sha256 = "models/SHA256SUMS"
"""


@pytest.fixture
def sealed(guard: Guard) -> Path:
    """A project with a sealed model of a few megabytes, old enough to be told by its times."""
    header = b"{'descr': '|u1', 'fortran_order': False, 'shape': (4000000,), }"
    header += b" " * (118 - len(header)) + b"\n"
    model = guard.project / "models" / "m.npy"
    weights = hashlib.shake_256(b"weights").digest(4_000_000)
    model.write_bytes(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + weights)
    (guard.project / "guard.toml").write_text(DECLARED)
    assert guard("seal", "models/m.npy").status == 0
    assert guard("snapshot").status == 0  # makes the store, where results are kept
    young_s = 2.1 - (time.time() - os.stat(model).st_ctime)
    time.sleep(max(0.0, young_s))
    return model


def checks(guard: Guard, *words: str) -> dict[str, object]:
    """Return the `data` of a check as JSON."""
    data = json.loads(guard("--json", "check", *words).out)["data"]
    assert isinstance(data, dict)
    return data


def test_large_models_are_known_from_before(guard: Guard, sealed: Path) -> None:
    """An unchanged one is read once, again with --fresh, and always after a change."""
    assert checks(guard, "artifacts")["cached"] == 0
    assert checks(guard, "artifacts")["cached"] == 1
    assert checks(guard, "artifacts", "--fresh")["cached"] == 0
    with sealed.open("r+b") as file:
        file.seek(3_000_000)
        file.write(b"\0")
    times = os.stat(sealed)
    os.utime(sealed, ns=(times.st_atime_ns, times.st_mtime_ns - 10**12))
    again = guard("check", "artifacts")
    assert again.status == 1
    assert "differs from its seal" in again.out


def test_named_files(guard: Guard) -> None:
    """One that nothing declares is held against the defaults, or said to be left out."""
    (guard.project / "models" / "half.pkl").write_bytes(b"\x80\x04K")
    bad = guard("check", "models/half.pkl")
    assert (bad.status, "cut short" in bad.out) == (1, True)
    assert guard("check", "data.csv").status == 0
    (guard.project / "guard.toml").write_text('[[check.params]]\nfile = "params.yaml"\n')
    left_out = guard("check", "train.py")
    assert left_out.status == 0
    assert "not checked" in left_out.out
    assert left_out.out.splitlines()[-1] == "nothing was checked"


def test_a_schema_of_bad_data_is_none(guard: Guard) -> None:
    """The answer is no (1), not that guard itself failed."""
    (guard.project / "twice.csv").write_text("a,a\n1,2\n")
    done = guard("schema", "infer", "twice.csv", "-o", "s.yaml")
    assert done.status == 1
    assert "'a'" in done.err
    assert not (guard.project / "s.yaml").exists()
