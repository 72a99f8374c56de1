"""Two readings of a source: the first collects what its rows say together, the second takes each row or says why not.

Nothing of the first reading is kept but numbers, so that a table of any length goes through in little memory.
"""

from __future__ import annotations

import math
from array import array
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

from edgevit.errors import StoreError
from edgevit.screening.ceilings import ceiling_of, least_ns
from edgevit.screening.claims import Claim, ClaimError
from edgevit.store import Item, published_row

DOUBTFUL = 1.4  # times, or 1/1.4: what neighbours agree on beyond this is no measurement of that model on that device
UNITS = 200.0  # times: nearer to the factor 1000 between ns, us, ms and s than to anything that devices differ by
COPIED = "copied"  # flag of a row whose run the source also gives to another device
_SAME_SETTING = ("batch", "precision", "inputs")  # beside the name: what a model is
_SAME_PLACE = ("device_id", "target", "engine", "provider", "compute_unit", "threads")  # what a device is


class Screening:
    """Takes the claims of one source. `read` gives them from the start each time it is called.

    `counts` says, when `items` is exhausted, how many rows were taken or refused by what, and how many of those taken
    could not be asked: without_ceiling (no peak of the device, or cost of the model, is known), without_neighbours
    (too few devices or models beside it).
    """

    def __init__(self, read: Callable[[], Iterator[Claim]]) -> None:
        self.counts: Counter[str] = Counter()
        self._read = read
        self._seen = 0
        self._owner: dict[str, tuple[Any, int]] = {}  # origin -> the first device that has it, and its nanoseconds
        self._shared: set[str] = set()  # origins of several devices
        self._which = array("q")  # number of the claim of each observation
        self._off: dict[int, tuple[float, float]] = {}

    def items(self) -> Iterator[Item]:
        """A record or a reason for each claim, in order; a claim with a row and an accuracy gives two items.

        Raises StoreError where the second reading finds another number of lines than the first.
        """
        self._collect()
        number = -1
        for number, claim in enumerate(self._read()):
            yield from self._judge(number, claim)
        if number + 1 != self._seen:
            why = f"{self._seen} lines at first, then {number + 1}"
            raise StoreError("the source changed while it was read", why=why, fix="import it again")

    def _collect(self) -> None:
        models: dict[Any, int] = {}
        devices: dict[Any, int] = {}
        units: dict[str, int] = {}
        rows, columns, places, days, times = (array("q"), array("q"), array("q"), array("q"), array("d"))
        for number, claim in enumerate(self._read()):
            self._seen += 1
            told = claim.row
            if claim.reason or told is None or not told.get("p50_ns"):
                continue
            if claim.origin and not self._first(claim.origin, told):
                continue
            self._which.append(number)
            times.append(told["p50_ns"])
            rows.append(models.setdefault((told["model"], *map(told.get, _SAME_SETTING)), len(models)))
            places.append(units.setdefault(told["device_id"], len(units)))
            days.append(_day(told.get("started", "")))
            columns.append(devices.setdefault(tuple(map(told.get, _SAME_PLACE)), len(devices)))
        from edgevit.screening.residual import residuals, without_jumps

        agreed, left = residuals(rows, columns, times)
        agreed = without_jumps(agreed, rows, columns, places, days, times)
        self._off = {number: (agreed[at], left[at]) for at, number in enumerate(self._which)}

    def _first(self, origin: str, told: dict[str, Any]) -> bool:
        """Whether this is the first device with this origin: copies must not vote for each other."""
        device = told["device_id"]
        owner, _ = self._owner.setdefault(origin, (device, told["p50_ns"]))
        if owner != device:
            self._shared.add(origin)
        return bool(owner == device)

    def _judge(self, number: int, claim: Claim) -> Iterator[Item]:
        try:
            if claim.reason:
                raise ClaimError(claim.reason)
            if claim.row is not None:
                told = self._checked(number, claim, dict(claim.row))
                yield Item(claim.place, published_row(**told), "", claim.content)
                self.counts["taken"] += 1
        except ClaimError as error:
            self.counts[f"refused: {str(error).partition(':')[0]}"] += 1
            yield Item(claim.place, None, str(error), claim.content)
            return
        yield from (Item(claim.place, accuracy, "", claim.content) for accuracy in claim.accuracies)

    def _checked(self, number: int, claim: Claim, told: dict[str, Any]) -> dict[str, Any]:
        if not told.get("p50_ns"):
            return told
        self._fast_enough(claim, told)
        if claim.origin in self._shared:
            self._as_copied(claim, told)
        self._as_neighbours_say(number, claim, told)
        return told

    def _fast_enough(self, claim: Claim, told: dict[str, Any]) -> None:
        ceiling = ceiling_of(told["device"])
        if ceiling is None or claim.cost is None:
            self.counts["without_ceiling"] += 1
            return
        least, limit = least_ns(claim.cost, ceiling)
        if told["p50_ns"] < least:
            raise ClaimError(f"faster than possible: {told['p50_ns']} ns, and {limit} need {least:.0f} ns")

    def _as_copied(self, claim: Claim, told: dict[str, Any]) -> None:
        device, first_ns = self._owner[claim.origin]
        if told["p50_ns"] != first_ns:
            why = f"{told['p50_ns']} ns here, {first_ns} ns on {device}"
            raise ClaimError(f"two numbers of one run: {claim.origin} took {why}")
        told["flags"] = (*told.get("flags", ()), COPIED)
        self.counts[COPIED] += 1

    def _as_neighbours_say(self, number: int, claim: Claim, told: dict[str, Any]) -> None:
        agreed, left = self._off.get(number, (math.nan, math.nan))
        if math.isnan(agreed):
            self.counts["without_neighbours"] += 1
        off = left if math.isnan(agreed) else agreed
        if abs(off) > math.log(UNITS):
            raise ClaimError(f"another unit: {math.exp(off):.4g} times what such models take on such devices")
        if abs(agreed) > math.log(DOUBTFUL):
            why = f"{math.exp(agreed):.2f} times what the nearest devices, and the nearest models, give"
            raise ClaimError(f"doubtful: {why}")


def _day(started: str) -> int:
    """Days since 1970, in UTC; 0 where it is not told, as the database has it."""
    return int(datetime.fromisoformat(started).timestamp() // 86_400) if started else 0
