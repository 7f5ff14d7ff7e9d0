"""An operation from its intent to its end in the log, whatever interrupts it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from rollback.errors import RollbackError
from safeguards.supervisor import delay_signals

if TYPE_CHECKING:
    from rollback.engine import Engine
    from rollback.model import Operation


@contextlib.contextmanager
def undertaken(engine: Engine, kind: str, data: Mapping[str, Any]) -> Iterator[Operation]:
    """Begin an operation for a block, which ends it; where the block fails, it is ended here.

    Args:
        engine: The project's.
        kind: Of operation.
        data: Its intent.

    Raises:
        RollbackError: It could not be begun.
    """
    with contextlib.ExitStack() as begun:
        begun.enter_context(delay_signals())  # or it might be begun, and nobody know of it
        operation = engine.begin(kind, data)
        try:
            begun.close()
            yield operation
        except BaseException as error:
            with contextlib.suppress(RollbackError, OSError):
                state = "failed" if isinstance(error, Exception) else "interrupted"
                engine.finish(operation, state, {"error": type(error).__name__})
            raise
