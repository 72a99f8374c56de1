"""Digests of what is stored, so that a changed bit is noticed by whoever reads it.

The id of a measurement names what was measured and the raw samples; it does not cover the summary, the grade or the
labels. The digest of a row does: it is made of every column that a reading gives, and of the digest of the evidence,
so that a listing can be checked without its samples. It travels with the row.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

SEAL_HEX = 15  # hex digits of a digest that make an integer: 60 bits, which every database holds
# default=str: a damaged file may hold bytes where a text was written, and then the digest is another
_ENCODER = json.JSONEncoder(separators=(",", ":"), default=str, check_circular=False)
_NOT_SAID = ("device_no", "row_sha256")  # in the columns of a row: a number of this database, and the digest itself
# What a column holds where nothing is told. It is left out of the digest, and so is NULL: a column that a later schema
# adds then changes no digest of an older row.
_NOTHING: dict[str, Any] = {
    "source": "",
    "licence": "",
    "untold_json": "[]",
    "graph_digest": "",
    "affinity_json": "[]",
    "nonce": "",
    "discarded": 0,
}


def row_sha256(values: Mapping[str, Any]) -> str:
    """Digest of a row of the measurement table, joined with those it refers to (rows.head), by the names of columns."""
    nothing = _NOTHING.get  # None of a column that is always told
    told = {
        name: value
        for name in _in_order(tuple(values))
        if (value := values[name]) is not None and value != nothing(name)
    }
    return _digest(told)


@functools.cache
def _in_order(names: tuple[str, ...]) -> tuple[str, ...]:
    """Names by which a digest goes: all rows have the same columns, and to sort them takes as long as the digest."""
    return tuple(sorted(set(names) - set(_NOT_SAID)))


def line_seal(values: Iterable[Any]) -> int:
    """Digest of one line of a small table, as an integer of 60 bits."""
    return as_seal(_digest(list(values)))


def as_seal(sha256: str) -> int:
    """A digest in hex as an integer of 60 bits. Raises ValueError for what is no digest."""
    return int(sha256[:SEAL_HEX], 16)


def _digest(values: Any) -> str:
    return hashlib.sha256(_ENCODER.encode(values).encode("ascii")).hexdigest()
