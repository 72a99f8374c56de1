"""Conversion of printed numbers to the units of the database. Each value is converted once, by one function here."""

from __future__ import annotations

import math
import re
from datetime import UTC, date, datetime

from edgevit.published.screening import ClaimError

# float() also takes 1_000, and digits of other scripts.
_PLAIN = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_INT64 = 2**63


def number(value: object, name: str) -> float:
    """Convert text or a number to a finite number. Raises ClaimError otherwise, also for NaN and infinities."""
    # Stripped once: strip() takes a unit separator for a blank, and float() does not.
    if isinstance(value, str) and _PLAIN.fullmatch(text := value.strip()):
        value = float(text)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ClaimError("not_a_number", f"{name} is {value!r}")
    try:
        converted = float(value)
    # YAML and JSON have integers of any length.
    except OverflowError as error:
        raise ClaimError("not_a_number", f"{name} has hundreds of digits") from error
    if not math.isfinite(converted):
        raise ClaimError("not_a_number", f"{name} is {value}")
    return converted


def whole(value: object, name: str) -> int:
    """Convert to a whole number that is not negative. Raises ClaimError."""
    count = number(value, name)
    if count < 0 or count != int(count):
        raise ClaimError("not_a_count", f"{name} is {value!r}")
    return int(count)


def ns_from_ns(value: object, name: str) -> int:
    """Round nanoseconds to whole ones. Raises ClaimError for a number that is not positive, or beyond 64 bits."""
    return _nanoseconds(value, name, 1)


def ns_from_us(value: object, name: str) -> int:
    """Convert microseconds to nanoseconds. Raises ClaimError as ns_from_ns does."""
    return _nanoseconds(value, name, 1_000)


def ns_from_ms(value: object, name: str) -> int:
    """Convert milliseconds to nanoseconds. Raises ClaimError as ns_from_ns does."""
    return _nanoseconds(value, name, 1_000_000)


def _nanoseconds(value: object, name: str, factor: int) -> int:
    time = number(value, name)
    if time <= 0:
        raise ClaimError("not_positive", f"{name} is {time:g}")
    if (scaled := time * factor) >= _INT64:
        raise ClaimError("beyond_64_bits", f"{name} is {time:g}, as a counter that overflowed gives it")
    return max(1, round(scaled))


def from_millions(value: object, name: str) -> float:
    """Convert millions, which may have commas between thousands, to a number. Raises ClaimError."""
    return 1e6 * number(value.replace(",", "") if isinstance(value, str) else value, name)


def from_billions(value: object, name: str) -> float:
    """Convert billions (G), with or without commas, to a number. Raises ClaimError."""
    return 1e9 * number(value.replace(",", "") if isinstance(value, str) else value, name)


def utc(value: object, name: str) -> str:
    """Convert a date, or a time with an offset, to ISO 8601 in UTC: from text, or from a value of YAML or Parquet.

    Raises ClaimError for anything else, also for a time without an offset.
    """
    # A datetime is a date as well.
    text = value.isoformat() if isinstance(value, date) else value
    try:
        time = datetime.fromisoformat(text if isinstance(text, str) else "")
        if len(str(text)) == len("2026-01-31"):
            time = time.replace(tzinfo=UTC)
        in_utc = time.astimezone(UTC)
    # OverflowError: the first or last day of the calendar
    except (ValueError, OverflowError) as error:
        raise ClaimError("not_a_time", f"{name} is {value!r}") from error
    # Without an offset, astimezone takes the time zone of this machine.
    if time.tzinfo is None:
        raise ClaimError("no_utc_offset", f"{name} is {value!r}")
    return in_utc.isoformat()
