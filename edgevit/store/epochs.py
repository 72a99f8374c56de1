"""Epochs of a device: when rows that repeat earlier ones say that it is not the device it was.

A board is swapped behind a name, a governor is changed for good, a heat sink falls off: rows from before then speak for
a machine that is gone. Epochs follow from the rows and the noise floor alone, so that two databases with the same rows
have the same epochs, in whatever order the rows came.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import NamedTuple

from edgevit.records.measurement import EMULATED, Epoch
from edgevit.store.mixed_hardware import belongs, mixed_factor
from edgevit.store.rows import Values, iso_time, unix_us

JUMP = 3.0  # noise floors: what differs by more is no noise
# Of a device whose noise floor nobody measured, and of published rows, which come without a spread: repeats of one job
# on hosted phones differ by less than a tenth in 91 to 96 of 100 cases.
UNKNOWN_FLOOR = 0.10
AGREE = 5  # published rows come without a spread: those of so many models, of one day, must say the same
_DAY_US = 24 * 3600 * 1_000_000


class Seen(NamedTuple):
    """What epochs need of a row that ran: nanoseconds, and of what it is a repeat. low, high: None where not told."""

    measurement_id: str
    device: str
    unix_us: int
    key: tuple[object, ...]
    p50_ns: int
    low_ns: int | None
    high_ns: int | None
    model: str = ""  # without the name of a part of it


def seen(values: Values) -> Seen | None:
    """A row of the database (rows.head) as epochs see it; None for one that says nothing of a device's speed."""
    measured = values["provenance"] == "measured"
    if values["status"] != "ok" or values["p50_ns"] is None or f'"{EMULATED}"' in values["flags_json"]:
        return None
    if not measured and values["provenance"] != "published":
        return None
    what = values["graph_digest"] or values["artifact_sha256"] or values["model"]
    how = ("target", "precision", "engine", "provider", "compute_unit", "threads", "affinity_json", "batch",
           "inputs_json", "rate_hz", "protocol_version", "provenance")  # fmt: skip
    # Another version of an engine is another speed of the same device. Who publishes rows names the version of each
    # and changes it with every one, and there the agreement of many rows has to tell.
    version = values["engine_version"] if measured else ""
    key = (what, version, *(values[name] for name in how))
    low, high = (values["p50_low_ns"], values["p50_high_ns"]) if measured else (None, None)
    name = values["model"].partition("/")[0]
    when = values["started_unix_us"]
    return Seen(values["measurement_id"], values["device"], when, key, values["p50_ns"], low, high, name)


@dataclass
class _Group:
    """The rows of one key in the epoch under way, and the range of their processes."""

    rows: list[Seen] = field(default_factory=list)
    low_ns: float = math.inf
    high_ns: float = 0

    def add(self, row: Seen) -> None:
        self.rows.append(row)
        self.low_ns = min(self.low_ns, row.low_ns or row.p50_ns)
        self.high_ns = max(self.high_ns, row.high_ns or row.p50_ns)

    @property
    def median_ns(self) -> float:
        return statistics.median(row.p50_ns for row in self.rows)

    def ratio_beyond(self, row: Seen) -> float:
        """How far the row's processes are from all those before: 1 where they overlap."""
        if (row.low_ns or row.p50_ns) > self.high_ns:
            return (row.low_ns or row.p50_ns) / self.high_ns
        return min(1.0, (row.high_ns or row.p50_ns) / self.low_ns)


class _Jump(NamedTuple):
    row: Seen
    reference: Seen
    ratio: float
    reason: str


def limit_of(floor: float | None) -> float:
    """The share beyond which a difference is no noise, of a device with this noise floor; None: unknown."""
    return JUMP * (UNKNOWN_FLOOR if floor is None else floor)


