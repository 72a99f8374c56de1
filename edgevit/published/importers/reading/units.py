"""Numbers as sources print them, into the units of the database. Each value is converted once, by one of these."""

from __future__ import annotations

import math
import re
from datetime import UTC, date, datetime

from edgevit.published.screening import ClaimError

# float() takes 1_000, and digits of other scripts, too
_PLAIN = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_INT64 = 2**63


def number(value: object, name: str) -> float:
    """A finite number from text or a number. Raises ClaimError for anything else, NaN and infinities included."""
    # Stripped once: what strip() takes for a blank, as a unit separator, float() does not.
    if isinstance(value, str) and _PLAIN.fullmatch(text := value.strip()):
        value = float(text)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ClaimError(f"not a number: {name} is {value!r}")
    try:
        found = float(value)
    except OverflowError as error:  # YAML and JSON have integers of any length
        raise ClaimError(f"not a number: {name} has hundreds of digits") from error
    if not math.isfinite(found):
        raise ClaimError(f"not a number: {name} is {value}")
    return found


def whole(value: object, name: str) -> int:
    """A whole number that is not negative. Raises ClaimError."""
    found = number(value, name)
    if found < 0 or found != int(found):
        raise ClaimError(f"not a count: {name} is {value!r}")
    return int(found)


def ns_from_ns(value: object, name: str) -> int:
    """Nanoseconds, rounded to whole ones. Raises ClaimError for what is not positive, or beyond 64 bits."""
    return _nanoseconds(value, name, 1)


def ns_from_us(value: object, name: str) -> int:
    """Nanoseconds from microseconds. Raises ClaimError as ns_from_ns does."""
    return _nanoseconds(value, name, 1_000)


def ns_from_ms(value: object, name: str) -> int:
    """Nanoseconds from milliseconds. Raises ClaimError as ns_from_ns does."""
    return _nanoseconds(value, name, 1_000_000)


def _nanoseconds(value: object, name: str, factor: int) -> int:
    found = number(value, name)
    if found <= 0:
        raise ClaimError(f"not positive: {name} is {found:g}")
    if (scaled := found * factor) >= _INT64:
        raise ClaimError(f"beyond 64 bits of nanoseconds: {name} is {found:g}, as a counter that ran over gives it")
    return max(1, round(scaled))


def from_millions(value: object, name: str) -> float:
    """A number from millions, which may be printed with commas between thousands. Raises ClaimError."""
    return 1e6 * number(value.replace(",", "") if isinstance(value, str) else value, name)


def from_billions(value: object, name: str) -> float:
    """A number from billions (G), with or without commas. Raises ClaimError."""
    return 1e9 * number(value.replace(",", "") if isinstance(value, str) else value, name)


def utc(value: object, name: str) -> str:
    """ISO 8601 in UTC from a date, or a time with an offset, as text or as YAML and Parquet have it.

    Raises ClaimError for anything else, a time that names no offset included.
    """
    text = value.isoformat() if isinstance(value, date) else value  # a datetime is a date, too
    try:
        found = datetime.fromisoformat(text if isinstance(text, str) else "")
        if len(str(text)) == len("2026-01-31"):
            found = found.replace(tzinfo=UTC)
        moved = found.astimezone(UTC)
    except (ValueError, OverflowError) as error:  # OverflowError: the first or last day there is
        raise ClaimError(f"no time: {name} is {value!r}") from error
    if found.tzinfo is None:  # astimezone took it for the time of this machine
        raise ClaimError(f"no offset from UTC: {name} is {value!r}")
    return moved.isoformat()
