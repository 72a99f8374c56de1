"""Versions of engines: which of two is the older one, and which of some is the newest."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Hashable, Iterable
from datetime import datetime

from edgevit.records.measurement import DIGEST, Measurement


def newest_engines(rows: Iterable[Measurement]) -> dict[Hashable, str]:
    """(device_id, target, engine) -> the newest version seen there."""
    places = grouped(rows, lambda row: (row.device_id, row.target, row.engine))
    return {(group[0].device_id, group[0].target, group[0].engine): latest(group) for group in places}


def latest(rows: Iterable[Measurement]) -> str:
    """The newest engine version of these rows; of digests the one that was measured last."""
    versioned = [row for row in rows if row.engine_version]
    if any(_is_digest(row.engine_version) for row in versioned):
        return max(versioned, key=age).engine_version
    return max((row.engine_version for row in versioned), key=_version_order, default="")


def _version_order(text: str) -> tuple[tuple[tuple[int, int, str], ...], str]:
    """The same, with an order between two spellings of one version: no answer depends on which came first."""
    return (_version(text), text)


def is_older(version: str, latest: str) -> bool:
    """Whether a version of an engine is not the latest one."""
    if _is_digest(version) or _is_digest(latest):
        return bool(version and latest) and version != latest
    return _version(version) < _version(latest)


def grouped(rows: Iterable[Measurement], key: Callable[[Measurement], Hashable]) -> list[list[Measurement]]:
    """The rows with equal keys together, in their order."""
    groups: dict[Hashable, list[Measurement]] = {}
    for row in rows:
        groups.setdefault(key(row), []).append(row)
    return list(groups.values())


def age(row: Measurement) -> tuple[datetime, str]:
    """A key that sorts rows by when they began; of one moment by their ids."""
    return (datetime.fromisoformat(row.started), row.measurement_id)


@functools.lru_cache(maxsize=256)
def _version(text: str) -> tuple[tuple[int, int, str], ...]:
    """A key that sorts versions: 1.9 < 1.10, and 1.10rc1 < 1.10 because letters come before the end."""
    parts = re.findall(r"[0-9]+|[a-z]+", text.lower())
    return (*((2, int(part), "") if part.isdecimal() else (0, 0, part) for part in parts), (1, 0, ""))


def _is_digest(version: str) -> bool:
    """Whether a version is the digest of a program that does not tell its own: such have no order but that of time."""
    return version.startswith(DIGEST)
