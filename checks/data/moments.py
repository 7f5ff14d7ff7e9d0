"""Times as the whole numbers that files hold: Python's own know no year beyond 9999."""

from __future__ import annotations

import datetime as dt
import re
from typing import Any

_SECOND = {"ms": 1_000, "us": 1_000_000, "μs": 1_000_000, "ns": 1_000_000_000}
_UNIT = re.compile(r"time_unit='(\w+)'")
_DAY_S = 86_400
_EPOCH = dt.datetime(1970, 1, 1)  # noqa: DTZ001 - files hold the difference, in UTC or none
#: The first second of the year 1 and the last one of the year 9999, from 1970.
_FIRST_S, _LAST_S = -62_135_596_800, 253_402_300_799


def is_moment(dtype: str) -> bool:
    """Return whether a polars type, as text, counts from 1970."""
    return dtype == "Date" or dtype.startswith("Datetime")


def limits(dtype: str) -> tuple[int, int]:
    """Return the first and last whole number of a type that lies in the years 1 to 9999."""
    if dtype == "Date":
        return _FIRST_S // _DAY_S, _LAST_S // _DAY_S
    second = _per_second(dtype)
    return _FIRST_S * second, (_LAST_S + 1) * second - 1


def readable_moment(value: Any, dtype: str) -> str:
    """Return a moment as people read it; one beyond all calendars as the number that it is.

    Args:
        value: The whole number in the file.
        dtype: The polars type, as text.
    """
    first, last = limits(dtype)
    if not isinstance(value, int) or not first <= value <= last:
        unit = "days" if dtype == "Date" else _unit(dtype)
        return f"{value} {unit} from 1970"
    if dtype == "Date":
        return (_EPOCH + dt.timedelta(days=value)).date().isoformat()
    whole, part = divmod(value, _per_second(dtype))
    moment = _EPOCH + dt.timedelta(
        seconds=whole, microseconds=part * 1_000_000 // _per_second(dtype)
    )
    zone = "" if "time_zone=None" in dtype else "+00:00"
    return moment.isoformat(sep=" ") + zone


def _per_second(dtype: str) -> int:
    return _SECOND.get(_unit(dtype), _SECOND["us"])


def _unit(dtype: str) -> str:
    found = _UNIT.search(dtype)
    return found[1] if found else "us"
