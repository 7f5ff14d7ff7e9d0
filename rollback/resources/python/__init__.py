"""Python environments: which one a command uses, what of it is captured, how it is proven.

What is here reads files only. What starts an interpreter or an installer is imported from its
own module: `verify`, `reinstall`.
"""

from __future__ import annotations

from rollback.resources.python.distributions import (
    Distribution,
    changed_distributions,
    installed,
)
from rollback.resources.python.find import find_environments, lock_files, missing_environment
from rollback.resources.python.model import Environment
from rollback.resources.python.roots import (
    environment_root_from,
    environment_roots,
)

__all__ = [
    "Distribution",
    "Environment",
    "changed_distributions",
    "environment_root_from",
    "environment_roots",
    "find_environments",
    "installed",
    "lock_files",
    "missing_environment",
]
