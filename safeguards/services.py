"""Stops the project's local services before a rollback and starts them after it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from safeguards.config import Service
from safeguards.probes import shell, with_environment

_PAUSE_S = 0.2
_REQUEST_TIMEOUT_S = 2.0
_GOOD_BELOW = 400


@dataclass(slots=True)
class Services:
    """The services of a project around one rollback.

    Attributes:
        services: In the order in which they are stopped; they are started in reverse.
        project: Where their commands run.
        environ: Their environment.
        problems: What went wrong, in sentences for people.
    """

    services: tuple[Service, ...]
    project: Path
    environ: Mapping[str, str]
    problems: list[str] = field(default_factory=list)

    @contextlib.contextmanager
    def stopped(self) -> Iterator[None]:
        """Keep the services stopped during a block, and start them again however it ends."""
        prepared = with_environment(self.project, self.environ)
        stopped = [s for s in self.services if s.stop and self._do(s, "stop", s.stop, prepared)]
        try:
            yield
        finally:
            for service in reversed(stopped):
                if service.start:
                    self._do(service, "start", service.start, prepared)
            self._await(s for s in stopped if s.start and s.health)

    def _do(self, service: Service, what: str, command: str, environ: Mapping[str, str]) -> bool:
        # The folder may be what the run deleted; a service can be stopped from anywhere.
        folder = self.project if self.project.is_dir() else Path("/")
        try:
            status, tail = shell(command, folder, environ, service.timeout_s)
        except OSError as error:
            status, tail = 126, error.strerror or str(error)
        if status == 0:
            return True
        why = f"no end in {service.timeout_s:g} s" if status is None else f"exit status {status}"
        last = f" ({tail.splitlines()[-1]})" if tail else ""
        self.problems.append(f"the service {service.name} did not {what}: {why}{last}")
        # A stop that failed may still have stopped it, so it is started again.
        return what == "stop"

    def _await(self, services: Iterable[Service]) -> None:
        for service in services:
            deadline = time.monotonic() + service.timeout_s
            while not healthy(service.health):
                if time.monotonic() > deadline:
                    self.problems.append(
                        f"the service {service.name} does not answer at {service.health}"
                    )
                    break
                time.sleep(_PAUSE_S)


def healthy(url: str) -> bool:
    """Return whether a URL answers with a status below 400; no proxy is asked."""
    import urllib.error  # noqa: PLC0415 - only where a service has a health URL
    import urllib.request  # noqa: PLC0415

    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=_REQUEST_TIMEOUT_S) as answer:
            return bool(answer.status < _GOOD_BELOW)
    except (OSError, ValueError):
        return False
