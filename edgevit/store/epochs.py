"""Epochs of a device: periods between changes that its own repeated rows reveal.

A board is swapped behind a name, a governor is changed for good, a heat sink falls off: rows from before then describe
a machine that is gone. Epochs follow from the rows and the noise floor alone. Two databases with the same rows have
the same epochs, in any order of their rows.
"""

from __future__ import annotations

import functools
import json
import math
import statistics
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import NamedTuple

from edgevit.records.measurement import EMULATED, Epoch
from edgevit.store.mixed_hardware import has_jumped, mixed_factor
from edgevit.store.rows import Values, iso_time, unix_us

# In noise floors: a larger difference is no noise.
JUMP = 3.0
# Share for a device without a measured noise floor, and for published rows, which come without a spread: repeats of
# one job on hosted phones differ by less than a tenth in 91 to 96 of 100 cases.
UNKNOWN_FLOOR = 0.10
# A floor of a few equal repeats may be zero, and is never lower: then any difference would be a change of the device.
LEAST_FLOOR = 0.01
# Published rows come without a spread: those of so many models, of one day, must agree.
AGREE = 5
_DAY_US = 24 * 3600 * 1_000_000


class TimedRow(NamedTuple):
    """A row that ran, as epochs need it: its time in nanoseconds, and the key that its repeats share.

    `low_ns` and `high_ns` are None where the row has no spread. `model` is without the name of a part of it.
    """

    measurement_id: str
    device: str
    unix_us: int
    key: tuple[object, ...]
    p50_ns: int
    low_ns: int | None
    high_ns: int | None
    model: str = ""


def timed_row(values: Values) -> TimedRow | None:
    """Return a row of the database (rows.head_query) as a TimedRow; None where it tells nothing of a device's speed."""
    measured = values["provenance"] == "measured"
    if values["status"] != "ok" or values["p50_ns"] is None or f'"{EMULATED}"' in values["flags_json"]:
        return None
    if not measured and values["provenance"] != "published":
        return None
    network = values["graph_digest"] or values["artifact_sha256"] or values["model"]
    configuration = ("target", "precision", "engine", "provider", "compute_unit", "threads", "affinity_json", "batch",
                     "inputs_json", "rate_hz", "protocol_version", "provenance")  # fmt: skip
    # Another version of an engine is another speed of the same device. Publishers name the version of each row and
    # change it with every one, and there the agreement of many rows has to decide.
    version = values["engine_version"] if measured else ""
    key = (network, _form(values["network_json"]), version, *(values[name] for name in configuration))
    low, high = (values["p50_low_ns"], values["p50_high_ns"]) if measured else (None, None)
    model = values["model"].partition("/")[0]
    started = values["started_unix_us"]
    return TimedRow(values["measurement_id"], values["device"], started, key, values["p50_ns"], low, high, model)


@functools.lru_cache(maxsize=4096)
def _form(network_json: str) -> tuple[object, ...]:
    """Return what of an artifact's form is no part of its graph: the exactly equal form that was written, options."""
    network = json.loads(network_json) or {}
    options = tuple(map(tuple, network.get("options", ())))
    return network.get("forms", ""), options, bool(network.get("embed_preprocess"))


@dataclass
class _Group:
    """The rows of one key in the epoch under way, and the range of their processes."""

    rows: list[TimedRow] = field(default_factory=list)
    low_ns: float = math.inf
    high_ns: float = 0

    def add(self, row: TimedRow) -> None:
        self.rows.append(row)
        self.low_ns = min(self.low_ns, row.low_ns or row.p50_ns)
        self.high_ns = max(self.high_ns, row.high_ns or row.p50_ns)

    @property
    def median_ns(self) -> float:
        return statistics.median(row.p50_ns for row in self.rows)

    def ratio_beyond(self, row: TimedRow) -> float:
        """Return how far the row's processes are from all earlier ones: 1 where they overlap."""
        if (row.low_ns or row.p50_ns) > self.high_ns:
            return (row.low_ns or row.p50_ns) / self.high_ns
        return min(1.0, (row.high_ns or row.p50_ns) / self.low_ns)


class _Jump(NamedTuple):
    """A change of speed: the row that shows it, the earlier row it repeats, their ratio, and the reason as text."""

    row: TimedRow
    reference: TimedRow
    ratio: float
    reason: str


def limit_of(floor: float | None) -> float:
    """Return the share beyond which a difference is no noise, for this noise floor; None: unknown."""
    return JUMP * (UNKNOWN_FLOOR if floor is None else max(floor, LEAST_FLOOR))


