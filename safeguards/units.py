"""Figures as people read them."""

from __future__ import annotations

import time

_THOUSAND = 1000
_MINUTE_S = 60
_HOUR_S = 3600
_DAY_S = 86_400
_TEN = 10
_HUNDREDTH = 0.0095  # what two digits would show as nothing, or nearly


def bytes_text(size_bytes: int) -> str:
    """Return a size such as ``4.2 GB`` (powers of 1000)."""
    if size_bytes < _THOUSAND:
        return f"{size_bytes} B"
    value = float(size_bytes)
    for unit in ("kB", "MB", "GB", "TB"):
        value /= _THOUSAND
        if round(value, 1) < _THOUSAND:
            return f"{value:.1f} {unit}"
    return f"{value / _THOUSAND:.1f} PB"


def seconds_text(seconds: float) -> str:
    """Return a length of time such as ``3 ms``, ``0.21 s``, ``12 s`` or ``2 h 10 min``."""
    if 0 < seconds < _HUNDREDTH:
        return f"{max(1, round(seconds * _THOUSAND))} ms"
    if seconds < _TEN:
        digits = 2 if seconds < 1 else 1
        return f"{seconds:.{digits}f} s"
    whole = round(seconds)
    if whole < _MINUTE_S:
        return f"{whole} s"
    if whole < _HOUR_S:
        minutes, rest = divmod(whole, _MINUTE_S)
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    if whole < _DAY_S:
        hours, rest = divmod(whole // _MINUTE_S, _MINUTE_S)
        return f"{hours} h {rest} min" if rest else f"{hours} h"
    days, rest = divmod(whole // _HOUR_S, 24)
    return f"{days} d {rest} h" if rest else f"{days} d"


def count_text(number: int, noun: str, plural: str = "") -> str:
    """Return a number with its noun: ``1 file``, ``12,400 files``."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def moment_text(unix_s: float, now_s: float | None = None) -> str:
    """Return a moment such as ``14:03:22`` today, else ``2026-11-21 14:03``."""
    moment = time.localtime(unix_s)
    today = time.localtime(time.time() if now_s is None else now_s)
    same_day = (moment.tm_year, moment.tm_yday) == (today.tm_year, today.tm_yday)
    return time.strftime("%H:%M:%S" if same_day else "%Y-%m-%d %H:%M", moment)


def local_text(unix_s: float) -> str:
    """Return a moment in full with its time zone: ``2026-11-21 14:03:22 +0100``."""
    return time.strftime("%Y-%m-%d %H:%M:%S %z", time.localtime(unix_s))


def iso_text(unix_s: float) -> str:
    """Return a moment in ISO 8601, UTC, for JSON."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(unix_s))


def share_text(share: float) -> str:
    """Return a share as per cent: ``12.5 %``."""
    text = f"{share * 100:.2f}".rstrip("0").rstrip(".")
    return f"{text} %"
