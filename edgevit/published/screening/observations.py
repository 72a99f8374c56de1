"""The times of a source as columns of numbers, which is all that is kept of its rows between two readings."""

from __future__ import annotations

from array import array
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

_MODEL = ("batch", "precision", "inputs")  # beside its name: what is run
_WHERE = ("device_id", "target", "engine", "provider", "compute_unit", "threads")  # what it is run by
_DAY_S = 86_400


class Observations:
    """One time for each row that tells one, in the order of the source."""

    def __init__(self) -> None:
        self._models: dict[Any, int] = {}
        self._wheres: dict[Any, int] = {}
        self._devices: dict[str, int] = {}
        self._columns = {name: array("q") for name in ("claim", "model", "where", "device", "day", "time")}

    def add(self, number: int, row: dict[str, Any], time_ns: int) -> None:
        """Keep the time of a row (keywords of `store.published_row`), which is claim `number` of the source."""
        model = (row["model"], *map(row.get, _MODEL))
        values = {
            "claim": number,
            "model": self._models.setdefault(model, len(self._models)),
            "where": self._wheres.setdefault(tuple(map(row.get, _WHERE)), len(self._wheres)),
            "device": self._devices.setdefault(row["device_id"], len(self._devices)),
            "day": _day(row.get("started", "")),
            "time": time_ns,
        }
        for name, value in values.items():
            self._columns[name].append(value)

    def column(self, name: str) -> NDArray[np.int64]:
        """A column: claim, model, where (device, runtime and all else), device (alone), day, or time in nanoseconds."""
        return np.array(self._columns[name], np.int64)


def _day(started: str) -> int:
    """Days since 1970, in UTC; 0 where it is not told, as the database has it."""
    return int(datetime.fromisoformat(started).timestamp() // _DAY_S) if started else 0
