"""Model artifacts: sealed, whole, of the format they claim, and safe to load.

What carries a check out is imported when one is: reading a configuration stays cheap.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from checks.artifacts.declaration import ArtifactCheck

if TYPE_CHECKING:
    from checks.context import Context
    from checks.model import CheckReport

__all__ = ["ArtifactCheck", "check"]


def check(declaration: ArtifactCheck, context: Context) -> CheckReport:
    """Check the artifacts that a declaration names; nothing of them is loaded.

    Args:
        declaration: What the project demands.
        context: Where the check runs.
    """
    from checks.artifacts.checking import check as carry_out  # noqa: PLC0415 - see above

    return carry_out(declaration, context)
