"""Starts guard with guard's own modules, whatever the project's folders are called.

guard runs inside projects that may have packages named ``checks``, ``rollback`` or
``safeguards`` and a ``PYTHONPATH`` that puts them first. That path belongs to the child: it
stays in the environment and leaves this interpreter's `sys.path`. This module is the console
script's target because its name is the one that no project has; it imports nothing but what
the interpreter has loaded already.
"""

import os
import sys
from _frozen_importlib_external import PathFinder

TYPE_CHECKING = False
if TYPE_CHECKING:  # `typing` itself could come from the project as long as the path is its own
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType
    from typing import NoReturn

OWN = os.path.dirname(os.path.abspath(__file__))
PACKAGES = ("safeguards", "rollback", "checks")


class _OwnPackages:
    """Finds guard's three packages beside this file, before any other finder is asked."""

    @staticmethod
    def find_spec(
        name: str, path: "Sequence[str] | None" = None, target: "ModuleType | None" = None
    ) -> "ModuleSpec | None":
        if path is not None or name not in PACKAGES:
            return None
        return PathFinder.find_spec(name, [OWN], target)


def main() -> "NoReturn":
    """Run guard's command line and exit with its status."""
    isolate()
    from safeguards.main import main as run  # noqa: PLC0415 - only after the path is clean

    run()


def isolate() -> None:
    """Make imports independent of the project, its PYTHONPATH and the current folder.

    The environment is left as it is, for the child. What start-up hooks on that path (such as
    ``usercustomize``) have loaded under one of guard's names is forgotten.
    """
    if not any(isinstance(finder, type) and finder is _OwnPackages for finder in sys.meta_path):
        sys.meta_path.insert(0, _OwnPackages)
    foreign = _foreign_entries()
    kept = [entry for entry in sys.path if _absolute(entry) not in foreign]
    # Where the dependencies themselves come from PYTHONPATH (module systems of clusters do so),
    # that folder has to stay, behind everything else.
    sys.path[:] = kept + [e for e in sys.path if _absolute(e) in foreign and _has_click(e)]
    for name in list(sys.modules):
        if name.partition(".")[0] in PACKAGES and not _is_own(sys.modules[name]):
            del sys.modules[name]
    if os.environ.get("PYTHONWARNINGS"):
        # It is meant for the child's warnings; guard must not fail on its own because of it.
        import warnings  # noqa: PLC0415 - the interpreter has loaded it already in this case

        warnings.resetwarnings()
        warnings.simplefilter("ignore")


def _foreign_entries() -> frozenset[str]:
    """Return the folders on `sys.path` that PYTHONPATH or the way of starting brought."""
    foreign = {""}
    if not sys.flags.ignore_environment and (named := os.environ.get("PYTHONPATH")):
        foreign |= {_absolute(entry) for entry in named.split(os.pathsep)}
    if sys.path and not sys.flags.safe_path:
        foreign.add(_absolute(sys.path[0]))  # the script's folder, or the current one for -m
    library = os.path.dirname(os.__file__)
    return frozenset(foreign - {OWN, library, os.path.join(library, "lib-dynload")})


def _absolute(entry: str) -> str:
    try:
        return os.path.abspath(entry)
    except FileNotFoundError:  # relative, and the current folder is gone
        return ""


def _has_click(entry: str) -> bool:
    return bool(entry) and os.path.isfile(os.path.join(entry, "click", "__init__.py"))


def _is_own(module: "ModuleType") -> bool:
    file = getattr(module, "__file__", None)
    return isinstance(file, str) and os.path.abspath(file).startswith(OWN + os.sep)


if __name__ == "__main__":
    main()
