"""A program around `supervise`, for tests that need a whole process: terminals, signals, groups.

    python supervised.py [--KEY=VALUE …] -- COMMAND …

The keys are the fields of `Limits`; ``--record=FILE`` writes the outcome as JSON,
``--started=FILE`` the pid of the command when it runs, ``--threads`` starts threads that
would take signals, ``--after=SECONDS`` does bookkeeping afterwards, with requests to stop held.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

from safeguards.errors import GuardError
from safeguards.supervisor import (
    Limits,
    hold_signals,
    reraise_interrupt,
    reserve_standard_streams,
    supervise,
)


def _main() -> int:
    split = sys.argv.index("--")
    options: dict[str, Any] = {}
    for word in sys.argv[1:split]:
        key, _, value = word.removeprefix("--").partition("=")
        options[key] = value
    record, started = options.pop("record", None), options.pop("started", None)
    after_s = float(options.pop("after", 0))
    if options.pop("threads", None) is not None:
        for _ in range(3):
            threading.Thread(target=time.sleep, args=(600,), daemon=True).start()
    limits = Limits(**{key: json.loads(value) for key, value in options.items()})

    def on_start(pid: int) -> None:
        if started:
            Path(started).write_text(str(pid))

    with hold_signals() as held:
        outcome = supervise(
            sys.argv[split + 1 :], environ=os.environ, limits=limits, on_start=on_start
        )
        until = time.monotonic() + after_s
        while time.monotonic() < until:
            time.sleep(0.02)
        if record:
            said = dataclasses.asdict(outcome) | {"held": held.received}
            Path(record).write_text(json.dumps(said))
    reraise_interrupt(outcome)
    return outcome.status


if __name__ == "__main__":
    reserve_standard_streams()
    try:
        status = _main()
    except GuardError as error:
        print(f"guard: {error} ({error.hint})", file=sys.stderr)  # noqa: T201
        status = error.exit_code
    sys.exit(status)
