"""A real `mlflow server` serves the old state after a rollback, with no restart."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from e2e.guard_command import Guard
from e2e.projects import make_small_project
from manifest import assert_back, differences, manifest

pytestmark = pytest.mark.timeout(300)

_START_TIMEOUT_S = 120

# A bad run: deletes the good run through the API and logs junk, with nothing but the library.
_BAD_RUN = """
import json, sys, urllib.request
def call(path, **body):
    request = urllib.request.Request(sys.argv[1] + path, json.dumps(body).encode(),
                                     {"Content-Type": "application/json"})
    return json.load(urllib.request.urlopen(request))
call("runs/delete", run_id=sys.argv[2])
for number in range(5):
    run = call("runs/create", experiment_id="0", start_time=number)["run"]["info"]["run_id"]
    call("runs/log-metric", run_id=run, key="accuracy", value=-1, timestamp=1)
call("registered-models/create", name="junk")
sys.exit(1)
"""


class Server:
    """A tracking server on loopback, spoken to through its REST API."""

    def __init__(self, python: Path, folder: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.base = f"http://127.0.0.1:{port}"
        self.api = f"{self.base}/api/2.0/mlflow/"
        self.log = folder.parent / "server.log"
        with open(self.log, "wb") as log:
            self.popen = subprocess.Popen(
                [python, "-m", "mlflow", "server", "--workers", "1", "--port", str(port)],
                cwd=folder,
                env=os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def wait_until_healthy(self) -> None:
        """Return when `/health` answers; fail with the server's log when it never does."""
        deadline = time.monotonic() + _START_TIMEOUT_S
        while time.monotonic() < deadline and self.popen.poll() is None:
            try:
                with urllib.request.urlopen(f"{self.base}/health", timeout=5) as answer:  # noqa: S310
                    if answer.status == 200:
                        return
            except OSError:
                time.sleep(0.3)
        raise AssertionError(f"the server did not start:\n{self.log.read_text()[-3000:]}")

    def call(self, path: str, **body: Any) -> Any:
        """Return the answer of one POST call."""
        request = urllib.request.Request(  # noqa: S310 - loopback, made above
            self.api + path, json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310
            return json.load(answer)

    def runs(self) -> dict[str, float]:
        """Return the accuracy of each active run."""
        found = self.call("runs/search", experiment_ids=["0"]).get("runs", [])
        return {
            run["info"]["run_id"]: run["data"]["metrics"][0]["value"]
            for run in found
            if run["data"].get("metrics")
        }

    def add_run(self, accuracy: float) -> str:
        """Log one run and return its id."""
        info = self.call("runs/create", experiment_id="0", start_time=1)["run"]["info"]
        run_id = str(info["run_id"])
        self.call("runs/log-metric", run_id=run_id, key="accuracy", value=accuracy, timestamp=1)
        return run_id

    def stop(self) -> None:
        """End the server and all that it started."""
        os.killpg(self.popen.pid, signal.SIGTERM)
        try:
            self.popen.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(self.popen.pid, signal.SIGKILL)
            self.popen.wait()


@pytest.fixture
def server(guard: Guard, mlflow_python: Path) -> Iterator[Server]:
    """Run a server in the project with its default database."""
    make_small_project(guard.project)
    running = Server(mlflow_python, guard.project)
    try:
        running.wait_until_healthy()
        yield running
    finally:
        running.stop()


def test_a_live_server_serves_the_old_state(
    guard: Guard, server: Server, mlflow_python: Path
) -> None:
    """Runs logged and deleted under guard are undone under the running server."""
    good = server.add_run(0.9)
    assert server.runs() == {good: 0.9}
    live = ("mlflow.db",)
    before = manifest(guard.project, live_databases=live)

    run = guard("run", "--", mlflow_python, "-c", _BAD_RUN, server.api, good)
    assert run.status == 1, run.said
    assert good not in server.runs()
    assert len(server.runs()) == 5
    assert differences(before, manifest(guard.project, live_databases=live))

    after = guard.roll_back(live_databases=live)
    assert server.runs() == {good: 0.9}
    assert_back(before, after)
    assert server.popen.poll() is None, "the server had to be started again"

    later = server.add_run(0.7)
    assert server.runs() == {good: 0.9, later: 0.7}, "the server cannot write any more"
    with pytest.raises(urllib.error.HTTPError):
        server.call("registered-models/get-latest-versions", name="junk")