def find_epochs(device_id: str, rows: Iterable[TimedRow], floor: float | None) -> list[Epoch]:
    """Find the epochs of one device, oldest first, from all its rows.

    `floor` is its noise floor as a share; None: unknown.
    """
    limit = limit_of(floor)
    ordered = sorted(rows, key=lambda row: (row.unix_us, row.measurement_id))
    groups: dict[tuple[object, ...], _Group] = {}
    epochs: list[Epoch] = []
    # A pool of two kinds of board jumps at every moment, and opens an epoch at the first only.
    mixed = False
    for _, moment in groupby(ordered, key=_moment):
        together = list(moment)
        whole = _jump(together, groups, limit)
        if jump := whole or (None if mixed else _partial_jump(together, groups)):
            groups.clear()
            mixed = whole is None
            began = iso_time(together[0].unix_us)
            names = (jump.row.measurement_id, jump.reference.measurement_id)
            device = jump.row.device
            epochs.append(
                Epoch(
                    device_id, device, len(epochs) + 1, began, *names, ratio=jump.ratio, limit=limit, reason=jump.reason
                )
            )
        for row in together:
            groups.setdefault(row.key, _Group()).add(row)
    return epochs


def _moment(row: TimedRow) -> int:
    """Return a number that is equal for rows judged together: a measured row is alone, published rows share a day."""
    return row.unix_us if row.low_ns is not None else -1 - row.unix_us // _DAY_US


def _jump(together: Sequence[TimedRow], groups: dict[tuple[object, ...], _Group], limit: float) -> _Jump | None:
    repeats = [(row, groups[row.key]) for row in together if row.key in groups]
    for row, group in repeats:
        if row.low_ns is not None and _is_beyond(group.ratio_beyond(row), limit):
            ratio = row.p50_ns / group.median_ns
            reason = f"its processes took {ratio:.2f} times what {len(group.rows)} earlier row(s) took"
            return _Jump(row, group.rows[-1], ratio, reason)
    published = _published_repeats(together, groups)
    if len({row.model or row.key[0] for row, _, _ in published}) < AGREE:
        return None
    middle = statistics.median(ratio for _, _, ratio in published)
    if not _is_beyond(middle, limit):
        return None
    row, group, _ = next(
        repeat for repeat in published if _is_beyond(repeat[2], limit) and (repeat[2] > 1) == (middle > 1)
    )
    reason = f"{len(published)} published rows that repeat earlier ones are {middle:.2f} times those, at the median"
    return _Jump(row, group.rows[-1], middle, reason)


def _published_repeats(
    together: Sequence[TimedRow], groups: dict[tuple[object, ...], _Group]
) -> list[tuple[TimedRow, _Group, float]]:
    """Return rows without a spread that repeat earlier ones, with those and the ratio to their median."""
    repeats = [(row, groups[row.key]) for row in together if row.key in groups and row.low_ns is None]
    return [(row, group, row.p50_ns / group.median_ns) for row, group in repeats]


def _partial_jump(together: Sequence[TimedRow], groups: dict[tuple[object, ...], _Group]) -> _Jump | None:
    published = _published_repeats(together, groups)
    factor = mixed_factor([ratio for _, _, ratio in published])
    if factor is None:
        return None
    row, group, _ = next(repeat for repeat in published if has_jumped(repeat[2], factor))
    count = sum(has_jumped(ratio, factor) for _, _, ratio in published)
    part = f"{count} of {len(published)} published rows that repeat earlier ones are {factor:.2f} times those"
    reason = f"{part}, and the others are not: two kinds of board behind one name"
    return _Jump(row, group.rows[-1], factor, reason)


def _is_beyond(ratio: float, limit: float) -> bool:
    return ratio > 1 + limit or ratio < 1 / (1 + limit)


def agrees(row: TimedRow, earlier: Sequence[TimedRow], floor: float | None) -> bool:
    """Return whether a measured row agrees with earlier rows of its key and epoch, of which there is at least one.

    A single published row proves nothing: those of a day are judged together.
    """
    group = _Group()
    for earlier_row in earlier:
        group.add(earlier_row)
    return row.low_ns is not None and not _is_beyond(group.ratio_beyond(row), limit_of(floor))


def rows_of_current_epochs(rows: Sequence[Values], floors: dict[str, float]) -> Iterator[Values]:
    """Yield, of rows of any devices, those of each device's current epoch.

    `floors` maps a device_id to its noise floor as a share.
    """
    begins: dict[str, int] = {}
    by_device: dict[str, list[TimedRow]] = {}
    for values in rows:
        if timed := timed_row(values):
            by_device.setdefault(values["device_id"], []).append(timed)
    for device_id, timed_rows in by_device.items():
        if epochs := find_epochs(device_id, timed_rows, floors.get(device_id)):
            begins[device_id] = unix_us(epochs[-1].started)
    for values in rows:
        if values["started_unix_us"] >= begins.get(values["device_id"], values["started_unix_us"]):
            yield values
