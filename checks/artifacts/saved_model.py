"""TensorFlow's SavedModel: a protobuf, and beside it a table of variables with their shards.

Format: tensorflow/core/util/tensor_bundle (`variables.index` is a LevelDB table, whose last eight
bytes are its magic number; shards are named ``variables.data-00000-of-00002``).
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from checks.artifacts.source import Unreadable, opened

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NAME = "saved_model.pb"
_TABLE_MAGIC = (0xDB4775248B80FB57).to_bytes(8, "little")
_SHARD = re.compile(r"variables\.data-(\d{5})-of-(\d{5})")


def missing_parts(model: Path) -> Iterator[str]:
    """Yield what a SavedModel lacks; a model without a folder of variables has none.

    Args:
        model: Its `saved_model.pb`.
    """
    folder = model.parent / "variables"
    try:
        names = sorted(os.listdir(folder))
    except OSError:
        return
    shards = [match for name in names if (match := _SHARD.fullmatch(name))]
    if not shards and "variables.index" not in names:
        return
    try:
        with opened(folder / "variables.index") as (file, status):
            file.seek(max(0, status.st_size - len(_TABLE_MAGIC)))
            if file.read() != _TABLE_MAGIC:
                yield "variables/variables.index is cut short: its last bytes are not there"
    except Unreadable as error:
        yield f"variables/variables.index {error}"
    count = max((int(match[2]) for match in shards), default=1)
    there = {int(match[1]) for match in shards}
    for number in range(min(count, 10_000)):
        if number not in there:
            yield f"variables/variables.data-{number:05}-of-{count:05} does not exist"
            return