def find(device_id: str, rows: Iterable[Seen], floor: float | None) -> list[Epoch]:
    """The epochs of one device, oldest first, from all its rows. `floor`: its noise floor as a share; None: unknown."""
    limit = limit_of(floor)
    ordered = sorted(rows, key=lambda row: (row.unix_us, row.measurement_id))
    groups: dict[tuple[object, ...], _Group] = {}
    found: list[Epoch] = []
    mixed = False  # a pool of two kinds jumps at every moment, and is a new one at the first only
    for _, moment in groupby(ordered, key=_moment):
        together = list(moment)
        whole = _jump(together, groups, limit)
        if jump := whole or (None if mixed else _part_jumps(together, groups)):
            groups.clear()
            mixed = whole is None
            began = iso_time(together[0].unix_us)
            names = (jump.row.measurement_id, jump.reference.measurement_id)
            device = jump.row.device
            found.append(
                Epoch(
                    device_id, device, len(found) + 1, began, *names, ratio=jump.ratio, limit=limit, reason=jump.reason
                )
            )
        for row in together:
            groups.setdefault(row.key, _Group()).add(row)
    return found


def _moment(row: Seen) -> int:
    """What is judged together: a measured row is for itself; published ones are those of a day."""
    return row.unix_us if row.low_ns is not None else -1 - row.unix_us // _DAY_US


def _jump(together: Sequence[Seen], groups: dict[tuple[object, ...], _Group], limit: float) -> _Jump | None:
    repeats = [(row, groups[row.key]) for row in together if row.key in groups]
    for row, group in repeats:
        if row.low_ns is not None and _is_beyond(group.ratio_beyond(row), limit):
            ratio = row.p50_ns / group.median_ns
            reason = f"its processes took {ratio:.2f} times what {len(group.rows)} earlier row(s) took"
            return _Jump(row, group.rows[-1], ratio, reason)
    bare = _bare(together, groups)
    if len({row.model or row.key[0] for row, _, _ in bare}) < AGREE:
        return None
    middle = statistics.median(ratio for _, _, ratio in bare)
    if not _is_beyond(middle, limit):
        return None
    row, group, _ = next(item for item in bare if _is_beyond(item[2], limit) and (item[2] > 1) == (middle > 1))
    reason = f"{len(bare)} published rows that repeat earlier ones are {middle:.2f} times those, at the median"
    return _Jump(row, group.rows[-1], middle, reason)


def _bare(together: Sequence[Seen], groups: dict[tuple[object, ...], _Group]) -> list[tuple[Seen, _Group, float]]:
    """Rows without a spread that repeat earlier ones, with those and the ratio to their median."""
    repeats = [(row, groups[row.key]) for row in together if row.key in groups and row.low_ns is None]
    return [(row, group, row.p50_ns / group.median_ns) for row, group in repeats]


def _part_jumps(together: Sequence[Seen], groups: dict[tuple[object, ...], _Group]) -> _Jump | None:
    bare = _bare(together, groups)
    factor = mixed_factor([ratio for _, _, ratio in bare])
    if factor is None:
        return None
    row, group, _ = next(item for item in bare if belongs(item[2], factor))
    count = sum(belongs(ratio, factor) for _, _, ratio in bare)
    part = f"{count} of {len(bare)} published rows that repeat earlier ones are {factor:.2f} times those"
    reason = f"{part}, and the others are not: two kinds of board behind one name"
    return _Jump(row, group.rows[-1], factor, reason)


def _is_beyond(ratio: float, limit: float) -> bool:
    return ratio > 1 + limit or ratio < 1 / (1 + limit)


def agrees(row: Seen, earlier: Sequence[Seen], floor: float | None) -> bool:
    """Whether a measured row is what earlier rows of its key and epoch, at least one, would have one expect.

    A published one alone says nothing: those of a day are judged together.
    """
    group = _Group()
    for item in earlier:
        group.add(item)
    return row.low_ns is not None and not _is_beyond(group.ratio_beyond(row), limit_of(floor))


def current(rows: Sequence[Values], floors: dict[str, float]) -> Iterator[Values]:
    """Of rows of any devices those of each device's current epoch. `floors`: device_id -> noise floor as a share."""
    begins: dict[str, int] = {}
    by_device: dict[str, list[Seen]] = {}
    for values in rows:
        if one := seen(values):
            by_device.setdefault(values["device_id"], []).append(one)
    for device_id, told in by_device.items():
        if epochs := find(device_id, told, floors.get(device_id)):
            begins[device_id] = unix_us(epochs[-1].started)
    for values in rows:
        if values["started_unix_us"] >= begins.get(values["device_id"], values["started_unix_us"]):
            yield values
