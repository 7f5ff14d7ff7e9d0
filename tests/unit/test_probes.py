"""Probes and services: run silently, held to their time, never hanging, never in the way."""

from __future__ import annotations

import os
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest

from safeguards.config import Probe, Service
from safeguards.probes import run_probes, with_environment
from safeguards.services import Services, healthy


def test_each_probe_has_its_verdict(tmp_path: Path) -> None:
    """All are run, in the project; a failure says why with its last words."""
    (tmp_path / "here").touch()
    probes = [
        Probe("ok", "test -e here"),
        Probe("bad", "echo first; echo the reason >&2; exit 3"),
        Probe("missing", "no-such-command"),
        Probe("late", "sleep 30", timeout_s=0.2),
    ]
    results = run_probes(probes, tmp_path, dict(os.environ))
    assert [(r.name, r.passed) for r in results] == [
        ("ok", True), ("bad", False), ("missing", False), ("late", False),
    ]  # fmt: skip
    assert results[1].detail == "exit status 3: the reason"
    assert "127" in results[2].detail
    assert results[3].detail == "no answer in 0.2 s"
    assert results[3].elapsed_s < 10


def test_a_probe_writes_nothing_to_guards_streams(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Standard output belongs to guard's result."""
    run_probes([Probe("loud", "echo out; echo err >&2")], tmp_path, dict(os.environ))
    assert capfd.readouterr() == ("", "")


def test_what_a_probe_leaves_running_is_not_waited_for(tmp_path: Path) -> None:
    """A background process that keeps the output open does not block."""
    started = time.monotonic()
    (result,) = run_probes([Probe("x", "sleep 20 & true")], tmp_path, dict(os.environ))
    assert result.passed
    assert time.monotonic() - started < 10


def test_a_late_probe_is_ended_with_its_children(tmp_path: Path) -> None:
    """The whole group goes."""
    probe = Probe("late", "(sleep 1; touch survived) & sleep 30", timeout_s=0.2)
    run_probes([probe], tmp_path, dict(os.environ))
    time.sleep(1.3)
    assert not (tmp_path / "survived").exists()


def test_a_probe_in_a_project_that_is_gone(tmp_path: Path) -> None:
    """It fails, with the system's reason, and raises nothing."""
    (result,) = run_probes([Probe("x", "true")], tmp_path / "gone", dict(os.environ))
    assert not result.passed
    assert "No such file" in result.detail


def test_python_is_the_projects(tmp_path: Path) -> None:
    """Its .venv comes first where no environment is active, and only there."""
    binary = tmp_path / ".venv" / "bin" / "python"
    binary.parent.mkdir(parents=True)
    binary.write_text("#!/bin/sh\necho theirs\n")
    binary.chmod(0o755)
    prepared = with_environment(tmp_path, {"PATH": "/usr/bin:/bin"})
    assert prepared["PATH"].split(":")[0] == str(binary.parent)
    active = {"PATH": "/usr/bin", "VIRTUAL_ENV": "/x"}
    assert with_environment(tmp_path, active) == active


class Answering(BaseHTTPRequestHandler):
    """Answers 200 on /health, 503 elsewhere."""

    def do_GET(self) -> None:
        """Answer."""
        self.send_response(200 if self.path == "/health" else 503)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
        """Say nothing."""


def test_health() -> None:
    """A status below 400 is healthy; an error, a refusal and nonsense are not."""
    with HTTPServer(("127.0.0.1", 0), Answering) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        base = f"http://127.0.0.1:{server.server_port}"
        try:
            assert healthy(f"{base}/health")
            assert not healthy(f"{base}/other")
        finally:
            server.shutdown()
            thread.join()
    assert not healthy(f"{base}/health")
    assert not healthy("http://[broken")


def test_services_are_stopped_and_started_in_order(tmp_path: Path) -> None:
    """In reverse at the end, also when the block fails; only what was stopped is started."""
    services = Services(
        (
            Service("a", "echo stop a >> log", "echo start a >> log"),
            Service("b", "echo stop b >> log; exit 1", "echo start b >> log"),
            Service("c", "", "echo start c >> log"),
        ),
        tmp_path,
        dict(os.environ),
    )

    def restore() -> None:
        with services.stopped():
            with open(tmp_path / "log", "a") as log:
                log.write("in between\n")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        restore()
    lines = (tmp_path / "log").read_text().splitlines()
    assert lines == ["stop a", "stop b", "in between", "start b", "start a"]
    (problem,) = services.problems
    assert "b did not stop" in problem


def test_a_service_that_does_not_come_back_is_named(tmp_path: Path) -> None:
    """After its time, with its URL."""
    url = "http://127.0.0.1:9/health"
    services = Services(
        (Service("ui", "true", "true", url, timeout_s=0.3),), tmp_path, dict(os.environ)
    )
    with services.stopped():
        pass
    (problem,) = services.problems
    assert "ui does not answer" in problem
