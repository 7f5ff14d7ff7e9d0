"""The program in the store is made whole, or what stopped it is said."""

from __future__ import annotations

import inspect
import io
import zipfile
from pathlib import Path

import pytest

from rollback import rescue

PACKAGE = Path(rescue.__file__).resolve().parent.parent
BUILD = inspect.unwrap(rescue.build)
"""The sweeps of faults pack it once for all their cases."""


def test_equal_sources_give_equal_bytes() -> None:
    """So that the program is written again only where the engine changed."""
    made = BUILD(PACKAGE)
    assert made == BUILD(PACKAGE)
    with zipfile.ZipFile(io.BytesIO(made)) as archive:
        assert archive.testzip() is None
        assert "rollback/engine.py" in archive.namelist()


@pytest.mark.parametrize("member", [1, 2, 9])
def test_an_interrupt_stays_an_interrupt(member: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Inside a member, where closing the archive would raise an error of its own."""
    write, calls = zipfile._ZipWriteFile.write, 0  # type: ignore[attr-defined]

    def interrupted(self: object, data: bytes) -> int:
        nonlocal calls
        calls += 1
        if calls == member:
            raise KeyboardInterrupt
        return int(write(self, data))

    monkeypatch.setattr(zipfile._ZipWriteFile, "write", interrupted)  # type: ignore[attr-defined]
    with pytest.raises(KeyboardInterrupt):
        BUILD(PACKAGE)
