"""Training data: structure, schema, missing values, outliers, balance, duplicates, drift.

The modules below import polars; this one and the declaration do not, so that reading a
configuration stays cheap.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from checks.data.declaration import DataCheck

if TYPE_CHECKING:
    from pathlib import Path

    from checks.context import Context
    from checks.model import CheckReport

__all__ = ["DataCheck", "check", "infer_schema"]


def check(declaration: DataCheck, context: Context) -> CheckReport:
    """Return everything that is wrong with a data set; a bad input is never an exception.

    Args:
        declaration: What the project demands.
        context: Where the check runs.

    Raises:
        EngineUnavailable: The declared engine is not installed or does not answer.
    """
    from checks.data.dataset import check_data  # noqa: PLC0415 - imports polars

    return check_data(declaration, context)


def infer_schema(path: Path) -> str:
    """Return a pandera schema in YAML that the data at `path` satisfies.

    Args:
        path: A data file or a partitioned folder.

    Raises:
        CheckError: It cannot be read as data.
    """
    from checks.data.infer import infer_from  # noqa: PLC0415 - imports polars

    return infer_from(path)
