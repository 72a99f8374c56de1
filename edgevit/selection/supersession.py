"""Selects one representative row per candidate: newer rows, newer engines and slower units take precedence.

Rows of different networks never stand for each other, whichever was measured last: two checkpoints of one function are
two candidates, and so is the same function before and after a change of its code.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Hashable, Iterable

from edgevit.records.choice import Reason
from edgevit.records.measurement import Measurement
from edgevit.selection.limits import Percentile
from edgevit.selection.networks import NetworkIds
from edgevit.selection.versions import age, grouped, is_older, latest


def superseded_rows(rows: Iterable[Measurement], percentile: Percentile) -> dict[str, Reason]:
    """Return, by measurement_id, the reason why another row counts for the same candidate."""
    reasons: dict[str, Reason] = {}
    newest_first = sorted(rows, key=age, reverse=True)
    networks = NetworkIds(newest_first)
    for group in grouped(newest_first, lambda row: (_configuration(row), networks.of(row))):
        for unit in grouped(group, lambda row: row.device_id):
            reasons |= _by_newer_row(unit)
            reasons |= _by_newer_engine([row for row in unit if row.measurement_id not in reasons])
        reasons |= _by_slower_unit([row for row in group if row.measurement_id not in reasons], percentile)
    return reasons


def _by_newer_row(newest_first: Iterable[Measurement]) -> dict[str, Reason]:
    reasons: dict[str, Reason] = {}
    representatives: list[Measurement] = []
    for row in newest_first:
        # A throttled run says that the device was hot, not that an earlier number was wrong.
        rivals = (new for new in representatives if not (new.status == "throttled" and row.status == "ok"))
        newer = next((new for new in rivals if _same_engine(new, row) and _alike(new, row)), None)
        if newer is None:
            representatives.append(row)
        else:
            reasons[row.measurement_id] = Reason("newer_row", newer.started)
    return reasons


def _by_newer_engine(rows: Iterable[Measurement]) -> dict[str, Reason]:
    reasons: dict[str, Reason] = {}
    for group in grouped((row for row in rows if row.engine_version), _variant):
        newest = latest(row for row in group if row.status != "throttled")
        for row in group:
            if is_older(row.engine_version, newest):
                reasons[row.measurement_id] = Reason("older_engine", f"{row.engine} {row.engine_version}", newest)
    return reasons


def _by_slower_unit(rows: Collection[Measurement], percentile: Percentile) -> dict[str, Reason]:
    # What fits a device class must fit on every unit of it that was measured.
    reasons: dict[str, Reason] = {}
    for row in rows:
        for other in rows:
            decides = other.device_id != row.device_id and (other.status != "throttled" or row.status == "throttled")
            if decides and _slowness(other, percentile) > _slowness(row, percentile) and _alike(other, row):
                reasons[row.measurement_id] = Reason("slower_unit", other.device_id)
    return reasons


def _slowness(row: Measurement, percentile: Percentile) -> tuple[float, str]:
    value, bound = percentile.of(row) if row.status == "ok" else (None, None)
    bound = value if row.provenance == "published" and bound is None else bound
    return (math.inf if bound is None else bound, row.measurement_id)


def _configuration(row: Measurement) -> Hashable:
    """Return the facts of a run that a question names, and that are known even if it crashed at once."""
    named = (row.model, row.target, row.precision, row.threads, row.batch, row.compute_unit)
    return (*named, row.rate_hz, row.provenance, row.protocol_version)


def _variant(row: Measurement) -> tuple[object, ...]:
    return (row.engine, row.provider, tuple(spec.shape for spec in row.inputs))


def _same_engine(one: Measurement, other: Measurement) -> bool:
    return one.engine_version == other.engine_version or not one.engine_version or not other.engine_version


def _alike(one: Measurement, other: Measurement) -> bool:
    """Return whether two rows of a configuration ran the same thing; facts that a crashed run lacks fit all."""
    return all(a == b or not a or not b for a, b in zip(_variant(one), _variant(other), strict=True))
