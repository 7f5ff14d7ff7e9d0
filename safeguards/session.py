"""What one call of guard knows: its options, its terminal, the project and the engine."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safeguards.output import Terminal, Verbosity

if TYPE_CHECKING:
    from rollback.engine import Engine
    from rollback.model import Skip
    from rollback.reports import VerifyReport
    from safeguards.config import Config


@dataclass(slots=True)
class Session:
    """One call of guard; the global options write into it while the command line is read.

    Attributes:
        environ: The environment as guard was given it; it is also the child's.
        terminal: Where guard speaks.
        project_option: What ``--project`` named.
        store_option: What ``--store`` named.
        verb: The command, for messages.
        last_words: Called by the process exit, after everything was written.
    """

    environ: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    terminal: Terminal = field(default_factory=Terminal)
    project_option: str | None = None
    store_option: str | None = None
    verb: str = ""
    last_words: list[Callable[[], None]] = field(default_factory=list)

    def set_global(self, name: str, value: Any) -> None:
        """Take a global option from before or behind the verb; the later one counts."""
        if name == "project":
            self.project_option = value
        elif name == "store":
            self.store_option = value
        elif name == "quiet":
            self.terminal.verbosity = Verbosity.QUIET
        elif name == "verbose":
            self.terminal.verbosity = Verbosity.VERBOSE
        elif name == "color":
            self.terminal.color = value
        elif name == "as_json":
            self.terminal.json = True

    def project(self) -> Path:
        """Return the project's folder.

        Raises:
            WrongUsage: There is none.
        """
        from safeguards.project import find_project  # noqa: PLC0415 - after --help and --version

        return find_project(self.project_option, self.environ, self.store_option)

    def configure(
        self,
        options: Mapping[str, Any] | None = None,
        *,
        lenient: bool = False,
        warn: bool = True,
    ) -> Config:
        """Return the configuration of the project.

        Args:
            options: Dotted key → value of the verb's own options.
            lenient: Whether a broken file is left aside instead of refused.
            warn: Whether that is said.

        Raises:
            WrongUsage: Something in it is wrong.
        """
        from safeguards import configuring  # noqa: PLC0415 - after --help and --version

        chosen = {"store": self.store_option, **(options or {})}
        read = configuring.load_leniently if lenient else configuring.load
        config = read(self.project(), self.environ, chosen)
        if config.problem and warn:
            self.terminal.warn(f"the configuration is left aside: {config.problem}")
        return config

    def open_engine(
        self, config: Config, command: Sequence[str] = (), *, create: bool = True
    ) -> Engine:
        """Return the engine for a project; to be closed (it is a context manager).

        Args:
            config: The configuration.
            command: What will be run, so that the right Python environment is found.
            create: Whether to make the store where there is none.

        Raises:
            RollbackError: The store cannot be used, or there is none.
        """
        from rollback.errors import NothingToDo  # noqa: PLC0415 - the engine is not small
        from safeguards import moved  # noqa: PLC0415 - as above
        from safeguards.settings import engine_for  # noqa: PLC0415 - as above

        if create and (was := moved.moved_from(config, self.environ)):
            self.terminal.warn(was)
        try:
            engine = engine_for(config, self.environ, command, create=create)
        except NothingToDo as error:
            raise moved.explain(error, config, self.environ) from error
        if not create:
            self._tell_place(config, engine)
        return engine

    def _tell_place(self, config: Config, engine: Engine) -> None:
        """Say where the past is, where the configuration names another place."""
        from rollback.store.placement import choose  # noqa: PLC0415 - as above

        named = choose(config.project, config.store, self.environ).path
        if config.store is not None and named != engine.store.path:
            self.terminal.warn(
                f"the store {named} has nothing of this project: using {engine.store.path}"
            )

    def repair_store(self, config: Config) -> tuple[VerifyReport, list[str]]:
        """Read the whole store and mend what can be mended, the catalog too.

        Returns:
            What is damaged, and what else was done, as sentences.

        Raises:
            RollbackError: The store cannot be used, or there is none.
        """
        from safeguards.settings import repair  # noqa: PLC0415 - as above

        return repair(config, self.environ, self.terminal.progress())

    def skips(self, config: Config) -> tuple[Skip, ...]:
        """Return what is in use and outside of what guard can protect."""
        from safeguards import settings  # noqa: PLC0415 - as above

        return settings.skips(config, self.environ)

    def remember_place(self, config: Config) -> None:
        """Note where the store is, where only the project's own file says so."""
        from safeguards import places  # noqa: PLC0415 - as above

        places.remember(config, self.environ)

    def guard_command(self, *words: str, config: Config | None = None) -> str:
        """Return a guard command to type, with ``--project`` and ``--store`` where they matter."""
        from safeguards.errors import WrongUsage  # noqa: PLC0415
        from safeguards.project import current_folder, find_project  # noqa: PLC0415

        quoted: list[str] = ["guard"]
        project = self.project() if config is None else config.project
        try:
            current_folder(self.environ).stat()
            elsewhere = find_project(None, self.environ) != project
        except (WrongUsage, OSError):
            elsewhere = True
        if elsewhere:
            quoted += ["--project", shell_word(str(project))]
        if config is not None and config.origins.get("store") == "--store":
            quoted += ["--store", shell_word(str(config.store))]
        return " ".join([*quoted, *words])


def shell_word(text: str) -> str:
    """Return a text as one word of a shell command."""
    import shlex  # noqa: PLC0415 - only where something is to be typed

    return shlex.quote(text)
