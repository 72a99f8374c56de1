"""The order of engine versions: PEP 440 where both are such versions, else a natural order of vendors' strings.

A local label (`1.31.1+cpu`) names a build and not a later release, so versions that differ by it alone are equally
old. A string that PEP 440 refuses (`7.1.0-abc`) makes its comparison fall back. Then digits compare as numbers, and
letters come before the end: 1.9 < 1.10 and 7.1.0-abc < 7.1.0. Digests have no order but that of time.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Collection, Hashable, Iterable
from datetime import datetime
from typing import Any

from packaging.version import InvalidVersion, Version

from edgevit.records.measurement import DIGEST, Measurement


def newest_engines(rows: Iterable[Measurement]) -> dict[Hashable, str]:
    """Return the newest version for each (device_id, target, engine)."""
    groups = grouped(rows, lambda row: (row.device_id, row.target, row.engine))
    return {(group[0].device_id, group[0].target, group[0].engine): latest(group) for group in groups}


def latest(rows: Iterable[Measurement]) -> str:
    """Return the newest engine version of these rows; of digests the one that was measured last."""
    versioned = [row for row in rows if row.engine_version]
    if any(_is_digest(row.engine_version) for row in versioned):
        return max(versioned, key=age).engine_version
    versions = {row.engine_version for row in versioned}
    order = _order(versions)
    # The text decides between two spellings of one version: no answer depends on which came first.
    return max(versions, key=lambda text: (order(text), text), default="")


def is_older(version: str, newest: str) -> bool:
    """Return whether a version of an engine is older than the newest one."""
    if _is_digest(version) or _is_digest(newest):
        return bool(version and newest) and version != newest
    order = _order((version, newest))
    return bool(order(version) < order(newest))


def grouped(rows: Iterable[Measurement], key: Callable[[Measurement], Hashable]) -> list[list[Measurement]]:
    """Return the rows with equal keys together, in their order."""
    groups: dict[Hashable, list[Measurement]] = {}
    for row in rows:
        groups.setdefault(key(row), []).append(row)
    return list(groups.values())


def age(row: Measurement) -> tuple[datetime, str]:
    """Return a key that sorts rows by their start; of one moment by their ids."""
    return (datetime.fromisoformat(row.started), row.measurement_id)


def _order(versions: Collection[str]) -> Callable[[str], Any]:
    """Return the sort key of these versions: PEP 440 if it accepts all of them."""
    return _release if all(_release(text) is not None for text in versions) else _natural


@functools.lru_cache(maxsize=256)
def _release(text: str) -> Version | None:
    """Return the public part of a PEP 440 version; None where PEP 440 refuses the text."""
    try:
        return Version(Version(text).public)
    except InvalidVersion:
        return None


@functools.lru_cache(maxsize=256)
def _natural(text: str) -> tuple[tuple[int, int, str], ...]:
    # Local labels are left out here as well.
    parts = re.findall(r"[0-9]+|[a-z]+", text.partition("+")[0].lower())
    return (*((2, int(part), "") if part.isdecimal() else (0, 0, part) for part in parts), (1, 0, ""))


def _is_digest(version: str) -> bool:
    """Return whether a version is the digest of a program that reports none."""
    return version.startswith(DIGEST)
