"""Parameters of a run: in range, of their type, in accord with one another.

What carries a check out is imported when one is: reading a configuration stays cheap.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from checks.params.declaration import ParamsCheck

if TYPE_CHECKING:
    from checks.context import Context
    from checks.model import CheckReport

__all__ = ["ParamsCheck", "check"]


def check(declaration: ParamsCheck, context: Context) -> CheckReport:
    """Check the parameters that a run would use.

    Args:
        declaration: What the project demands.
        context: Where the check runs.
    """
    from checks.params.checking import check as carry_out  # noqa: PLC0415 - see above

    return carry_out(declaration, context)
