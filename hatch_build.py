"""Builds the compiled helper where that is possible; guard does without it where it is not."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

_NAME = "mlguard_listing"
_SOURCE = "rollback/listing.c"
_FIRST = "cp311"
"""The helper keeps to the stable interface of this Python, and works with every later one."""


class HelperHook(BuildHookInterface[Any]):
    """Compiles `rollback/listing.c` into a wheel or an editable installation."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002
        """Add the helper to what is built; where that fails, say so and go on."""
        if self.target_name != "wheel":
            return
        try:
            built = _compile(Path(self.directory) / "helper")
        except Exception as error:  # noqa: BLE001 - whatever keeps a compiler from it
            self.app.display_warning(f"{_NAME} was not built, guard will be slower: {error}")
            return
        build_data["pure_python"] = False
        build_data["tag"] = f"{_FIRST}-abi3-{_platform()}"
        build_data["force_include"][str(built)] = built.name

    def clean(self, versions: list[str]) -> None:  # noqa: ARG002
        """Remove what earlier builds left."""
        shutil.rmtree(Path(self.directory) / "helper", ignore_errors=True)


def _compile(scratch: Path) -> Path:
    """Return the helper, compiled into a folder."""
    from setuptools import Distribution, Extension  # noqa: PLC0415 - in the build alone

    extension = Extension(_NAME, [_SOURCE], py_limited_api=True)
    command = Distribution({"ext_modules": [extension]}).get_command_obj("build_ext")
    command.build_lib, command.build_temp = str(scratch), str(scratch / "objects")
    command.ensure_finalized()
    command.run()
    (built,) = command.get_outputs()
    return Path(built)


def _platform() -> str:
    from packaging.tags import sys_tags  # noqa: PLC0415 - in the build alone

    return next(tag.platform for tag in sys_tags() if "manylinux" not in tag.platform)
