"""The documents of snapshots: their names, and reading JSON that may be damaged."""

from __future__ import annotations

import json
from typing import Any

from rollback.errors import StoreCorrupt


def document_stem(seq: int, kind: str) -> str:
    """Return the name of a snapshot's document; one operation may have one of each kind."""
    return f"{seq:08d}" + ("-undo" if kind == "undo" else "")


def read_json(content: bytes | str) -> Any:
    """Return a JSON value of the store.

    Raises:
        StoreCorrupt: It is not JSON.
    """
    try:
        return json.loads(content)
    except ValueError as error:
        raise StoreCorrupt(
            f"a record in the store cannot be read: {error}", hint="guard verify --repair"
        ) from error
