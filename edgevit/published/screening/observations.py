"""Times of a source as columns of numbers: all that stays in memory of its rows between two passes."""

from __future__ import annotations

from array import array
from datetime import datetime
from operator import attrgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgevit.store import PublishedValues

# Fields that make a model, beside its name.
_MODEL = attrgetter("model", "batch", "precision", "inputs")
# Fields that make a setup: a device with its runtime.
_SETUP = attrgetter("device_id", "target", "engine", "provider", "compute_unit", "threads")
_DAY_S = 86_400


class Observations:
    """Times of the rows that have one, in the order of the source."""

    def __init__(self) -> None:
        self._models: dict[Any, int] = {}
        self._setups: dict[Any, int] = {}
        self._devices: dict[str, int] = {}
        self._columns = {name: array("q") for name in ("claim", "model", "setup", "device", "day", "time")}

    def add(self, number: int, row: PublishedValues, time_ns: int) -> None:
        """Add the time of a row, which is claim `number` of the source."""
        values = {
            "claim": number,
            "model": self._models.setdefault(_MODEL(row), len(self._models)),
            "setup": self._setups.setdefault(_SETUP(row), len(self._setups)),
            "device": self._devices.setdefault(row.device_id, len(self._devices)),
            "day": _day(row.started),
            "time": time_ns,
        }
        for name, value in values.items():
            self._columns[name].append(value)

    def column(self, name: str) -> NDArray[np.int64]:
        """Return a column: claim, model, setup (device with runtime), device (alone), day, or time in nanoseconds."""
        return np.array(self._columns[name], np.int64)


def _day(started: str) -> int:
    """Return days since 1970, in UTC; 0 for an unknown time, as in the database."""
    return int(datetime.fromisoformat(started).timestamp() // _DAY_S) if started else 0
